//! The sending end of replication (Raft §5.3) and commitment (§5.4.2).

use bytes::Bytes;

use super::{
    Answer, LoadFor, Mutant, Progress, Proposal, Raft, Refusal, Role, progress::ProgressState,
};
use crate::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Entries, EntriesBuilder, Entry, EntryKind,
    Heartbeat, HeartbeatResponse, Index, LogId, LogTime, Message, NodeId, quorum,
};

impl Raft {
    /// Takes proposals into the log, as many as the bounds allow; the others are told why not.
    pub(super) fn on_propose(&mut self, proposals: Vec<Proposal>) {
        let refusal = match &self.role {
            Role::Leader(leader) if leader.transfer.is_some() => Some(Refusal::Transferring),
            Role::Leader(_) if self.unapplied_bytes() > self.config.max_unapplied_bytes => {
                Some(Refusal::Overloaded)
            }
            Role::Leader(_) => None,
            _ => Some(Refusal::NotLeader { leader: self.leader() }),
        };
        if let Some(refusal) = refusal {
            let refused = proposals.into_iter();
            self.answers.extend(refused.map(|one| Answer { token: one.token, refusal }));
            return;
        }
        let mut room = self.config.max_uncommitted_bytes.saturating_sub(self.uncommitted_bytes());
        let mut index = self.log.last().index;
        let time = self.log_time();
        let term = self.hard_state.term;
        let unbounded = self.is_mutant(Mutant::UncommittedUnbounded);
        let payloads = proposals.iter().map(|proposal| proposal.payload.len());
        let mut entries = EntriesBuilder::for_payloads(payloads);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        for Proposal { token, kind, payload } in proposals {
            assert!(kind.is_clients(), "blank and membership entries are the leader's own");
            let size = payload.len() + Entry::OVERHEAD;
            if size > room && !unbounded {
                self.answers.push(Answer { token, refusal: Refusal::Overloaded });
                continue;
            }
            room = room.saturating_sub(size);
            index = index.next();
            leader.open.push_back((index, token));
            let pushed = entries.push(Entry { log_id: LogId { term, index }, time, kind, payload });
            debug_assert_eq!(pushed, Ok(()), "one index follows the other, in one term");
        }
        self.append_entries(entries.finish());
    }

