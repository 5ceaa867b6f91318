//! Ongaro's thesis, as far as it is built: pre-vote (§9.6), check-quorum (§6.2), leader stickiness
//! (§4.2.3), leadership transfer (§3.10), writing to the leader's disk in parallel (§10.2.1),
//! batching and pipelining (§10.2.2).

use graft_core::{
    LogId, Message, Term,
    raft::{Config, Input, Refusal, RoleName},
};

use crate::common::*;

const FIRST: LogId = LogId::new(1, 1);

fn transfer(server: &mut Server, to: graft_core::NodeId) {
    server.step(Input::Transfer { to, token: graft_core::Token::default() });
}

// Pre-vote, thesis §9.6.

/// Thesis §9.6: "a candidate would only increment its term if it first learned from a majority of
/// the cluster that they would be willing to grant the candidate their votes".
#[test]
fn a_server_campaigns_only_when_a_majority_would_vote_for_it() {
    let mut server = Server::founded(A, FIVE);
    server.jump(60);
    server.settle();
    assert_eq!(server.role(), RoleName::PreCandidate);
    let sent = server.take_sent();
    assert_eq!(sent, [B, C, D, E].map(|to| (to, pre_vote(2, FIRST))));
    server.receive(B, pre_vote_response(2, true));
    server.settle();
    assert_eq!((server.role(), server.term()), (RoleName::PreCandidate, Term(1)));
    server.receive(C, pre_vote_response(2, true));
    server.settle();
    assert_eq!((server.role(), server.term()), (RoleName::Candidate, Term(2)));
    assert_eq!(asked_for_votes(&server.take_sent()), [B, C, D, E]);
}

/// Thesis §9.6: a pre-vote promises nothing: it changes no state, neither where it is asked nor
/// where it is given, and it is given to any number of candidates.
#[test]
fn a_pre_vote_changes_no_state() {
    let mut server = Server::founded(A, FIVE);
    let before = server.status();
    for candidate in [B, C, D] {
        let sent = server.answers_to(candidate, pre_vote(2, FIRST));
        assert_eq!(sent, [(candidate, pre_vote_response(2, true))]);
    }
    server.answers_to(E, pre_vote(9, LogId::ZERO));
    assert_eq!(server.status(), before);
    assert!(server.write.is_none());

    let durable = server.disk.hard_state;
    server.jump(60);
    assert_eq!(server.role(), RoleName::PreCandidate);
    assert!(server.write.is_none(), "asking around writes nothing");
    server.settle();
    assert_eq!(server.disk.hard_state, durable);
}

/// Thesis §9.6: giving a pre-vote does not postpone the own election either.
#[test]
fn a_pre_vote_does_not_restart_the_election_timer() {
    let mut server = Server::founded(A, THREE);
    for _ in 0..6 {
        server.elapse(10);
        server.receive(B, pre_vote(2, FIRST));
    }
    assert_eq!(server.role(), RoleName::PreCandidate);
}

/// Thesis §9.6: an answer counts only for the campaign it was asked for.
#[test]
fn a_pre_vote_for_another_term_does_not_count() {
    let mut server = Server::founded(A, THREE);
    server.jump(60);
    server.receive(B, pre_vote_response(3, true));
    server.receive(C, pre_vote_response(7, true));
    assert_eq!((server.role(), server.term()), (RoleName::PreCandidate, Term(1)));
    server.receive(C, pre_vote_response(2, true));
    assert_eq!((server.role(), server.term()), (RoleName::Candidate, Term(2)));
}

/// Thesis §9.6: a pre-vote for a term that is not new would help nobody: whoever asks is behind,
/// and is told the term.
#[test]
fn a_pre_vote_for_a_term_that_is_not_new_is_refused() {
    let disk = Disk::founded(A, THREE).in_term(7, None);
    let mut server = Server::start(Config::new(A), disk);
    for term in [6, 7] {
        let sent = server.answers_to(B, pre_vote(term, LogId::new(5, 9)));
        assert_eq!(sent, [(B, pre_vote_response(7, false))]);
    }
    let sent = server.answers_to(B, pre_vote(8, LogId::new(5, 9)));
    assert_eq!(sent, [(B, pre_vote_response(8, true))]);
}

