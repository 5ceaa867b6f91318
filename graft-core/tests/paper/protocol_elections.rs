//! PROTOCOL 2: elections. Pre-vote, check-quorum and stickiness are with the thesis; partial
//! connectivity has tests of its own.

use std::collections::BTreeSet;

use graft_core::{
    AppendEntries, AppendOutcome, Entries, EntryKind, EntryRef, Heartbeat, Index, LogId,
    Membership, Message, NodeId, NodeInfo, Term, VoteRequest,
    raft::{Config, Fatal, Input, RoleName},
};

use crate::common::*;

const FIRST: LogId = LogId::new(1, 1);

/// PROTOCOL 2: "Appends, heartbeats and pre-votes of a lower term are answered with the current
/// term, never dropped".
#[test]
fn what_comes_from_a_lower_term_is_answered_with_the_current_one() {
    for leader in [None, Some(C)] {
        let mut server = Server::start(
            Config::new(A),
            Disk::founded(A, THREE).with_terms(&[1, 3]).in_term(7, None),
        );
        if let Some(leader) = leader {
            server.answers_to(leader, heartbeat(7, 1, 0));
        }
        for message in
            [append(5, FIRST, &[5], 0), heartbeat(5, 3, 0), pre_vote(6, LogId::new(5, 9))]
        {
            let sent = server.answers_to(B, message.clone());
            assert_eq!(sent.len(), 1, "{message:?}");
            assert_eq!((sent[0].0, sent[0].1.term()), (B, Term(7)));
        }
        assert_eq!((server.term(), server.terms()), (Term(7), vec![1, 3]));
    }
}

/// PROTOCOL 2: "a server that came back at a higher term must not deadlock the cluster": it hears
/// the leader's heartbeats, which are of a lower term, and tells it; one election later all are of
/// one term.
#[test]
fn a_server_that_came_back_at_a_higher_term_joins_the_cluster() {
    for nodes in [THREE, FIVE] {
        let mut cluster = Cluster::with(nodes, |node| {
            let disk = Disk::founded(node, nodes);
            (Config::new(node), if node == C { disk.in_term(9, Some(C)) } else { disk })
        });
        cluster.isolate(C);
        cluster.elect(A);
        cluster.propose(A, &["x"]);
        cluster.settle();
        cluster.heal();
        cluster.elapse(240);
        let leader = cluster.leaders()[0];
        assert!(cluster[leader].term() > Term(9));
        for node in nodes {
            assert_eq!(cluster[*node].term(), cluster[leader].term());
            assert_eq!(cluster[*node].applied_commands(), ["x"]);
        }
    }
}

/// PROTOCOL 2: "Votes are given to candidates ... outside one's own configuration", which may lag
/// behind.
#[test]
fn a_candidate_outside_the_own_configuration_gets_a_vote() {
    let mut server = Server::founded(A, THREE);
    assert_eq!(server.answers_to(E, pre_vote(2, FIRST)), [(E, pre_vote_response(2, true))]);
    assert_eq!(server.answers_to(E, request_vote(2, FIRST)), [(E, vote(2, true))]);
}

/// PROTOCOL 2: "appends [are] taken from leaders, outside one's own configuration".
#[test]
fn a_leader_outside_the_own_configuration_is_followed() {
    let mut server = Server::founded(A, THREE);
    let sent = server.answers_to(E, append(2, FIRST, &[2], 2));
    assert!(matches!(&sent[..], [.., (E, Message::AppendEntriesResponse(response))]
        if response.outcome == AppendOutcome::Matched(Index(2))));
    assert_eq!((server.raft().leader(), server.commit()), (Some(E), 2));
}

/// PROTOCOL 2: "Check-quorum slides": it is the quorum-th latest answer that may not be older than
/// one election timeout, not an answer in each of two windows.
#[test]
fn check_quorum_slides() {
    // B answers just before, and C just after, every multiple of the timeout: at any moment one of
    // two answers is young enough.
    let mut leader = Server::settled_leader(Config::new(A), FIVE, &[1]);
    let answer = |round| Message::HeartbeatResponse(heartbeat_response(2, round, 2));
    for _ in 0..20 {
        leader.elapse(58);
        leader.receive(B, answer(0));
        leader.receive(D, answer(0));
        leader.elapse(2);
        assert!(leader.is_leader());
    }
    // From the last answers on, exactly one timeout.
    leader.elapse(58);
    assert!(leader.is_leader());
    leader.elapse(1);
    assert!(!leader.is_leader());
}

