//! What a signal leaves: in a process of its own, for it removes the files of every test beside it.

use fewbit_formats::atomic::{
    OutputFile, OutputFolder, OutputOptions, TemporaryFolder, remove_partials,
};
use std::fs;
use std::thread;
use std::time::Duration;
use tempfile::tempdir;

#[test]
fn once_partial_files_are_removed_none_is_made_and_none_gets_its_name() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let options = OutputOptions::default();
    let file = OutputFile::create(&at("file"), &options).unwrap();
    let folder = OutputFolder::create(&at("folder"), &options).unwrap();
    let temporary = TemporaryFolder::create(&at("parts")).unwrap();
    fs::write(temporary.path().join("part"), b"x").unwrap();
    let left = || fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left(), 3);
    let ended = remove_partials();
    assert_eq!(left(), 0);

    let late = at("late");
    let makes = thread::spawn(move || OutputFile::create(&late, &OutputOptions::default()));
    // A thread that does not wait has done by then what it should not.
    thread::sleep(Duration::from_millis(100));
    assert!(!makes.is_finished());
    assert_eq!(left(), 0);

    drop(ended);
    assert!(file.commit().is_err(), "its partial file is gone");
    assert!(folder.commit().is_err(), "its partial folder is gone");
    makes.join().unwrap().unwrap().commit().unwrap();
    assert!(at("late").exists());
}
