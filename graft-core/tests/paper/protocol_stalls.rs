//! PROTOCOL 7: transfer of leadership and stalled disks.

use graft_core::{
    LogId, Message, NodeId, Term, Token,
    raft::{Config, Input, Refusal, RoleName},
};

use crate::common::*;

const FIRST: LogId = LogId::new(1, 1);

fn leader() -> Server {
    Server::settled_leader(Config::new(A), FIVE, &[1])
}

/// Orders a transfer; the token tells its refusal.
fn transfer(server: &mut Server, to: NodeId) -> Token {
    let token = Token { request_id: 1_000 + to.0, ..Token::default() };
    server.step(Input::Transfer { to, token });
    token
}

/// PROTOCOL 7: "During a transfer proposals are *not accepted*": refused as such, and not in the
/// log.
#[test]
fn during_a_transfer_proposals_are_not_accepted() {
    let mut leader = leader();
    transfer(&mut leader, B);
    let token = leader.propose("x");
    assert_eq!(leader.refusal(token), Some(Refusal::Transferring));
    assert_eq!(leader.last(), LogId::new(2, 2));
}

/// PROTOCOL 7: "`TimeoutNow` goes out once the target's match equals the last index", once.
#[test]
fn timeout_now_goes_out_when_the_target_has_everything() {
    let mut leader = leader();
    leader.propose("x");
    leader.take_sent();
    transfer(&mut leader, B);
    leader.elapse(20);
    assert!(told_to_campaign(&leader.take_sent()).is_empty());
    leader.receive(B, matched(2, 3));
    assert_eq!(told_to_campaign(&leader.take_sent()), [B]);
    leader.elapse(20);
    assert!(told_to_campaign(&leader.take_sent()).is_empty(), "it is told once");
}

/// PROTOCOL 7: "once": a target that has everything already is told in the turn of the order.
#[test]
fn a_target_that_has_everything_is_told_at_once() {
    let mut leader = leader();
    transfer(&mut leader, C);
    assert_eq!(leader.take_sent(), [(C, timeout_now(2))]);
}

/// PROTOCOL 7: "after one election timeout it is abandoned and proposals resume".
#[test]
fn after_one_election_timeout_a_transfer_is_abandoned() {
    let mut leader = leader();
    transfer(&mut leader, B);
    let answer = |leader: &mut Server| {
        for peer in [B, C, D, E] {
            leader.receive(peer, matched(2, 2));
        }
    };
    leader.elapse(59);
    answer(&mut leader);
    assert_eq!(leader.status().transfer, Some(B));
    leader.elapse(1);
    assert_eq!(leader.status().transfer, None);
    let token = leader.propose("x");
    assert_eq!(leader.refusal(token), None);
    assert!(leader.is_leader());
}

/// PROTOCOL 7: "One at a time."
#[test]
fn there_is_one_transfer_at_a_time() {
    let mut leader = leader();
    let first = transfer(&mut leader, B);
    let second = transfer(&mut leader, C);
    assert_eq!(leader.refusal(first), None);
    assert_eq!(leader.refusal(second), Some(Refusal::Transferring));
    assert_eq!(leader.status().transfer, Some(B));
}

/// PROTOCOL 7: a transfer that cannot be tried is refused by reason.
#[test]
fn a_transfer_that_cannot_be_tried_is_refused() {
    let mut leader = leader();
    for to in [A, NodeId(99)] {
        let token = transfer(&mut leader, to);
        assert_eq!(leader.refusal(token), Some(Refusal::BadTransferTarget), "{to}");
    }
    let mut follower = Server::founded(A, THREE);
    follower.answers_to(B, heartbeat(2, 1, 0));
    let token = transfer(&mut follower, C);
    assert_eq!(follower.refusal(token), Some(Refusal::NotLeader { leader: Some(B) }));
}

/// PROTOCOL 7: those who wait for what was taken in before the transfer are answered: the entries
/// are committed by then or may be, and they are told which.
#[test]
fn a_transfer_loses_no_answer() {
    let mut cluster = Cluster::led(THREE);
    let tokens = cluster.propose(A, &["x", "y"]);
    cluster.transfer(A, B);
    cluster.settle();
    assert_eq!(cluster.leaders(), [B]);
    for token in tokens {
        let answered = cluster[A].replies.contains(&token);
        let told = matches!(cluster[A].refusal(token), Some(Refusal::LeadershipLost { .. }));
        assert!(answered != told, "one answer, not none and not two");
    }
    cluster.heartbeat(B);
    assert_eq!(cluster[C].applied_commands(), ["x", "y"]);
}