/// The disk of a server whose membership is joint: a majority of each half is needed.
fn joint_disk(node: NodeId) -> Disk {
    let mut membership =
        Membership::of_voters(FIVE.iter().map(|voter| (*voter, NodeInfo::default())));
    membership.voters = BTreeSet::from([A, B, C]);
    membership.outgoing = BTreeSet::from([A, D, E]);
    let mut disk = Disk::newborn(node);
    for write in membership.founding_writes() {
        disk.write(&graft_core::raft::WriteBatch { id: Default::default(), writes: vec![write] });
    }
    disk
}

/// PROTOCOL 2: check-quorum is "of voters, in both halves of a joint configuration"; and so are
/// elections and commitment (Raft §6, thesis §4.3).
#[test]
fn in_a_joint_configuration_both_halves_count() {
    let mut server = Server::start(Config::new(A), joint_disk(A));
    server.step(Input::Campaign);
    server.settle();
    for voter in [B, C] {
        server.receive(voter, vote(2, true));
        assert_eq!(server.role(), RoleName::Candidate, "one half is not enough to be elected");
    }
    server.receive(D, vote(2, true));
    assert!(server.is_leader());
    server.settle();
    for peer in [B, C] {
        server.receive(peer, matched(2, 2));
        assert_eq!(server.commit(), 0, "one half is not enough to commit");
    }
    server.receive(E, matched(2, 2));
    assert_eq!(server.commit(), 2);
    server.settle();
    for _ in 0..2 {
        server.elapse(30);
        assert!(server.is_leader());
        for peer in [B, C] {
            server.receive(peer, matched(2, 2));
        }
    }
    server.elapse(1);
    assert!(!server.is_leader(), "one half is not enough to stay");
}

/// PROTOCOL 2: learners do not count towards the quorum that must answer.
#[test]
fn learners_do_not_count() {
    let mut disk = Disk::newborn(A);
    let mut membership =
        Membership::of_voters(FIVE.iter().map(|voter| (*voter, NodeInfo::default())));
    membership.voters = BTreeSet::from([A, B, C]);
    membership.learners = BTreeSet::from([D, E]);
    for write in membership.founding_writes() {
        disk.write(&graft_core::raft::WriteBatch { id: Default::default(), writes: vec![write] });
    }
    let mut server = Server::start(Config::new(A), disk);
    server.step(Input::Campaign);
    server.settle();
    assert_eq!(asked_for_votes(&server.take_sent()), [B, C]);
    for learner in [D, E] {
        server.receive(learner, vote(2, true));
    }
    assert!(!server.is_leader());
    server.receive(B, vote(2, true));
    server.settle();
    for learner in [D, E] {
        server.receive(learner, matched(2, 2));
    }
    assert_eq!(server.commit(), 0);
    for _ in 0..60 {
        server.elapse(1);
        for learner in [D, E] {
            server.receive(learner, matched(2, 2));
        }
    }
    assert!(server.is_leader());
    server.elapse(1);
    assert!(!server.is_leader());
}

/// PROTOCOL 2: "A blank entry opens each term". Its payload is the leader's wall clock, which
/// decides nothing.
#[test]
fn a_blank_entry_opens_each_term() {
    let mut cluster = Cluster::of(THREE);
    for leader in [A, B, C, A] {
        cluster.elapse(31);
        cluster.transfer(cluster.leaders().first().copied().unwrap_or(leader), leader);
        cluster.settle();
        if cluster.leaders() != [leader] {
            cluster.campaign(leader);
            cluster.settle();
        }
    }
    cluster.elapse(10);
    let blanks = |node| {
        let applied = cluster[node].applied.iter();
        applied.filter(|e| e.kind == EntryKind::Blank).map(|e| e.log_id.term.0).collect::<Vec<_>>()
    };
    let terms: BTreeSet<u64> = cluster[A].terms().into_iter().filter(|term| *term > 1).collect();
    assert!(terms.len() >= 3);
    assert_eq!(blanks(A), terms.into_iter().collect::<Vec<_>>());
}

