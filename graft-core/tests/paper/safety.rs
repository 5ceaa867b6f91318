//! Raft §5.4: the election restriction, committing entries from previous terms, and the safety
//! argument.

use graft_core::{
    LogId,
    raft::{Config, RoleName},
};

use crate::common::*;

/// Raft §5.4.1: "If the logs have last entries with different terms, then the log with the later
/// term is more up-to-date. If the logs end with the same term, then whichever log is longer".
#[test]
fn a_vote_is_given_only_to_a_log_at_least_as_up_to_date() {
    let cases = [
        (LogId::new(3, 4), true, "the same log"),
        (LogId::new(3, 5), true, "longer in the same term"),
        (LogId::new(4, 2), true, "of a later term, if shorter"),
        (LogId::new(3, 3), false, "shorter in the same term"),
        (LogId::new(2, 9), false, "of an older term, if longer"),
        (LogId::ZERO, false, "empty"),
    ];
    for (last, granted, why) in cases {
        let mut voter = Server::with_terms(A, THREE, &[1, 2, 3, 3]);
        assert_eq!(voter.answers_to(B, request_vote(5, last)), [(B, vote(5, granted))], "{why}");
        let mut voter = Server::with_terms(A, THREE, &[1, 2, 3, 3]);
        let term = if granted { 5 } else { 3 };
        let sent = voter.answers_to(B, pre_vote(5, last));
        assert_eq!(sent, [(B, pre_vote_response(term, granted))], "{why}, asked before the vote");
    }
}

/// Raft §5.4.1: the vote is about the log as it is, not as far as it is durable: what was
/// acknowledged is in it, and what was not does no harm.
#[test]
fn the_log_a_vote_compares_is_all_of_the_log() {
    let mut voter = Server::founded(A, THREE);
    voter.answers_to(B, heartbeat(2, 1, 0));
    voter.receive(B, append(2, LogId::new(1, 1), &[2, 2], 0));
    voter.jump(60);
    voter.take_sent();
    voter.receive(C, request_vote(4, LogId::new(2, 2)));
    voter.settle();
    assert!(voter.take_sent_to(C).contains(&vote(4, false)));
}

/// Raft §5.4.1: "Raft uses the voting process to prevent a candidate from winning an election
/// unless its log contains all committed entries."
#[test]
fn a_server_without_a_committed_entry_is_not_elected() {
    let mut cluster = Cluster::led(FIVE);
    cluster.isolate(E);
    cluster.propose(A, &["x"]);
    cluster.settle();
    cluster.heal();
    cluster.crash(A);
    for _ in 0..5 {
        for node in [B, C, D] {
            cluster.jump(node, 30);
        }
        cluster.campaign(E);
        cluster.settle();
        assert_ne!(cluster[E].role(), RoleName::Leader);
    }
    cluster.jump(B, 60);
    cluster.settle();
    assert_eq!(cluster.leaders().len(), 1);
    assert_ne!(cluster.leaders(), [E]);
}

/// Raft §5.4.2: "Raft never commits log entries from previous terms by counting replicas. Only log
/// entries from the leader's current term are committed by counting replicas; once an entry from
/// the current term has been committed in this way, then all prior entries are committed
/// indirectly".
#[test]
fn an_entry_of_an_older_term_is_not_committed_by_counting() {
    let mut leader = Server::leader(A, FIVE, &[1, 2, 2]);
    for voter in [B, C, D, E] {
        leader.receive(voter, matched(3, 3));
    }
    assert_eq!(leader.commit(), 0, "all five hold the entries of term 2");
    leader.receive(B, matched(3, 4));
    assert_eq!(leader.commit(), 0);
    leader.receive(C, matched(3, 4));
    assert_eq!(leader.commit(), 4);
}

/// Figure 8 up to (c). S1 led term 2 and replicated entry 2 on S2; S5 led term 3 and has another
/// entry 2; now S1 leads term 4 and replicates the entry of term 2 on S3, too: a majority has it.
fn figure_8_c() -> Cluster {
    let mut cluster = Cluster::with(FIVE, |node| {
        // One entry a message, so that the leader can crash between two.
        let config = Config { max_batch_bytes: 1, pre_vote: false, ..Config::new(node) };
        let founded = Disk::founded(node, FIVE);
        let disk = match node {
            A | B => founded.with_terms(&[1, 2]).in_term(3, None),
            E => founded.with_terms(&[1, 3]).in_term(3, Some(E)),
            _ => founded.in_term(3, Some(E)),
        };
        (config, disk)
    });
    cluster.isolate(D);
    cluster.isolate(E);
    cluster.campaign(A);
    cluster.persist(A);
    for voter in [B, C] {
        cluster.deliver(A, voter);
        cluster.persist(voter);
        cluster.deliver(voter, A);
    }
    cluster.persist(A);
    assert!(cluster[A].is_leader() && cluster[A].terms() == [1, 2, 4]);
    // S2's disk does not get as far as the entry of term 4, S3's as the message that brings it.
    for _ in 0..3 {
        cluster.deliver(A, B);
        cluster.deliver(B, A);
        cluster.load(A);
        if !cluster[C].disk.holds(LogId::new(2, 2)) {
            cluster.deliver(A, C);
            cluster.persist(C);
            cluster.deliver(C, A);
        }
    }
    cluster
}

