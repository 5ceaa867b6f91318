//! The receiving end of replication (Raft §5.3).

use super::{Fatal, Mutant, Raft, durability::RefusalOf, role::Role};
use crate::{AppendEntries, Entries, Heartbeat, Index, LogId, NodeId};

impl Raft {
    /// A message from the leader of the current term: whatever we were, we follow it now.
    /// Says whether it may go on.
    fn follow(&mut self, from: NodeId) -> bool {
        let known = self.leader();
        if let Some(one) = known.filter(|leader| *leader != from) {
            let term = self.hard_state.term;
            self.fail(Fatal::TwoLeaders { term, one, other: from });
            return false;
        }
        if !matches!(self.role, Role::Follower(_)) {
            self.become_follower_in_term(Some(from));
        }
        let (tick, election_deadline) = (self.tick, self.random_election_deadline());
        if let Role::Follower(follower) = &mut self.role {
            follower.leader = Some(from);
            follower.heard = tick;
            follower.election_deadline = election_deadline;
        }
        true
    }

    pub(super) fn on_append_entries(&mut self, from: NodeId, append: AppendEntries) {
        if !self.follow(from) {
            return;
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.round = follower.round.max(append.round);
        }
        match self.log.term_at(append.prev.index) {
            Some(term) if term == append.prev.term => {}
            Some(_) if self.is_mutant(Mutant::AppendWithoutPrevTerm) => {}
            // Compacted means committed, and what is committed matches every leader's log.
            None if append.prev.index < self.log.compacted().index => {}
            _ if append.prev.index <= self.commit_index => {
                self.fail_committed_conflict(append.prev.index);
                return;
            }
            _ => {
                self.refuse_append(from, append.prev);
                return;
            }
        }
        let end = append.entries.last_log_id().unwrap_or(append.prev).index;
        if !self.take_entries(append.entries) {
            return;
        }
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        follower.matched = follower.matched.max(end);
        follower.append_owed = true;
        // Never past what matched with this leader: the rest of our log may not be its log.
        let commit = append.commit.min(follower.matched);
        self.commit_to(commit);
    }

    fn refuse_append(&mut self, leader: NodeId, prev: LogId) {
        let before = prev.index.previous();
        let hint = self.log.last_at_most(before, prev.term);
        let term = self.hard_state.term;
        self.debts.refuse(leader, RefusalOf::Conflict { rejected: prev.index, hint, term });
    }

    fn fail_committed_conflict(&mut self, index: Index) {
        let term = self.hard_state.term;
        self.fail(Fatal::CommittedConflict { index, term });
    }

    /// Brings the log in line with entries whose predecessor matches: skips what is there already,
    /// cuts off what contradicts, appends the rest. Says whether it may go on.
    fn take_entries(&mut self, mut entries: Entries) -> bool {
        let Some(first) = entries.first_index() else {
            return true;
        };
        let last = self.log.last().index;
        if first <= last {
            let compacted = self.log.compacted().index;
            let fresh = entries.iter().find(|entry| {
                let log_id = entry.log_id;
                log_id.index > compacted && self.log.term_at(log_id.index) != Some(log_id.term)
            });
            let Some(conflict) = fresh.map(|entry| entry.log_id.index) else {
                let end = entries.last_log_id().map_or(last, |log_id| log_id.index);
                if end < last && self.is_mutant(Mutant::TruncationByOldAppend) {
                    self.truncate_from(end.next());
                }
                return true;
            };
            if conflict <= self.commit_index {
                self.fail_committed_conflict(conflict);
                return false;
            }
            if conflict <= last {
                self.truncate_from(conflict);
            }
            entries.drop_below(conflict);
        }
        self.append_entries(entries)
    }

    fn truncate_from(&mut self, index: Index) {
        self.log.truncate_from(index);
        self.memberships.truncate_from(index);
        let forget = self.is_mutant(Mutant::TruncationWithoutClipping);
        self.durability.clip(index, forget);
    }

    /// Appends entries and takes note of what they bring. Says whether all of them could be read.
    pub(super) fn append_entries(&mut self, entries: Entries) -> bool {
        if let Err((at, _)) = self.memberships.note(&entries) {
            self.fail(Fatal::UnreadableMembership { at });
            return false;
        }
        self.log.append(entries);
        true
    }

    pub(super) fn on_heartbeat(&mut self, from: NodeId, heartbeat: Heartbeat) {
        if !self.follow(from) {
            return;
        }
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        follower.round = follower.round.max(heartbeat.round);
        let owed = follower.heartbeat_owed.unwrap_or(0);
        follower.heartbeat_owed = Some(owed.max(heartbeat.round));
        let matched = follower.matched;
        let commit = if self.is_mutant(Mutant::HeartbeatCommitsUnmatched) {
            heartbeat.commit
        } else {
            heartbeat.commit.min(matched)
        };
        self.commit_to(commit);
        if let Some(checkpoint) = heartbeat.checksum {
            self.on_leader_checkpoint(checkpoint);
        }
    }
}
