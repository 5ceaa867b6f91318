//! The oracle of promises: whatever a server says is held against its own disk at that moment
//! (PROTOCOL "Durability"), and whatever it sends of its log against its log.

use std::collections::VecDeque;

use super::{
    coverage::{Corner, Coverage},
    disk::place,
    facts::Facts,
    server::{Sent, Server, log_id},
};
use crate::{
    AppendEntries, AppendOutcome, Heartbeat, Index, LogId, Message, NodeId, PeerEnvelope, Term,
    VoteRequest,
    raft::{Raft, Role, progress::ProgressState},
};

/// Holds one message against the disk of the server that sends it. `receiver` is the disk it goes to.
pub(super) fn check(
    server: &Server,
    receiver: &Server,
    envelope: &PeerEnvelope,
    facts: &Facts,
    coverage: &mut Coverage,
) {
    let message = &envelope.message;
    let (disk, term) = (&server.disk.hard_state, message.term());
    assert!(envelope.from == server.node, "{} speaks for another", server.node);
    assert!(envelope.to == receiver.node, "a message went astray");
    match message {
        Message::RequestVote(request) => check_request_vote(server, request),
        Message::RequestVoteResponse(response) if response.granted => {
            let durable = disk.term == term && disk.voted_for == Some(envelope.to);
            assert!(durable, "{} told {} of a vote that is not durable", server.node, envelope.to);
        }
        Message::AppendEntries(append) => check_append(server, append, facts),
        Message::AppendEntriesResponse(response) => match response.outcome {
            AppendOutcome::Matched(matched) => {
                check_acknowledgement(server, envelope.to, term, matched, facts);
            }
            AppendOutcome::Conflict { rejected, index, .. } => {
                coverage.note(Corner::ConflictSent);
                coverage.note_if(index.next() < rejected, Corner::HintSkipped);
            }
            AppendOutcome::StaleTerm => coverage.note(Corner::StaleAppendAnswered),
        },
        Message::Heartbeat(heartbeat) => check_heartbeat(server, receiver, heartbeat, facts),
        Message::HeartbeatResponse(response) => {
            coverage.note_if(response.round == 0, Corner::StaleHeartbeatAnswered);
            check_acknowledgement(server, envelope.to, term, response.matched, facts);
            assert!(response.matched <= response.received, "more is durable than was received");
            coverage.note_if(response.matched < response.received, Corner::PartlyAcknowledged);
            check_received(server, term, response.received, facts);
        }
        Message::TimeoutNow { .. } => check_timeout_now(server, receiver, term, facts),
        _ => {}
    }
    // The term that somebody would campaign in binds nobody.
    let proposed = match message {
        Message::PreVote(_) => true,
        Message::PreVoteResponse(response) => response.granted,
        _ => false,
    };
    assert!(proposed || term <= disk.term, "{} states term {term}, not durable", server.node);
}

fn check_timeout_now(server: &Server, receiver: &Server, term: Term, facts: &Facts) {
    let to = receiver.node;
    let membership = server.raft.as_ref().map(|raft| raft.membership());
    assert!(membership.is_none_or(|one| one.is_voter(to)), "{to} is to lead and may not");
    // Where a disk has come to a stand there is no time to wait for the log; a transfer that was given
    // up before the turn ended promises nothing; and where a later leader has come up behind this
    // one's back, all this is history.
    if server.has_told(to) && receiver.disk.hard_state.term <= term {
        let last = facts.reign(term).and_then(|reign| reign.log.last().copied());
        let index = Index(server.log.len() as u64);
        let last = LogId { term: last.unwrap_or_default(), index };
        assert!(receiver.disk.holds(last), "{to} is to lead without {last}");
    }
}

fn check_request_vote(server: &Server, request: &VoteRequest) {
    let disk = &server.disk.hard_state;
    let durable = disk.term == request.term && disk.voted_for == Some(server.node);
    assert!(durable, "{} asks for votes before its own is durable", server.node);
    let last = Index(server.log.len() as u64);
    assert!(request.last == log_id(&server.log, last), "a candidate shows its last entry");
}

/// Holds `matched`, said to the leader of `term`, against the sender's disk. That every disk obeys log
/// matching is known from the facts, so equal last entries mean equal logs.
fn check_acknowledgement(server: &Server, to: NodeId, term: Term, matched: Index, facts: &Facts) {
    if matched == Index(0) {
        return;
    }
    let reign = facts.reign(term).expect("only the leader of a term sends appends in it");
    assert!(reign.node == to, "an acknowledgement went to {to}, who does not lead term {term}");
    let length = Index(reign.log.len() as u64);
    assert!(matched <= length, "{} acknowledged more than there is", server.node);
    assert!(
        server.disk.holds(log_id(&reign.log, matched)),
        "{} acknowledged {matched} to the leader of term {term} without having it on disk",
        server.node
    );
}

