//! Raft §5.3: log replication; Figure 2, "AppendEntries RPC" and the rules for leaders.

use graft_core::{
    AppendOutcome, EntryKind, LogId, Message,
    raft::{Config, Fatal},
};

use crate::common::*;

const FIRST: LogId = LogId::new(1, 1);

/// A leader of term 2 with entry 2, its blank one, acknowledged by all.
fn leader() -> Server {
    Server::settled_leader(Config::new(A), THREE, &[1])
}

/// Raft §5.3: "The leader appends the command to its log as a new entry, then issues AppendEntries
/// RPCs in parallel to each of the other servers"; an entry stores the command and "the term number
/// when the entry was received by the leader", and its index.
#[test]
fn a_leader_appends_a_command_and_sends_it_to_all_at_once() {
    let mut leader = leader();
    leader.propose("x");
    assert_eq!(leader.last(), LogId::new(2, 3));
    let sent = leader.take_sent();
    let appends = appends(&sent);
    assert_eq!(appends.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [B, C]);
    for (_, append) in appends {
        assert_eq!((append.term.0, append.prev), (2, LogId::new(2, 2)));
        let entry = append.entries.first().expect("the entry");
        assert_eq!((entry.log_id, entry.kind), (LogId::new(2, 3), EntryKind::Plain));
        assert_eq!((entry.payload, append.entries.len()), (&b"x"[..], 1));
    }
}

/// Raft §5.3: "When the entry has been safely replicated, the leader applies the entry to its state
/// machine and returns the result": not before a majority stores it.
#[test]
fn a_command_is_applied_and_answered_once_a_majority_stores_it() {
    let mut leader = Server::settled_leader(Config::new(A), FIVE, &[1]);
    let token = leader.propose("x");
    leader.settle();
    leader.receive(B, matched(2, 3));
    leader.settle();
    assert_eq!((leader.commit(), leader.applied.len()), (2, 2), "two of five are no majority");
    leader.receive(C, matched(2, 3));
    leader.settle();
    assert_eq!((leader.commit(), leader.applied.len()), (3, 3));
    assert_eq!((leader.replies.last(), leader.refusal(token)), (Some(&token), None));
}

/// Raft §5, end of Figure 2's text: "a minority of slow servers need not impact overall system
/// performance": the fast majority commits in one round.
#[test]
fn a_slow_minority_does_not_hold_up_a_command() {
    let mut cluster = Cluster::led(FIVE);
    cluster.isolate(D);
    cluster.hold_disk(E);
    cluster.propose(A, &["x"]);
    cluster.settle();
    assert_eq!(cluster[A].applied_commands(), ["x"]);
}

/// Raft §5.3: "the leader retries AppendEntries RPCs indefinitely (even after it has responded to
/// the client) until all followers eventually store all log entries."
#[test]
fn what_a_follower_misses_is_sent_until_it_has_it() {
    let mut cluster = Cluster::led(THREE);
    cluster.hold_wire(A, C);
    cluster.propose(A, &["x"]);
    cluster.settle();
    assert_eq!(cluster[A].applied_commands(), ["x"], "answered without C");
    for _ in 0..20 {
        cluster.drop_wire(A, C);
        cluster.heartbeat(A);
        assert_eq!(cluster[C].last(), LogId::new(2, 2));
    }
    cluster.release_wires();
    for _ in 0..4 {
        cluster.heartbeat(A);
    }
    assert_eq!(cluster[C].applied_commands(), ["x"]);
}

/// Raft §5.3: an entry is committed "once the leader that created the entry has replicated it on a
/// majority"; this "also commits all preceding entries in the leader's log, including entries
/// created by previous leaders".
#[test]
fn committing_an_entry_commits_all_before_it() {
    let mut leader = Server::leader(A, THREE, &[1, 1, 2, 3]);
    assert_eq!(leader.commit(), 0);
    leader.receive(B, matched(4, 5));
    assert_eq!(leader.commit(), 5);
    leader.settle();
    assert_eq!(leader.applied.len(), 5);
}

/// Raft §5.3: "The leader keeps track of the highest index it knows to be committed, and it
/// includes that index in future AppendEntries RPCs (including heartbeats)".
#[test]
fn the_commit_index_travels_with_appends_and_heartbeats() {
    let mut leader = leader();
    leader.propose("x");
    assert_eq!(appends(&leader.take_sent())[0].1.commit.0, 2);
    leader.settle();
    leader.receive(B, matched(2, 3));
    leader.receive(C, matched(2, 3));
    leader.propose("y");
    assert_eq!(appends(&leader.take_sent())[0].1.commit.0, 3);
    leader.jump(5);
    assert_eq!(heartbeats(&leader.take_sent())[0].1.commit.0, 3);
}

