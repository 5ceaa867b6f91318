//! One server of the model: its `Raft`, its disk, and what its driver has under way.

use std::collections::VecDeque;

use fastrand::Rng;

use super::{
    coverage::{Corner, Coverage},
    disk::{Disk, place},
    facts::Facts,
    seen::Seen,
    swarm::Swarm,
    timers::Timers,
    world::TICK,
};
use crate::{
    Birth, Checkpoint, ClusterId, Entries, EntryKind, Epoch, Identity, Incarnation, Index, LogId,
    NodeId, Term,
    raft::{Apply, Load, Raft, Role, RoleName, WriteBatch, WriteId},
};

#[derive(Debug)]
pub(super) struct Server {
    pub(super) node: NodeId,
    /// How often it was started.
    pub(super) life: u32,
    /// `None` while it is down.
    pub(super) raft: Option<Box<Raft>>,
    pub(super) disk: Disk,
    /// Its own clock, in ticks.
    pub(super) clock: u64,
    /// Writes do not end while this holds.
    pub(super) disk_sticks: bool,
    pub(super) write: Option<WriteBatch>,
    pub(super) apply: Option<Apply>,
    pub(super) loads: Vec<PendingLoad>,
    pub(super) machine: Machine,
    /// The terms of its log in memory, index 1 first, as last seen.
    pub(super) log: Vec<Term>,
    pub(super) seen: Seen,
    pub(super) timers: Timers,
    /// Whether everything stepped in has been drained.
    pub(super) drained: bool,
    /// Entries were loaded since the last drain.
    pub(super) loaded: bool,
    last_write: WriteId,
    /// What this server, if it leads, has on its way to each server.
    pub(super) windows: Vec<VecDeque<Sent>>,
    /// What it last probed each server with.
    pub(super) probes: Vec<Option<LogId>>,
}

/// A load under way. A store may read at once or late.
#[derive(Debug)]
pub(super) struct PendingLoad {
    pub(super) load: Load,
    pub(super) read: Option<Entries>,
}

/// An append on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) last: Index,
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// A state machine that only knows what it was given.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Machine {
    pub(super) applied: Index,
    pub(super) sum: u64,
}

impl Machine {
    pub(super) fn apply(&mut self, entries: &Entries, every: u64) -> Vec<Checkpoint> {
        let mut checkpoints = Vec::new();
        for entry in entries.iter() {
            self.applied = entry.log_id.index;
            let bytes = entry.payload.get(..8).unwrap_or_default();
            self.sum = crate::stable_hash(bytes) ^ self.sum.rotate_left(7) ^ entry.log_id.term.0;
            if self.applied.0.is_multiple_of(every) {
                checkpoints.push(Checkpoint { index: self.applied, checksum: self.sum });
            }
        }
        checkpoints
    }
}

impl Server {
    pub(super) fn new(node: NodeId, disk: Disk, size: usize) -> Self {
        Self {
            node,
            life: 0,
            raft: None,
            disk,
            clock: 0,
            disk_sticks: false,
            write: None,
            apply: None,
            loads: Vec::new(),
            machine: Machine::default(),
            log: Vec::new(),
            seen: Seen::default(),
            timers: Timers::default(),
            drained: true,
            loaded: false,
            last_write: WriteId(0),
            windows: (0..size).map(|_| VecDeque::new()).collect(),
            probes: vec![None; size],
        }
    }

    /// The server in this life: tokens are only ever answered where and when they were proposed.
    pub(super) fn self_now(&self) -> (NodeId, u32) {
        (self.node, self.life)
    }

