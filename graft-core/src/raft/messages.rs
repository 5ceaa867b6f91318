//! Messages in and out: what a peer sends is input, and is checked before anything believes it.

use super::{Mutant, Raft, Role, durability::RefusalOf};
use crate::{
    AppendEntries, AppendOutcome, Heartbeat, Index, LogId, Message, NodeId, PeerEnvelope, Term,
};

/// What was dropped at the door, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Counters {
    /// For another group or another server, or from this one.
    pub misdirected: u64,
    /// From or for another birth of a store.
    pub stale_incarnation: u64,
    /// Terms or indexes out of range, or entries that do not fit together.
    pub malformed: u64,
    /// Of a kind this build does not handle.
    pub unsupported: u64,
    /// Not dropped, but answered "already founded": from a birth that the cluster was not founded with.
    pub foreign_births: u64,
}

impl Raft {
    pub(super) fn on_envelope(&mut self, envelope: PeerEnvelope) {
        let from = envelope.from;
        if envelope.group != self.config.group
            || envelope.to != self.config.node
            || from == self.config.node
        {
            self.counters.misdirected += 1;
            return;
        }
        if let Message::Birth(report) = &envelope.message {
            // From whatever birth: that is what it is about.
            self.on_birth(from, envelope.from_incarnation, report);
            return;
        }
        let known = self.membership().incarnation(from);
        let for_another =
            envelope.to_incarnation.0 != 0 && envelope.to_incarnation != self.identity.incarnation;
        let from_another = known.0 != 0 && envelope.from_incarnation != known;
        if for_another || from_another {
            self.counters.stale_incarnation += 1;
            return;
        }
        if !self.is_well_formed(&envelope.message) {
            self.counters.malformed += 1;
            return;
        }
        if self.take_term(from, &envelope.message) {
            self.on_message(from, envelope.message);
        }
    }

    fn is_well_formed(&self, message: &Message) -> bool {
        let term = message.term();
        let leap = term.0.saturating_sub(self.hard_state.term.0);
        let plausible = term > Term(0) && term < Term::LIMIT && leap <= Term::MAX_LEAP;
        plausible
            && match message {
                Message::PreVote(request) | Message::RequestVote(request) => {
                    is_log_id(request.last) && request.last.term < term
                }
                Message::AppendEntries(append) => is_append_well_formed(append),
                Message::AppendEntriesResponse(response) => match response.outcome {
                    AppendOutcome::Matched(index) => is_index(index),
                    AppendOutcome::Conflict { rejected, index, term: hint } => {
                        is_index(rejected)
                            && index <= rejected
                            && is_log_id(LogId { term: hint, index })
                    }
                    AppendOutcome::StaleTerm => true,
                },
                Message::Heartbeat(heartbeat) => {
                    let compared = heartbeat.checksum.map(|checkpoint| checkpoint.index);
                    is_index(heartbeat.commit) && compared.is_none_or(is_index)
                }
                Message::HeartbeatResponse(response) => {
                    is_index(response.received)
                        && is_index(response.applied)
                        && response.matched <= response.received
                }
                _ => true,
            }
    }

    /// Brings the term in line with the message's (Raft §5.1). Says whether the message is to be handled.
    fn take_term(&mut self, from: NodeId, message: &Message) -> bool {
        let (term, current) = (message.term(), self.hard_state.term);
        if term < current {
            let answers = matches!(
                message,
                Message::AppendEntriesResponse(_) | Message::HeartbeatResponse(_)
            );
            if answers && self.is_mutant(Mutant::StaleTermAcknowledged) {
                return true;
            }
            self.on_lower_term(from, message);
            return false;
        }
        if term == current {
            return true;
        }
        match message {
            // A pre-vote changes no state, whatever term it speaks of.
            Message::PreVote(_) if !self.is_mutant(Mutant::PreVoteRaisesTerm) => true,
            Message::PreVoteResponse(response) if response.granted => true,
            // Disturbing a leader that works takes a transfer (thesis §4.2.3).
            Message::RequestVote(request) if !request.transfer && self.has_leader() => false,
            Message::AppendEntries(_) | Message::Heartbeat(_) | Message::InstallSnapshot(_) => {
                self.become_follower(term, Some(from));
                true
            }
            _ => {
                self.become_follower(term, None);
                true
            }
        }
    }

