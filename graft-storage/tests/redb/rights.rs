//! Directories and files that may not be written, in a process of a user who is bound by permissions.

use std::{
    env, fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{self, Command},
};

use graft_core::{LogStore, StoreError};
use graft_storage::{
    RedbStore,
    redb::{OpenError, verify},
};

use crate::support::{append, identity, small, wait, write};

/// What the child of these tests is to do, and where.
const TASK: &str = "GRAFT_TEST_STORE_RIGHTS";

/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// No test but the work of a process of its own.
#[test]
fn child() {
    let Ok(task) = env::var(TASK) else { return };
    let (task, path) = task.split_once(' ').unwrap();
    let path = Path::new(path);
    match task {
        "directory" => directory(path),
        "files" => files(path),
        "later" => later(path),
        other => panic!("{other}"),
    }
}

/// Does a task as somebody whom permissions bind, which root is not.
fn as_somebody(task: &str) {
    let base = env::temp_dir().join(format!("graft-{task}-{}", process::id()));
    fs::create_dir(&base).unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o777)).unwrap();
    // Where the build is, somebody else may not be let in.
    let program = base.join("tests");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["rights::child", "--exact", "--nocapture", "--test-threads=1"]);
    command.current_dir(&base).env(TASK, format!("{task} {}", base.join("data").display()));
    if fs::metadata(&base).unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
    fs::remove_dir_all(base).unwrap();
}

/// A store that was closed.
fn closed(path: &Path) {
    let store = RedbStore::open_with(path, &small()).unwrap();
    wait(store.create(&identity())).unwrap();
    write(&store, vec![append(1, 1..11, 128)]);
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn content(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The error must say what cannot be written, and what the system said; nothing may be changed.
fn refused(path: &Path, named: &str) {
    let before = content(path);
    let error = RedbStore::open(path).unwrap_err();
    let OpenError::Inaccessible { path: place, source } = &error else { panic!("{error:?}") };
    assert!(place.contains(named) && place.contains(&path.display().to_string()), "{error}");
    assert!(error.to_string().contains("check owner and permissions"), "{error}");
    assert!(source.to_string().contains("Permission denied"), "{source}");
    assert!(content(path) == before, "files were changed");
    // It is no reason not to use it once it may be written.
    let report = verify(path).unwrap();
    assert_eq!(report.entries, 10);
    assert!(content(path) == before, "verifying changed files");
}

fn directory(path: &Path) {
    closed(path);
    chmod(path, 0o555);
    refused(path, "");
    chmod(path, 0o755);
    RedbStore::open(path).unwrap();
}

fn files(path: &Path) {
    closed(path);
    for name in ["witness", "log-00000000000000000001.redb"] {
        chmod(&path.join(name), 0o444);
        refused(path, if name == "witness" { "" } else { name });
        chmod(&path.join(name), 0o644);
    }
    RedbStore::open(path).unwrap();
}

/// The right is taken away while the store is at work: that is known only when the next file is made.
fn later(path: &Path) {
    let store = RedbStore::open_with(path, &small()).unwrap();
    wait(store.create(&identity())).unwrap();
    chmod(path, 0o555);
    let mut next = 1;
    let failed = loop {
        match wait(store.write(vec![append(1, next..next + 100, 128)])) {
            Ok(_) => next += 100,
            Err(error) => break error,
        }
        assert!(next < 100_000, "it goes on");
    };
    assert!(matches!(failed, StoreError::Io { .. }), "{failed:?}");
    let said = wait(store.recover()).unwrap_err();
    assert!(matches!(said, StoreError::Poisoned { .. }), "{said:?}");
    drop(store);
    let again = RedbStore::open(path).unwrap_err();
    assert!(matches!(again, OpenError::Poisoned { .. }), "{again:?}");
    for words in [said.to_string(), again.to_string()] {
        assert!(words.contains("open log-") && words.contains("Permission denied"), "{words}");
        assert!(!words.contains("sync"), "no sync failed: {words}");
    }
    chmod(path, 0o755);
    let report = verify(path).unwrap_err();
    assert!(matches!(report, OpenError::Poisoned { .. }), "{report:?}");
}

#[test]
fn a_directory_that_may_not_be_written_is_refused_as_it_is() {
    as_somebody("directory");
}

#[test]
fn a_file_that_may_not_be_written_is_refused_as_it_is() {
    as_somebody("files");
}

#[test]
fn a_directory_that_may_not_be_written_any_more_is_given_up_with_the_call_that_failed() {
    as_somebody("later");
}