/// PROTOCOL 2: "A term more than 2^32 ahead ... is malformed": it is dropped and counted, and so no
/// peer can use up the terms. One exactly that far ahead is not.
#[test]
fn a_term_too_far_ahead_is_malformed() {
    let leap = 1 << 32;
    let make: [fn(u64) -> Message; 5] = [
        |term| append(term, FIRST, &[], 0),
        |term| heartbeat(term, 1, 0),
        |term| request_vote(term, FIRST),
        |term| vote(term, false),
        |term| pre_vote_response(term, false),
    ];
    for make in make {
        let mut server = Server::founded(A, THREE);
        assert!(server.answers_to(B, make(1 + leap + 1)).is_empty());
        assert_eq!((server.term().0, server.status().counters.malformed), (1, 1));
        server.receive(B, make(1 + leap));
        assert_eq!((server.term().0, server.status().counters.malformed), (1 + leap, 1));
    }
}

/// PROTOCOL 2: "a term ... at or above 2^62, is malformed", wherever it is stated.
#[test]
fn a_term_at_or_above_2_to_62_is_malformed() {
    let limit = Term::LIMIT.0;
    let near = Disk::founded(A, THREE).in_term(limit - 2, None);
    let mut server = Server::start(Config::new(A), near);
    for message in [heartbeat(limit, 1, 0), pre_vote(limit, FIRST), request_vote(limit, FIRST)] {
        server.answers_to(B, message);
    }
    assert_eq!((server.term().0, server.status().counters.malformed), (limit - 2, 3));
    server.answers_to(B, heartbeat(limit - 1, 1, 0));
    assert_eq!(server.term().0, limit - 1);
}

/// PROTOCOL 2: "a[n] ... index at or above 2^62, is malformed", in whatever field: the message is
/// dropped and counted, and nothing else happens; least of all does the server come down.
#[test]
fn an_index_at_or_above_2_to_62_is_malformed_wherever_it_stands() {
    for index in [Index::LIMIT.0, u64::MAX - 1, u64::MAX] {
        let far = LogId::new(1, index);
        let mut huge_checkpoint = Heartbeat::new(Term(2), 1);
        huge_checkpoint.checksum =
            Some(graft_core::Checkpoint { index: Index(index), checksum: 0 });
        let mut applied_far = heartbeat_response(2, 1, 1);
        applied_far.applied = Index(index);
        let mut entries: Vec<graft_core::Entry> =
            entries_after(FIRST, &[2]).iter().map(EntryRef::to_entry).collect();
        entries[0].log_id.index = Index(index);
        let entry = entries.remove(0);
        let to_follower = [
            append(2, far, &[], 0),
            append(2, FIRST, &[2], index),
            Message::AppendEntries(AppendEntries {
                term: Term(2),
                prev: LogId::new(1, index - 1),
                commit: Index(0),
                round: 1,
                entries: Entries::from(vec![entry.clone()]),
            }),
            Message::AppendEntries(AppendEntries {
                term: Term(2),
                prev: far,
                commit: Index(0),
                round: 1,
                entries: Entries::from(vec![entry]),
            }),
            heartbeat(2, 1, index),
            Message::Heartbeat(huge_checkpoint),
            request_vote(2, far),
            pre_vote(2, far),
        ];
        for message in to_follower {
            let mut server = Server::founded(A, THREE);
            let mut expected = server.status();
            expected.counters.malformed = 1;
            assert!(server.answers_to(B, message.clone()).is_empty(), "{message:?}");
            assert_eq!(server.status(), expected, "{message:?}");
        }
        let to_leader = [
            matched(2, index),
            conflict(2, index, FIRST),
            conflict(2, 2, far),
            Message::HeartbeatResponse(heartbeat_response(2, 1, index)),
            Message::HeartbeatResponse(applied_far),
        ];
        for message in to_leader {
            let mut leader = Server::leader(A, THREE, &[1]);
            let mut expected = leader.status();
            expected.counters.malformed = 1;
            leader.receive(B, message.clone());
            assert_eq!(leader.status(), expected, "{message:?}");
        }
    }
}