    /// What comes from a lower term is answered with the current one, never dropped: a server that
    /// came back at a higher term must not be cut off by a leader that does not know it.
    fn on_lower_term(&mut self, from: NodeId, message: &Message) {
        let refusal = match message {
            Message::PreVote(_) => RefusalOf::PreVote,
            Message::RequestVote(_) => RefusalOf::Vote,
            Message::AppendEntries(_) => RefusalOf::StaleAppend,
            Message::Heartbeat(_) => RefusalOf::StaleHeartbeat,
            _ => return,
        };
        self.debts.refuse(from, refusal);
    }

    fn on_message(&mut self, from: NodeId, message: Message) {
        match message {
            Message::PreVote(request) => self.on_pre_vote(from, request),
            Message::PreVoteResponse(response) => self.on_pre_vote_response(from, response),
            Message::RequestVote(request) => self.on_request_vote(from, request),
            Message::RequestVoteResponse(response) => self.on_request_vote_response(from, response),
            Message::AppendEntries(append) => self.on_append_entries(from, append),
            Message::AppendEntriesResponse(response) => {
                self.on_append_entries_response(from, response);
            }
            Message::Heartbeat(heartbeat) => self.on_heartbeat(from, heartbeat),
            Message::HeartbeatResponse(response) => self.on_heartbeat_response(from, response),
            Message::TimeoutNow { .. } => self.on_timeout_now(from),
            Message::InstallSnapshot(_)
            | Message::InstallSnapshotResponse(_)
            | Message::ReadIndex { .. }
            | Message::ReadIndexResponse { .. }
            | Message::Birth(_) => self.counters.unsupported += 1,
        }
    }

    /// Puts a message into the outbox.
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let to_incarnation = self.membership().incarnation(to);
        self.outbox.push(PeerEnvelope {
            group: self.config.group,
            from: self.config.node,
            to,
            from_incarnation: self.identity.incarnation,
            to_incarnation,
            message,
        });
    }

    /// Sends to every other voter, of both halves of a joint configuration.
    pub(super) fn send_to_voters(&mut self, message: &Message) {
        let membership = std::sync::Arc::clone(self.membership());
        for node in membership.members() {
            if node != self.config.node && membership.is_voter(node) {
                self.send(node, message.clone());
            }
        }
    }

    /// Whether there is a leader that was heard of within the shortest election timeout.
    pub(super) fn has_leader(&self) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => {
                let since = self.tick.saturating_sub(follower.heard);
                follower.leader.is_some() && since < self.config.election_timeout_min_ticks
            }
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }
}

fn is_append_well_formed(append: &AppendEntries) -> bool {
    let prev = append.prev;
    let last = append.entries.last_log_id().unwrap_or(prev);
    let continues = || {
        append.entries.first().is_none_or(|first| {
            let first = first.log_id;
            is_log_id(first) && first.index == prev.index.next() && first.term >= prev.term
        })
    };
    is_log_id(prev)
        && continues()
        && is_log_id(last)
        && last.term <= append.term
        && is_index(append.commit)
}

fn is_index(index: Index) -> bool {
    index < Index::LIMIT
}

/// Whether some log could hold this: only the place before every log is without a term.
fn is_log_id(log_id: LogId) -> bool {
    let before_every_log = log_id.index == Index(0);
    is_index(log_id.index)
        && log_id.term < Term::LIMIT
        && before_every_log == (log_id.term == Term(0))
}

impl Heartbeat {
    /// The smallest heartbeat there is, for tests and embeddings that write messages by hand.
    #[must_use]
    pub const fn new(term: Term, round: u64) -> Self {
        Self { term, commit: Index(0), round, checksum: None }
    }
}
