//! Raft §5.1 and §5.2: terms and leader election; Figure 2, "RequestVote RPC" and "Rules for
//! servers". Most of these servers run without pre-vote, as the paper's do.

use std::collections::BTreeSet;

use graft_core::{
    AppendOutcome, LogId, Message, NodeId, Term,
    raft::{Config, Input, RoleName},
};

use crate::common::*;

const FIRST: LogId = LogId::new(1, 1);

fn plain(node: NodeId) -> Config {
    Config { pre_vote: false, ..Config::new(node) }
}

/// A server of a cluster of `voters`, run as in the paper.
fn server(voters: &[NodeId]) -> Server {
    Server::start(plain(A), Disk::founded(A, voters))
}

/// The same, with its election timer run out and its own vote durable.
fn candidate(voters: &[NodeId]) -> Server {
    let mut server = server(voters);
    server.jump(60);
    server.settle();
    server
}

/// Raft §5.2: "When servers start up, they begin as followers."
#[test]
fn servers_start_as_followers() {
    assert_eq!(server(THREE).role(), RoleName::Follower);
    let was_leader = Disk::founded(A, THREE).in_term(7, Some(A));
    assert_eq!(Server::start(plain(A), was_leader).role(), RoleName::Follower);
}

/// Raft §5.1: "If a server receives a request with a stale term number, it rejects the request";
/// Figure 2, AppendEntries 1 and RequestVote 1: "reply false if term < currentTerm".
#[test]
fn requests_of_an_older_term_are_rejected_with_the_current_one() {
    let mut server = Server::with_terms(A, THREE, &[1, 5]);
    let sent = server.answers_to(B, append(4, FIRST, &[4], 1));
    assert_eq!(sent, [(B, append_response(5, AppendOutcome::StaleTerm))]);
    let sent = server.answers_to(C, request_vote(4, LogId::new(3, 9)));
    assert_eq!(sent, [(C, vote(5, false))]);
    assert_eq!((server.terms(), server.commit()), (vec![1, 5], 0));
}

/// Raft §5.1, Figure 2 all servers: "if RPC request or response contains term T > currentTerm: set
/// currentTerm = T, convert to follower".
#[test]
fn a_higher_term_in_any_message_makes_a_follower_of_that_term() {
    let messages = [
        append(9, FIRST, &[], 0),
        append_response(9, AppendOutcome::StaleTerm),
        heartbeat(9, 1, 0),
        Message::HeartbeatResponse(heartbeat_response(9, 0, 0)),
        vote(9, false),
        pre_vote_response(9, false),
    ];
    for message in messages {
        let waiting = server(THREE);
        for mut server in [waiting, candidate(THREE), Server::leader(A, THREE, &[1])] {
            server.receive(B, message.clone());
            assert_eq!(
                (server.term(), server.role()),
                (Term(9), RoleName::Follower),
                "{message:?}"
            );
        }
    }
    let mut server = candidate(THREE);
    server.receive(B, request_vote(9, FIRST));
    assert_eq!((server.term(), server.role()), (Term(9), RoleName::Follower));
}

/// Raft §5.2: "A server remains in follower state as long as it receives valid RPCs from a leader."
#[test]
fn a_follower_stays_one_as_long_as_its_leader_is_heard() {
    let mut server = server(THREE);
    for round in 1..100 {
        server.elapse(20);
        server.answers_to(B, heartbeat(2, round, 0));
        assert_eq!((server.role(), server.term()), (RoleName::Follower, Term(2)));
    }
}

/// Raft §5.2: without communication over the election timeout, a follower "begins an election".
/// §9.3: timeouts are "chosen randomly from a fixed interval", each time anew.
#[test]
fn an_election_begins_at_a_random_moment_of_a_fixed_interval() {
    let mut moments = BTreeSet::new();
    for seed in 0..300 {
        let config = Config { seed, ..plain(A) };
        let mut server = Server::start(config, Disk::founded(A, THREE));
        let waited = (1..=60).find(|_| {
            server.elapse(1);
            server.role() == RoleName::Candidate
        });
        moments.insert(waited.expect("an election begins within the longest timeout"));
    }
    assert_eq!(moments.first(), Some(&30), "not before the shortest timeout");
    assert!(moments.len() >= 30, "every moment of the interval occurs: {moments:?}");
}