    /// The leader's log time: the last entry's at election, plus its own monotonic time since. The
    /// last entry's at least, so that time never goes back in the log.
    fn log_time(&self) -> LogTime {
        let Role::Leader(leader) = &self.role else {
            return self.log.last_time();
        };
        if self.is_mutant(Mutant::LogTimeOfOwnClock) {
            return LogTime(u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX));
        }
        let (base, at) = leader.clock;
        let since = u64::try_from(self.now.saturating_sub(at).as_millis()).unwrap_or(u64::MAX);
        LogTime(base.0.saturating_add(since)).max(self.log.last_time())
    }

    /// Appends entries of the leader's own.
    pub(super) fn append_own(&mut self, commands: Vec<(EntryKind, Bytes)>) {
        let (term, time) = (self.hard_state.term, self.log_time());
        let mut index = self.log.last().index;
        let entries = commands.into_iter().map(|(kind, payload)| {
            index = index.next();
            Entry { log_id: LogId { term, index }, time, kind, payload }
        });
        let entries: Entries = entries.collect();
        self.append_entries(entries);
    }

    /// The leader's timers: check-quorum, transfer, heartbeats.
    pub(super) fn on_leader_time(&mut self) {
        self.check_transfer();
        let checks = self.config.check_quorum && !self.is_mutant(Mutant::CheckQuorumOff);
        if checks && !self.has_quorum_contact() {
            self.become_follower_in_term(None);
            return;
        }
        let unmatched = self.is_mutant(Mutant::HeartbeatCommitsUnmatched);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if self.tick < leader.heartbeat_deadline {
            return;
        }
        leader.heartbeat_deadline = self.tick + self.config.heartbeat_ticks;
        leader.round += 1;
        let (term, round, commit) = (self.hard_state.term, leader.round, self.commit_index);
        let mut heartbeats = Vec::with_capacity(leader.peers.len());
        for (node, progress) in &mut leader.peers {
            progress.on_round(round);
            heartbeats.push((
                *node,
                Heartbeat {
                    term,
                    // Never more than the peer is known to have: a heartbeat may overtake an append.
                    commit: if unmatched { commit } else { commit.min(progress.match_index) },
                    round,
                    checksum: self.checkpoints.latest_at_most(progress.applied),
                },
            ));
        }
        for (node, heartbeat) in heartbeats {
            self.send(node, Message::Heartbeat(heartbeat));
        }
    }

    /// Sends what each peer's window has room for: one message a peer and turn.
    pub(super) fn replicate(&mut self) {
        self.check_transfer();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let mut peers = std::mem::take(&mut leader.peers);
        for (node, progress) in &mut peers {
            self.replicate_to(*node, progress);
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.peers = peers;
        }
    }

    fn replicate_to(&mut self, node: NodeId, progress: &mut Progress) {
        let end = self.log.last().index.next();
        let probing = matches!(progress.state, ProgressState::Probe { .. });
        if progress.next_index >= end && !probing {
            return;
        }
        let (mut window_entries, mut window_bytes) =
            (self.config.window_entries, self.config.window_bytes);
        if self.is_mutant(Mutant::WindowIgnored) {
            (window_entries, window_bytes) = (usize::MAX, usize::MAX);
        }
        let Some((entries, bytes)) = progress.allowance(window_entries, window_bytes) else {
            return;
        };
        let bytes = bytes.min(self.config.max_batch_bytes);
        let range = progress.next_index..end;
        let entries = if range.is_empty() {
            Entries::new()
        } else if let Some(found) = self.log.entries(range.clone(), entries, bytes) {
            found
        } else {
            let (term, from) = (self.hard_state.term, progress.next_index);
            self.want_load(LoadFor::Peer { node, term, from }, range);
            return;
        };
        // Only what was read from the store is sent all the same: else it would be read again and again.
        if !progress.fits(entries.size(), window_bytes) {
            return;
        }
        self.send_append(node, progress, entries);
    }

    fn send_append(&mut self, node: NodeId, progress: &mut Progress, entries: Entries) {
        let prev = progress.next_index.previous();
        // Where even the predecessor is compacted, the peer needs a snapshot.
        let Some(prev_term) = self.log.term_at(prev) else {
            return;
        };
        let round = match &self.role {
            Role::Leader(leader) => leader.round,
            _ => return,
        };
        let last = entries.last_log_id().map_or(prev, |log_id| log_id.index);
        progress.on_sent(last, entries.len(), entries.size());
        let append = AppendEntries {
            term: self.hard_state.term,
            prev: LogId { term: prev_term, index: prev },
            commit: self.commit_index,
            round,
            entries,
        };
        self.send(node, Message::AppendEntries(append));
    }

    /// Entries came from the store for a peer that is far behind.
    pub(super) fn send_loaded(&mut self, node: NodeId, from: Index, mut entries: Entries) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(position) = leader.peers.iter().position(|(peer, _)| *peer == node) else {
            return;
        };
        let mut peers = std::mem::take(&mut leader.peers);
        let progress = &mut peers[position].1;
        let wanted = progress.next_index == from && entries.first_index() == Some(from);
        let room = progress.allowance(self.config.window_entries, self.config.window_bytes);
        if let Some((count, bytes)) = room.filter(|_| wanted) {
            let last = entries.last_log_id().map_or(from, |log_id| log_id.index);
            entries = entries.slice_bounded(from..last.next(), count, bytes);
            self.send_append(node, progress, entries);
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.peers = peers;
        }
    }

    pub(super) fn on_append_entries_response(
        &mut self,
        from: NodeId,
        response: AppendEntriesResponse,
    ) {
        let tick = self.tick;
        let last = self.log.last().index;
        let hint = match response.outcome {
            AppendOutcome::Conflict { index, term, .. } => self.log.last_at_most(index, term).index,
            _ => Index(0),
        };
        let believes_all = self.is_mutant(Mutant::StaleRejection);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(progress) = leader.progress_mut(from) else {
            return;
        };
        progress.last_answer = tick;
        match response.outcome {
            // Nobody can match more than there is; whoever says so is broken.
            AppendOutcome::Matched(matched) if matched > last => self.counters.malformed += 1,
            AppendOutcome::Matched(matched) => {
                progress.on_matched(matched);
            }
            AppendOutcome::Conflict { rejected, .. } if believes_all => {
                progress.believe_conflict(rejected, hint);
            }
            AppendOutcome::Conflict { rejected, .. } => progress.on_conflict(rejected, hint),
            AppendOutcome::StaleTerm => {}
        }
    }

    pub(super) fn on_heartbeat_response(&mut self, from: NodeId, response: HeartbeatResponse) {
        let tick = self.tick;
        let last = self.log.last().index;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let round = leader.round;
        let Some(progress) = leader.progress_mut(from) else {
            return;
        };
        if response.received > last || response.round > round {
            self.counters.malformed += 1;
            return;
        }
        progress.last_answer = tick;
        progress.applied = progress.applied.max(response.applied);
        progress.stalled = response.stalled;
        progress.on_matched(response.matched);
        progress.on_round_answer(response.round, response.received);
    }

    /// What a quorum holds durably is committed, where it is of this term (Raft §5.4.2, Figure 8).
    pub(super) fn advance_commit(&mut self) {
        let own = self.own_match();
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let matched = |node| {
            if node == self.config.node {
                own
            } else {
                leader.progress(node).map_or(Index(0), |progress| progress.match_index)
            }
        };
        let membership = self.membership();
        let mut index = quorum::committed_index(&membership.voters, &membership.outgoing, matched);
        if self.is_mutant(Mutant::HalfIsAQuorum) {
            index = index.max(held_by_half(membership.voters.iter().copied().map(matched)));
        }
        let own_term = index >= leader.term_start || self.is_mutant(Mutant::CommitOldTerm);
        if index > self.commit_index && own_term {
            self.commit_to(index);
        }
    }
}

/// What half of the servers hold: what a known bug takes for a quorum's.
fn held_by_half(matched: impl Iterator<Item = Index>) -> Index {
    let mut held: Vec<Index> = matched.collect();
    held.sort_unstable();
    held.get(held.len() / 2).copied().unwrap_or_default()
}