/// PROTOCOL 2: what contradicts itself is malformed too.
#[test]
fn messages_that_contradict_themselves_are_dropped() {
    let gap = Message::AppendEntries(AppendEntries {
        term: Term(2),
        prev: FIRST,
        commit: Index(0),
        round: 1,
        entries: entries_after(LogId::new(1, 5), &[2]),
    });
    let vote_of_term = |term, last| VoteRequest { term: Term(term), last, transfer: false };
    let contradictions = [
        (gap, "entries that do not follow prev"),
        (append(2, LogId::new(3, 3), &[], 0), "a predecessor of a later term"),
        (append(2, FIRST, &[3], 0), "an entry of a later term"),
        (append(2, LogId::new(2, 3), &[1], 0), "a term that falls"),
        (append(2, LogId::new(1, 0), &[2], 0), "a term before the first entry"),
        (append(2, LogId::new(0, 1), &[2], 0), "an entry of no term"),
        (append(0, LogId::ZERO, &[], 0), "term 0, which is before any"),
        (Message::RequestVote(vote_of_term(2, LogId::new(2, 9))), "a log as late as the campaign"),
        (Message::PreVote(vote_of_term(2, LogId::new(7, 9))), "a log later than the campaign"),
        (request_vote(2, LogId::new(1, 0)), "a last entry before the first"),
    ];
    for (message, why) in contradictions {
        let mut server = Server::founded(A, THREE);
        let mut expected = server.status();
        expected.counters.malformed = 1;
        assert!(server.answers_to(B, message).is_empty(), "{why}");
        assert_eq!(server.status(), expected, "{why}");
    }
    let mut more_than_received = heartbeat_response(2, 1, 2);
    more_than_received.received = Index(1);
    let contradictions = [
        (matched(2, 3), "more than the leader has"),
        (conflict(2, 2, LogId::new(1, 3)), "a hint above what was refused"),
        (Message::HeartbeatResponse(more_than_received), "durable, but not received"),
        (Message::HeartbeatResponse(heartbeat_response(2, 9, 1)), "a round that never was"),
        (Message::HeartbeatResponse(heartbeat_response(2, 1, 3)), "more than the leader has"),
    ];
    for (message, why) in contradictions {
        let mut leader = Server::leader(A, THREE, &[1]);
        let mut expected = leader.status();
        expected.counters.malformed = 1;
        leader.receive(B, message);
        assert_eq!(leader.status(), expected, "{why}");
    }
}

/// PROTOCOL 2: "A leader's entry that conflicts at or below `commit_index` is evidence of loss: the
/// node stops with `CommittedConflict { index }`, loudly; it neither ignores nor overwrites."
#[test]
fn an_entry_that_contradicts_a_committed_one_stops_the_server() {
    let cases = [
        (append(3, LogId::new(2, 2), &[3], 0), 3, "the last committed entry"),
        (append(3, FIRST, &[3, 3, 3], 0), 2, "one in the middle"),
        (append(3, LogId::new(3, 3), &[3], 0), 3, "the predecessor is another one"),
    ];
    for (message, index, why) in cases {
        let mut server = Server::founded(A, THREE);
        server.answers_to(B, append(2, FIRST, &[2, 2, 2], 3));
        assert_eq!(server.commit(), 3);
        server.receive(C, message);
        let expected = Fatal::CommittedConflict { index: Index(index), term: Term(3) };
        assert_eq!(server.fatal, Some(expected), "{why}");
        assert_eq!(server.terms(), [1, 2, 2, 2], "{why}: nothing is overwritten");
        let before = server.status();
        server.take_sent();
        server.answers_to(C, heartbeat(4, 1, 4));
        server.jump(100);
        assert_eq!(server.status(), before, "it stands still");
        assert!(server.take_sent().is_empty(), "and says nothing more");
    }
}

/// PROTOCOL 2: right behind the committed entries a conflict is Raft's daily business.
#[test]
fn an_entry_that_contradicts_an_uncommitted_one_replaces_it() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2, 2, 2], 3));
    server.answers_to(C, append(3, LogId::new(2, 3), &[3, 3], 3));
    assert_eq!(server.fatal, None);
    assert_eq!(server.terms(), [1, 2, 2, 3, 3]);
}

/// PROTOCOL 2: two leaders in one term are proof that a vote was given twice: the server that sees
/// both stops.
#[test]
fn two_leaders_in_one_term_stop_the_server_that_sees_both() {
    let mut server = Server::founded(A, FIVE);
    server.answers_to(B, heartbeat(2, 1, 0));
    server.receive(C, append(2, FIRST, &[2], 2));
    assert_eq!(server.fatal, Some(Fatal::TwoLeaders { term: Term(2), one: B, other: C }));
    assert_eq!(server.last(), FIRST);
}

/// PROTOCOL 6, as far as elections go: a founder votes and campaigns once its store holds the
/// founding.
#[test]
fn a_server_without_a_membership_neither_votes_nor_campaigns() {
    let mut server = Server::start(Config::new(A), Disk::newborn(A));
    server.jump(60);
    server.step(Input::Campaign);
    assert_eq!((server.role(), server.term()), (RoleName::Follower, Term(0)));
    assert_eq!(server.answers_to(B, request_vote(2, FIRST)), [(B, vote(2, false))]);
}
