//! What a server is after a turn, held against what it was before.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use graft_core::{
    Index, LogId, Membership, Raft, Term,
    raft::{RoleName, Vitals},
};

use super::{Check, Judge, demand, log::Logs, runs::Runs};
use crate::machine::words_of;

/// A server as it was when it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Counts its runs.
    pub(super) life: u64,
    /// Nothing before the first turn of a life.
    pub(crate) vitals: Option<Vitals>,
    pub(super) log: Runs,
    /// The membership entries of its log.
    pub(super) memberships: Vec<LogId>,
    pub(super) in_force: Option<Arc<Membership>>,
    /// How much was not committed when it began to lead.
    inherited_bytes: usize,
    /// Counts its turns as a leader.
    led_turns: u64,
    /// Whether its driver is to panic after its next turn.
    pub(crate) panic_ordered: bool,
}

impl View {
    /// What is known of a life ends with it. The log stays: a disk has most of it.
    pub(super) fn forget_life(&mut self) {
        self.life += 1;
        self.vitals = None;
        self.in_force = None;
        self.panic_ordered = false;
    }

    pub(crate) fn leads(&self) -> bool {
        self.vitals.is_some_and(|vitals| vitals.role == RoleName::Leader)
    }

    pub(crate) fn term(&self) -> Term {
        self.vitals.map_or(Term(0), |vitals| vitals.hard_state.term)
    }

    /// The latest membership of its log.
    pub(super) fn membership(&self, logs: &Logs) -> Option<Arc<Membership>> {
        if let Some(membership) = &self.in_force {
            return Some(Arc::clone(membership));
        }
        let latest = *self.memberships.last()?;
        logs.membership(latest).map(Arc::new)
    }
}

impl Judge {
    pub(super) fn turn(&mut self, server: usize, raft: &Raft) -> Check {
        let vitals = raft.vitals();
        let before = self.views[server].vitals.replace(vitals);
        if vitals.role == RoleName::Leader {
            self.check_contact(server, vitals.hard_state.term)?;
        }
        if before == Some(vitals) {
            return Ok(());
        }
        self.journal_turn(server, before.as_ref(), &vitals);
        check_invariants(raft)?;
        self.check_counters(server, raft)?;
        let term = vitals.hard_state.term;
        let leads = vitals.role == RoleName::Leader;
        self.check_term(server, before.as_ref(), &vitals)?;
        self.check_campaign(server, before.as_ref(), &vitals)?;
        let led =
            before.is_some_and(|old| old.role == RoleName::Leader && old.hard_state.term == term);
        let committed = before.map_or(Index(0), |before| before.commit_index);
        if before.is_none_or(|before| before.last != vitals.last) {
            self.log_changed(server, raft, leads && led, committed)?;
        }
        self.check_membership(server, raft)?;
        if leads {
            if !led {
                self.crown(server, term)?;
                self.views[server].inherited_bytes = vitals.uncommitted_bytes;
            }
            self.extend_reign(term, vitals.last.index);
            self.check_bounds(server, raft, before.as_ref(), &vitals)?;
        }
        demand!(
            vitals.commit_index >= committed,
            CommitMonotonic,
            "the commit index of {} falls from {committed} to {}",
            self.nodes[server],
            vitals.commit_index
        );
        if vitals.commit_index > committed {
            self.commit(server, vitals.commit_index, leads, term)?;
        }
        self.check_applied(server, &vitals)
    }

    fn check_term(&self, server: usize, before: Option<&Vitals>, now: &Vitals) -> Check {
        let node = self.nodes[server];
        match before {
            None => {
                let (disk, found) = (&self.disks[server], now.hard_state);
                let same = (disk.hard_state.term, disk.hard_state.voted_for)
                    == (found.term, found.voted_for)
                    || found.term > disk.hard_state.term;
                demand!(
                    same,
                    RecoveryComplete,
                    "{node} begins with {found:?}, its disk has {:?}",
                    disk.hard_state
                );
            }
            Some(before) => {
                let (old, new) = (before.hard_state, now.hard_state);
                demand!(
                    new.term >= old.term,
                    TermMonotonic,
                    "{node} goes from term {} to {}",
                    old.term,
                    new.term
                );
                let kept = new.term > old.term
                    || old.voted_for.is_none()
                    || old.voted_for == new.voted_for;
                demand!(kept, VoteOnce, "{node} changes its vote in term {}", new.term);
            }
        }
        Ok(())
    }

    /// Brings the view of a log up to date, and learns what is new in it.
    fn log_changed(&mut self, server: usize, raft: &Raft, led: bool, committed: Index) -> Check {
        let last = raft.last().index;
        let known = self.views[server].log.last_index();
        let mut common = known.min(last);
        while common.0 > 0 && raft.term_at(common) != self.views[server].log.term_at(common) {
            common = common.previous();
        }
        let node = self.nodes[server];
        demand!(
            !led || common == known,
            LeaderAppendOnly,
            "{node} leads and drops {} of {known}",
            common.next()
        );
        if common < known {
            demand!(
                common >= committed,
                CommitMonotonic,
                "{node} drops what it knows to be committed, from {} on",
                common.next()
            );
            let view = &mut self.views[server];
            view.log.truncate_from(common.next());
            let keep = view.memberships.partition_point(|at| at.index <= common);
            view.memberships.truncate(keep);
        }
        self.learn_tail(server, raft, common, last)
    }

