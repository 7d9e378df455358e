//! A folder for files that only a job itself reads.

use super::failed;
use super::partials::Partials;
use crate::mmap::shown;
use fewbit_core::{Result, ResultExt};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder that is removed with all that is in it: when it is dropped, and by
/// [`remove_partials`](super::remove_partials).
#[derive(Debug)]
pub struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    /// Makes the folder, or takes what a killed process left of it.
    ///
    /// # Errors
    /// When it cannot be made (FB-5301).
    pub fn create(path: &Path) -> Result<TemporaryFolder> {
        Partials::make(path, |path| fs::create_dir_all(path))
            .map_err(|e| failed("cannot make the folder", &e))
            .at(|| shown(path))?;
        Ok(TemporaryFolder { path: path.to_path_buf() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        Partials::discard(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::names;
    use super::*;

    #[test]
    fn nothing_of_it_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let folder = TemporaryFolder::create(&dir.path().join("new/parts")).unwrap();
        fs::write(folder.path().join("file"), b"x").unwrap();
        assert_eq!(Partials::within(dir.path()), 1);
        drop(folder);
        assert!(names(&dir.path().join("new")).is_empty());
        assert_eq!(Partials::within(dir.path()), 0);
    }
}