    /// Starts it from its disk.
    pub(super) fn start(&mut self, swarm: &Swarm, rng: &mut Rng, coverage: &mut Coverage) {
        assert!(self.raft.is_none(), "only what is down can start");
        let hard_state = self.disk.hard_state;
        coverage.note_if(hard_state.commit > Index(0), Corner::RecoveredCommit);
        coverage.note_if(hard_state.voted_for.is_some(), Corner::RecoveredVote);
        let uncommitted = self.life > 0 && self.disk.last() > hard_state.commit;
        coverage.note_if(uncommitted, Corner::RecoveredUncommitted);
        let durable: Vec<Term> = self.disk.log.iter().map(|entry| entry.log_id.term).collect();
        coverage.note_if(
            self.life > 0 && !self.log.starts_with(&durable) && !durable.starts_with(&self.log),
            Corner::StaleSuffixRecovered,
        );

        let clock = if swarm.clock_restarts { 0 } else { self.clock };
        let config = swarm.config(self.node, TICK * u32::try_from(clock).expect("small"), rng);
        let raft = Raft::recover(config, self.disk.recover(self.identity()));
        assert!(raft.hard_state.term == hard_state.term, "a restart changed the term");
        assert!(raft.hard_state.voted_for == hard_state.voted_for, "a restart changed the vote");
        let replaced = Self::new(self.node, Disk::founded(swarm.membership()), self.windows.len());
        let before = std::mem::replace(self, replaced);
        self.disk = before.disk;
        self.life = before.life + 1;
        self.clock = clock;
        self.timers = Timers::start(clock);
        self.disk_sticks = before.disk_sticks;
        self.log = durable;
        self.seen.hard_state = hard_state;
        self.seen.role = Some(RoleName::Follower);
        self.seen.commit = raft.commit_index;
        self.raft = Some(Box::new(raft));
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            cluster: ClusterId(0),
            epoch: Epoch(0),
            node: self.node,
            name: self.node.to_string(),
            incarnation: incarnation(self.node),
            birth: Birth::Founder,
            machine: "model".into(),
            format: 0,
        }
    }

    /// Whether it leads, by its own account.
    pub(super) fn leads(&self) -> bool {
        self.raft.as_ref().is_some_and(|raft| raft.is_leader())
    }

    /// Whether it leads and is about to hand over.
    pub(super) fn hands_over(&self) -> bool {
        let role = self.raft.as_ref().map(|raft| &raft.role);
        matches!(role, Some(Role::Leader(leader)) if leader.transfer.is_some())
    }

    /// Whether it leads and has told this server to take over.
    pub(super) fn has_told(&self, to: NodeId) -> bool {
        let Some(Role::Leader(leader)) = self.raft.as_ref().map(|raft| &raft.role) else {
            return false;
        };
        leader.transfer.is_some_and(|transfer| transfer.told && transfer.to == to)
    }

    /// Whether nothing waits for this server's driver.
    pub(super) fn is_idle(&self) -> bool {
        let writes = self.write.is_some() && !self.disk_sticks;
        self.drained && !writes && self.apply.is_none() && self.loads.is_empty()
    }

    /// Takes a write over from the lanes.
    pub(super) fn begin_write(&mut self, batch: WriteBatch, coverage: &mut Coverage) {
        assert!(self.write.is_none(), "two writes at once");
        assert!(batch.id == WriteId(self.last_write.0 + 1), "the numbers of writes rise by one");
        assert!(!batch.writes.is_empty(), "an empty write");
        self.last_write = batch.id;
        let end = end_of(&batch);
        coverage.note_if(end.is_none(), Corner::WriteOfVoteAlone);
        let all = Index(self.log.len() as u64);
        coverage.note_if(end.is_some_and(|end| end < all), Corner::WritePartial);
        self.write = Some(batch);
        self.timers.write_since = self.raft.as_ref().map(|raft| raft.tick);
    }

    /// Looks at the server after a step or a drain: the properties that it can break by itself, and
    /// those of Raft Figure 3. Says whether it, as a leader, has committed something new.
    pub(super) fn watch(&mut self, facts: &mut Facts, coverage: &mut Coverage) -> bool {
        let Some(raft) = self.raft.take() else { return false };
        raft.check_invariants();
        let (now, before) = (raft.hard_state, self.seen.hard_state);
        assert!(now.term >= before.term, "{} went back to term {}", self.node, now.term);
        assert!(
            now.term > before.term
                || before.voted_for.is_none()
                || now.voted_for == before.voted_for,
            "{} changed its vote in term {}",
            self.node,
            now.term
        );
        let counters = raft.counters;
        let dropped = counters.misdirected
            + counters.stale_incarnation
            + counters.malformed
            + counters.unsupported;
        assert!(dropped == 0, "{} took a message of a peer to be broken: {counters:?}", self.node);
        self.watch_log(&raft, facts, coverage);
        let role = raft.role_name();
        if role == RoleName::Leader {
            self.watch_leader(&raft, facts, coverage);
        }
        let news = self.watch_commit(&raft, facts, coverage);
        let now = Seen::of(&raft, &self.seen);
        now.note_corners(&self.seen, &raft, coverage);
        self.seen = now;
        self.raft = Some(raft);
        news
    }

    /// Brings the view of the log up to date and holds what is new in it against the facts.
    fn watch_log(&mut self, raft: &Raft, facts: &mut Facts, coverage: &mut Coverage) {
        let last = raft.last();
        let length = usize::try_from(last.index.0).expect("small");
        if length == self.log.len() && self.log.last().copied().unwrap_or_default() == last.term {
            return;
        }
        let mut kept = length.min(self.log.len());
        while kept > 0 && raft.term_at(Index(kept as u64)) != Some(self.log[kept - 1]) {
            kept -= 1;
        }
        if kept < self.log.len() {
            self.on_truncated(kept, raft, facts, coverage);
        }
        self.log.truncate(kept);
        if kept == length {
            return;
        }
        let fresh = Index(kept as u64 + 1)..last.index.next();
        let fresh = raft.log.entries(fresh, usize::MAX, usize::MAX);
        let leads = raft.is_leader().then_some(raft.hard_state.term);
        for entry in fresh.expect("what has just come is in memory").iter() {
            let previous = self.log.last().copied().unwrap_or_default();
            facts.learn(previous, entry, leads);
            self.log.push(entry.log_id.term);
        }
        assert!(self.log.len() == length, "the log has a gap");
    }

    fn on_truncated(&mut self, kept: usize, raft: &Raft, facts: &Facts, coverage: &mut Coverage) {
        let (commit, first) = (raft.commit_index, Index(kept as u64 + 1));
        assert!(first > self.seen.commit, "{} cut off a committed entry", self.node);
        assert!(
            self.seen.role != Some(RoleName::Leader) || !raft.is_leader(),
            "a leader cut its log"
        );
        coverage.note(Corner::Truncated);
        coverage.note_if(first == commit.next(), Corner::TruncatedAtCommit);
        coverage.note_if(self.seen.fresh_truncation, Corner::TruncatedTwice);
        self.seen.fresh_truncation = true;
        let mut cut = (kept..self.log.len()).map(|at| log_id(&self.log, Index(at as u64 + 1)));
        let is_membership = |entry| facts.kind(entry) == Some(EntryKind::Membership);
        coverage.note_if(cut.any(is_membership), Corner::TruncatedMembership);
        coverage.note_if(self.disk.holds(log_id(&self.log, first)), Corner::TruncatedDurable);
        coverage.note_if(!self.loads.is_empty(), Corner::TruncatedUnderLoad);
        if let Some((begin, end)) = self.write.as_ref().and_then(|batch| {
            let entries = entries_of(batch)?;
            Some((entries.first_index()?, entries.last_log_id()?.index))
        }) {
            coverage.note_if(begin < first && first <= end, Corner::TruncatedInFlight);
            coverage.note_if(first <= begin, Corner::TruncatedUnderWrite);
        }
    }

    fn watch_leader(&mut self, raft: &Raft, facts: &mut Facts, coverage: &mut Coverage) {
        let term = raft.hard_state.term;
        if self.seen.role == Some(RoleName::Leader) && self.seen.hard_state.term == term {
            facts.extend_reign(term, &self.log);
            return;
        }
        coverage.note_if(facts.latest_reign() > term, Corner::ElectedLate);
        facts.crown(term, self.node, &self.log);
        assert!(
            facts.is_elected(term, self.node),
            "{} leads term {term} without a quorum of durable votes",
            self.node
        );
        coverage.note(Corner::Elected);
        let membership = raft.membership();
        coverage.note_if(membership.voters.len().is_multiple_of(2), Corner::ElectedOfEven);
        coverage.note_if(membership.is_joint(), Corner::ElectedByBoth);
        assert!(membership.is_voter(self.node), "{} leads and may not", self.node);
        coverage.note_if(self.seen.campaigns_for_transfer, Corner::ElectedByTransfer);
        self.windows.iter_mut().for_each(VecDeque::clear);
        self.probes.fill(None);
    }

    fn watch_commit(&mut self, raft: &Raft, facts: &mut Facts, coverage: &mut Coverage) -> bool {
        let (old, new) = (self.seen.commit, raft.commit_index);
        assert!(new >= old, "{} took a commit back", self.node);
        if new == old {
            return false;
        }
        let leads = raft.is_leader().then_some(raft.hard_state.term);
        let mut news = false;
        for at in old.0..new.0 {
            let entry = log_id(&self.log, Index(at + 1));
            let fresh = facts.commit(entry, leads);
            let inherited = fresh && leads.is_some_and(|term| entry.term < term);
            coverage.note_if(inherited && entry.index > Index(1), Corner::InheritedCommitted);
            news |= fresh;
        }
        if let Some(term) = leads {
            // Raft §5.4.2: only entries of the own term are committed by counting.
            let counted = log_id(&self.log, new).term;
            assert!(counted == term, "term {term} committed an entry of {counted} by counting");
        } else {
            coverage.note_if(self.disk.last() < new, Corner::FollowerCommitAhead);
        }
        self.seen.commit = new;
        news || leads.is_some()
    }
}

/// The birth of a server's store.
pub(super) fn incarnation(node: NodeId) -> Incarnation {
    Incarnation(100 + node.0)
}

/// The identity of the entry at `index` of a list of terms.
pub(super) fn log_id(log: &[Term], index: Index) -> LogId {
    LogId { term: log[place(index)], index }
}

/// The entries of a write.
pub(super) fn entries_of(batch: &WriteBatch) -> Option<&Entries> {
    batch.writes.iter().find_map(|write| match write {
        crate::Write::Append(entries) => Some(entries),
        _ => None,
    })
}

/// The last entry of a write.
fn end_of(batch: &WriteBatch) -> Option<Index> {
    Some(entries_of(batch)?.last_log_id()?.index)
}
