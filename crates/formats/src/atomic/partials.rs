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
    use super::super::{OutputFile, OutputFolder, OutputOptions, commit_all};
    use super::*;
    use std::thread;
    use std::time::Duration;

    /// As while they are removed, but they are still there.
    #[test]
    fn nothing_gets_its_name_while_the_list_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
        let output = OutputFile::create(&file, &OutputOptions::default()).unwrap();
        let outputs = OutputFolder::create(&folder, &OutputOptions::default()).unwrap();
        let list = Partials::lock();
        let commits = thread::spawn(move || commit_all(vec![output]));
        let renames = thread::spawn(move || outputs.commit());
        // Threads that do not wait have done by then what they should not.
        thread::sleep(Duration::from_millis(100));
        assert!(!file.exists() && !folder.exists());
        drop(list);
        commits.join().unwrap().unwrap();
        renames.join().unwrap().unwrap();
        assert!(file.exists() && folder.exists());
    }
}