/// Raft §5.3: "Once a follower learns that a log entry is committed, it applies the entry to its
/// local state machine (in log order)."
#[test]
fn a_follower_applies_in_log_order_what_it_learns_to_be_committed() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2, 2, 2], 1));
    assert_eq!(server.applied.len(), 1);
    server.answers_to(B, heartbeat(2, 1, 3));
    assert_eq!(server.applied_commands(), ["2@2", "3@2"]);
    server.answers_to(B, append(2, LogId::new(2, 4), &[], 4));
    assert_eq!(server.applied_commands(), ["2@2", "3@2", "4@2"]);
}

/// Figure 2, AppendEntries 2: "reply false if log doesn't contain an entry at prevLogIndex whose
/// term matches prevLogTerm": where it is missing, and where it is another one.
#[test]
fn an_append_is_refused_where_its_predecessor_is_not_in_the_log() {
    for prev in [LogId::new(2, 5), LogId::new(2, 3)] {
        let mut server = Server::with_terms(A, THREE, &[1, 1, 1]);
        let sent = server.answers_to(B, append(2, prev, &[2], 0));
        let refused = conflict(2, prev.index.0, LogId::new(1, prev.index.0.min(4) - 1));
        assert_eq!(words(&sent), words(&[(B, refused)]));
        assert_eq!(server.terms(), [1, 1, 1], "nothing is appended and nothing is lost");
    }
}

/// Without the round, which answers repeat.
fn words(sent: &[(graft_core::NodeId, Message)]) -> Vec<String> {
    sent.iter().map(|(to, message)| format!("{to} {}", message_words(message))).collect()
}

/// Figure 2, AppendEntries 3: "If an existing entry conflicts with a new one (same index but
/// different terms), delete the existing entry and all that follow it"; 4: "append any new
/// entries".
#[test]
fn a_conflicting_entry_goes_with_all_that_follow_it() {
    let mut server = Server::with_terms(A, THREE, &[1, 1, 2, 2, 2]);
    server.answers_to(B, append(3, LogId::new(1, 2), &[3], 0));
    assert_eq!(server.terms(), [1, 1, 3]);
    assert_eq!(server.disk.terms(), [1, 1, 3]);
    server.restart();
    assert_eq!(server.terms(), [1, 1, 3]);
}

/// Figure 2, AppendEntries 3 and 4: what is in the log already is neither deleted nor appended
/// again, so an append that comes late or twice, or brings less than there is, changes nothing.
#[test]
fn entries_that_are_there_already_stay() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2, 2, 2], 0));
    for terms in [&[2, 2, 2][..], &[2], &[]] {
        server.receive(B, append(2, FIRST, terms, 0));
        assert_eq!(server.terms(), [1, 2, 2, 2]);
        assert!(server.write.is_none(), "there is nothing to write");
    }
    server.answers_to(B, append(2, LogId::new(2, 2), &[2, 2, 2], 0));
    assert_eq!(server.terms(), [1, 2, 2, 2, 2], "only the news is appended");
}

/// Figure 2, AppendEntries 5: "set commitIndex = min(leaderCommit, index of last new entry)".
#[test]
fn a_follower_commits_no_further_than_the_last_new_entry() {
    let mut server = Server::with_terms(A, THREE, &[1, 1, 1, 1]);
    server.receive(B, append(2, FIRST, &[1], 9));
    assert_eq!(server.commit(), 2, "entries 3 and 4 may not be the leader's");
}

/// Raft §5.3, Figure 3 leader append-only: "a leader never overwrites or deletes entries in its
/// log; it only appends". Another leader of its term would be proof of a vote given twice, and
/// stops it.
#[test]
fn a_leader_only_appends_to_its_own_log() {
    let mut leader = Server::leader(A, THREE, &[1, 1, 2]);
    let answers = [
        conflict(3, 3, LogId::ZERO),
        matched(3, 1),
        append_response(3, AppendOutcome::StaleTerm),
        Message::HeartbeatResponse(heartbeat_response(3, 1, 0)),
        vote(3, false),
        append(2, FIRST, &[2], 2),
    ];
    for answer in answers {
        leader.answers_to(B, answer);
        assert_eq!(leader.terms(), [1, 1, 2, 3]);
    }
    leader.receive(B, append(3, FIRST, &[3], 0));
    assert!(matches!(leader.fatal, Some(Fatal::TwoLeaders { .. })));
    assert_eq!(leader.terms(), [1, 1, 2, 3]);
}

