//! Raft §8: client interaction. Sessions are tested with the session table, reads come with reads.

use graft_core::{
    EntryKind, LogId,
    raft::{Config, Refusal},
};

use crate::common::*;

/// Raft §8: "If the client's first choice is not the leader, that server will reject the client's
/// request and supply information about the most recent leader it has heard from".
#[test]
fn a_server_that_does_not_lead_refuses_and_names_the_leader() {
    let mut server = Server::founded(A, THREE);
    let token = server.propose("x");
    assert_eq!(server.refusal(token), Some(Refusal::NotLeader { leader: None }));
    server.receive(B, heartbeat(2, 1, 0));
    let token = server.propose("x");
    assert_eq!(server.refusal(token), Some(Refusal::NotLeader { leader: Some(B) }));
    assert_eq!(server.last(), LogId::new(1, 1), "it never entered the log");
}

/// Raft §8: a server that asks for votes knows no leader and takes no commands.
#[test]
fn a_candidate_refuses_commands() {
    let mut server = Server::founded(A, THREE);
    server.receive(B, heartbeat(2, 1, 0));
    server.jump(60);
    let token = server.propose("x");
    assert_eq!(server.refusal(token), Some(Refusal::NotLeader { leader: None }));
}

/// Raft §8: a leader must "commit a blank no-op entry into the log at the start of its term", which
/// is how it finds out which entries of older terms are committed.
#[test]
fn a_leader_begins_its_term_with_a_blank_entry() {
    let mut leader = Server::leader(A, THREE, &[1, 2, 2]);
    assert_eq!(leader.last(), LogId::new(3, 4));
    leader.receive(B, matched(3, 4));
    leader.settle();
    assert_eq!(leader.applied.last().map(|entry| entry.kind), Some(EntryKind::Blank));
    assert_eq!(leader.applied.len(), 4, "the older entries are committed with it");
}

/// Raft §8: "If the leader crashes [or is deposed], client requests will time out": here they are
/// told that the outcome is not known, and who leads now.
#[test]
fn a_deposed_leader_tells_those_who_wait_that_it_does_not_know() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    let tokens = leader.propose_all(&["x", "y"]);
    leader.receive(B, append(3, LogId::new(2, 2), &[3], 2));
    for token in tokens {
        assert_eq!(leader.refusal(token), Some(Refusal::LeadershipLost { leader: Some(B) }));
    }
    leader.settle();
    assert!(leader.replies.is_empty(), "nobody is answered twice");
}

/// Raft §8: an answer is given once, and only by the server that took the command.
#[test]
fn a_command_is_answered_once_by_the_server_that_took_it() {
    let mut cluster = Cluster::led(THREE);
    let tokens = cluster.propose(A, &["x", "y", "z"]);
    cluster.settle();
    cluster.heartbeat(A);
    assert_eq!(cluster[A].replies, tokens);
    for node in [B, C] {
        assert_eq!(cluster[node].applied_commands(), ["x", "y", "z"]);
        assert!(cluster[node].replies.is_empty());
    }
}

/// Raft §8: a command that was accepted and then lost to another leader's entry is not answered as
/// done.
#[test]
fn a_command_that_was_overwritten_is_never_answered_as_done() {
    let mut cluster = Cluster::led(THREE);
    cluster.isolate(A);
    let token = cluster.propose(A, &["lost"])[0];
    cluster.settle();
    cluster.jump(B, 60);
    cluster.jump(C, 30);
    cluster.settle();
    if cluster.leaders() == [A] {
        cluster.jump(B, 60);
        cluster.settle();
    }
    cluster.propose(B, &["kept"]);
    cluster.settle();
    cluster.heal();
    cluster.heartbeat(B);
    cluster.heartbeat(B);
    assert_eq!(cluster[A].applied_commands(), ["kept"]);
    assert!(cluster[A].replies.is_empty());
    assert!(matches!(cluster[A].refusal(token), Some(Refusal::LeadershipLost { .. })));
}
