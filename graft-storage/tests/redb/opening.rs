//! What cannot be opened says what is wrong, and stays as it is; and so does what is only opened.

use std::{fs, path::Path, sync::Arc};

use graft_core::{Index, LogId, LogStore, StoreError, Term};
use graft_storage::{
    RedbStore,
    medium::{Disk, FaultyMedium},
    redb::{OpenError, Options, verify},
};

use crate::support::{
    Directory, Watched, append, born, compact, identity, is_long, read_all, small, wait, write,
};

/// The error, after which every file must be as it was.
fn refused(directory: &Directory) -> OpenError {
    let before = directory.content();
    let error = RedbStore::open(directory.path()).expect_err("it was opened");
    assert!(directory.content() == before, "files were changed by: {error}");
    error
}

/// A store of one file that was closed.
fn closed() -> Directory {
    let directory = Directory::new("redb");
    let options = Options::default().preallocated_bytes(0);
    let store = born(Arc::new(Disk::create(directory.path()).unwrap()), &options);
    for batch in 0..20 {
        write(&store, vec![append(1, batch * 50 + 1..batch * 50 + 51, 100)]);
    }
    directory
}

fn segments(directory: &Directory) -> Vec<String> {
    let names = directory.content().into_keys();
    names.filter(|name| name.starts_with("log-")).collect()
}

#[test]
fn a_file_is_not_a_directory() {
    let directory = Directory::new("redb");
    let file = directory.at("file");
    fs::write(&file, b"not a store").unwrap();
    let error = RedbStore::open(&file).unwrap_err();
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error:?}");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"not a store");
    // Below it the file is still what is to blame.
    for below in ["below", "further/below", "below/", ""].map(|below| file.join(below)) {
        let error = RedbStore::open(&below).unwrap_err();
        assert!(matches!(error, OpenError::NotADirectory { .. }), "{error:?}");
        let (file, below) = (file.display(), below.display());
        let words = format!("{file} is not a directory, so there can be no {below}: ");
        assert!(error.to_string().starts_with(&words), "{error}");
    }
    let error = verify(file.join("below")).unwrap_err();
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error:?}");
    assert_eq!(fs::read(&file).unwrap(), b"not a store");
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_is_inaccessible() {
    // Nobody may create directories there, not even root.
    let error = RedbStore::open("/proc/graft-store").unwrap_err();
    assert!(matches!(error, OpenError::Inaccessible { .. }), "{error:?}");
}

#[test]
fn a_store_in_use_is_not_opened_twice() {
    let directory = closed();
    let store = RedbStore::open(directory.path()).unwrap();
    let error = RedbStore::open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(matches!(verify(directory.path()), Err(OpenError::InUse { .. })));
    drop(store);
    RedbStore::open(directory.path()).unwrap();
}

#[test]
fn a_directory_of_something_else_is_foreign() {
    let directory = Directory::new("redb");
    fs::write(directory.at("letter.txt"), b"dear reader").unwrap();
    let error = refused(&directory);
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("letter.txt"), "{error}");
    assert!(matches!(verify(directory.path()), Err(OpenError::Foreign { .. })));
    assert!(!directory.at("lock").exists(), "nothing is put into it");
}

/// A volume of a store's own, just made.
#[test]
fn an_empty_volume_is_an_empty_directory() {
    let directory = Directory::new("redb");
    fs::create_dir(directory.at("lost+found")).unwrap();
    fs::write(directory.at("lost+found/found"), b"kept").unwrap();
    let store = RedbStore::open(directory.path()).unwrap();
    wait(store.create(&identity())).unwrap();
    drop(store);
    let store = RedbStore::open(directory.path()).unwrap();
    wait(store.recover()).unwrap().unwrap();
    drop(store);
    verify(directory.path()).unwrap();
    assert_eq!(fs::read(directory.at("lost+found/found")).unwrap(), b"kept");
}

