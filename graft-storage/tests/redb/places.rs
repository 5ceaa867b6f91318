//! A store is the directory that was opened, wherever its path leads later.

use std::{env, fs, path::Path, process::Command};

use graft_core::{Entries, Index, LogId, LogStore, Write};
use graft_storage::{
    RedbStore,
    redb::{OpenError, verify},
};

use crate::support::{Directory, append, entry, identity, read_all, small, wait, write};

/// A new store at `path`, with ten entries.
fn begun(path: &Path) -> RedbStore {
    let store = RedbStore::open_with(path, &small()).unwrap();
    wait(store.create(&identity())).unwrap();
    write(&store, vec![append(1, 1..11, 128)]);
    store
}

/// Goes on from entry 11 in `term`, through several files of the log. Returns the last entry.
fn go_on(store: &RedbStore, term: u64) -> LogId {
    for batch in 0..40 {
        let next = 11 + batch * 100;
        write(store, vec![append(term, next..next + 100, 128)]);
    }
    LogId::new(term, 4010)
}

/// The store at `path` holds what [`begun`] and [`go_on`] wrote, and nothing beside.
fn holds(path: &Path, term: u64) {
    let count = |start: &str| {
        let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name());
        files.filter(|name| name.to_str().unwrap().starts_with(start)).count()
    };
    assert!(count("log-") > 2, "{} files of the log", count("log-"));
    verify(path).unwrap();
    let store = RedbStore::open(path).unwrap();
    assert_eq!(wait(store.recover()).unwrap().unwrap().last, LogId::new(term, 4010));
    let expected: Entries =
        (1..4011).map(|index| entry(if index < 11 { 1 } else { term }, index, 128)).collect();
    assert!(read_all(&store, 1, 4011).unwrap() == expected);
}

/// What the child of the test below is to work in.
const PLACE: &str = "GRAFT_TEST_STORE_PLACE";

/// No test but the work of a process of its own, since a working directory is a process's.
#[test]
fn child() {
    let Some(place) = env::var_os(PLACE) else { return };
    let place = Path::new(&place);
    env::set_current_dir(place.join("one")).unwrap();
    let store = begun(Path::new("data"));
    env::set_current_dir(place.join("two")).unwrap();
    go_on(&store, 2);
}

#[test]
fn a_store_with_a_relative_path_stays_where_it_was_opened_when_the_process_goes_elsewhere() {
    let directory = Directory::new("redb");
    fs::create_dir_all(directory.at("one")).unwrap();
    fs::create_dir_all(directory.at("two/data")).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["places::child", "--exact", "--test-threads=1"]);
    let output = command.env(PLACE, directory.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_dir(directory.at("two/data")).unwrap().count(), 0);
    holds(&directory.at("one/data"), 2);
}

/// Elsewhere than on Unix a directory in use cannot be moved.
#[cfg(unix)]
#[test]
fn a_store_whose_directory_was_moved_does_not_write_into_the_one_that_took_its_place() {
    let directory = Directory::new("redb");
    let (path, aside) = (directory.at("data"), directory.at("aside"));
    let old = begun(&path);
    fs::rename(&path, &aside).unwrap();
    let new = begun(&path);
    go_on(&old, 2);
    go_on(&new, 3);
    for path in [&path, &aside] {
        let error = RedbStore::open(path).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    }
    drop((old, new));
    holds(&aside, 2);
    holds(&path, 3);
}

#[test]
fn a_store_in_use_is_refused_whatever_is_removed_of_it() {
    let directory = Directory::new("redb");
    let path = directory.at("data");
    let store = begun(&path);
    fs::write(path.join("lock"), b"").unwrap();
    for removed in ["lock", "witness"] {
        fs::remove_file(path.join(removed)).unwrap();
        for error in [RedbStore::open(&path).map(drop), verify(&path).map(drop)] {
            let error = error.unwrap_err();
            assert!(matches!(error, OpenError::InUse { .. }), "without {removed}: {error:?}");
            assert!(error.to_string().contains("stop that one first"), "{error}");
        }
    }
    assert_eq!(wait(store.recover()).unwrap().unwrap().last.index, Index(10));
    wait(store.write(vec![Write::Append(Entries::new())])).unwrap();
}
