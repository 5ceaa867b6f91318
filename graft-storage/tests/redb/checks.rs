//! Verifying a store, and scrubbing one at work.

use std::{fs, sync::Arc, time::Duration};

use graft_core::{LogId, LogStore, StoreError};
use graft_storage::{
    RedbStore,
    medium::{Disk, Medium},
    redb::{OpenError, Pace, Report, verify},
};

use crate::support::{Directory, append, born, compact, settle, small, wait, write};

const FAST: Pace = Pace { bytes_per_step: 64 << 10, pause: Duration::ZERO };

fn filled(directory: &Directory) -> RedbStore {
    let medium: Arc<dyn Medium> = Arc::new(Disk::create(directory.path()).unwrap());
    let store = born(medium, &small());
    for batch in 0..100 {
        let next = batch * 50 + 1;
        write(&store, vec![append(1, next..next + 50, 200)]);
    }
    compact(&store, LogId::new(1, 1000), 300_000).unwrap();
    settle(&store);
    store
}

fn is_whole(report: &Report) -> bool {
    report.entries == 4000 && report.entry_bytes == 4000 * 232 && report.snapshot_bytes == 300_000
}

#[test]
fn every_record_is_read_and_nothing_is_changed() {
    let directory = Directory::new("redb");
    let store = filled(&directory);
    let report = wait(store.scrub(FAST)).unwrap();
    assert!(is_whole(&report), "{report:?}");
    drop(store);
    let before = directory.content();
    let report = verify(directory.path()).unwrap();
    assert!(is_whole(&report), "{report:?}");
    assert!(directory.content() == before, "verifying changed a file");
}

#[test]
fn a_directory_that_is_not_there_is_not_made_by_verifying_it() {
    let directory = Directory::new("redb");
    let path = directory.at("store");
    let error = verify(&path).unwrap_err();
    assert!(matches!(error, OpenError::Inaccessible { .. }), "{error:?}");
    assert!(!path.exists());
    RedbStore::open(&path).unwrap();
    assert!(path.exists(), "by opening it, it is");
}

/// Turns a bit of a payload in the oldest file around.
fn damage(directory: &Directory) -> String {
    let content = directory.content();
    let (name, bytes) = content.iter().find(|(name, _)| name.starts_with("log-")).unwrap();
    let mut bytes = bytes.clone();
    // The payloads of entry 1100 are all of this byte.
    let payload = [1100_u64.to_le_bytes()[0]; 100];
    let at = bytes.windows(100).position(|window| window == payload).unwrap();
    bytes[at] ^= 1;
    fs::write(directory.at(name), bytes).unwrap();
    name.clone()
}

#[test]
fn damage_is_found_and_named() {
    let directory = Directory::new("redb");
    let store = filled(&directory);
    let name = damage(&directory);
    let error = wait(store.scrub(FAST)).unwrap_err();
    let StoreError::Corrupt { location, .. } = &error else { panic!("{error:?}") };
    assert!(location.contains(&name), "{error}");
    // The store goes on: it is what is damaged that cannot be read.
    write(&store, vec![append(1, 5001..5002, 1)]);
    drop(store);
    let error = verify(directory.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains(&name), "{error}");
}

#[test]
fn a_scrub_that_rests_ends_when_the_store_is_closed() {
    let directory = Directory::new("redb");
    let store = filled(&directory);
    let slow = Pace { bytes_per_step: 1, pause: Duration::from_secs(3600) };
    {
        let scrub = std::pin::pin!(store.scrub(slow));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(scrub.poll(&mut context).is_pending());
    }
    drop(store);
    let store = RedbStore::open(directory.path()).unwrap();
    let found = wait(store.recover()).unwrap().unwrap();
    assert_eq!(found.last, LogId::new(1, 5000));
}