#[test]
fn a_file_that_is_not_redbs_is_foreign() {
    let directory = closed();
    let [name] = &segments(&directory)[..] else { panic!("more than one file") };
    let length = directory.content()[name].len();
    fs::write(directory.at(name), vec![b'x'; length]).unwrap();
    let error = refused(&directory);
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains(name), "{error}");
}

#[test]
fn a_truncated_file_is_told_from_a_foreign_one() {
    let original = closed();
    let [name] = &segments(&original)[..] else { panic!("more than one file") };
    let whole = original.content()[name].len();
    for length in [0, 1, 4095, 4096, 10_000, whole / 2, whole - 4096, whole - 1] {
        let directory = closed();
        let file = fs::File::options().write(true).open(directory.at(name)).unwrap();
        file.set_len(length as u64).unwrap();
        let error = refused(&directory);
        let OpenError::Truncated { length: found, expected, .. } = &error else {
            panic!("{length} bytes: {error:?}");
        };
        assert_eq!((*found, *expected), (length as u64, whole as u64));
    }
}

#[test]
fn a_missing_file_is_named() {
    let lost: [&dyn Fn(&Path) -> bool; 2] = [&|path| path.ends_with("witness"), &|path| {
        path.extension().is_some_and(|extension| extension == "redb")
    }];
    for is_lost in lost {
        let directory = closed();
        let files = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
        let file = files.into_iter().find(|path| is_lost(path)).unwrap();
        fs::remove_file(&file).unwrap();
        let error = refused(&directory);
        let OpenError::Corrupt { location, .. } = &error else { panic!("{error:?}") };
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(location.contains(name), "{error}");
    }
}

/// The store of the day before is whole and sound, and yet not the store.
#[test]
fn a_file_put_back_from_a_backup_is_noticed() {
    let directory = closed();
    let [name] = &segments(&directory)[..] else { panic!("more than one file") };
    let backup = directory.content()[name].clone();
    let store = RedbStore::open(directory.path()).unwrap();
    wait(store.recover()).unwrap();
    write(&store, vec![append(2, 1001..1002, 1)]);
    drop(store);
    fs::write(directory.at(name), backup).unwrap();
    let error = refused(&directory);
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
}

#[test]
fn what_a_crash_left_behind_is_removed() {
    let directory = closed();
    let orphans = ["log-00000000000000000009.redb.tmp", "snapshot-00000000000000000008"];
    for orphan in orphans {
        fs::write(directory.at(orphan), b"half").unwrap();
    }
    let store = RedbStore::open(directory.path()).unwrap();
    let found = wait(store.recover()).unwrap().unwrap();
    assert_eq!(found.last, LogId::new(1, 1000));
    for orphan in orphans {
        assert!(!directory.at(orphan).exists(), "{orphan}");
    }
}

/// Looks at a store without taking it over: whose it is, and one of its entries.
fn look(directory: &Directory) {
    let store = RedbStore::open(directory.path()).unwrap();
    assert_eq!(wait(store.identity()).unwrap(), Some(identity()));
    assert_eq!(read_all(&store, 900, 901).unwrap().len(), 1);
    let refused = wait(store.write(vec![append(1, 1001..1002, 1)]));
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
}

#[test]
fn looking_at_a_store_that_was_closed_changes_no_byte() {
    let directory = closed();
    let before = directory.content();
    look(&directory);
    assert!(directory.content() == before);
}

#[test]
fn looking_at_what_a_crash_left_behind_changes_no_byte() {
    let directory = closed();
    for orphan in
        ["log-00000000000000000009.redb.tmp", "snapshot-00000000000000000008", "spare.tmp"]
    {
        fs::write(directory.at(orphan), b"half").unwrap();
    }
    let before = directory.content();
    look(&directory);
    assert!(directory.content() == before);
}