/// Thesis §9.6: a pre-vote is not a vote.
#[test]
fn pre_votes_elect_nobody() {
    let mut server = Server::founded(A, THREE);
    server.step(Input::Campaign);
    server.settle();
    server.receive(B, pre_vote_response(2, true));
    server.receive(B, pre_vote_response(3, true));
    assert_eq!((server.role(), server.term()), (RoleName::Candidate, Term(2)));
}

/// Thesis §9.6: "the Pre-Vote algorithm solves the issue of a partitioned server disrupting the
/// cluster when it rejoins": alone, its term stays, and it comes back as a follower.
#[test]
fn a_partitioned_server_neither_raises_its_term_nor_disturbs_when_it_returns() {
    let mut cluster = Cluster::led(THREE);
    cluster.isolate(C);
    cluster.elapse(1000);
    assert_eq!(cluster[C].term(), Term(2));
    cluster.propose(A, &["x"]);
    cluster.heal();
    cluster.elapse(60);
    assert_eq!((cluster.leaders(), cluster[A].term()), (vec![A], Term(2)));
    assert_eq!(cluster[C].applied_commands(), ["x"]);
}

/// Thesis §9.6: whoever is refused by a majority waits for its next timeout.
#[test]
fn a_refused_pre_candidate_becomes_a_follower_and_tries_again_later() {
    let mut server = Server::founded(A, THREE);
    server.jump(60);
    server.receive(B, pre_vote_response(1, false));
    server.receive(C, pre_vote_response(1, false));
    assert_eq!(server.role(), RoleName::Follower);
    server.take_sent();
    server.elapse(60);
    assert_eq!(server.role(), RoleName::PreCandidate);
    assert!(!asked_for_pre_votes(&server.take_sent()).is_empty());
}

/// Thesis §9.6: a refusal shows a higher term, as any answer does.
#[test]
fn a_refused_pre_candidate_learns_the_term() {
    let mut server = Server::founded(A, FIVE);
    server.jump(60);
    server.receive(B, pre_vote_response(5, false));
    assert_eq!((server.role(), server.term()), (RoleName::Follower, Term(5)));
}

// Check-quorum, thesis §6.2.

/// Thesis §6.2: "A leader in Raft steps down if an election timeout elapses without a successful
/// round of heartbeats to a majority of its cluster; this allows clients to retry their requests
/// with another server."
#[test]
fn a_leader_that_no_majority_answers_steps_down_after_one_election_timeout() {
    let mut leader = Server::settled_leader(Config::new(A), FIVE, &[1]);
    let token = leader.propose("x");
    leader.settle();
    leader.elapse(30);
    leader.receive(B, matched(2, 2));
    leader.elapse(30);
    assert!(leader.is_leader(), "the answers of B and of the election are young enough");
    leader.receive(C, matched(2, 2));
    leader.elapse(30);
    assert!(leader.is_leader());
    leader.elapse(1);
    assert_eq!((leader.role(), leader.term()), (RoleName::Follower, Term(2)));
    assert_eq!(leader.raft().leader(), None);
    assert_eq!(leader.refusal(token), Some(Refusal::LeadershipLost { leader: None }));
}

/// Thesis §6.2: the majority includes the leader: one answer of two is enough for three, none for
/// one.
#[test]
fn a_leader_counts_itself_among_the_majority() {
    let mut leader = Server::leader(A, THREE, &[1]);
    for round in 1..40 {
        leader.elapse(20);
        leader.receive(B, Message::HeartbeatResponse(heartbeat_response(2, round, 2)));
        assert!(leader.is_leader());
    }
    let mut alone = Server::leader(A, ONE, &[1]);
    alone.elapse(1000);
    assert!(alone.is_leader());
}

/// Thesis §6.2: where it is switched off, a leader leads until it learns of a higher term.
#[test]
fn without_check_quorum_a_leader_stays() {
    let config = Config { check_quorum: false, ..Config::new(A) };
    let mut leader = Server::leader_with(config, THREE, &[1]);
    leader.elapse(1000);
    assert!(leader.is_leader());
}

// Stickiness, thesis §4.2.3.