/// PROTOCOL 7: "`Raft` ages its oldest unpersisted write. Past `stalled_write_ticks` (default one
/// election timeout) a leader sends `TimeoutNow` to the best-matched voter that is not stalled, and
/// steps down".
#[test]
fn a_leader_whose_disk_stands_still_hands_over_to_the_best() {
    assert_eq!(Config::new(A).stalled_write_ticks, Config::new(A).election_timeout_max_ticks);
    let mut leader = leader();
    leader.propose("x");
    for (peer, match_index, stalled) in [(B, 2, false), (C, 3, false), (D, 2, false), (E, 3, true)]
    {
        leader.receive(peer, matched(2, match_index));
        let mut answer = heartbeat_response(2, 1, match_index);
        answer.stalled = stalled;
        leader.receive(peer, Message::HeartbeatResponse(answer));
    }
    leader.elapse(59);
    assert!(leader.is_leader());
    leader.take_sent();
    leader.elapse(1);
    assert_eq!(
        told_to_campaign(&leader.take_sent()),
        [C],
        "E is as good, but its disk stands still"
    );
    assert_eq!((leader.role(), leader.term()), (RoleName::Follower, Term(2)));
    assert!(leader.status().stalled);
}

/// PROTOCOL 7: the write's age counts, not how much was written meanwhile: one that completes
/// starts the count anew.
#[test]
fn a_disk_that_is_only_slow_is_not_stalled() {
    let mut leader = Server::settled_leader(Config::new(A), ONE, &[1]);
    for _ in 0..20 {
        leader.propose("x");
        leader.elapse(59);
        assert!(leader.persist());
        leader.finish_apply();
    }
    assert!(leader.is_leader() && !leader.status().stalled);
    leader.elapse(1000);
    assert!(!leader.status().stalled, "where nothing is written nothing is late");
}

/// PROTOCOL 7: where nobody is left to hand over to it steps down all the same, and waits for its
/// disk.
#[test]
fn a_stalled_leader_without_a_successor_steps_down() {
    let mut leader = Server::settled_leader(Config::new(A), ONE, &[1]);
    leader.propose("x");
    leader.elapse(60);
    assert!(!leader.is_leader());
    leader.elapse(200);
    assert_eq!((leader.role(), leader.term()), (RoleName::Follower, Term(2)));
    leader.settle();
    leader.elapse(60);
    leader.settle();
    assert!(leader.is_leader(), "its disk works again");
}

/// PROTOCOL 7: "a stalled server starts no pre-vote".
#[test]
fn a_stalled_server_neither_asks_around_nor_campaigns() {
    let mut server = Server::founded(A, THREE);
    server.receive(B, append(2, FIRST, &[2], 0));
    server.elapse(59);
    server.receive(B, heartbeat(2, 2, 0));
    server.elapse(1);
    assert!(server.status().stalled);
    server.take_sent();
    server.elapse(200);
    server.step(Input::Campaign);
    assert_eq!((server.role(), server.term()), (RoleName::Follower, Term(2)));
    assert!(server.take_sent().is_empty());
    server.settle();
    server.elapse(60);
    assert_eq!(server.role(), RoleName::PreCandidate, "its disk works again");
}

/// PROTOCOL 7: a stalled server "is no transfer target": the leader refuses the order, and the
/// server itself would not follow it.
#[test]
fn a_stalled_server_is_no_transfer_target() {
    let mut leader = leader();
    let mut answer = heartbeat_response(2, 1, 2);
    answer.stalled = true;
    leader.receive(B, Message::HeartbeatResponse(answer));
    let token = transfer(&mut leader, B);
    assert_eq!(leader.refusal(token), Some(Refusal::BadTransferTarget));
    answer.stalled = false;
    leader.receive(B, Message::HeartbeatResponse(answer));
    transfer(&mut leader, B);
    assert_eq!(leader.status().transfer, Some(B), "its disk works again");

    let mut server = Server::founded(A, THREE);
    server.answers_to(B, heartbeat(2, 1, 0));
    server.receive(B, append(2, FIRST, &[2], 0));
    for round in 2..22 {
        server.elapse(5);
        server.receive(B, heartbeat(2, round, 0));
    }
    assert!(server.status().stalled);
    server.receive(B, timeout_now(2));
    assert_eq!(server.role(), RoleName::Follower);
}

/// PROTOCOL 7: "Bound: the limit plus two election timeouts": a cluster whose leader's disk stands
/// still has another leader by then, for many seeds, and also where the order to campaign is lost.
#[test]
fn a_stalled_disk_costs_at_most_its_limit_and_two_election_timeouts() {
    for lost in [false, true] {
        let mut worst = 0;
        for seed in 0..100 {
            let mut cluster = Cluster::with(FIVE, |node| {
                let config = Config { seed: seed * 100 + node.0, ..Config::new(node) };
                (config, Disk::founded(node, FIVE))
            });
            cluster.elect(A);
            cluster.hold_disk(A);
            cluster.propose(A, &["x"]);
            let waited = (1..=180).find(|_| {
                for node in FIVE {
                    cluster.jump(*node, 1);
                    if lost {
                        cluster.drop_matching(|m| matches!(m, Message::TimeoutNow { .. }));
                    }
                }
                cluster.settle();
                cluster.leaders().iter().any(|leader| *leader != A)
            });
            worst = worst.max(waited.expect("another leader within 60 + 2 * 60 ticks"));
        }
        assert!(worst >= 60, "not before the limit");
        if !lost {
            assert!(worst <= 61, "the order to campaign spares the election timeout: {worst}");
        }
    }
}
