//! Messages written by hand, as short as the paper writes them.

use graft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Entries, Heartbeat, HeartbeatResponse,
    Index, LogId, Message, NodeId, Term, VoteRequest, VoteResponse,
};

use super::{Server, disk::plain_entry};

/// A run of entries after `prev`, with these terms.
pub(crate) fn entries_after(prev: LogId, terms: &[u64]) -> Entries {
    let entries = (1..).zip(terms).map(|(behind, term)| plain_entry(*term, prev.index.0 + behind));
    entries.collect::<Vec<_>>().into()
}

/// An `AppendEntries` of entries with these terms after `prev`.
pub(crate) fn append(term: u64, prev: LogId, terms: &[u64], commit: u64) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        prev,
        commit: Index(commit),
        round: 1,
        entries: entries_after(prev, terms),
    })
}

pub(crate) fn append_response(term: u64, outcome: AppendOutcome) -> Message {
    let (term, round) = (Term(term), 0);
    Message::AppendEntriesResponse(AppendEntriesResponse { term, round, outcome })
}

pub(crate) fn matched(term: u64, index: u64) -> Message {
    append_response(term, AppendOutcome::Matched(Index(index)))
}

/// A refusal of `prev.index == rejected`, with a hint where the logs may agree.
pub(crate) fn conflict(term: u64, rejected: u64, hint: LogId) -> Message {
    let (rejected, index) = (Index(rejected), hint.index);
    append_response(term, AppendOutcome::Conflict { rejected, index, term: hint.term })
}

pub(crate) fn heartbeat(term: u64, round: u64, commit: u64) -> Message {
    Message::Heartbeat(Heartbeat { commit: Index(commit), ..Heartbeat::new(Term(term), round) })
}

/// A follower's answer that holds everything up to `matched`, durably.
pub(crate) fn heartbeat_response(term: u64, round: u64, matched: u64) -> HeartbeatResponse {
    HeartbeatResponse {
        term: Term(term),
        round,
        matched: Index(matched),
        received: Index(matched),
        applied: Index(0),
        stalled: false,
    }
}

pub(crate) fn request_vote(term: u64, last: LogId) -> Message {
    Message::RequestVote(VoteRequest { term: Term(term), last, transfer: false })
}

pub(crate) fn transfer_vote(term: u64, last: LogId) -> Message {
    Message::RequestVote(VoteRequest { term: Term(term), last, transfer: true })
}

pub(crate) fn pre_vote(term: u64, last: LogId) -> Message {
    Message::PreVote(VoteRequest { term: Term(term), last, transfer: false })
}

pub(crate) fn vote(term: u64, granted: bool) -> Message {
    Message::RequestVoteResponse(VoteResponse { term: Term(term), granted })
}

pub(crate) fn pre_vote_response(term: u64, granted: bool) -> Message {
    Message::PreVoteResponse(VoteResponse { term: Term(term), granted })
}

pub(crate) fn timeout_now(term: u64) -> Message {
    Message::TimeoutNow { term: Term(term) }
}

/// The appends among messages, with their receivers.
pub(crate) fn appends(sent: &[(NodeId, Message)]) -> Vec<(NodeId, &AppendEntries)> {
    let appends = sent.iter().map(|(to, message)| match message {
        Message::AppendEntries(append) => Some((*to, append)),
        _ => None,
    });
    appends.flatten().collect()
}

/// The heartbeats among messages, with their receivers.
pub(crate) fn heartbeats(sent: &[(NodeId, Message)]) -> Vec<(NodeId, Heartbeat)> {
    let heartbeats = sent.iter().map(|(to, message)| match message {
        Message::Heartbeat(heartbeat) => Some((*to, *heartbeat)),
        _ => None,
    });
    heartbeats.flatten().collect()
}

/// The receivers of `RequestVote` among messages.
pub(crate) fn asked_for_votes(sent: &[(NodeId, Message)]) -> Vec<NodeId> {
    let asked = sent.iter().filter(|(_, message)| matches!(message, Message::RequestVote(_)));
    asked.map(|(to, _)| *to).collect()
}

/// The receivers of `PreVote` among messages.
pub(crate) fn asked_for_pre_votes(sent: &[(NodeId, Message)]) -> Vec<NodeId> {
    let asked = sent.iter().filter(|(_, message)| matches!(message, Message::PreVote(_)));
    asked.map(|(to, _)| *to).collect()
}

/// The receivers of `TimeoutNow` among messages.
pub(crate) fn told_to_campaign(sent: &[(NodeId, Message)]) -> Vec<NodeId> {
    let told = sent.iter().filter(|(_, message)| matches!(message, Message::TimeoutNow { .. }));
    told.map(|(to, _)| *to).collect()
}

/// What `server` has said since it was last asked, to whomever.
pub(crate) fn said(server: &mut Server) -> Vec<Message> {
    server.take_sent().into_iter().map(|(_, message)| message).collect()
}
