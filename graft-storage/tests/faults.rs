//! The memory store across crashes, and with its fault switches on.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::mpsc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use common::identity::identity;
use graft_core::{
    Entries, Entry, EntryKind, Index, Loaded, LogId, LogStore, LogTime, Recovered, StoreError,
    Write,
};
use graft_storage::{MemoryStore, conformance::block_on, fault::Fate};

fn append(term: u64, indexes: std::ops::Range<u64>) -> Vec<Write> {
    let entries: Entries = indexes
        .map(|index| Entry {
            log_id: LogId::new(term, index),
            time: LogTime(0),
            kind: EntryKind::Plain,
            payload: Bytes::from_static(b"payload"),
        })
        .collect();
    vec![Write::Append(entries)]
}

/// The output of a future that needs no wake.
fn now<F: Future>(future: F) -> F::Output {
    block_on(Duration::ZERO, future).expect("this must not wait")
}

fn born() -> MemoryStore {
    let store = MemoryStore::new();
    now(store.create(&identity())).unwrap();
    store
}

fn recovered(store: &MemoryStore) -> Recovered {
    now(store.recover()).unwrap().unwrap()
}

fn poll<F: Future + ?Sized>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_write_without_a_switch_is_done_when_it_is_first_polled() {
    let store = born();
    let buffer = now(store.write(append(1, 1..4))).unwrap();
    assert!(buffer.is_empty());
    assert_eq!(recovered(&store).last, LogId::new(1, 3));
}

#[test]
fn the_store_outlives_its_handles() {
    let store = born();
    let medium = store.clone();
    now(store.write(append(1, 1..4))).unwrap();
    drop(store);
    assert_eq!(recovered(&medium).last, LogId::new(1, 3));
}

#[test]
fn entries_are_shared_and_not_copied() {
    let store = born();
    let writes = append(1, 1..4);
    let Write::Append(given) = &writes[0] else { unreachable!() };
    let given = given.first().unwrap().payload.as_ptr();
    now(store.write(writes)).unwrap();
    let loaded = now(store.read(Index(1)..Index(4), usize::MAX)).unwrap();
    let Loaded::Entries(found) = loaded else { panic!("{loaded:?}") };
    assert!(std::ptr::eq(found.first().unwrap().payload.as_ptr(), given));
}

#[test]
fn a_handle_that_never_recovered_does_not_write() {
    let store = born();
    let fresh = store.clone();
    let outcome = now(fresh.write(append(1, 1..2)));
    assert!(matches!(outcome, Err(StoreError::Fenced)), "{outcome:?}");
    assert!(now(store.write(append(1, 1..2))).is_ok());
}

#[test]
fn a_held_write_is_durable_only_once_it_is_released() {
    let store = born();
    let disk = store.faults();
    disk.hold_writes();
    let mut write = pin!(store.write(append(1, 1..4)));
    assert!(poll(&mut write).is_pending());
    assert_eq!(disk.held_writes(), 1);
    assert_eq!(store.peek().unwrap().unwrap().last, LogId::ZERO);
    assert!(disk.release_write());
    assert_eq!(store.peek().unwrap().unwrap().last, LogId::new(1, 3));
    assert!(now(write).unwrap().is_empty());
    assert!(!disk.release_write(), "nothing is held any more");
    // It goes on holding until told otherwise.
    let mut write = pin!(store.write(append(1, 4..5)));
    assert!(poll(&mut write).is_pending());
    disk.release_writes();
    assert!(now(write).is_ok());
    assert!(now(store.write(append(1, 5..6))).is_ok());
}

#[test]
fn held_writes_happen_in_the_order_they_came() {
    let store = born();
    let disk = store.faults();
    disk.hold_writes();
    let mut first = pin!(store.write(append(1, 1..4)));
    let mut second = pin!(store.write(append(2, 3..5)));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    disk.release_writes();
    assert!(now(second).is_ok() && now(first).is_ok());
    assert_eq!(recovered(&store).last, LogId::new(2, 4));
}

#[test]
fn a_crash_loses_or_keeps_what_was_held_as_the_test_says() {
    for (fate, last) in [(Fate::Lost, 3), (Fate::Kept, 5)] {
        let store = born();
        let disk = store.faults();
        now(store.write(append(1, 1..4))).unwrap();
        disk.hold_writes();
        {
            // The server dies with its write on the way: nobody polls the future any more.
            let mut write = pin!(store.write(append(1, 4..6)));
            assert!(poll(&mut write).is_pending());
        }
        disk.crash(fate);
        disk.release_writes();
        let restarted = store.clone();
        assert_eq!(recovered(&restarted).last, LogId::new(1, last), "{fate:?}");
        let outcome = now(store.write(append(1, 4..5)));
        assert!(matches!(outcome, Err(StoreError::Fenced)), "{outcome:?}");
    }
}

