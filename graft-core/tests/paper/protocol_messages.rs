//! PROTOCOL 3: messages, windows and bounds.

use graft_core::{
    AppendEntriesResponse, AppendOutcome, Checkpoint, Class, Entry, GroupId, Incarnation, Index,
    LogId, Membership, Message, NodeInfo, PeerEnvelope, Term,
    raft::{Config, Fatal, Input, Refusal, WriteBatch, WriteId},
};

use crate::common::*;

const FIRST: LogId = LogId::new(1, 1);

/// The disk of a founder whose membership names the birth of every store.
fn disk_with_incarnations(node: graft_core::NodeId) -> Disk {
    let info = |node: graft_core::NodeId| NodeInfo {
        incarnation: Incarnation(100 + node.0),
        ..NodeInfo::default()
    };
    let mut disk = Disk::newborn(node);
    let membership = Membership::of_voters(THREE.iter().map(|node| (*node, info(*node))));
    disk.write(&WriteBatch { id: WriteId(1), writes: membership.founding_writes() });
    disk
}

/// PROTOCOL 3: "Envelope: group, from, to, both incarnations, message": as sent.
#[test]
fn an_envelope_says_who_means_whom() {
    let mut server = Server::start(Config::new(A), disk_with_incarnations(A));
    server.jump(60);
    let sent: Vec<PeerEnvelope> = std::mem::take(&mut server.outbox);
    assert_eq!(sent.len(), 2);
    for (envelope, to) in sent.iter().zip([B, C]) {
        assert_eq!((envelope.group, envelope.from, envelope.to), (GroupId(0), A, to));
        assert_eq!(envelope.from_incarnation, Incarnation(101));
        assert_eq!(envelope.to_incarnation, Incarnation(100 + to.0));
    }
}

/// PROTOCOL 3, 6: what is meant for another server, group or birth of a store is dropped and
/// counted.
#[test]
fn what_is_meant_for_another_is_dropped() {
    let good = {
        let server = Server::start(Config::new(A), disk_with_incarnations(A));
        server.envelope_from(B, heartbeat(2, 1, 0))
    };
    let misdirected = [
        PeerEnvelope { group: GroupId(1), ..good.clone() },
        PeerEnvelope { to: C, ..good.clone() },
        PeerEnvelope { from: A, ..good.clone() },
    ];
    let stale = [
        PeerEnvelope { from_incarnation: Incarnation(7), ..good.clone() },
        PeerEnvelope { from_incarnation: Incarnation(0), ..good.clone() },
        PeerEnvelope { to_incarnation: Incarnation(7), ..good.clone() },
    ];
    let mut server = Server::start(Config::new(A), disk_with_incarnations(A));
    for envelope in misdirected.into_iter().chain(stale) {
        server.step(Input::Message(envelope));
    }
    let counters = server.status().counters;
    assert_eq!((counters.misdirected, counters.stale_incarnation), (3, 3));
    assert_eq!((server.term(), server.take_sent()), (Term(1), vec![]));
    server.step(Input::Message(good));
    assert_eq!(server.term(), Term(2));
}

/// PROTOCOL 3, table: "PreVote, RequestVote | term, last: LogId, transfer | term, granted".
#[test]
fn votes_are_answered_with_term_and_verdict() {
    let mut server = Server::with_terms(A, THREE, &[1, 1]);
    let behind = LogId::new(1, 1);
    assert_eq!(server.answers_to(B, pre_vote(2, behind)), [(B, pre_vote_response(1, false))]);
    let level = LogId::new(1, 2);
    assert_eq!(server.answers_to(B, pre_vote(2, level)), [(B, pre_vote_response(2, true))]);
    assert_eq!(server.answers_to(B, request_vote(2, behind)), [(B, vote(2, false))]);
    assert_eq!(server.answers_to(C, transfer_vote(2, level)), [(C, vote(2, true))]);
}

