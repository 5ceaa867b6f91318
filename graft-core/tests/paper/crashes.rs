//! Raft §5.5 and §5.6: crashes of followers and candidates, timing and availability.

use std::time::Duration;

use graft_core::{LogId, raft::Config};

use crate::common::*;

/// Raft §5.5: "If a follower or candidate crashes, then future RequestVote and AppendEntries RPCs
/// sent to it will fail. Raft handles these failures by retrying indefinitely; if the crashed
/// server restarts, then the RPC will complete successfully."
#[test]
fn a_follower_that_was_down_gets_what_it_missed() {
    let mut cluster = Cluster::led(THREE);
    cluster.crash(C);
    for round in 0..20 {
        cluster.propose(A, &[&format!("command {round}")]);
        cluster.heartbeat(A);
    }
    cluster.restart(C);
    for _ in 0..4 {
        cluster.heartbeat(A);
    }
    assert_eq!(cluster[C].applied_commands(), cluster[A].applied_commands());
    assert_eq!(cluster[C].applied_commands().len(), 20);
}

/// Raft §5.5: a server that crashes "after completing an RPC but before responding" will "receive
/// the same RPC again after it restarts": what it stored is acknowledged, not stored twice.
#[test]
fn a_follower_that_crashed_before_it_answered_answers_the_same_again() {
    let mut server = Server::founded(A, THREE);
    server.receive(B, append(2, LogId::new(1, 1), &[2, 2], 0));
    server.settle();
    server.restart();
    server.receive(B, append(2, LogId::new(1, 1), &[2, 2], 0));
    assert!(server.write.is_none(), "all of it is there");
    assert!(said(&mut server).contains(&answer_of_round(2, 3, 1)));
}

fn answer_of_round(term: u64, index: u64, round: u64) -> graft_core::Message {
    let graft_core::Message::AppendEntriesResponse(mut response) = matched(term, index) else {
        unreachable!("it was just made")
    };
    response.round = round;
    graft_core::Message::AppendEntriesResponse(response)
}

/// Raft §5.5: "Raft RPCs are idempotent, so this causes no harm": every message of a working
/// cluster arrives twice, the second time late.
#[test]
fn every_message_may_arrive_twice() {
    let mut cluster = Cluster::of(THREE);
    cluster.campaign(A);
    let mut proposed = 0;
    for round in 0..40 {
        for from in THREE {
            for to in THREE {
                cluster.duplicate(*from, *to);
            }
        }
        if round % 4 == 3 && cluster[A].is_leader() {
            cluster.propose(A, &[&format!("command {round}")]);
            cluster.jump(A, 5);
            proposed += 1;
        }
        cluster.deliver_all();
        for node in THREE {
            cluster.persist(*node);
            cluster.load(*node);
        }
        // Doubling every round would drown the test, not the servers.
        cluster.keep_at_most(20);
    }
    cluster.settle();
    cluster.heartbeat(A);
    assert_eq!(cluster.leaders(), [A]);
    assert_eq!(cluster[A].term().0, 2, "no message set off another election");
    assert_eq!(cluster[A].applied_commands().len(), proposed);
    assert!(proposed > 5);
    for node in [B, C] {
        assert_eq!(cluster[node].applied_commands(), cluster[A].applied_commands());
    }
}

/// Raft §5.5: a candidate that crashes leaves nothing behind but a term: the next election decides.
#[test]
fn a_candidate_that_crashes_does_not_hold_up_the_others() {
    let mut cluster = Cluster::of(THREE);
    cluster.campaign(A);
    cluster.persist(A);
    cluster.deliver(A, B);
    cluster.persist(B);
    cluster.crash(A);
    cluster.elapse(240);
    assert_eq!(cluster.leaders().len(), 1);
    cluster.restart(A);
    cluster.elapse(20);
    assert_eq!(cluster[A].raft().leader(), Some(cluster.leaders()[0]));
}

/// Raft §5.2, §5.5: a leader that crashes is replaced within a few election timeouts, and what it
/// had committed stays.
#[test]
fn a_leader_that_crashes_is_replaced() {
    for nodes in [THREE, FIVE] {
        let mut cluster = Cluster::led(nodes);
        cluster.propose(A, &["x"]);
        cluster.settle();
        cluster.crash(A);
        cluster.elapse(240);
        let leader = cluster.leaders()[0];
        cluster.propose(leader, &["y"]);
        cluster.settle();
        assert_eq!(cluster[leader].applied_commands(), ["x", "y"]);
    }
}

/// Raft §5.6: "broadcastTime << electionTimeout": several heartbeats fit the shortest election
/// timeout, and a configuration of which this is not so is refused.
#[test]
fn several_heartbeats_fit_an_election_timeout() {
    let config = Config::new(A);
    assert!(config.validate().is_ok());
    assert!(config.heartbeat_ticks * 5 <= config.election_timeout_min_ticks);
    assert!(config.tick * 20 <= Duration::from_millis(500), "a broadcast takes far less");
    let slow = Config { heartbeat_ticks: 20, ..config };
    assert_eq!(slow.validate().expect_err("too slow").field, "election_timeout_min_ticks");
}

/// Raft §5.6: a leader that works stays: as long as messages arrive there is no other election.
#[test]
fn a_leader_that_works_leads_on() {
    let mut cluster = Cluster::led(FIVE);
    cluster.elapse(1000);
    assert_eq!(cluster.leaders(), [A]);
    assert_eq!(cluster[A].term().0, 2);
}

/// Raft §5.6: one lost heartbeat, or two, set off no election.
#[test]
fn a_lost_heartbeat_sets_off_no_election() {
    let mut cluster = Cluster::led(THREE);
    for round in 0..60 {
        let lost = round % 3 != 0;
        if lost {
            cluster.isolate(A);
        }
        cluster.elapse(5);
        cluster.heal();
    }
    assert_eq!((cluster.leaders(), cluster[A].term().0), (vec![A], 2));
}