#[test]
fn a_write_held_over_a_recovery_never_happens() {
    let store = born();
    let disk = store.faults();
    disk.hold_writes();
    let mut write = pin!(store.write(append(1, 1..4)));
    assert!(poll(&mut write).is_pending());
    let newer = store.clone();
    assert_eq!(recovered(&newer).last, LogId::ZERO);
    let outcome = now(write);
    assert!(matches!(outcome, Err(StoreError::Fenced)), "{outcome:?}");
    disk.release_writes();
    assert_eq!(recovered(&newer).last, LogId::ZERO);
}

#[test]
fn the_same_handle_recovering_gives_up_its_own_held_write() {
    let store = born();
    let disk = store.faults();
    disk.hold_writes();
    let mut write = pin!(store.write(append(1, 1..4)));
    assert!(poll(&mut write).is_pending());
    assert_eq!(recovered(&store).last, LogId::ZERO);
    disk.release_writes();
    assert!(matches!(now(write), Err(StoreError::Fenced)));
    assert_eq!(recovered(&store).last, LogId::ZERO);
}

#[test]
fn a_held_write_that_does_not_fit_is_refused_when_it_is_released() {
    let store = born();
    let disk = store.faults();
    disk.hold_writes();
    let mut write = pin!(store.write(append(1, 7..9)));
    assert!(poll(&mut write).is_pending());
    disk.release_writes();
    assert!(matches!(now(write), Err(StoreError::BadWrite { .. })));
}

#[test]
fn a_failed_write_poisons_the_store_until_the_process_ends() {
    for (fate, last) in [(Fate::Lost, 3), (Fate::Kept, 5)] {
        let store = born();
        let disk = store.faults();
        now(store.write(append(1, 1..4))).unwrap();
        disk.fail_next_write(fate);
        let outcome = now(store.write(append(1, 4..6)));
        assert!(matches!(outcome, Err(StoreError::Io { .. })), "{outcome:?}");
        let outcome = now(store.write(append(1, 4..6)));
        assert!(matches!(outcome, Err(StoreError::Poisoned { .. })), "{outcome:?}");
        let outcome = now(store.clone().recover());
        assert!(matches!(outcome, Err(StoreError::Poisoned { .. })), "{outcome:?}");
        disk.crash(Fate::Lost);
        assert_eq!(recovered(&store.clone()).last, LogId::new(1, last), "{fate:?}");
    }
}

#[test]
fn a_write_can_be_held_and_then_fail() {
    let store = born();
    let disk = store.faults();
    disk.hold_writes();
    disk.fail_next_write(Fate::Lost);
    let mut write = pin!(store.write(append(1, 1..4)));
    assert!(poll(&mut write).is_pending());
    disk.release_writes();
    assert!(matches!(now(write), Err(StoreError::Io { .. })));
}

#[test]
fn reads_and_recoveries_fail_once_and_change_nothing() {
    let store = born();
    let disk = store.faults();
    now(store.write(append(1, 1..4))).unwrap();
    let read = || now(store.read(Index(1)..Index(4), usize::MAX));
    disk.fail_next_read();
    assert!(matches!(read(), Err(StoreError::Io { .. })));
    assert!(read().is_ok());
    disk.fail_next_recover();
    let newer = store.clone();
    assert!(matches!(now(newer.recover()), Err(StoreError::Io { .. })));
    assert!(now(store.write(append(1, 4..5))).is_ok(), "nobody is fenced");
}

#[test]
fn a_stalled_store_answers_nothing_until_it_resumes() {
    let store = born();
    let disk = store.faults();
    now(store.write(append(1, 1..4))).unwrap();
    disk.stall();
    let mut write = pin!(store.write(append(1, 4..5)));
    let mut read = pin!(store.read(Index(1)..Index(2), 1));
    assert!(poll(&mut write).is_pending() && poll(&mut read).is_pending());
    disk.resume();
    assert!(now(write).is_ok() && now(read).is_ok());
}

/// The waiting side is another thread: it is the wakers that must end the waits.
#[test]
fn whoever_waits_is_woken() {
    const LIMIT: Duration = Duration::from_secs(60);
    let store = born();
    let disk = store.faults();
    block_on(LIMIT, store.write(append(1, 1..4))).expect("nothing is held up yet").unwrap();
    disk.stall();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| block_on(LIMIT, store.write(append(1, 4..7))));
        block_on(LIMIT, disk.until_held(1)).expect("the write never arrived");
        let reader = store.clone();
        let (said, polled) = mpsc::channel();
        let read = scope.spawn(move || {
            // Of what is there whichever of both is first.
            let mut read = pin!(reader.read(Index(1)..Index(4), 1));
            let watched = poll_fn(|context| {
                let polled = read.as_mut().poll(context);
                let _ = said.send(polled.is_pending());
                polled
            });
            block_on(LIMIT, watched)
        });
        assert!(polled.recv().unwrap(), "the read is not held up");
        disk.resume();
        assert!(writer.join().unwrap().expect("the writer hangs").is_ok());
        assert!(read.join().unwrap().expect("the reader hangs").is_ok());
    });
}