    fn learn_tail(&mut self, server: usize, raft: &Raft, common: Index, last: Index) -> Check {
        let count = usize::try_from(last.0 - common.0).unwrap_or(usize::MAX);
        let tail = raft.entries_tail(count);
        let mut previous = raft.term_at(common).unwrap_or_default();
        let in_memory = tail.first_index().unwrap_or(last.next());
        for index in common.0 + 1..in_memory.0 {
            // It was on disk: some turn has shown it before, or the founding has.
            let term = raft.term_at(Index(index)).unwrap_or_default();
            self.note_entry(server, LogId { term, index: Index(index) });
            previous = term;
        }
        for entry in tail.iter() {
            self.learn(server, previous, entry)?;
            self.note_entry(server, entry.log_id);
            previous = entry.log_id.term;
        }
        Ok(())
    }

    fn note_entry(&mut self, server: usize, log_id: LogId) {
        let is_membership = self.logs.is_membership(log_id);
        let view = &mut self.views[server];
        view.log.push(log_id.term);
        if is_membership {
            view.memberships.push(log_id);
        }
    }

    fn check_membership(&mut self, server: usize, raft: &Raft) -> Check {
        let view = &self.views[server];
        let now = raft.membership();
        if view.in_force.as_ref().is_some_and(|known| Arc::ptr_eq(known, now)) {
            return Ok(());
        }
        let latest = view.memberships.last().and_then(|at| self.logs.membership(*at));
        let (node, same) =
            (self.nodes[server], latest.as_ref().is_none_or(|latest| *latest == **now));
        demand!(same, MembershipIsLatest, "{node} goes by {now:?} instead of {latest:?}");
        self.views[server].in_force = Some(Arc::clone(now));
        Ok(())
    }

    /// All servers are of one build, and nothing falsifies what they say.
    fn check_counters(&self, server: usize, raft: &Raft) -> Check {
        let dropped = raft.counters();
        demand!(
            (dropped.malformed, dropped.misdirected, dropped.unsupported) == (0, 0, 0),
            PeersWellFormed,
            "{} has dropped messages of the others: {dropped:?}",
            self.nodes[server]
        );
        Ok(())
    }

    fn check_applied(&self, server: usize, now: &Vitals) -> Check {
        let (node, disk) = (self.nodes[server], &self.disks[server]);
        demand!(
            now.apply_issued <= now.commit_index && now.last_applied <= now.apply_issued,
            AppliedIsCommitted,
            "{node} applies {} of {} committed",
            now.apply_issued,
            now.commit_index
        );
        let log = &self.views[server].log;
        for index in [now.apply_issued, now.durable] {
            let log_id = LogId { term: log.term_at(index).unwrap_or_default(), index };
            demand!(
                disk.log.holds(log_id),
                AppliedIsDurable,
                "{node} takes {log_id} to be durable, its disk ends at {}",
                disk.log.last()
            );
        }
        Ok(())
    }

    /// What a leader takes in, and what it has under way, is bounded.
    fn check_bounds(
        &mut self,
        server: usize,
        raft: &Raft,
        before: Option<&Vitals>,
        now: &Vitals,
    ) -> Check {
        /// What the pieces of one turn cost beside their entries, at most, and all there may be.
        const PIECE: usize = 4 << 10;
        const PIECES: usize = 64 << 10;
        /// How rarely the peers are looked at: that costs memory.
        const EVERY: u64 = 16;
        let node = self.nodes[server];
        if let Some(before) = before.filter(|before| before.last != now.last) {
            let inherited = self.views[server].inherited_bytes;
            demand!(
                now.uncommitted_bytes <= self.bounds.uncommitted_bytes.max(inherited) + PIECE,
                QueuesBounded,
                "{node} has {} bytes uncommitted",
                now.uncommitted_bytes
            );
            let most = self.bounds.unapplied_bytes.max(before.unapplied_bytes)
                + self.bounds.uncommitted_bytes.max(before.uncommitted_bytes)
                + PIECES;
            demand!(
                now.unapplied_bytes <= most,
                QueuesBounded,
                "{node} has {} bytes not applied",
                now.unapplied_bytes
            );
        }
        let entries = now.last.index.0.saturating_sub(now.apply_issued.0);
        demand!(
            now.open_proposals as u64 <= entries,
            QueuesBounded,
            "{} wait at {node} for {entries} entries",
            now.open_proposals
        );
        self.views[server].led_turns += 1;
        if self.views[server].led_turns.is_multiple_of(EVERY) {
            for peer in raft.status().peers {
                let most = self.bounds.window_entries;
                demand!(
                    peer.in_flight <= most,
                    WindowsBounded,
                    "{} are on their way from {node} to {}",
                    peer.in_flight,
                    peer.node
                );
            }
        }
        Ok(())
    }

    fn journal_turn(&mut self, server: usize, before: Option<&Vitals>, now: &Vitals) {
        let (node, role) = (server, now.role);
        let (term, last, commit) = (now.hard_state.term, now.last, now.commit_index);
        self.journal.mix(&[
            server as u64,
            term.0,
            last.index.0,
            last.term.0,
            commit.0,
            now.last_applied.0,
            role as u64,
        ]);
        let told = before.is_none_or(|old| {
            (old.role, old.hard_state.term, old.leader, old.stalled)
                != (role, term, now.leader, now.stalled)
        });
        if told {
            let leader = now.leader.and_then(|leader| self.place_of(leader));
            let stalled = if now.stalled { ", its disk stalls" } else { "" };
            self.note(|| {
                let leader = leader.map_or_else(|| "nobody".into(), |at| format!("s{at}"));
                format!("s{node} is {role:?} in term {term}, follows {leader}, last {last}, commit {commit}{stalled}")
            });
        }
    }
}

/// The core asserts; here that is a finding like any other, and must not pass for a panic of the driver.
fn check_invariants(raft: &Raft) -> Check {
    let checked = catch_unwind(AssertUnwindSafe(|| raft.check_invariants()));
    let Err(panic) = checked else { return Ok(()) };
    demand!(false, RaftInvariants, "the core asserts: {}", words_of(&*panic));
    Ok(())
}