/// Thesis §4.2.3: "if a server receives a RequestVote request within the minimum election timeout
/// of hearing from a current leader, it does not update its term or grant its vote."
#[test]
fn a_server_that_hears_its_leader_ignores_candidates() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, heartbeat(2, 1, 0));
    server.elapse(29);
    let before = server.status();
    for message in [request_vote(9, LogId::new(8, 9)), pre_vote(9, LogId::new(8, 9))] {
        assert!(server.answers_to(C, message).is_empty());
        assert_eq!(server.status(), before);
    }
}

/// Thesis §4.2.3: after the minimum election timeout it listens again.
#[test]
fn a_server_whose_leader_is_silent_listens_to_candidates() {
    // A seed whose election timer runs longer than the shortest timeout.
    let quiet = (0..100).find_map(|seed| {
        let config = Config { seed, ..Config::new(A) };
        let mut server = Server::start(config, Disk::founded(A, THREE));
        server.answers_to(B, heartbeat(2, 1, 0));
        server.elapse(31);
        (server.role() == RoleName::Follower).then_some(server)
    });
    let mut server = quiet.expect("most seeds wait longer");
    assert_eq!(server.answers_to(C, pre_vote(3, FIRST)), [(C, pre_vote_response(3, true))]);
    assert_eq!(server.answers_to(C, request_vote(3, FIRST)), [(C, vote(3, true))]);
}

/// Thesis §4.2.3: a leader has heard from itself just now.
#[test]
fn a_leader_ignores_candidates_as_long_as_a_majority_answers_it() {
    let mut leader = Server::leader(A, THREE, &[1]);
    for message in [request_vote(9, LogId::new(8, 9)), pre_vote(9, LogId::new(8, 9))] {
        assert!(leader.answers_to(C, message).is_empty());
        assert!(leader.is_leader());
    }
}

/// Thesis §4.2.3: the exception, marked in the request: a candidate "has permission to disrupt the
/// leader" where the leader itself asked for it.
#[test]
fn a_campaign_by_transfer_is_listened_to_at_once() {
    let mut follower = Server::founded(A, THREE);
    follower.answers_to(B, heartbeat(2, 1, 0));
    assert_eq!(follower.answers_to(C, transfer_vote(3, FIRST)), [(C, vote(3, true))]);
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    let sent = leader.answers_to(C, transfer_vote(3, LogId::new(2, 2)));
    assert_eq!(sent, [(C, vote(3, true))]);
}

// Leadership transfer, thesis §3.10.

/// Thesis §3.10, step 2: "The prior leader fully updates the target server's log to match its own
/// log" and only then, step 3, "sends a TimeoutNow request to the target server".
#[test]
fn a_transfer_first_brings_the_target_up_to_date() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    leader.propose("x");
    leader.take_sent();
    transfer(&mut leader, B);
    assert!(told_to_campaign(&leader.take_sent()).is_empty());
    leader.receive(C, matched(2, 3));
    assert!(told_to_campaign(&leader.take_sent()).is_empty(), "C is not the target");
    leader.receive(B, matched(2, 3));
    assert_eq!(leader.take_sent(), [(B, timeout_now(2))]);
}

/// Thesis §3.10: TimeoutNow "has the same effect as the target server's election timer firing: the
/// target server starts a new election", without pre-vote and marked as asked for by the leader.
#[test]
fn a_server_told_to_campaign_campaigns_at_once() {
    let mut target = Server::founded(A, THREE);
    target.answers_to(B, heartbeat(2, 1, 0));
    let sent = target.answers_to(B, timeout_now(2));
    assert_eq!((target.role(), target.term()), (RoleName::Candidate, Term(3)));
    assert_eq!(sent, [(B, transfer_vote(3, FIRST)), (C, transfer_vote(3, FIRST))]);
}

/// Thesis §3.10: only the leader hands over leadership.
#[test]
fn a_server_campaigns_at_nobody_elses_order() {
    let mut target = Server::founded(A, THREE);
    target.answers_to(B, heartbeat(2, 1, 0));
    for (from, term) in [(C, 2), (B, 1), (C, 1)] {
        target.answers_to(from, timeout_now(term));
        assert_eq!((target.role(), target.term()), (RoleName::Follower, Term(2)));
    }
}