/// Raft §5.3, Figure 2 leaders: "If AppendEntries fails because of log inconsistency: decrement
/// nextIndex and retry", which happens at once, not with the next heartbeat.
#[test]
fn a_refused_append_is_tried_again_further_back_at_once() {
    let mut leader = Server::leader(A, THREE, &[1, 1, 2, 2]);
    assert_eq!(leader.peer(B).next_index.0, 5);
    // The older entries are on the leader's disk alone, so each step costs a read, and no waiting.
    leader.receive(B, conflict(3, 4, LogId::new(2, 3)));
    leader.settle();
    let sent = leader.take_sent();
    let (to, append) = appends(&sent)[0];
    assert_eq!((to, append.prev), (B, LogId::new(2, 3)));
    leader.receive(B, conflict(3, 3, LogId::new(1, 2)));
    leader.settle();
    let sent = leader.take_sent();
    assert_eq!(appends(&sent)[0].1.prev, LogId::new(1, 2));
}

/// Raft §5.3, Figure 2 leaders: "If successful: update nextIndex and matchIndex for follower".
#[test]
fn a_successful_append_moves_next_and_match_index() {
    let mut leader = Server::leader(A, THREE, &[1, 1, 2, 2]);
    leader.receive(B, matched(3, 5));
    assert_eq!((leader.peer(B).next_index.0, leader.peer(B).match_index.0), (6, 5));
    assert!(!leader.peer(B).probing);
    leader.propose("x");
    let sent = leader.take_sent();
    assert_eq!(appends(&sent)[0].1.prev, LogId::new(3, 5), "only the news is sent");
}

/// Raft §5.3, Figure 2 leaders: "If last log index >= nextIndex for a follower: send AppendEntries
/// RPC with log entries starting at nextIndex"; where there is nothing, nothing is sent.
#[test]
fn nothing_is_sent_where_there_is_nothing_to_send() {
    let mut leader = leader();
    leader.elapse(4);
    leader.receive(B, matched(2, 2));
    leader.settle();
    assert!(leader.take_sent().is_empty());
}

/// Raft §5.3, Figure 7: whatever a follower's log holds, the leader's consistency check finds "the
/// latest log entry where the two logs agree", and the logs become the same. Cases (a) to (f).
#[test]
fn every_follower_of_figure_7_ends_with_the_leaders_log() {
    let leaders = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let mut cluster = Cluster::with(SEVEN, |node| {
        let at = usize::try_from(node.0).expect("small");
        let terms = at.checked_sub(2).map_or(&leaders[..], |at| followers[at]);
        (Config::new(node), Disk::founded(node, SEVEN).with_terms(terms).in_term(7, None))
    });
    cluster.elect(A);
    for node in SEVEN {
        assert_eq!(cluster[*node].terms(), [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8]);
        assert_eq!(cluster[*node].disk.terms(), [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8]);
        assert_eq!(cluster[*node].applied.len(), 11);
    }
}

/// Raft §5.3, log matching: "If two entries in different logs have the same index and term, then
/// they store the same command" and "the logs are identical in all preceding entries". Leaders
/// change while half of the messages are lost; the logs are compared after each.
#[test]
fn logs_that_agree_on_an_entry_agree_on_all_before_it() {
    let mut cluster = Cluster::led(FIVE);
    for round in 0..60_usize {
        let leader = FIVE[round * 7 % 5];
        for node in FIVE {
            cluster.jump(*node, 30);
        }
        cluster.isolate(FIVE[(round * 3 + 1) % 5]);
        cluster.isolate(FIVE[round * 2 % 5]);
        cluster.campaign(leader);
        cluster.propose(leader, &["before"]);
        cluster.settle();
        cluster.propose(leader, &["after"]);
        cluster.deliver_all();
        for node in FIVE {
            cluster.persist(*node);
        }
        cluster.heal();
        for (one, other) in FIVE.iter().zip(&FIVE[1..]) {
            let (one, other) = (&cluster[*one].disk, &cluster[*other].disk);
            let pairs = || one.entries.iter().zip(&other.entries);
            let agree = pairs().rposition(|(one, other)| one.log_id == other.log_id);
            assert!(pairs().take(agree.map_or(0, |at| at + 1)).all(|(one, other)| one == other));
        }
    }
    assert!(cluster.audit().committed() > 10, "something was committed in between");
}
