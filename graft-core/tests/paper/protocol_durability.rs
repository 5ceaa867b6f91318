//! PROTOCOL 1: durability. Whatever a test here sends, `Server` also asserts of every message that
//! its term is on the sender's disk.

use graft_core::{
    AppendOutcome, EntryKind, Index, LogId, Message, Write,
    raft::{Config, Input},
};

use crate::common::*;

const FIRST: LogId = LogId::new(1, 1);

/// A cold leader of term 2 that keeps nothing in memory which is durable and applied.
fn forgetful(node: graft_core::NodeId) -> Config {
    Config { tail_bytes: 0, ..Config::new(node) }
}

/// PROTOCOL 1: "No message states a term that is not durable here". Every message that raises the
/// term, at a server whose disk does not answer, is followed by silence.
#[test]
fn nothing_is_said_in_a_term_that_is_not_durable() {
    let raising = [
        append(9, FIRST, &[9], 0),
        append(9, LogId::new(3, 7), &[9], 0),
        heartbeat(9, 1, 0),
        request_vote(9, LogId::new(8, 8)),
        request_vote(9, LogId::ZERO),
        vote(9, false),
        pre_vote_response(9, false),
    ];
    for message in raising {
        let mut server = Server::founded(A, THREE);
        server.receive(B, message.clone());
        assert_eq!(server.term().0, 9);
        // Nor is anything said to those who are behind, which would be told the new term.
        server.receive(C, append(4, FIRST, &[], 0));
        server.receive(C, heartbeat(4, 1, 0));
        server.receive(C, request_vote(4, FIRST));
        server.receive(C, pre_vote(4, LogId::ZERO));
        server.elapse(10);
        assert!(server.take_sent().is_empty(), "{message:?}");
        server.settle();
        let sent = server.take_sent_to(C);
        assert_eq!(sent.len(), 4, "each of those behind is told once the term is durable");
        assert!(sent.iter().all(|message| message.term().0 == 9));
    }
}

/// PROTOCOL 1: "(a pre-vote's proposed term excepted)": it promises nothing.
#[test]
fn a_pre_vote_may_speak_of_a_term_that_is_nowhere_durable() {
    let mut server = Server::founded(A, THREE);
    server.jump(60);
    assert!(server.write.is_none());
    assert_eq!(asked_for_pre_votes(&server.take_sent()), [B, C]);
    server.receive(B, pre_vote(2, FIRST));
    assert_eq!(server.take_sent(), [(B, pre_vote_response(2, true))]);
}

/// PROTOCOL 1: held back until the store has said `Persisted`: "asking for votes".
#[test]
fn votes_are_asked_for_once_the_own_vote_is_durable() {
    let mut server = Server::founded(A, THREE);
    server.step(Input::Campaign);
    server.elapse(10);
    assert!(server.take_sent().is_empty());
    assert!(server.persist());
    assert_eq!(server.disk.hard_state.voted_for, Some(A));
    assert_eq!(asked_for_votes(&server.take_sent()), [B, C]);
}

/// PROTOCOL 1: held back until the store has said `Persisted`: "counting one's own vote".
#[test]
fn the_own_vote_counts_once_it_is_durable() {
    let mut server = Server::founded(A, ONE);
    server.step(Input::Campaign);
    server.elapse(10);
    assert!(!server.is_leader());
    server.persist();
    assert!(server.is_leader());
}

/// PROTOCOL 1: held back until the store has said `Persisted`: "granting a vote".
#[test]
fn a_vote_is_told_once_it_is_durable() {
    let mut server = Server::founded(A, THREE);
    server.receive(B, request_vote(2, FIRST));
    server.elapse(10);
    assert!(server.take_sent().is_empty());
    server.persist();
    assert_eq!(server.disk.hard_state.voted_for, Some(B));
    assert_eq!(server.take_sent(), [(B, vote(2, true))]);
}

