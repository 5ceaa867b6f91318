//! What a commit costs, and what it holds up.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use graft_core::{Entries, Entry, HardState, Index, Loaded, LogId, LogStore, Term, Write};
use graft_storage::{RedbStore, medium::FaultyMedium};

use crate::support::{Watched, append, born, entry, read_all, small, wait, write};

fn new() -> (Watched, RedbStore) {
    let medium = Watched::new(FaultyMedium::new(1));
    let store = born(Arc::new(medium.clone()), &small());
    (medium, store)
}

fn vote(term: u64) -> Vec<Write> {
    vec![Write::HardState(HardState { term: Term(term), voted_for: None, commit: Index(0) })]
}

#[test]
fn a_commit_is_one_sync() {
    let (medium, store) = new();
    write(&store, vec![append(1, 1..11, 128)]);
    let before = medium.seen().syncs.load(Ordering::Relaxed);
    for batch in 1..6 {
        let next = batch * 10 + 1;
        let mut writes = vote(batch);
        writes.push(append(1, next..next + 10, 128));
        write(&store, writes);
    }
    assert_eq!(medium.seen().syncs.load(Ordering::Relaxed) - before, 5);
}

#[test]
fn writes_that_wait_become_one_commit() {
    let (medium, store) = new();
    medium.hold_syncs(true);
    let before = medium.seen().syncs.load(Ordering::Relaxed);
    let mut first = pin!(store.write(vote(1)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    while medium.seen().syncs.load(Ordering::Relaxed) == before {
        std::thread::yield_now();
    }
    let mut others: Vec<_> = (2..100).map(|term| Box::pin(store.write(vote(term)))).collect();
    for other in &mut others {
        assert!(matches!(other.as_mut().poll(&mut context), Poll::Pending));
    }
    medium.hold_syncs(false);
    wait(first).unwrap();
    for other in others {
        wait(other).unwrap();
    }
    assert_eq!(medium.seen().syncs.load(Ordering::Relaxed) - before, 2);
    let found = wait(store.recover()).unwrap().unwrap();
    assert_eq!(found.hard_state.term, Term(99));
}

#[test]
fn a_read_does_not_wait_for_a_write() {
    let (medium, store) = new();
    write(&store, vec![append(1, 1..11, 128)]);
    medium.hold_syncs(true);
    let before = medium.seen().syncs.load(Ordering::Relaxed);
    let mut held = pin!(store.write(vec![append(2, 5..7, 10)]));
    assert!(held.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    while medium.seen().syncs.load(Ordering::Relaxed) == before {
        std::thread::yield_now();
    }
    let loaded = wait(store.read(Index(1)..Index(11), usize::MAX)).unwrap();
    let expected: Entries = (1..11).map(|index| entry(1, index, 128)).collect();
    assert_eq!(loaded, Loaded::Entries(expected), "what is durable is what is read");
    medium.hold_syncs(false);
    wait(held).unwrap();
    assert_eq!(read_all(&store, 1, 7).unwrap().last_log_id(), Some(LogId::new(2, 6)));
}

/// Entries of every size go through pages of every size and many files, and are truncated on the
/// way.
#[test]
fn entries_of_all_sizes_are_read_as_they_were_written_across_files_and_truncations() {
    let (_, store) = new();
    let mut expected = Entries::new();
    let mut next = 1;
    for round in 1..=60_u64 {
        let term = round;
        if round % 7 == 0 {
            // Far enough back to reach into files that are not written any more.
            next -= (next - 1) * (round % 5 + 1) / 8;
            expected.truncate_from(Index(next));
        }
        let sizes = (0..round % 9 + 1).map(|at| ((round * 7919 + at * 104_729) % 90_000) as usize);
        let batch: Vec<Entry> = (next..).zip(sizes).map(|(i, size)| entry(term, i, size)).collect();
        next += batch.len() as u64;
        let batch: Entries = batch.into();
        expected.append(batch.clone());
        write(&store, vec![Write::Append(batch)]);
        if round % 10 == 0 {
            assert!(read_all(&store, 1, next).unwrap() == expected, "round {round}");
        }
    }
    let recovered = wait(store.recover()).unwrap().unwrap();
    assert_eq!(Some(recovered.last), expected.last_log_id());
    assert!(read_all(&store, 1, next).unwrap() == expected);
}