/// PROTOCOL 3, table: "AppendEntries | term, prev: LogId, commit, round, entries | term, round,
/// Matched(index) or Conflict { index, term }".
#[test]
fn appends_are_answered_with_their_round_and_where_the_logs_agree() {
    let mut server = Server::with_terms(A, THREE, &[1, 1, 1]);
    let Message::AppendEntries(mut append) = append(2, LogId::new(1, 3), &[2], 0) else {
        unreachable!("it is an append")
    };
    append.round = 7;
    let sent = server.answers_to(B, Message::AppendEntries(append.clone()));
    let matched = AppendOutcome::Matched(Index(4));
    let expected = AppendEntriesResponse { term: Term(2), round: 7, outcome: matched };
    assert_eq!(sent.last(), Some(&(B, Message::AppendEntriesResponse(expected))));
    append.round = 8;
    append.prev = LogId::new(2, 9);
    append.entries = graft_core::Entries::new();
    let sent = server.answers_to(B, Message::AppendEntries(append));
    let outcome = AppendOutcome::Conflict { rejected: Index(9), index: Index(4), term: Term(2) };
    let expected = AppendEntriesResponse { term: Term(2), round: 8, outcome };
    assert_eq!(sent, [(B, Message::AppendEntriesResponse(expected))]);
}

/// PROTOCOL 3, table: "Heartbeat | term, commit: min(commit, match of that peer), round, checksum
/// at an index".
#[test]
fn a_heartbeat_says_no_more_than_its_receiver_has() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    leader.propose_all(&["x", "y"]);
    leader.settle();
    leader.receive(B, matched(2, 4));
    leader.settle();
    leader.take_sent();
    leader.jump(5);
    let sent = leader.take_sent();
    let told: Vec<_> = heartbeats(&sent).iter().map(|(to, one)| (*to, one.commit.0)).collect();
    assert_eq!(told, [(B, 4), (C, 2)]);
    let rounds: Vec<_> = heartbeats(&sent).iter().map(|(_, one)| one.round).collect();
    leader.jump(5);
    let sent = leader.take_sent();
    let next: Vec<_> = heartbeats(&sent).iter().map(|(_, one)| one.round).collect();
    assert_eq!(next, [rounds[0] + 1, rounds[0] + 1], "rounds are numbered");
}

/// PROTOCOL 3, table: a heartbeat's answer is "term, round, matched, applied, stalled".
#[test]
fn a_heartbeats_answer_says_how_far_the_follower_is() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2, 2], 2));
    server.receive(B, append(2, LogId::new(2, 3), &[2], 3));
    server.take_sent();
    server.receive(B, heartbeat(2, 9, 3));
    let said = said(&mut server);
    let Some(Message::HeartbeatResponse(response)) = said.last() else { panic!("{said:?}") };
    assert_eq!((response.term, response.round), (Term(2), 9));
    assert_eq!((response.matched.0, response.received.0, response.applied.0), (3, 4, 2));
    assert!(!response.stalled);
    server.jump(60);
    server.receive(B, heartbeat(2, 10, 3));
    let said = crate::common::said(&mut server);
    let Some(Message::HeartbeatResponse(response)) = said.last() else { panic!("{said:?}") };
    assert!(response.stalled, "its write has waited for a whole election timeout");
}

/// PROTOCOL 3, table: "TimeoutNow | term | -": it has no answer of its own.
#[test]
fn a_timeout_now_is_answered_by_the_campaign_alone() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, heartbeat(2, 1, 0));
    let sent = server.answers_to(B, timeout_now(2));
    assert_eq!(asked_for_votes(&sent).len(), sent.len());
}

/// PROTOCOL 3, table, 5: "checksum at an index": the leader sends its machine's latest checkpoint
/// that the peer has applied, and a follower whose machine differs there stops.
#[test]
fn a_heartbeat_carries_a_checksum_and_a_follower_that_differs_stops() {
    let checkpoint = |checksum| Checkpoint { index: Index(2), checksum };
    let applied = |server: &mut Server, checksum| {
        while server.persist() || server.finish_load() || server.apply.is_some() {
            let Some(apply) = server.apply.take() else { continue };
            let index = apply.entries.last_log_id().expect("not empty").index;
            let taken = (index == Index(2)).then_some(checkpoint(checksum));
            server.step(Input::Applied { index, checkpoints: taken.into_iter().collect() });
        }
        assert_eq!(server.status().last_applied, Index(2));
    };
    let mut leader = Server::leader(A, THREE, &[1]);
    leader.receive(B, matched(2, 2));
    applied(&mut leader, 77);
    leader.take_sent();
    leader.jump(5);
    assert_eq!(heartbeats(&leader.take_sent())[0].1.checksum, None, "B has applied nothing");
    let mut answer = heartbeat_response(2, 2, 2);
    answer.applied = Index(2);
    leader.receive(B, Message::HeartbeatResponse(answer));
    leader.jump(5);
    let sent = leader.take_sent();
    let (_, sent) = heartbeats(&sent)[0];
    assert_eq!(sent.checksum, Some(checkpoint(77)));

    for (checksum, diverged) in [(77, false), (78, true)] {
        let mut follower = Server::founded(B, THREE);
        follower.receive(A, append(2, FIRST, &[2], 2));
        applied(&mut follower, checksum);
        follower.receive(A, Message::Heartbeat(sent));
        let expected = diverged.then_some(Fatal::Diverged { index: Index(2) });
        assert_eq!(follower.fatal, expected);
    }
}