/// PROTOCOL 1: held back until the store has said `Persisted`: "granting a vote", also where the
/// term has been durable for long and only the vote is new.
#[test]
fn a_vote_in_a_term_that_is_durable_still_waits_for_its_own_write() {
    let mut server = Server::founded(A, FIVE);
    server.answers_to(E, request_vote(2, LogId::ZERO));
    assert_eq!((server.disk.hard_state.term.0, server.disk.hard_state.voted_for), (2, None));
    server.receive(B, request_vote(2, FIRST));
    assert!(server.take_sent().is_empty());
    server.persist();
    assert_eq!(server.take_sent(), [(B, vote(2, true))]);
}

/// PROTOCOL 1: held back until the store has said `Persisted`: "every answer to append or vote".
#[test]
fn entries_are_acknowledged_once_they_are_durable() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, heartbeat(2, 1, 0));
    server.receive(B, append(2, FIRST, &[2, 2], 0));
    server.elapse(10);
    let early = server.take_sent();
    assert!(early.iter().all(|(_, message)| acknowledged(message) <= Some(1)), "{early:?}");
    server.persist();
    let acknowledged: Vec<_> = said(&mut server).iter().filter_map(acknowledged).collect();
    assert_eq!(acknowledged, [3]);
}

/// How far a message acknowledges its sender's log.
fn acknowledged(message: &Message) -> Option<u64> {
    match message {
        Message::AppendEntriesResponse(response) => match response.outcome {
            AppendOutcome::Matched(index) => Some(index.0),
            _ => None,
        },
        Message::HeartbeatResponse(response) => Some(response.matched.0),
        _ => None,
    }
}

/// PROTOCOL 1: "What is held is computed again when released ... and dropped if the term has moved
/// on: an acknowledgement meant for the leader of term T says nothing of entries that T + 1 has
/// replaced."
#[test]
fn an_acknowledgement_held_for_an_older_leader_is_dropped() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, heartbeat(2, 1, 0));
    server.receive(B, append(2, FIRST, &[2, 2, 2], 0));
    server.receive(C, append(3, LogId::new(1, 1), &[3], 0));
    server.take_sent();
    server.settle();
    let sent = server.take_sent();
    assert!(sent.iter().all(|(to, _)| *to == C), "B is told nothing: {sent:?}");
    let acknowledged: Vec<_> =
        sent.iter().filter_map(|(_, message)| acknowledged(message)).collect();
    assert_eq!(acknowledged.last(), Some(&2), "and C only what is its own");
    assert!(acknowledged.iter().all(|index| *index <= 2));
}

/// PROTOCOL 1: the same where the new leader has shown nothing yet: the log is long and durable,
/// but none of it is known to be this leader's.
#[test]
fn what_matched_with_one_leader_is_not_acknowledged_to_the_next() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, heartbeat(2, 1, 0));
    server.receive(B, append(2, FIRST, &[2, 2, 2], 0));
    server.receive(C, heartbeat(3, 1, 0));
    server.take_sent();
    server.settle();
    assert_eq!(server.disk.terms(), [1, 2, 2, 2]);
    let sent = server.take_sent();
    assert!(sent.iter().all(|(_, message)| acknowledged(message).unwrap_or(0) == 0), "{sent:?}");
}

/// PROTOCOL 1: a vote of term T is not told once the term has moved on.
#[test]
fn a_vote_held_for_an_older_term_is_dropped() {
    let mut server = Server::founded(A, FIVE);
    server.receive(B, request_vote(2, FIRST));
    server.receive(C, request_vote(3, FIRST));
    server.settle();
    let granted = |(to, message): &(_, Message)| (*to == B, *message == vote(3, true));
    let sent = server.take_sent();
    assert!(
        sent.iter().all(|one| granted(one) != (true, true)),
        "B has no vote of term 3: {sent:?}"
    );
    assert!(sent.contains(&(C, vote(3, true))));
    assert!(!sent.iter().any(|(_, message)| *message == vote(2, true)));
}

/// PROTOCOL 1: a refusal to the leader of term T says nothing to the one of T + 1.
#[test]
fn a_conflict_held_for_an_older_leader_is_dropped() {
    let mut server = Server::founded(A, THREE);
    server.receive(B, append(2, LogId::new(2, 9), &[2], 0));
    server.receive(B, heartbeat(3, 1, 0));
    server.settle();
    let conflicts = said(&mut server).into_iter().filter(|message| {
        matches!(message, Message::AppendEntriesResponse(response)
            if matches!(response.outcome, AppendOutcome::Conflict { .. }))
    });
    assert_eq!(conflicts.count(), 0);
}