/// Thesis §3.10: the whole of it: the target leads after one round, and the prior leader follows
/// it.
#[test]
fn a_transfer_makes_the_target_leader_without_any_waiting() {
    let mut cluster = Cluster::led(FIVE);
    cluster.propose(A, &["x", "y"]);
    cluster.transfer(A, D);
    cluster.settle();
    assert_eq!((cluster.leaders(), cluster[D].term()), (vec![D], Term(3)));
    assert_eq!(cluster[A].raft().leader(), Some(D));
    assert_eq!(cluster[D].applied_commands(), ["x", "y"]);
}

/// Thesis §3.10: "If leadership transfer does not complete after about an election timeout, the
/// prior leader aborts the transfer and resumes accepting client requests."
#[test]
fn a_transfer_that_does_not_complete_is_abandoned() {
    let mut cluster = Cluster::led(THREE);
    cluster.isolate(C);
    cluster.propose(A, &["x"]);
    cluster.transfer(A, C);
    cluster.settle();
    let refused = cluster.propose(A, &["y"])[0];
    assert_eq!(cluster[A].refusal(refused), Some(Refusal::Transferring));
    cluster.elapse(60);
    assert_eq!(cluster[A].status().transfer, None);
    cluster.propose(A, &["z"]);
    cluster.settle();
    assert_eq!(cluster[A].applied_commands(), ["x", "z"]);
}

// Performance, thesis §10.2.

/// Thesis §10.2.1: the leader "can write to its disk in parallel with replicating to the
/// followers": the appends leave in the very turn in which the write does.
#[test]
fn a_leaders_disk_works_while_its_messages_are_under_way() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    leader.propose("x");
    assert!(leader.write.is_some());
    assert_eq!(appends(&leader.take_sent()).len(), 2);
}

/// Thesis §10.2.1: "if a majority of followers have written it", an entry is committed "even before
/// it has been written to the leader's own disk".
#[test]
fn an_entry_may_be_committed_before_the_leaders_own_disk_has_it() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    leader.propose("x");
    leader.receive(B, matched(2, 3));
    assert_eq!(leader.commit(), 2, "B alone is no majority");
    leader.receive(C, matched(2, 3));
    assert_eq!((leader.commit(), leader.status().durable.0), (3, 2));
}

/// Thesis §10.2.2: batching: what arrives while the disk works goes into one write and one append.
#[test]
fn commands_that_arrive_together_travel_and_are_written_together() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    let first = leader.propose_all(&["a", "b", "c"]);
    assert_eq!(appends(&leader.take_sent())[0].1.entries.len(), 3);
    for command in ["d", "e", "f"] {
        leader.propose(command);
    }
    let before = leader.disk.entries.len();
    assert!(leader.persist());
    assert_eq!(leader.disk.entries.len(), before + first.len());
    assert!(leader.persist());
    assert_eq!(leader.disk.entries.len(), before + 6, "one write for all that waited");
    assert!(!leader.persist());
}

/// Thesis §10.2.2: pipelining: "the leader can update nextIndex immediately after sending an RPC
/// rather than waiting for the acknowledgment".
#[test]
fn a_leader_sends_on_without_waiting_for_acknowledgements() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    for index in 3..20 {
        leader.propose("x");
        let sent = leader.take_sent();
        let (_, append) = appends(&sent)[0];
        assert_eq!((append.prev.index.0, append.entries.len()), (index - 1, 1));
        assert_eq!(leader.peer(B).next_index.0, index + 1);
    }
    assert_eq!((leader.peer(B).match_index.0, leader.peer(B).in_flight), (2, 17));
}

/// Thesis §10.2.2: when a pipelined append is lost, the consistency check of the next one fails and
/// the leader goes back: "the leader will retry" from where the logs agree.
#[test]
fn a_gap_in_the_pipeline_is_found_by_the_next_append() {
    let mut cluster = Cluster::led(THREE);
    cluster.propose(A, &["lost"]);
    cluster.drop_wire(A, B);
    cluster.propose(A, &["found"]);
    cluster.settle();
    assert_eq!(cluster[B].last(), LogId::new(2, 4), "no heartbeat was needed");
}