/// PROTOCOL 3: messages of what is not built yet are dropped and counted: no half-working path is
/// reachable.
#[test]
fn messages_without_a_handler_are_dropped_and_counted() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, heartbeat(2, 1, 0));
    let term = Term(2);
    let messages = [
        Message::ReadIndex { term, id: 1 },
        Message::ReadIndexResponse { term, id: 1, index: Some(Index(9)) },
    ];
    let mut expected = server.status();
    expected.counters.unsupported = 2;
    for message in messages {
        assert!(server.answers_to(B, message).is_empty());
    }
    assert_eq!(server.status(), expected);
}

/// PROTOCOL 3: "A heartbeat is no empty append: on a stream of its own it may overtake one." It
/// says nothing of the log, so it neither refuses nor commits what has not come yet.
#[test]
fn a_heartbeat_may_overtake_an_append() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2], 0));
    let sent = server.answers_to(B, heartbeat(2, 2, 4));
    assert!(matches!(&sent[..], [(B, Message::HeartbeatResponse(_))]), "{sent:?}");
    assert_eq!(server.commit(), 2, "no further than what has come");
    server.answers_to(B, append(2, LogId::new(2, 2), &[2, 2], 4));
    assert_eq!(server.commit(), 4);
    assert_eq!(Message::class(&heartbeat(2, 1, 0)), Class::Control);
    assert_eq!(Message::class(&append(2, FIRST, &[], 0)), Class::Append);
}

/// PROTOCOL 3: "A peer short of what was sent for a whole round goes back to probe": not for the
/// round in which it was sent, for then it may still be under way.
#[test]
fn a_peer_that_is_short_for_a_whole_round_is_probed() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    let holds_two = |round| Message::HeartbeatResponse(heartbeat_response(2, round, 2));
    leader.jump(5);
    let round = heartbeats(&leader.take_sent())[0].1.round;
    leader.receive(B, holds_two(round));
    leader.propose_all(&["x", "y"]);
    leader.jump(5);
    let round = heartbeats(&leader.take_sent())[0].1.round;
    leader.receive(B, holds_two(round));
    assert!(!leader.peer(B).probing, "the append may still be under way");
    assert!(appends(&leader.take_sent()).is_empty());
    leader.jump(5);
    leader.take_sent();
    leader.receive(B, holds_two(round + 1));
    assert!(leader.peer(B).probing);
    let sent = leader.take_sent();
    let (to, append) = appends(&sent)[0];
    assert_eq!((to, append.prev.index.0, append.entries.len()), (B, 2, 2), "sent again at once");
}

/// PROTOCOL 3: what was received and only waits for the peer's disk is not short.
#[test]
fn a_peer_with_a_slow_disk_is_not_sent_the_same_again() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    leader.propose_all(&["x", "y"]);
    for _ in 0..10 {
        leader.jump(5);
        let sent = leader.take_sent();
        let round = heartbeats(&sent)[0].1.round;
        let mut slow = heartbeat_response(2, round, 2);
        slow.received = Index(4);
        leader.receive(B, Message::HeartbeatResponse(slow));
        assert!(!leader.peer(B).probing);
    }
    assert!(appends(&leader.take_sent()).is_empty());
}

/// PROTOCOL 3: "A follower's commit never passes what it matched with this leader": its own log may
/// be longer, but whose it is remains to be seen.
#[test]
fn a_follower_commits_no_further_than_it_matched_with_this_leader() {
    let mut server = Server::with_terms(A, THREE, &[1, 1, 1, 1, 1]);
    server.answers_to(B, heartbeat(2, 1, 5));
    assert_eq!(server.commit(), 0, "nothing has matched yet");
    server.answers_to(B, append(2, LogId::new(1, 2), &[1], 5));
    assert_eq!(server.commit(), 3);
    server.answers_to(B, heartbeat(2, 2, 5));
    assert_eq!(server.commit(), 3);
    server.answers_to(C, heartbeat(3, 1, 5));
    assert_eq!(server.commit(), 3, "and with another leader all begins anew");
}

