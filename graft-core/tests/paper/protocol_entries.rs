//! PROTOCOL 4, as far as it is Raft's: entries, their kinds, and log time.

use std::time::Duration;

use bytes::Bytes;
use graft_core::{
    EntryKind, LogId, LogTime, Message, Token,
    raft::{Config, Input, Proposal},
};

use crate::common::*;

const FIRST: LogId = LogId::new(1, 1);

/// PROTOCOL 4: "Kinds: Blank, Membership, Plain, Session (open, keep alive, close, command); an
/// unknown kind is refused at the door." The numbers are part of the formats.
#[test]
fn a_kind_is_known_by_its_number_and_an_unknown_number_is_none() {
    let kinds = [
        EntryKind::Blank,
        EntryKind::Membership,
        EntryKind::Plain,
        EntryKind::SessionOpen,
        EntryKind::SessionKeepAlive,
        EntryKind::SessionClose,
        EntryKind::SessionCommand,
    ];
    for (number, kind) in (0..).zip(kinds) {
        assert_eq!((kind as u8, EntryKind::from_u8(number)), (number, Some(kind)));
    }
    assert!((7..=u8::MAX).all(|number| EntryKind::from_u8(number).is_none()));
}

/// PROTOCOL 4: "`Entry { log_id, time, kind, payload }`": kind and payload of a command reach every
/// machine as they were proposed.
#[test]
fn kind_and_payload_reach_the_machine_as_they_were_proposed() {
    let clients = [
        EntryKind::Plain,
        EntryKind::SessionOpen,
        EntryKind::SessionKeepAlive,
        EntryKind::SessionClose,
        EntryKind::SessionCommand,
    ];
    let payload = Bytes::from_static(&[0, 255, 7, 0]);
    let mut leader = Server::settled_leader(Config::new(A), ONE, &[1]);
    let proposals =
        clients.map(|kind| Proposal { token: Token::default(), kind, payload: payload.clone() });
    leader.step(Input::Propose(proposals.to_vec()));
    leader.settle();
    let applied = leader.applied[2..].iter().map(|entry| (entry.kind, entry.payload.clone()));
    let expected = clients.iter().map(|kind| (*kind, payload.clone()));
    assert_eq!(applied.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

/// PROTOCOL 4: blank and membership entries are the leader's own. A driver that proposes one breaks
/// its contract, and is told so before anything enters the log.
#[test]
fn the_leaders_own_kinds_cannot_be_proposed() {
    for kind in [EntryKind::Blank, EntryKind::Membership] {
        let mut leader = Server::settled_leader(Config::new(A), ONE, &[1]);
        let proposal = Proposal { token: Token::default(), kind, payload: Bytes::new() };
        let step = std::panic::AssertUnwindSafe(|| leader.step(Input::Propose(vec![proposal])));
        assert!(std::panic::catch_unwind(step).is_err(), "{kind:?}");
    }
}

/// PROTOCOL 4: "`time` is milliseconds of cluster life: the last entry's time at election plus the
/// leader's own monotonic time since."
#[test]
fn log_time_is_the_last_entrys_plus_the_leaders_own_since_its_election() {
    let mut disk = Disk::founded(A, ONE).with_terms(&[1, 1, 1]);
    disk.entries[2].time = LogTime(50_000);
    let mut leader = Server::start(Config::new(A), disk);
    leader.elapse(20);
    leader.step(Input::Campaign);
    leader.settle();
    let time = |leader: &Server| leader.disk.entries.last().expect("an entry").time;
    assert_eq!(time(&leader), LogTime(50_000), "the blank entry's: no time since the election");
    leader.elapse(123);
    leader.propose("x");
    leader.settle();
    assert_eq!(time(&leader), LogTime(51_230), "123 ticks of 10 ms later");
}

/// PROTOCOL 4: "No wall clock": it may jump as it likes. It stands in the blank entry and decides
/// nothing.
#[test]
fn the_wall_clock_does_not_touch_log_time() {
    let mut leader = Server::founded(A, ONE);
    leader.elapse(20);
    leader.step(Input::Campaign);
    leader.settle();
    let blank = leader.disk.entries.last().expect("the blank entry").clone();
    assert_eq!((blank.kind, blank.time), (EntryKind::Blank, LogTime(0)));
    assert_eq!(blank.payload[..], leader.unix_millis.to_le_bytes());
    for (later, unix_millis) in [(10, 0), (20, u64::MAX), (30, 1)] {
        leader.unix_millis = unix_millis;
        leader.jump(1);
        leader.propose("x");
        leader.settle();
        assert_eq!(leader.disk.entries.last().map(|entry| entry.time), Some(LogTime(later)));
    }
}

/// PROTOCOL 4: "never backwards": not with a clock that goes back, and not with a new leader whose
/// own clock has just begun.
#[test]
fn log_time_never_goes_back() {
    let mut leader = Server::founded(A, ONE);
    leader.step(Input::Campaign);
    leader.settle();
    for millis in [500, 20, 700, 0, 300] {
        leader.step(Input::Time { now: Duration::from_millis(millis), unix_millis: 0 });
        leader.propose("x");
    }
    leader.settle();
    let times: Vec<u64> = leader.disk.entries.iter().map(|entry| entry.time.0).collect();
    assert!(times.is_sorted(), "{times:?}");

    let mut cluster = Cluster::led(THREE);
    for round in 0..6 {
        let leader = cluster.leaders()[0];
        cluster.elapse(300);
        cluster.propose(leader, &["x"]);
        cluster.settle();
        cluster.crash(leader);
        cluster.restart(leader);
        cluster.elapse(240);
        assert_eq!(cluster.leaders().len(), 1, "round {round}");
    }
    let times: Vec<u64> = cluster[A].disk.entries.iter().map(|entry| entry.time.0).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(*times.last().expect("entries") >= 5 * 3_000, "time goes on across leaders: {times:?}");
}

/// PROTOCOL 4: an entry keeps the time its leader gave it, wherever it travels.
#[test]
fn an_entry_has_the_same_time_on_every_server() {
    let mut cluster = Cluster::led(THREE);
    cluster.elapse(100);
    cluster.propose(A, &["x"]);
    cluster.settle();
    cluster.heartbeat(A);
    assert_eq!(cluster[A].applied, cluster[B].applied);
    assert_eq!(cluster[A].applied, cluster[C].applied);
    assert!(cluster[B].applied.last().expect("x").time >= LogTime(1_000));
}

/// PROTOCOL 4: a follower takes the leader's time over, so that the next leader goes on from it.
#[test]
fn a_new_leader_goes_on_from_the_time_of_its_last_entry() {
    let mut server = Server::founded(A, THREE);
    let Message::AppendEntries(mut append) = append(2, FIRST, &[2], 0) else {
        unreachable!("it is an append")
    };
    let mut entry = append.entries.first().expect("one").to_entry();
    entry.time = LogTime(9_999);
    append.entries = vec![entry].into();
    server.answers_to(B, Message::AppendEntries(append));
    server.jump(60);
    server.step(Input::Campaign);
    server.settle();
    server.receive(C, vote(server.term().0, true));
    server.settle();
    let blank = server.disk.entries.last().expect("the blank entry");
    assert_eq!((blank.kind, blank.time), (EntryKind::Blank, LogTime(9_999)));
}
