//! What the store has, and what may therefore be promised: the one place that lets a promise out.
//!
//! Raft's RPCs answer only after "updating on stable storage" (Raft, Figure 2). Here the store works
//! beside the protocol, so a promise is kept back as a *debt*: a flag that says whom something is
//! owed. [`Raft::release`] pays what the durable state covers, computing each message from the state
//! of that moment; a debt of an older term is gone with the role that held it.

use super::{Mutant, Raft, Role, WriteBatch, WriteId};
use crate::{
    AppendEntriesResponse, AppendOutcome, HardState, HeartbeatResponse, Index, LogId, Message,
    NodeId, Term, VoteRequest, VoteResponse, Write,
};

/// How far the store has come.
///
/// Invariants: `durable <= in_flight.last < unwritten`, as far as each exists, after clipping by every
/// truncation; `hard_state` is what a restart would recover.
#[derive(Debug)]
pub(super) struct Durability {
    /// The hard state in the store.
    pub(super) hard_state: HardState,
    /// The store holds the log up to here, and it is still our log.
    pub(super) durable: Index,
    /// The first entry that has not been handed to the store.
    unwritten: Index,
    /// At most one write is with the store.
    in_flight: Option<InFlight>,
    next_id: WriteId,
}

#[derive(Debug)]
struct InFlight {
    id: WriteId,
    hard_state: Option<HardState>,
    /// The last entry of the write that is still our log; clipped by truncation.
    last: Option<Index>,
    /// When it was handed over, in ticks.
    since: u64,
}

/// What is owed to servers that lead or campaign elsewhere. Each states the term of the day it is paid.
#[derive(Debug, Default)]
pub(super) struct Debts {
    /// The vote of the current term, to be told once it is durable.
    pub(super) vote: Option<NodeId>,
    /// Refusals, at most one of a kind for each server.
    refusals: Vec<(NodeId, RefusalOf)>,
}

/// What was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RefusalOf {
    PreVote,
    Vote,
    StaleAppend,
    StaleHeartbeat,
    /// An append of the current leader whose `prev` did not match.
    Conflict {
        rejected: Index,
        hint: LogId,
        term: Term,
    },
}

impl Debts {
    /// More servers than this never wait for a refusal at once; it is only a courtesy to them.
    const MAX_REFUSALS: usize = 256;

    pub(super) fn refuse(&mut self, to: NodeId, what: RefusalOf) {
        let kind = std::mem::discriminant(&what);
        self.refusals.retain(|(node, old)| *node != to || std::mem::discriminant(old) != kind);
        if self.refusals.len() < Self::MAX_REFUSALS {
            self.refusals.push((to, what));
        }
    }
}

impl Durability {
    pub(super) fn recovered(hard_state: HardState, last: Index) -> Self {
        Self {
            hard_state,
            durable: last,
            unwritten: last.next(),
            in_flight: None,
            next_id: WriteId(1),
        }
    }

    /// The log was cut at `index`: nothing at or above it counts any more, durable or on its way.
    pub(super) fn clip(&mut self, index: Index, forget_in_flight: bool) {
        let last = index.previous();
        self.unwritten = self.unwritten.min(index);
        self.durable = self.durable.min(last);
        if let Some(in_flight) = self.in_flight.as_mut().filter(|_| !forget_in_flight) {
            in_flight.last = in_flight.last.map(|covered| covered.min(last));
        }
    }

    /// When the oldest write that is not durable yet was handed over, in ticks.
    pub(super) fn waiting_since(&self) -> Option<u64> {
        self.in_flight.as_ref().map(|write| write.since)
    }

    pub(super) fn check(&self, last: Index) {
        assert!(self.durable <= last, "more is durable than the log holds");
        assert!(self.unwritten > self.durable, "what is durable was written");
        assert!(self.unwritten <= last.next(), "what was written is in the log");
    }
}

impl Raft {
    /// The current term is in the store: this server may speak in it.
    fn term_is_durable(&self) -> bool {
        self.durability.hard_state.term == self.hard_state.term
    }

    fn own_vote_is_durable(&self) -> bool {
        let stored = &self.durability.hard_state;
        self.term_is_durable() && stored.voted_for == Some(self.config.node)
    }

    /// Sends every promise that the durable state covers (PROTOCOL "Durability"). Everything this
    /// server says that another may rely on leaves here, or from a leader whose own vote was durable.
    pub(super) fn release(&mut self) {
        if self.own_vote_is_durable() || self.is_mutant(Mutant::RequestVoteBeforeDurable) {
            self.ask_for_votes();
        }
        self.release_vote();
        if self.term_is_durable() || self.is_mutant(Mutant::TermBeforeDurable) {
            self.release_refusals();
            self.release_answers();
        }
    }

    /// A candidate asks for votes, and counts its own, once that one is durable.
    fn ask_for_votes(&mut self) {
        let me = self.config.node;
        let (term, last) = (self.hard_state.term, self.log.last());
        let own_vote_is_durable = self.own_vote_is_durable();
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        let ask = !candidate.asked;
        candidate.asked = true;
        let transfer = candidate.transfer;
        let count_own = own_vote_is_durable && !candidate.votes.contains_key(&me);
        if ask {
            let request = VoteRequest { term, last, transfer };
            self.send_to_voters(&Message::RequestVote(request));
        }
        if count_own {
            self.count_vote(me, true);
        }
    }

