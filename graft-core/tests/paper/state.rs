//! Raft Figure 2, "State".

use graft_core::{
    LogId,
    raft::{Config, Input},
};

use crate::common::*;

/// Raft Figure 2: `currentTerm` and the indexes are "initialized to 0 on first boot".
#[test]
fn a_server_that_was_just_born_is_in_term_0_with_an_empty_log() {
    let server = Server::start(Config::new(A), Disk::newborn(A));
    let status = server.status();
    assert_eq!((status.term.0, status.voted_for, status.last), (0, None, LogId::ZERO));
    assert_eq!((status.commit_index.0, status.last_applied.0), (0, 0));
}

/// Raft Figure 2: "first index is 1".
#[test]
fn the_first_entry_of_a_log_has_index_1() {
    let mut server = Server::start(Config::new(A), Disk::newborn(A));
    server.receive(B, append(1, LogId::ZERO, &[1], 0));
    assert_eq!(server.last(), LogId::new(1, 1));
}

/// Raft Figure 2: `currentTerm`, `votedFor` and `log[]` are persistent.
#[test]
fn term_vote_and_log_survive_a_crash() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, request_vote(4, LogId::new(1, 1)));
    server.answers_to(B, append(4, LogId::new(1, 1), &[4, 4], 0));
    server.crash();
    server.restart();
    let status = server.status();
    assert_eq!((status.term.0, status.voted_for), (4, Some(B)));
    assert_eq!(server.terms(), [1, 4, 4]);
}

/// Raft Figure 2: `currentTerm` "increases monotonically".
#[test]
fn the_term_never_falls() {
    let mut server = Server::with_terms(A, THREE, &[1, 5]);
    for message in [append(3, LogId::new(1, 1), &[], 0), heartbeat(3, 1, 0), vote(3, false)] {
        server.answers_to(B, message);
        assert_eq!(server.term().0, 5);
    }
}

/// Raft Figure 2: `votedFor` is the candidate voted for "in current term": a new term is a new
/// vote.
#[test]
fn a_new_term_is_a_new_vote() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, request_vote(2, LogId::new(1, 1)));
    assert_eq!(server.status().voted_for, Some(B));
    server.answers_to(C, heartbeat(3, 1, 0));
    assert_eq!(server.status().voted_for, None);
}

/// Raft Figure 2: `commitIndex` and `lastApplied` "increase monotonically".
#[test]
fn what_is_committed_and_applied_only_rises() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, LogId::new(1, 1), &[2, 2], 3));
    assert_eq!((server.commit(), server.applied.len()), (3, 3));
    server.answers_to(B, append(2, LogId::new(1, 1), &[2, 2], 1));
    server.answers_to(B, heartbeat(2, 1, 2));
    assert_eq!((server.commit(), server.applied.len()), (3, 3));
}

/// Raft Figure 2: `nextIndex[]` is "initialized to leader last log index + 1", `matchIndex[]` to 0;
/// both are "reinitialized after election".
#[test]
fn a_new_leader_knows_nothing_of_its_peers_but_its_own_log() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1, 1, 1]);
    assert_eq!((leader.peer(B).next_index.0, leader.peer(B).match_index.0), (5, 4));
    leader.answers_to(B, heartbeat(3, 1, 0));
    leader.jump(60);
    leader.step(Input::Campaign);
    leader.settle();
    leader.receive(C, vote(4, true));
    assert!(leader.is_leader());
    for peer in [B, C] {
        assert_eq!((leader.peer(peer).next_index.0, leader.peer(peer).match_index.0), (5, 0));
    }
}

/// Raft Figure 2: `matchIndex[]` "increases monotonically".
#[test]
fn what_a_peer_is_known_to_hold_only_rises() {
    let mut leader = Server::leader(A, THREE, &[1, 1, 1]);
    leader.receive(B, matched(2, 4));
    leader.receive(B, matched(2, 2));
    assert_eq!(leader.peer(B).match_index.0, 4);
}