/// PROTOCOL 1: what is held is one debt, not a queue: many appends wait for one write and get one
/// answer.
#[test]
fn many_appends_that_wait_for_one_write_get_one_answer() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2], 0));
    for index in 2..50 {
        server.receive(B, append(2, LogId::new(2, index), &[2], 0));
    }
    server.persist();
    assert!(said(&mut server).len() <= 1);
    server.persist();
    let acknowledged: Vec<_> = said(&mut server).iter().filter_map(acknowledged).collect();
    assert_eq!(acknowledged, [50]);
}

/// PROTOCOL 1: "An acknowledgement is `min(matched with this leader, durable)`": matched is less
/// here.
#[test]
fn an_acknowledgement_goes_no_further_than_what_matched() {
    let mut server = Server::with_terms(A, THREE, &[1, 1, 1, 1, 1, 1]);
    let sent = server.answers_to(B, append(2, LogId::new(1, 3), &[], 0));
    assert_eq!(sent.iter().filter_map(|(_, message)| acknowledged(message)).next_back(), Some(3));
    let sent = server.answers_to(B, heartbeat(2, 2, 0));
    assert_eq!(sent.iter().filter_map(|(_, message)| acknowledged(message)).next_back(), Some(3));
}

/// PROTOCOL 1: "An acknowledgement is `min(matched with this leader, durable)`": durable is less
/// here, and a heartbeat's answer says so too.
#[test]
fn an_acknowledgement_goes_no_further_than_what_is_durable() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2], 0));
    server.receive(B, append(2, LogId::new(2, 2), &[2, 2], 0));
    server.take_sent();
    server.receive(B, heartbeat(2, 2, 0));
    let said = said(&mut server);
    let Some(Message::HeartbeatResponse(response)) = said.last() else { panic!("{said:?}") };
    assert_eq!((response.matched.0, response.received.0), (2, 4));
}

/// PROTOCOL 1: "The leader counts itself by its own durable mark."
#[test]
fn a_leader_counts_its_own_copy_once_it_is_durable() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    leader.propose("x");
    leader.receive(B, matched(2, 3));
    assert_eq!(leader.commit(), 2);
    leader.persist();
    assert_eq!(leader.commit(), 3);
    let mut alone = Server::leader(A, ONE, &[1]);
    alone.propose("x");
    assert_eq!(alone.commit(), 2);
    alone.persist();
    assert_eq!(alone.commit(), 3);
}

/// PROTOCOL 1: "Truncating at `t` clips the mark and every write in flight to `t - 1`": the old
/// write completes, but what it wrote at and above `t` is another leader's.
#[test]
fn a_write_in_flight_counts_only_up_to_where_the_log_was_cut() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2], 0));
    server.receive(B, append(2, LogId::new(2, 2), &[2, 2, 2], 0));
    assert!(server.write.is_some(), "entries 3 to 5 of term 2 are with the disk");
    server.receive(C, append(3, LogId::new(2, 3), &[3, 3], 0));
    server.take_sent();
    assert!(server.persist());
    assert_eq!(server.status().durable, Index(3));
    let acknowledged: Vec<_> = said(&mut server).iter().filter_map(acknowledged).collect();
    assert!(acknowledged.iter().all(|index| *index <= 3), "{acknowledged:?}");
    server.settle();
    assert_eq!(server.status().durable, Index(5));
    assert_eq!(server.disk.terms(), [1, 2, 2, 3, 3]);
}

/// PROTOCOL 1: truncating clips the durable mark too.
#[test]
fn what_was_durable_and_is_cut_off_is_durable_no_longer() {
    let mut server = Server::with_terms(A, THREE, &[1, 2, 2, 2]);
    assert_eq!(server.status().durable, Index(4));
    server.receive(B, append(3, LogId::new(2, 2), &[3, 3, 3], 0));
    assert_eq!(server.status().durable, Index(2));
    server.settle();
    assert_eq!(server.status().durable, Index(5));
}