/// Raft §5.2, Figure 2 candidates: "increment currentTerm, vote for self, send RequestVote RPCs to
/// all other servers". A RequestVote carries the candidate's term and its last entry.
#[test]
fn a_candidate_takes_the_next_term_votes_for_itself_and_asks_all_others() {
    let mut server = Server::start(plain(A), Disk::founded(A, FIVE).with_terms(&[1, 1, 3]));
    server.jump(60);
    server.settle();
    let status = server.status();
    assert_eq!((status.role, status.term.0, status.voted_for), (RoleName::Candidate, 4, Some(A)));
    let expected = [B, C, D, E].map(|to| (to, request_vote(4, LogId::new(3, 3))));
    assert_eq!(server.take_sent(), expected);
}

/// Raft §5.2: "A candidate wins an election if it receives votes from a majority of the servers in
/// the full cluster"; one vote less does not.
#[test]
fn a_majority_of_the_full_cluster_makes_a_leader_and_one_less_does_not() {
    for (voters, needed) in [(ONE, 0), (TWO, 1), (THREE, 1), (FOUR, 2), (FIVE, 2), (SEVEN, 3)] {
        let mut server = candidate(voters);
        for voter in &voters[1..=needed] {
            assert_eq!(server.role(), RoleName::Candidate, "too few of {}", voters.len());
            server.receive(*voter, vote(2, true));
        }
        assert!(server.is_leader(), "{} of {}", needed + 1, voters.len());
    }
}

/// Raft §5.2: a vote is one server's vote, however often its answer arrives.
#[test]
fn a_vote_that_arrives_twice_counts_once() {
    let mut server = candidate(FIVE);
    for _ in 0..5 {
        server.receive(B, vote(2, true));
    }
    assert_eq!(server.role(), RoleName::Candidate);
}

/// Figure 2: a candidate counts answers to what it has asked. A peer that votes without having been
/// asked is broken; it neither elects anyone nor brings anything down.
#[test]
fn a_vote_that_was_not_asked_for_does_not_count() {
    let mut server = Server::start(plain(A), Disk::founded(A, FIVE));
    server.jump(60);
    for voter in [B, C, D, E] {
        server.receive(voter, vote(2, true));
    }
    assert_eq!(server.role(), RoleName::Candidate, "its own vote is not durable");
    server.settle();
    assert_eq!(server.role(), RoleName::Candidate);
    for voter in [B, C] {
        server.receive(voter, vote(2, true));
    }
    assert!(server.is_leader());
}

/// Raft §5.2: only votes "for the same term" count.
#[test]
fn votes_of_an_older_election_do_not_count() {
    let mut server = candidate(FIVE);
    server.jump(60);
    server.settle();
    assert_eq!(server.term(), Term(3));
    for voter in [B, C, D, E] {
        server.receive(voter, vote(2, true));
    }
    assert_eq!(server.role(), RoleName::Candidate);
}

/// Raft §5.2: "Each server will vote for at most one candidate in a given term, on a
/// first-come-first-served basis."
#[test]
fn a_server_votes_for_one_candidate_a_term_the_first_one() {
    let mut server = server(FIVE);
    assert_eq!(server.answers_to(B, request_vote(2, FIRST)), [(B, vote(2, true))]);
    assert_eq!(server.answers_to(C, request_vote(2, FIRST)), [(C, vote(2, false))]);
    assert_eq!(server.status().voted_for, Some(B));
}

/// Figure 2, RequestVote 2: granted "if votedFor is null or candidateId": asked again, it says yes
/// again.
#[test]
fn the_candidate_voted_for_is_answered_yes_again() {
    let mut server = server(THREE);
    for _ in 0..3 {
        assert_eq!(server.answers_to(B, request_vote(2, FIRST)), [(B, vote(2, true))]);
    }
}

/// Figure 2, RequestVote 2: a copy of the request that comes late changes nothing, least of all for
/// the leader that the vote helped to elect.
#[test]
fn a_late_copy_of_a_vote_request_does_not_unseat_its_winner() {
    let mut server = server(THREE);
    server.answers_to(B, request_vote(2, FIRST));
    server.answers_to(B, heartbeat(2, 1, 0));
    let before = server.status();
    server.answers_to(B, request_vote(2, FIRST));
    assert_eq!(server.status(), before);
    assert!(server.answers_to(C, pre_vote(3, FIRST)).is_empty(), "its leader was heard just now");
}

