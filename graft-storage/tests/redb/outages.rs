//! A disk that fails to read for a moment and is well again: what was acknowledged is there, and the store goes on
//! without being closed.

use std::sync::Arc;

use graft_core::{Entries, Index, LogId, LogStore, StoreError};
use graft_storage::{
    RedbStore,
    medium::{Call, Fault, FaultyMedium},
    redb::Options,
};

use crate::support::{append, born, entry, read_all, wait, write};

/// Nothing is kept in memory, so everything is read from the disk.
fn filled(options: &Options) -> (FaultyMedium, RedbStore) {
    let medium = FaultyMedium::new(1);
    let store = born(Arc::new(medium.clone()), &options.clone().cache_bytes(0));
    for batch in 0..20 {
        write(&store, vec![append(1, batch * 50 + 1..batch * 50 + 51, 200)]);
    }
    (medium, store)
}

fn in_one_file() -> Options {
    Options::default().segment_bytes(4 << 20).preallocated_bytes(0)
}

fn fail_reads(medium: &FaultyMedium, times: u64) {
    medium.fail(Fault { call: Some(Call::Read), after: 0, times });
}

fn is_io<T: std::fmt::Debug>(outcome: &Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::Io { .. })), "{outcome:?}");
}

fn entries(to: u64) -> Entries {
    (1..to).map(|index| entry(1, index, 200)).collect()
}

/// Everything that was acknowledged is there, and more can be written.
fn goes_on(store: &RedbStore, medium: &FaultyMedium) {
    let found = wait(store.recover()).unwrap().unwrap();
    let end = found.last.index.0 + 1;
    assert!(read_all(store, 1, end).unwrap() == entries(end));
    write(store, vec![append(1, end..end + 10, 200)]);
    assert!(read_all(store, 1, end + 10).unwrap() == entries(end + 10));
    let closed = RedbStore::open_on(Arc::new(medium.exit()), &Options::default()).unwrap();
    assert_eq!(wait(closed.recover()).unwrap().unwrap().last, LogId::new(1, end + 9));
}

#[test]
fn after_a_failed_read_of_the_file_that_is_written_a_recovery_opens_it_again() {
    let (medium, store) = filled(&in_one_file());
    fail_reads(&medium, 1);
    is_io(&wait(store.read(Index(1)..Index(3), 100)));
    assert_eq!(medium.failed(Call::Read), 1);
    goes_on(&store, &medium);
}

#[test]
fn after_a_failed_read_in_a_commit_a_recovery_finds_the_commit_whole_or_not_at_all() {
    for after in 0..12 {
        let (medium, store) = filled(&in_one_file());
        medium.fail(Fault { call: Some(Call::Read), after, times: 1 });
        let written = wait(store.write(vec![append(1, 1001..1011, 200)]));
        if medium.failed(Call::Read) == 0 {
            assert!(after > 0, "a commit reads nothing");
            return;
        }
        is_io(&written);
        let last = wait(store.recover()).unwrap().unwrap().last.index.0;
        assert!(last == 1000 || last == 1010, "{last}");
        goes_on(&store, &medium);
    }
}

#[test]
fn a_recovery_during_the_outage_says_so_and_the_next_one_succeeds() {
    let (medium, store) = filled(&in_one_file());
    fail_reads(&medium, u64::MAX);
    is_io(&wait(store.read(Index(1)..Index(3), 100)));
    is_io(&wait(store.recover()));
    is_io(&wait(store.recover()));
    medium.heal();
    goes_on(&store, &medium);
}

/// Larger than what is kept in memory of a file that is not written any more.
#[test]
fn a_failed_read_of_a_file_that_is_sealed_is_not_remembered() {
    let medium = FaultyMedium::new(1);
    let store = born(Arc::new(medium.clone()), &in_one_file());
    let entries: Entries = (1..401).map(|index| entry(1, index, 20_000)).collect();
    write(&store, vec![append(1, 1..201, 20_000)]);
    write(&store, vec![append(1, 201..401, 20_000)]);
    assert!(medium.image().names().any(|name| name == "log-00000000000000000002.redb"));
    // Opening it, and going on with it once it is open.
    for is_open in [false, true] {
        fail_reads(&medium, 1);
        let failed_before = medium.failed(Call::Read);
        let mut reads = (1..200).map(|at| wait(store.read(Index(at)..Index(at + 1), 1)));
        let failed = reads.find(Result::is_err).expect("all of it is in memory");
        is_io(&failed);
        assert_eq!(medium.failed(Call::Read), failed_before + 1, "open before: {is_open}");
        assert!(read_all(&store, 1, 401).unwrap() == entries, "open before: {is_open}");
    }
    write(&store, vec![append(1, 401..402, 1)]);
}