/// PROTOCOL 1: "An entry is applied when it is committed **and** durable here: `applied <=
/// durable`."
#[test]
fn an_entry_is_applied_once_it_is_committed_and_durable_here() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2], 2));
    assert_eq!(server.applied.len(), 2);
    server.receive(B, append(2, LogId::new(2, 2), &[2], 3));
    assert_eq!(server.commit(), 3, "committed by others");
    assert!(server.apply.is_none(), "but not durable here");
    server.persist();
    assert!(server.apply.is_some());
}

/// PROTOCOL 1: "`commit` in the hard state is a hint, never written on its own account."
#[test]
fn the_commit_index_rides_along_and_is_never_written_by_itself() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2, 2], 0));
    server.receive(B, heartbeat(2, 1, 3));
    assert_eq!(server.commit(), 3);
    assert!(server.write.is_none());
    server.receive(B, append(2, LogId::new(2, 3), &[2], 3));
    let write = server.write.clone().expect("the new entry");
    let hint = write.writes.iter().find_map(|write| match write {
        Write::HardState(state) => Some(state.commit.0),
        _ => None,
    });
    assert_eq!(hint, Some(3), "it goes with the entry");
}

/// PROTOCOL 1: the hint is good for a restart: what it covers is applied without waiting for a
/// leader.
#[test]
fn the_commit_hint_lets_a_restarted_server_apply_at_once() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2, 2], 0));
    server.answers_to(B, append(2, LogId::new(2, 3), &[2], 3));
    server.restart();
    server.jump(1);
    server.settle();
    assert_eq!(server.applied_commands(), ["2@2", "3@2"]);
}

/// PROTOCOL 1: a hint covers only what is stored, whatever its write got to.
#[test]
fn the_commit_hint_never_passes_what_is_stored() {
    let mut server = Server::founded(A, THREE);
    server.receive(B, append(2, FIRST, &[2, 2, 2], 4));
    while let Some(batch) = server.write.clone() {
        let mut stored = server.status().durable.0;
        for write in &batch.writes {
            if let Write::Append(entries) = write {
                stored = entries.last_log_id().expect("not empty").index.0;
            }
        }
        for write in &batch.writes {
            if let Write::HardState(state) = write {
                assert!(state.commit.0 <= stored);
            }
        }
        server.persist();
    }
    assert_eq!(server.commit(), 4);
}

/// PROTOCOL 1: "Writes are first-in first-out": the next one comes only when the last one is
/// durable.
#[test]
fn there_is_one_write_at_a_time() {
    let mut server = Server::founded(A, THREE);
    server.receive(B, append(2, FIRST, &[2], 0));
    let first = server.write.take().expect("a write");
    server.receive(B, append(2, LogId::new(2, 2), &[2], 0));
    server.receive(B, append(3, LogId::new(2, 3), &[3], 0));
    server.elapse(20);
    assert!(server.write.is_none(), "the first is still under way");
    server.disk.write(&first);
    server.step(Input::Persisted(first.id));
    let second = server.write.clone().expect("the next write");
    assert!(second.id > first.id);
    server.settle();
    assert_eq!(server.disk.terms(), [1, 2, 2, 3]);
}

/// PROTOCOL 1: "and so are applies".
#[test]
fn there_is_one_apply_at_a_time() {
    let mut server = Server::founded(A, THREE);
    server.receive(B, append(2, FIRST, &[2], 2));
    server.persist();
    while server.finish_load() {}
    let first = server.apply.take().expect("an apply");
    server.receive(B, append(2, LogId::new(2, 2), &[2, 2], 4));
    server.persist();
    assert!(server.apply.is_none(), "the machine is still busy");
    let index = first.entries.last_log_id().expect("not empty").index;
    server.step(Input::Applied { index, checkpoints: Vec::new() });
    let second = server.apply.clone().expect("the next batch");
    assert_eq!(second.entries.first_index(), Some(index.next()));
}