/// PROTOCOL 3: "A rejection at or below `match_index` is stale."
#[test]
fn a_rejection_of_what_has_matched_is_stale() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1, 1, 1]);
    leader.propose("x");
    leader.take_sent();
    for rejected in [2, 4] {
        leader.receive(B, conflict(2, rejected, FIRST));
        assert!(!leader.peer(B).probing);
        assert_eq!(leader.peer(B).match_index.0, 4);
        assert!(leader.take_sent().is_empty());
    }
    leader.receive(B, conflict(2, 5, FIRST));
    assert!(leader.peer(B).probing, "above it, a rejection is believed");
    assert_eq!(leader.peer(B).next_index.0, 5, "but nothing that matched is sent again");
}

/// PROTOCOL 3: while a leader probes, only the answer to that probe counts.
#[test]
fn a_rejection_of_an_older_probe_is_stale() {
    let mut leader = Server::leader(A, THREE, &[1, 1, 1, 1, 1]);
    leader.receive(B, conflict(2, 5, LogId::new(1, 3)));
    leader.settle();
    assert_eq!(leader.peer(B).next_index.0, 4);
    leader.take_sent();
    leader.receive(B, conflict(2, 5, LogId::new(1, 1)));
    leader.settle();
    assert_eq!(leader.peer(B).next_index.0, 4);
    assert!(appends(&leader.take_sent()).is_empty());
}

/// PROTOCOL 3: "A conflict hint skips a whole term at a time", at both ends: the number of probes
/// is that of the terms in which the logs differ, not that of the entries.
#[test]
fn a_conflict_skips_a_whole_term_at_a_time() {
    let run = |terms: &[(u64, usize)]| {
        let runs = terms.iter().flat_map(|(term, count)| std::iter::repeat_n(*term, *count));
        runs.collect::<Vec<u64>>()
    };
    // The logs agree on the first entry only; each has terms the other has not.
    let leaders = run(&[(1, 1), (3, 500), (5, 500), (7, 500)]);
    let followers = run(&[(1, 1), (2, 700), (4, 300), (6, 400)]);
    let mut cluster = Cluster::with(TWO, |node| {
        let terms = if node == A { &leaders } else { &followers };
        (Config::new(node), Disk::founded(node, TWO).with_terms(terms).in_term(7, None))
    });
    cluster.campaign(A);
    cluster.settle();
    let trace = cluster.take_trace();
    let probes = trace.iter().filter(|line| line.contains("a -> b  AppendEntries(")).count();
    let conflicts =
        trace.iter().filter(|line| line.contains("b -> a") && line.contains("conflict")).count();
    assert_eq!(cluster[B].disk.terms(), cluster[A].disk.terms());
    assert!(conflicts <= 4, "{conflicts} refusals for three terms");
    assert!(probes <= 6, "{probes} appends");
}

/// PROTOCOL 3: the hint of a follower whose log is only shorter names its end: one refusal.
#[test]
fn a_follower_that_is_only_behind_refuses_once() {
    let mut cluster = Cluster::with(TWO, |node| {
        let terms = if node == A { vec![1; 900] } else { vec![1; 40] };
        (Config::new(node), Disk::founded(node, TWO).with_terms(&terms))
    });
    cluster.campaign(A);
    cluster.settle();
    let trace = cluster.take_trace();
    assert_eq!(
        trace.iter().filter(|line| line.contains("b -> a") && line.contains("conflict")).count(),
        1
    );
    assert_eq!(cluster[B].last(), cluster[A].last());
}

/// PROTOCOL 3: "Windows count entries": no more than that many are under way to a peer, and an
/// acknowledgement opens the window again.
#[test]
fn a_window_counts_entries() {
    let config = Config { window_entries: 4, ..Config::new(A) };
    let mut leader = Server::settled_leader(config, THREE, &[1]);
    for _ in 0..10 {
        leader.propose("x");
    }
    assert_eq!((leader.peer(B).in_flight, leader.peer(B).next_index.0), (4, 7));
    leader.receive(B, matched(2, 3));
    assert_eq!((leader.peer(B).in_flight, leader.peer(B).next_index.0), (4, 8));
    leader.receive(B, matched(2, 7));
    assert_eq!((leader.peer(B).in_flight, leader.peer(B).next_index.0), (4, 12));
    assert_eq!(leader.peer(C).next_index.0, 7, "each peer has a window of its own");
}