/// Raft §5.2: one vote a term, a crash in between or not.
#[test]
fn a_vote_is_not_given_twice_across_a_restart() {
    let mut server = server(FIVE);
    server.answers_to(B, request_vote(2, FIRST));
    server.restart();
    assert_eq!(server.answers_to(C, request_vote(2, FIRST)), [(C, vote(2, false))]);
    assert_eq!(server.answers_to(B, request_vote(2, FIRST)), [(B, vote(2, true))]);
}

/// Raft §5.2: a candidate votes for itself, so for nobody else in that term.
#[test]
fn a_candidate_votes_for_no_other() {
    let mut server = candidate(THREE);
    assert_eq!(server.answers_to(B, request_vote(2, FIRST)), [(B, vote(2, false))]);
    assert_eq!(server.role(), RoleName::Candidate);
}

/// Raft §5.2: a new leader "sends heartbeat messages to all of the other servers to establish its
/// authority and prevent new elections", and goes on "during idle periods" (Figure 2, leaders).
#[test]
fn a_leader_shows_itself_at_once_and_then_at_every_interval() {
    let mut server = candidate(THREE);
    server.take_sent();
    server.receive(B, vote(2, true));
    let sent = server.take_sent();
    let receivers: Vec<NodeId> = heartbeats(&sent).iter().map(|(to, _)| *to).collect();
    assert_eq!(receivers, [B, C]);
    for _ in 0..5 {
        server.elapse(4);
        assert!(heartbeats(&server.take_sent()).is_empty(), "not before its time");
        server.elapse(1);
        assert_eq!(heartbeats(&server.take_sent()).len(), 2);
    }
}

/// Raft §5.2: a candidate that hears from a leader whose "term is at least as large as the
/// candidate's current term" recognizes it and "returns to follower state".
#[test]
fn a_candidate_yields_to_a_leader_of_its_term() {
    for message in [append(2, FIRST, &[], 0), heartbeat(2, 1, 0)] {
        let mut server = candidate(THREE);
        server.receive(B, message);
        assert_eq!(server.role(), RoleName::Follower);
        assert_eq!((server.raft().leader(), server.term()), (Some(B), Term(2)));
    }
}

/// Raft §5.2: "If the term in the RPC is smaller than the candidate's current term, then the
/// candidate rejects the RPC and continues in candidate state."
#[test]
fn a_candidate_rejects_a_leader_of_an_older_term_and_goes_on() {
    let mut server = candidate(THREE);
    let sent = server.answers_to(B, append(1, FIRST, &[], 0));
    assert_eq!(sent, [(B, append_response(2, AppendOutcome::StaleTerm))]);
    assert_eq!((server.role(), server.term()), (RoleName::Candidate, Term(2)));
}

/// Raft §5.2: when nobody wins, "each candidate will time out and start a new election by
/// incrementing its term", after a timeout drawn anew.
#[test]
fn a_candidate_without_a_result_starts_over_in_the_next_term() {
    let mut moments = BTreeSet::new();
    let mut server = candidate(FIVE);
    for term in 3..40 {
        server.take_sent();
        let waited = (1..=60).find(|_| {
            server.elapse(1);
            server.term() == Term(term)
        });
        moments.insert(waited.expect("it starts over within the longest timeout"));
        server.settle();
        assert_eq!(asked_for_votes(&server.take_sent()), [B, C, D, E]);
    }
    assert!(moments.first() >= Some(&30), "it gives its campaign the shortest timeout");
    assert!(moments.len() > 10, "the timeout is drawn anew each time: {moments:?}");
}

/// Figure 2, followers: a vote granted postpones the own election.
#[test]
fn granting_a_vote_restarts_the_election_timer() {
    let mut server = server(THREE);
    for term in 2..30 {
        server.elapse(29);
        assert_eq!(server.answers_to(B, request_vote(term, FIRST)), [(B, vote(term, true))]);
        assert_eq!(server.role(), RoleName::Follower);
    }
}