#[test]
fn looking_at_the_store_of_a_process_that_was_killed_changes_no_byte() {
    let original = closed();
    let store = RedbStore::open(original.path()).unwrap();
    wait(store.recover()).unwrap();
    write(&store, vec![append(2, 1001..1100, 100)]);
    let killed = Directory::new("redb");
    for (name, bytes) in original.content() {
        fs::write(killed.at(&name), bytes).unwrap();
    }
    drop(store);
    let before = killed.content();
    look(&killed);
    assert!(killed.content() == before);
    let store = RedbStore::open(killed.path()).unwrap();
    let found = wait(store.recover()).unwrap().unwrap();
    assert_eq!(found.last, LogId::new(2, 1099));
}

/// Nothing is even asked of the medium that could change it, in whatever state a process left the
/// files. What is told of the owner is what is then recovered.
#[test]
fn looking_at_a_store_changes_nothing_wherever_the_power_went() {
    let options = small().segment_bytes(64 << 10);
    let medium = FaultyMedium::new(1).recording();
    let store = born(Arc::new(medium.clone()), &options);
    for batch in 0..12 {
        write(&store, vec![append(1, batch * 50 + 1..batch * 50 + 51, 128)]);
        if batch == 8 {
            compact(&store, LogId { term: Term(1), index: Index(300) }, 1000).unwrap();
        }
    }
    drop(store);
    let trace = medium.trace().unwrap();
    let mut replay = trace.replay();
    let (mut born, mut unborn) = (0, 0);
    loop {
        let seed = replay.boundary();
        for medium in [replay.exit(seed), replay.crash(seed)] {
            let medium = medium.recording();
            let open = || RedbStore::open_on(Arc::new(medium.clone()), &options).unwrap();
            let store = open();
            let told = wait(store.identity()).unwrap();
            drop(store);
            assert_eq!(medium.boundaries(), 0, "at boundary {seed}: {:?}", replay.next_step());
            let found = wait(open().recover()).unwrap();
            assert_eq!(found.map(|found| found.identity), told, "at boundary {seed}");
            *if told.is_some() { &mut born } else { &mut unborn } += 1;
        }
        if !replay.advance() {
            break;
        }
    }
    assert!(born > 100 && unborn > 0, "{born} {unborn}");
}

/// How long a store takes to open after a crash depends on one file of it, not on all.
#[test]
fn opening_after_a_crash_reads_one_file_whatever_the_size_of_the_store() {
    let batches = if is_long() { 4000 } else { 400 };
    let medium = FaultyMedium::new(1);
    let options = small();
    let store = born(Arc::new(medium.clone()), &options);
    for batch in 0..batches {
        write(&store, vec![append(1, batch * 100 + 1..batch * 100 + 101, 128)]);
    }
    let total = medium.image().space();
    assert!(total > batches * 12_800);
    let crashed = Watched::new(medium.exit());
    drop(store);
    let store = RedbStore::open_on(Arc::new(crashed.clone()), &options).unwrap();
    let found = wait(store.recover()).unwrap().unwrap();
    assert_eq!(found.last, LogId::new(1, batches * 100));
    let read = crashed.seen().read.load(std::sync::atomic::Ordering::Relaxed);
    println!("total={total} read={read}");
    assert!(read < 4 * (256 << 10), "{read} bytes of {total} were read");
    let all = read_all(&store, 1, batches * 100 + 1).unwrap();
    assert_eq!(all.len() as u64, batches * 100);
}

#[test]
fn a_snapshot_that_lost_its_file_is_named() {
    let directory = closed();
    let store = RedbStore::open(directory.path()).unwrap();
    wait(store.recover()).unwrap();
    compact(&store, LogId { term: Term(1), index: Index(500) }, 100_000).unwrap();
    drop(store);
    let names = directory.content().into_keys();
    let snapshot = names.into_iter().find(|name| name.starts_with("snapshot-")).unwrap();
    let bytes = directory.content()[&snapshot].clone();
    fs::write(directory.at(&snapshot), &bytes[..bytes.len() - 1]).unwrap();
    assert!(refused(&directory).to_string().contains(&snapshot));
    fs::remove_file(directory.at(&snapshot)).unwrap();
    assert!(refused(&directory).to_string().contains(&snapshot));
}