/// PROTOCOL 1: "Nothing else is ordered": an apply does not wait for a write, nor a message for
/// either.
#[test]
fn lanes_do_not_wait_for_each_other() {
    let mut leader = Server::settled_leader(Config::new(A), THREE, &[1]);
    leader.propose("x");
    leader.persist();
    leader.propose("y");
    leader.receive(B, matched(2, 3));
    assert!(leader.write.is_some(), "y is being written");
    assert!(leader.apply.is_some(), "x is being applied");
    leader.take_sent();
    leader.propose("z");
    assert_eq!(appends(&leader.take_sent()).len(), 2, "z is being sent");
}

/// PROTOCOL 1: "What arrives about term T from the store after the log was truncated matters only
/// where its terms still equal the index of terms": a read that was ordered by a leader of term 2
/// comes back when another leader has replaced what it read.
#[test]
fn a_read_that_was_overtaken_by_a_truncation_is_ignored() {
    let mut server = Server::start(forgetful(A), Disk::founded(A, THREE).with_terms(&[1, 1, 1]));
    server.step(Input::Campaign);
    server.settle();
    server.receive(C, vote(2, true));
    server.settle();
    server.receive(B, conflict(2, 3, FIRST));
    let load = server.loads.pop().expect("entries 2 and 3 are on disk only");
    let stale = server.disk.read(&load);
    assert_eq!(stale.first().map(|entry| entry.log_id), Some(LogId::new(1, 2)));
    // Term 3: C's log replaces entry 2 and all behind it. Then this server leads again.
    server.answers_to(C, append(3, FIRST, &[3, 3, 3], 4));
    assert_eq!((server.terms(), server.applied.len()), (vec![1, 3, 3, 3], 4));
    server.jump(60);
    server.step(Input::Campaign);
    server.settle();
    server.receive(C, vote(4, true));
    server.settle();
    assert!(server.is_leader());
    server.receive(B, conflict(4, 4, FIRST));
    server.take_sent();
    server.step(Input::Loaded { id: load.id, entries: stale });
    assert!(appends(&server.take_sent()).is_empty(), "what was read is nobody's log any more");
    server.settle();
    let sent = server.take_sent();
    let (to, append) = appends(&sent)[0];
    assert_eq!((to, append.entries.first().map(|entry| entry.log_id)), (B, Some(LogId::new(3, 2))));
}

/// PROTOCOL 1: the same for what the machine waits for: what is not the log is not applied, but
/// read again.
#[test]
fn a_read_of_what_is_not_in_the_log_is_not_applied() {
    let mut server = Server::founded(A, THREE);
    server.answers_to(B, append(2, FIRST, &[2, 2], 0));
    server.answers_to(B, append(2, LogId::new(2, 3), &[2], 3));
    server.restart();
    server.jump(1);
    let load = server.loads.pop().expect("what is committed is on disk only");
    let id = load.id;
    server.step(Input::Loaded { id, entries: entries_after(LogId::ZERO, &[1, 7, 7]) });
    assert!(server.apply.is_none());
    let load = server.loads.pop().expect("it is read again");
    let entries = server.disk.read(&load);
    server.step(Input::Loaded { id: load.id, entries });
    assert!(server.apply.is_some());
}

/// PROTOCOL 1: a crash at any moment loses only what nobody was told of: followers crash with their
/// writes under way, again and again, and the audit of the cluster counts the durable copies of
/// every commit.
#[test]
fn a_crash_loses_only_what_was_never_promised() {
    let mut cluster = Cluster::led(THREE);
    for round in 0..50 {
        let leader = cluster.leaders().first().copied();
        if let Some(leader) = leader {
            cluster.propose(leader, &[&format!("x{round}")]);
        }
        cluster.deliver_all();
        let victim = THREE[round % 3];
        cluster.persist(THREE[(round + 1) % 3]);
        cluster.crash(victim);
        cluster.restart(victim);
        cluster.elapse(40);
    }
    cluster.elapse(240);
    assert!(cluster.audit().committed() > 20);
    let kinds = |node| cluster[node].applied.iter().filter(|e| e.kind == EntryKind::Plain).count();
    assert!(kinds(A) > 5 && kinds(A) == kinds(B) && kinds(B) == kinds(C));
}