fn check_received(server: &Server, term: Term, received: Index, facts: &Facts) {
    if received > Index(0) {
        let reign = facts.reign(term).expect("only a leader sends appends");
        let length = Index(reign.log.len() as u64);
        assert!(received <= length, "{} received more than there is", server.node);
        assert!(
            log_id(&server.log, received) == log_id(&reign.log, received),
            "{} says that it received what it does not hold",
            server.node
        );
    }
}

fn check_append(server: &Server, append: &AppendEntries, facts: &Facts) {
    let reign = facts.reign(append.term).expect("a server that sends appends leads");
    assert!(reign.node == server.node, "{} sends appends and does not lead", server.node);
    let mut before = append.prev;
    let is_ours = |entry: LogId| entry == log_id(&reign.log, entry.index);
    assert!(before == LogId::ZERO || is_ours(before), "the predecessor is not in the leader's log");
    for entry in append.entries.iter() {
        assert!(entry.log_id.index == before.index.next(), "an append has a gap");
        assert!(is_ours(entry.log_id), "an append holds what is not in the leader's log");
        before = entry.log_id;
    }
    assert!(append.commit <= server.seen.commit, "an append tells of a commit that is none");
}

fn check_heartbeat(server: &Server, receiver: &Server, heartbeat: &Heartbeat, facts: &Facts) {
    let reign = facts.reign(heartbeat.term).expect("a server that sends heartbeats leads");
    assert!(reign.node == server.node, "{} sends heartbeats and does not lead", server.node);
    assert!(heartbeat.commit <= server.seen.commit, "a heartbeat tells of a commit that is none");
    // A heartbeat may overtake an append: it speaks only of what the receiver has acknowledged, and
    // what is committed never leaves a disk again.
    if heartbeat.commit > Index(0) {
        assert!(
            receiver.disk.holds(log_id(&reign.log, heartbeat.commit)),
            "a heartbeat tells {} of a commit that it does not hold",
            receiver.node
        );
    }
}

/// Counts what a leader has on its way to a peer, by what it sent and what came back.
pub(super) fn count_sent(
    server: &mut Server,
    to: (usize, NodeId),
    append: &AppendEntries,
    coverage: &mut Coverage,
) {
    let Some(raft) = &server.raft else { return };
    let Role::Leader(leader) = &raft.role else { return };
    let Some(progress) = leader.progress(to.1) else { return };
    let window = &mut server.windows[to.0];
    if progress.state != ProgressState::Replicate {
        let repeated = server.probes[to.0] == Some(append.prev);
        coverage.note_if(repeated, Corner::ProbeRepeated);
        server.probes[to.0] = Some(append.prev);
        return;
    }
    let (max_entries, max_bytes) = (raft.config.window_entries, raft.config.window_bytes);
    let (entries, bytes) = (append.entries.len(), append.entries.size());
    let Some(last) = append.entries.last_log_id() else { return };
    window.push_back(Sent { last: last.index, entries, bytes });
    let sum = window.iter().map(|sent| sent.entries).sum::<usize>();
    assert!(sum <= max_entries, "{sum} entries are on their way, {max_entries} may be");
    coverage.note_if(sum == max_entries, Corner::WindowFull);
    let sum = window.iter().map(|sent| sent.bytes).sum::<usize>();
    // An entry that is larger than the window travels alone.
    let fits = sum <= max_bytes || window.len() == 1;
    assert!(fits, "{sum} bytes are on their way, {max_bytes} may be");
    coverage.note_if(sum >= max_bytes, Corner::WindowFullInBytes);
    coverage.note_if(window.len() > 1, Corner::Pipelined);
}

/// Takes what has arrived, or is given up for lost, off a leader's accounts.
pub(super) fn count_arrived(windows: &mut [VecDeque<Sent>], raft: &Raft) {
    let Role::Leader(leader) = &raft.role else { return };
    for (node, progress) in &leader.peers {
        let window = &mut windows[place(Index(node.0))];
        if progress.state == ProgressState::Replicate {
            while window.front().is_some_and(|sent| sent.last <= progress.match_index) {
                window.pop_front();
            }
        } else {
            window.clear();
        }
    }
}
