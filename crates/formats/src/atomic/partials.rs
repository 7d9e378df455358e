//! Files and folders of this process that must not outlive it, so that a signal leaves none.
//!
//! Making one, giving a finished one its name, and removing all of them exclude each other: what
//! is there is always known, and nothing is made or finished once they are removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is neither committed nor dropped.
static PARTIALS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The list, for this thread alone as long as the value lives.
pub(super) struct Partials(MutexGuard<'static, Vec<PathBuf>>);

impl Partials {
    pub(super) fn lock() -> Partials {
        Partials(PARTIALS.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes a file or folder; it is on the list before anybody can ask.
    pub(super) fn make<T>(path: &Path, make: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let mut list = Partials::lock();
        let made = make(path)?;
        list.0.push(path.to_path_buf());
        Ok(made)
    }

    /// Removes a file or folder, which may be gone already.
    pub(super) fn discard(path: &Path) {
        remove(path);
        Partials::lock().0.retain(|other| other != path);
    }

    #[cfg(test)]
    pub(super) fn within(dir: &Path) -> usize {
        Partials::lock().0.iter().filter(|p| p.starts_with(dir)).count()
    }
}

/// While it lives, no output of this process is begun, and none gets its name: the threads that
/// try it wait.
#[must_use = "outputs can be made again as soon as this is dropped"]
pub struct Ended {
    _list: Partials,
}

/// Removes every partial file and folder of this process; their outputs can no longer be
/// committed. Keep the result until the process has ended.
///
/// Call it from the thread that handles signals, not from the signal handler itself.
pub fn remove_partials() -> Ended {
    let mut list = Partials::lock();
    for partial in list.0.drain(..) {
        remove(&partial);
    }
    Ended { _list: list }
}

fn remove(partial: &Path) {
    let is_folder = fs::symlink_metadata(partial).is_ok_and(|m| m.is_dir());
    let _ = if is_folder { fs::remove_dir_all(partial) } else { fs::remove_file(partial) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own this would be a signal between two outputs; here nobody may
    /// remove the files of tests beside this one, so that only the lock is looked at.
    #[test]
    fn nothing_is_made_while_partial_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("late");
        let ended = Ended { _list: Partials::lock() };
        let late = std::thread::spawn({
            let path = path.clone();
            move || Partials::make(&path, |path| fs::write(path, b"late"))
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!path.exists() && !late.is_finished());
        drop(ended);
        late.join().unwrap().unwrap();
        assert!(path.exists());
        Partials::discard(&path);
        assert!(!path.exists());
    }
}