/// S1 crashes, and with it what was on its way; S2 and S3 forget whom they followed.
fn crash_s1(cluster: &mut Cluster) {
    cluster.crash(A);
    for node in [B, C] {
        cluster.drop_wire(A, node);
        cluster.drop_wire(node, A);
        cluster.crash(node);
        cluster.restart(node);
    }
    cluster.heal();
}

/// Raft Figure 8 (c) and (d): an entry of an older term on a majority is not committed, and may be
/// overwritten by a leader that does not have it.
#[test]
fn figure_8_d_an_entry_on_a_majority_may_still_be_overwritten() {
    let mut cluster = figure_8_c();
    for node in [A, B, C] {
        assert!(cluster[node].disk.holds(LogId::new(2, 2)), "entry 2 of term 2 is on a majority");
    }
    for peer in [B, C] {
        assert_eq!(cluster[A].peer(peer).match_index.0, 2, "and S1 knows it");
        assert_eq!(cluster[peer].disk.terms(), [1, 2]);
    }
    assert_eq!(cluster[A].commit(), 0, "but it is not committed");
    crash_s1(&mut cluster);
    for _ in 0..2 {
        cluster.campaign(E);
        cluster.settle();
    }
    assert!(cluster[E].is_leader(), "elected by S2, S3 and S4");
    cluster.heartbeat(E);
    for node in [B, C, D, E] {
        assert_eq!(cluster[node].disk.terms(), [1, 3, 5]);
        assert_eq!(cluster[node].commit(), 3);
    }
}

/// Raft Figure 8 (e): once an entry of the leader's own term is on a majority, the older one before
/// it is committed too, and S5 cannot be elected any more.
#[test]
fn figure_8_e_an_entry_of_the_own_term_commits_the_older_one() {
    let mut cluster = figure_8_c();
    cluster.settle();
    assert_eq!(cluster[A].commit(), 3, "S1's own entry is on a majority");
    crash_s1(&mut cluster);
    for _ in 0..4 {
        cluster.campaign(E);
        cluster.settle();
        assert!(!cluster[E].is_leader(), "a majority holds entries that S5 lacks");
    }
}

/// Raft §5.4.3, Figure 3 state machine safety: "if a server has applied a log entry at a given
/// index to its state machine, no other server will ever apply a different log entry for the same
/// index". Leaders crash between replicating and telling; the audit compares every machine.
#[test]
fn all_machines_apply_the_same_entries_in_the_same_order() {
    let mut cluster = Cluster::led(THREE);
    for round in 0..30 {
        let Some(leader) = cluster.leaders().first().copied() else {
            cluster.elapse(10);
            continue;
        };
        cluster.propose(leader, &[&format!("first {round}"), &format!("second {round}")]);
        for _ in 0..round % 5 {
            cluster.deliver_all();
            for node in THREE {
                cluster.persist(*node);
            }
        }
        cluster.crash(leader);
        cluster.elapse(120);
        cluster.restart(leader);
        cluster.elapse(120);
    }
    cluster.elapse(20);
    let commands = cluster[A].applied_commands();
    assert!(commands.len() >= 20, "most of it was applied: {}", commands.len());
    assert_eq!(cluster[B].applied_commands(), commands);
    assert_eq!(cluster[C].applied_commands(), commands);
}

/// Raft §5.4.3: what is committed survives every later election, here with the bare majority that
/// committed it.
#[test]
fn a_committed_entry_survives_the_leader_that_committed_it() {
    let mut cluster = Cluster::led(FIVE);
    cluster.isolate(D);
    cluster.isolate(E);
    cluster.propose(A, &["x"]);
    cluster.settle();
    assert_eq!(cluster[A].applied_commands(), ["x"]);
    cluster.crash(A);
    cluster.heal();
    cluster.elapse(240);
    let leaders = cluster.leaders();
    assert!(leaders == [B] || leaders == [C], "only they have it: {leaders:?}");
    for node in [B, C, D, E] {
        assert_eq!(cluster[node].applied_commands(), ["x"]);
    }
}

/// Raft §5.4.3, leader completeness: a leader's log holds every entry committed in earlier terms
/// the moment it is elected, before it has heard from anyone.
#[test]
fn a_new_leader_already_holds_what_was_committed() {
    let mut cluster = Cluster::led(THREE);
    cluster.propose(A, &["x", "y"]);
    cluster.settle();
    cluster.isolate(A);
    for node in [B, C] {
        cluster.jump(node, 30);
    }
    cluster.campaign(B);
    cluster.settle();
    assert!(cluster[B].is_leader());
    assert!(cluster[B].terms().starts_with(&[1, 2, 2, 2]));
}