/// PROTOCOL 3: "Windows count entries and bytes."
#[test]
fn a_window_counts_bytes() {
    let size = Entry::OVERHEAD + 100;
    let config = Config { window_bytes: 3 * size, ..Config::new(A) };
    let mut leader = Server::settled_leader(config, THREE, &[1]);
    for _ in 0..10 {
        leader.propose(&"x".repeat(100));
    }
    assert_eq!(leader.peer(B).in_flight, 3);
    leader.receive(B, matched(2, 4));
    assert_eq!((leader.peer(B).in_flight, leader.peer(B).next_index.0), (3, 8));
}

/// PROTOCOL 3: a window in bytes is not stretched by an entry that does not fit the rest of it.
#[test]
fn an_entry_that_does_not_fit_the_rest_of_a_window_waits() {
    let config = Config { window_bytes: 300, ..Config::new(A) };
    let mut leader = Server::settled_leader(config, THREE, &[1]);
    for _ in 0..5 {
        leader.propose(&"x".repeat(100));
    }
    assert_eq!(leader.peer(B).in_flight, 2, "two of 132 bytes, and 36 to spare");
}

/// PROTOCOL 3: an entry larger than the whole window is sent all the same, alone.
#[test]
fn an_entry_larger_than_the_window_travels_alone() {
    let config = Config { window_bytes: 10, max_batch_bytes: 10, ..Config::new(A) };
    let mut leader = Server::settled_leader(config, THREE, &[1]);
    leader.propose_all(&[&"x".repeat(100), &"y".repeat(100)]);
    let sent = leader.take_sent();
    assert_eq!(appends(&sent).iter().map(|(_, one)| one.entries.len()).collect::<Vec<_>>(), [1, 1]);
    leader.receive(B, matched(2, 3));
    let sent = leader.take_sent();
    assert_eq!(appends(&sent)[0].1.entries.len(), 1);
}

/// PROTOCOL 3: "A leader bounds in bytes what is uncommitted ...; beyond it a proposal is refused
/// as overloaded." What is refused never enters the log; what was taken in is not lost; and it goes
/// on once there is room.
#[test]
fn a_leader_refuses_what_is_too_much_uncommitted() {
    let command = "x".repeat(10_000);
    let config = Config { max_uncommitted_bytes: 35_000, ..Config::new(A) };
    let mut leader = Server::settled_leader(config, THREE, &[1]);
    let tokens = leader.propose_all(&[command.as_str(); 5]);
    let refused: Vec<_> = tokens.iter().map(|token| leader.refusal(*token)).collect();
    let overloaded = Some(Refusal::Overloaded);
    assert_eq!(refused, [None, None, None, overloaded, overloaded]);
    assert_eq!(leader.last().index.0, 5);
    leader.settle();
    leader.receive(B, matched(2, 5));
    leader.settle();
    assert_eq!(leader.replies, tokens[..3]);
    let token = leader.propose(&command);
    assert_eq!(leader.refusal(token), None);
}

/// PROTOCOL 3: "and what is committed but unapplied".
#[test]
fn a_leader_refuses_what_is_too_much_unapplied() {
    let command = "x".repeat(10_000);
    let config = Config { max_unapplied_bytes: 35_000, ..Config::new(A) };
    let mut leader = Server::settled_leader(config, THREE, &[1]);
    let mut taken = 0;
    for index in 3..20 {
        let token = leader.propose(&command);
        if leader.refusal(token) == Some(Refusal::Overloaded) {
            break;
        }
        taken += 1;
        leader.persist();
        leader.receive(B, matched(2, index));
    }
    assert!(leader.apply.is_some(), "the machine does not come to an end");
    assert!((3..=5).contains(&taken), "{taken} commands were taken for a bound of three");
    leader.settle();
    let token = leader.propose(&command);
    assert_eq!(leader.refusal(token), None, "and it goes on once the machine has caught up");
}

/// PROTOCOL 3, thesis §10.2.2: a turn sends one append to a peer, bounded in bytes, whatever has
/// gathered; the rest follows turn by turn.
#[test]
fn a_turn_sends_one_append_to_a_peer() {
    let config = Config { max_batch_bytes: 100, ..Config::new(A) };
    let mut leader = Server::settled_leader(config, THREE, &[1]);
    leader.propose_all(&["x"; 20]);
    for turn in 0..7 {
        let sent = leader.take_sent();
        let sizes: Vec<usize> = appends(&sent).iter().map(|(_, one)| one.entries.len()).collect();
        let expected = if turn < 6 { 3 } else { 2 };
        assert_eq!(sizes, [expected; 2], "three of 33 bytes fit");
        leader.step(leader.time());
    }
    assert!(leader.take_sent().is_empty());
}