    fn release_vote(&mut self) {
        let Some(to) = self.debts.vote else { return };
        let stored = self.durability.hard_state;
        let durable = stored.term == self.hard_state.term && stored.voted_for == Some(to);
        if durable || self.is_mutant(Mutant::VoteBeforeDurable) {
            self.debts.vote = None;
            let response = VoteResponse { term: self.hard_state.term, granted: true };
            self.send(to, Message::RequestVoteResponse(response));
        }
    }

    fn release_refusals(&mut self) {
        let term = self.hard_state.term;
        for (to, what) in std::mem::take(&mut self.debts.refusals) {
            let message = match what {
                RefusalOf::PreVote => {
                    Message::PreVoteResponse(VoteResponse { term, granted: false })
                }
                RefusalOf::Vote => {
                    Message::RequestVoteResponse(VoteResponse { term, granted: false })
                }
                RefusalOf::StaleAppend => Message::AppendEntriesResponse(AppendEntriesResponse {
                    term,
                    round: 0,
                    outcome: AppendOutcome::StaleTerm,
                }),
                RefusalOf::StaleHeartbeat => Message::HeartbeatResponse(HeartbeatResponse {
                    term,
                    round: 0,
                    matched: Index(0),
                    received: Index(0),
                    applied: Index(0),
                    stalled: self.stalled,
                }),
                // A conflict with the leader of an older term says nothing to the one of this term.
                RefusalOf::Conflict { term: meant, .. } if meant != term => continue,
                RefusalOf::Conflict { rejected, hint, .. } => {
                    Message::AppendEntriesResponse(AppendEntriesResponse {
                        term,
                        round: self.leader_round(),
                        outcome: AppendOutcome::Conflict {
                            rejected,
                            index: hint.index,
                            term: hint.term,
                        },
                    })
                }
            };
            self.send(to, message);
        }
    }

    fn leader_round(&self) -> u64 {
        match &self.role {
            Role::Follower(follower) => follower.round,
            _ => 0,
        }
    }

    /// A follower acknowledges `min(matched with this leader, durable)`.
    fn release_answers(&mut self) {
        let term = self.hard_state.term;
        let too_early = self.is_mutant(Mutant::AppendBeforeDurable);
        let (durable, applied, stalled) = (self.durability.durable, self.applied, self.stalled);
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let Some(leader) = follower.leader else {
            return;
        };
        let matched = if too_early { follower.matched } else { follower.matched.min(durable) };
        let owed = follower.append_owed && matched == follower.matched;
        let append = (owed || matched > follower.acknowledged).then_some(AppendEntriesResponse {
            term,
            round: follower.round,
            outcome: AppendOutcome::Matched(matched),
        });
        if append.is_some() {
            follower.acknowledged = matched;
            follower.append_owed = follower.matched != matched;
        }
        let heartbeat = follower.heartbeat_owed.take().map(|round| HeartbeatResponse {
            term,
            round,
            matched,
            received: follower.matched,
            applied,
            stalled,
        });
        if let Some(response) = append {
            self.send(leader, Message::AppendEntriesResponse(response));
        }
        if let Some(response) = heartbeat {
            self.send(leader, Message::HeartbeatResponse(response));
        }
    }

    /// How far this server's own log counts towards commitment.
    pub(super) fn own_match(&self) -> Index {
        if self.is_mutant(Mutant::LeaderCountsItselfEarly) {
            return self.log.last().index;
        }
        self.durability.durable
    }

    /// Everything that is not with the store yet, as one write; nothing while one is under way.
    pub(super) fn next_write(&mut self) -> Option<WriteBatch> {
        let last = self.log.last().index;
        let state = &self.durability;
        let vote_changed = (state.hard_state.term, state.hard_state.voted_for)
            != (self.hard_state.term, self.hard_state.voted_for);
        if state.in_flight.is_some() || (!vote_changed && state.unwritten > last) {
            return None;
        }
        let range = state.unwritten..last.next();
        let bytes = self.config.max_write_bytes();
        let entries = self.log.entries(range, usize::MAX, bytes).unwrap_or_default();
        let covered = entries.last_log_id().map(|log_id| log_id.index);
        // The commit rides along with what is written anyway, and never claims more than is written.
        let stored = covered.unwrap_or(state.unwritten.previous());
        let commit = self.commit_index.min(stored).max(state.hard_state.commit.min(stored));
        let hard_state = HardState { commit, ..self.hard_state };
        let write_hard_state = vote_changed || commit > state.hard_state.commit;

        let mut writes = Vec::with_capacity(2);
        if write_hard_state {
            writes.push(Write::HardState(hard_state));
        }
        if !entries.is_empty() {
            writes.push(Write::Append(entries));
        }
        let id = self.durability.next_id;
        self.durability.next_id = WriteId(id.0 + 1);
        self.durability.unwritten = covered.map_or(self.durability.unwritten, Index::next);
        self.durability.in_flight = Some(InFlight {
            id,
            hard_state: write_hard_state.then_some(hard_state),
            last: covered,
            since: self.tick,
        });
        Some(WriteBatch { id, writes })
    }

    /// The store says that a write is durable.
    pub(super) fn on_persisted(&mut self, id: WriteId) {
        let in_flight = self.durability.in_flight.take();
        let expected = in_flight.as_ref().map(|write| write.id);
        assert!(expected == Some(id), "a write was completed that is not under way");
        let Some(write) = in_flight else { return };
        if let Some(hard_state) = write.hard_state {
            self.durability.hard_state = hard_state;
        }
        if let Some(last) = write.last {
            self.durability.durable = self.durability.durable.max(last);
        }
        self.stalled = false;
    }
}