/// Figure 2, followers: only the current leader and granting a vote postpone the own election. A
/// candidate whose log is behind cannot keep better ones from campaigning.
#[test]
fn refusing_a_vote_does_not_restart_the_election_timer() {
    let mut server = Server::start(plain(A), Disk::founded(A, THREE).with_terms(&[1, 1]));
    for term in 2..8 {
        server.elapse(10);
        if server.role() == RoleName::Candidate {
            return;
        }
        server.answers_to(B, request_vote(term, FIRST));
    }
    panic!("six campaigns that were refused kept this server from campaigning itself");
}

/// Raft §5.2: "split votes are rare and ... are resolved quickly": four servers of which two
/// campaign at once get a leader all the same, whatever the seeds.
#[test]
fn a_split_vote_is_followed_by_an_election_that_decides() {
    for seed in 0..50 {
        let mut cluster = Cluster::with(FOUR, |node| {
            let config = Config { seed: seed * 10 + node.0, ..plain(node) };
            (config, Disk::founded(node, FOUR))
        });
        for node in [A, B] {
            cluster.campaign(node);
            cluster.persist(node);
        }
        for (from, to) in [(A, C), (B, D), (A, D), (B, C), (A, B), (B, A)] {
            cluster.deliver(from, to);
        }
        cluster.settle();
        assert!(cluster.leaders().is_empty(), "two votes each decide nothing");
        let elected = (0..240).any(|_| {
            cluster.elapse(1);
            !cluster.leaders().is_empty()
        });
        assert!(elected, "no leader after a split vote with seed {seed}");
    }
}

/// Raft §5.2, Figure 3 election safety: "at most one leader can be elected in a given term". All
/// campaign at once, again and again; the cluster's audit looks at every turn.
#[test]
fn all_campaigning_at_once_elects_at_most_one_a_term() {
    let mut cluster = Cluster::of(FIVE);
    for round in 0..40 {
        for node in FIVE {
            cluster.campaign(*node);
        }
        let (from, to) = (FIVE[round % 5], FIVE[(round * 3 + 1) % 5]);
        cluster.hold_wire(from, to);
        cluster.settle();
        cluster.release_wires();
        cluster.settle();
    }
    let turned_out = cluster.nodes().iter().map(|node| cluster[*node].term()).max();
    assert!(turned_out >= Some(Term(40)));
}

/// Raft §5.6: what timers do is no matter of how often a server is woken: at the deadlines it asks for
/// is enough, in every role. (A leader looks at its quorum with its heartbeats, so a wake less may
/// cost it a heartbeat there; that is switched off here.)
#[test]
fn a_server_that_is_woken_at_its_deadlines_misses_nothing() {
    let config = Config { check_quorum: false, ..Config::new(A) };
    let leader = || Server::settled_leader(config.clone(), THREE, &[1]);
    let (mut ticked, mut woken) = (leader(), leader());
    for tick in 0..2_000 {
        ticked.jump(1);
        woken.pass_tick();
        for server in [&mut ticked, &mut woken] {
            // It leads, is deposed, is alone for a while, and is elected again.
            if tick == 200 {
                server.receive(B, heartbeat(3, 1, 0));
            }
            if tick > 600 && server.role() == RoleName::PreCandidate {
                server.receive(B, pre_vote_response(server.term().0 + 1, true));
            }
            if tick > 1000 && server.role() == RoleName::Candidate {
                server.settle();
                server.receive(B, vote(server.term().0, true));
            }
            server.settle();
        }
        let state = |server: &Server| (server.role(), server.term(), server.last());
        assert_eq!(state(&ticked), state(&woken), "tick {tick}");
        assert_eq!(ticked.take_sent(), woken.take_sent(), "tick {tick}");
    }
    assert!(ticked.is_leader() && ticked.term() > Term(5));
}

/// Raft §5.2, Figure 2: a follower answers candidates and leaders, and starts nothing by itself.
#[test]
fn a_follower_speaks_only_when_asked() {
    let mut server = server(THREE);
    server.answers_to(B, heartbeat(2, 1, 0));
    server.elapse(29);
    assert!(server.take_sent().is_empty());
    assert!(!server.answers_to(B, heartbeat(2, 2, 0)).is_empty());
    server.step(Input::Time { now: server.now(), unix_millis: 0 });
    assert!(server.take_sent().is_empty());
}
