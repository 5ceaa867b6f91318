//! After a failed sync nothing is known of what the disk holds: the redb store refuses service for the
//! life of the process, whoever asks and by whatever path, and says why.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(feature = "redb")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{directory::Directory, sizes};
use graft_core::{LogStore, StoreError};
use graft_storage::{
    RedbStore,
    conformance::{block_on, faults::Workload},
    medium::{Call, Disk, Fault, FaultyMedium, Medium},
    redb::OpenError,
};

const LIMIT: Duration = Duration::from_secs(60);

fn open(medium: &FaultyMedium) -> Result<RedbStore, OpenError> {
    RedbStore::open_on(Arc::new(medium.clone()), &sizes::options(sizes::SMALL))
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    block_on(LIMIT, work).expect("the store hangs")
}

/// A store in state `state` of the workload.
fn at_work(medium: &FaultyMedium, workload: &Workload, state: usize) -> RedbStore {
    let store = open(medium).unwrap();
    assert!(wait(store.recover()).unwrap().is_none());
    for number in 0..state {
        wait(workload.perform(&store, number)).unwrap();
    }
    store
}

fn is_poisoned<T: std::fmt::Debug>(outcome: &Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::Poisoned { .. })), "{outcome:?}");
}

fn fail_once(call: Call) -> (FaultyMedium, Workload, RedbStore, usize) {
    let workload = Workload::generate(1, 30);
    let medium = FaultyMedium::new(1);
    let store = at_work(&medium, &workload, 5);
    medium.fail(Fault { call: Some(call), after: 0, times: 1 });
    for number in 5..25 {
        if let Err(error) = wait(workload.perform(&store, number)) {
            assert!(medium.failed(call) == 1, "{error}");
            return (medium, workload, store, number);
        }
        assert_eq!(medium.failed(call), 0, "a write was acknowledged though its {call:?} failed");
    }
    panic!("the work never came to a {call:?}");
}

#[test]
fn a_failed_sync_ends_all_service_until_the_process_ends() {
    let (medium, workload, store, number) = fail_once(Call::Sync);
    let other = store.clone();
    is_poisoned(&wait(workload.perform(&store, number)));
    is_poisoned(&wait(store.recover()));
    is_poisoned(&wait(other.recover()));
    drop((store, other));
    let again = open(&medium);
    assert!(matches!(again, Err(OpenError::Poisoned { .. })), "{again:?}");
    let next = open(&medium.exit()).unwrap();
    wait(next.recover()).unwrap();
}

#[test]
fn a_failed_write_ends_all_service_until_the_process_ends() {
    let (medium, workload, store, number) = fail_once(Call::Write);
    is_poisoned(&wait(workload.perform(&store, number)));
    is_poisoned(&wait(store.recover()));
    drop(store);
    assert!(matches!(open(&medium), Err(OpenError::Poisoned { .. })));
}

/// What failed is said, and nothing is said to have failed that did not.
#[test]
fn the_reason_names_the_call_that_failed() {
    let calls = [
        (Call::Sync, "sync"),
        (Call::Write, "write"),
        (Call::Rename, "rename"),
        (Call::SyncNames, "syncnames"),
    ];
    for (call, word) in calls {
        let (medium, _, store, _) = fail_once(call);
        let Err(StoreError::Poisoned { reason }) = wait(store.recover()) else {
            panic!("not poisoned")
        };
        assert!(reason.to_lowercase().contains(word), "{call:?}: {reason}");
        drop(store);
        let Err(error) = open(&medium) else { panic!("it opened") };
        let text = error.to_string();
        assert!(text.contains(&reason) && text.contains("restart the process"), "{text}");
        assert!(call != Call::Write || !text.contains("sync"), "{text}");
    }
}

/// On the real disk: the process-wide memory is that of the directory, not of a store or a path.
#[test]
fn a_poisoned_directory_does_not_open_by_any_path() {
    let directory = Directory::new("poison");
    let path = directory.path().join("store");
    drop(RedbStore::open(&path).unwrap());
    drop(RedbStore::open(&path).unwrap());
    Disk::open(&path).unwrap().poison("a sync failed: input/output error");
    let outcome = RedbStore::open(&path);
    let Err(OpenError::Poisoned { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, "a sync failed: input/output error");
    let outcome = RedbStore::open(path.join("..").join("store"));
    assert!(matches!(outcome, Err(OpenError::Poisoned { .. })), "{outcome:?}");
    #[cfg(unix)]
    {
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let outcome = RedbStore::open(link);
        assert!(matches!(outcome, Err(OpenError::Poisoned { .. })), "{outcome:?}");
        let moved = directory.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        let outcome = RedbStore::open(moved);
        assert!(matches!(outcome, Err(OpenError::Poisoned { .. })), "{outcome:?}");
    }
    drop(RedbStore::open(directory.path().join("another")).unwrap());
}
