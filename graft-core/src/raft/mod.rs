//! Raft as a pure state machine: [`Raft::step`] takes in what happened, [`Raft::drain`] says what must
//! now be done. No I/O, no clock, no tasks.
//!
//! # The rooms
//!
//! | file | paper |
//! | --- | --- |
//! | `election` | Raft §5.2, §5.4.1; pre-vote, thesis §9.6; check-quorum, §6.2 |
//! | `follower` | receiving `AppendEntries` and heartbeats, Raft §5.3 |
//! | `leader` | replication, Raft §5.3; commitment, §5.4.2 |
//! | `applying` | committed entries on their way to the machine, Raft §5.3; entries that are on disk only |
//! | `birth` | answering servers that found, or think that they do ([`founding`](crate::founding)) |
//! | `transfer` | leadership transfer, thesis §3.10; stalled disks |
//! | `durability` | "on stable storage before responding to RPCs", Raft Figure 2: the only place that lets promises out |
//! | `log`, `progress`, `role` | the state these work on |
//!
//! # A turn
//!
//! A driver steps the time and everything that waits, then drains once and carries out the lanes. Lanes
//! do not wait for each other: a leader's disk works while its messages are under way (thesis §10.2.1).
//!
//! ```
//! use std::time::Duration;
//! use graft_core::raft::{Config, Effects, Input, Proposal, Raft};
//! use graft_core::{
//!     Birth, ClusterId, EntryKind, Epoch, Identity, Incarnation, Membership, NodeId, NodeInfo,
//!     Recovered, Term, Index, LogId, LogTime, Token,
//! };
//!
//! // A cluster of one, as its store gives it back after the founding.
//! let node = NodeId::of_name("alone");
//! let membership = Membership::of_voters([(node, NodeInfo::default())]);
//! let identity = Identity {
//!     cluster: ClusterId(1), epoch: Epoch(0), node, name: "alone".into(),
//!     incarnation: Incarnation(1), birth: Birth::Founder, machine: "none".into(), format: 0,
//! };
//! let mut durable = Recovered::newborn(identity);
//! durable.hard_state.term = Term(1);
//! durable.last = LogId::new(1, 1);
//! durable.terms = vec![(Index(1), Term(1))];
//! durable.memberships = vec![(durable.last, membership)];
//!
//! let mut raft = Raft::recover(Config { cluster: ClusterId(1), ..Config::new(node) }, durable);
//! let mut effects = Effects::default();
//! raft.step(Input::Campaign);
//! let command = Proposal { token: Token::default(), kind: EntryKind::Plain, payload: "hello".into() };
//! let mut command = Some(command);
//! let mut applied = Vec::new();
//! loop {
//!     if raft.is_leader() && command.is_some() {
//!         raft.step(Input::Propose(command.take().into_iter().collect()));
//!     }
//!     raft.drain(&mut effects);
//!     if effects.is_empty() {
//!         break;
//!     }
//!     if let Some(batch) = effects.write.take() {
//!         raft.step(Input::Persisted(batch.id)); // after the disk said so
//!     }
//!     if let Some(apply) = effects.apply.take() {
//!         applied.extend(apply.entries.iter().map(|entry| entry.payload.to_vec()));
//!         let index = apply.entries.last_log_id().expect("never empty").index;
//!         raft.step(Input::Applied { index, checkpoints: Vec::new() });
//!     }
//!     for load in effects.loads.drain(..) {
//!         // The founding membership is on disk only; a store would read it here.
//!         # use graft_core::Entry;
//!         # let entry = Entry { log_id: LogId::new(1, 1), time: LogTime(0), kind: EntryKind::Membership,
//!         #     payload: raft.membership().encode() };
//!         raft.step(Input::Loaded { id: load.id, entries: vec![entry].into() });
//!     }
//! }
//! assert_eq!(applied.last().unwrap(), b"hello");
//! ```
//!
//! # Where nobody can be elected
//!
//! A leader needs a quorum of servers that it reaches in both directions and whose logs are no better
//! than its own. Where there is such a server one stands within four election timeouts, whatever else
//! is cut. Where the only server that reaches a quorum lacks entries that the others hold, Raft elects
//! nobody, and no timer helps: committed entries might be lost. Once one more link lets a server with
//! those entries reach a quorum, the election follows.

mod applying;
mod birth;
mod config;
mod divergence;
mod durability;
mod effects;
mod election;
mod follower;
mod leader;
mod log;
mod memberships;
mod messages;
mod mutants;
mod progress;
mod role;
mod status;
mod transfer;

#[cfg(test)]
mod model;

use std::{sync::Arc, time::Duration};

pub use birth::ForeignBirth;
pub use config::{Config, ConfigError};
pub use effects::{
    Answer, Apply, Effects, Fatal, Input, LinkId, Load, LoadId, Proposal, Refusal, Token,
    WriteBatch, WriteId,
};
pub use messages::Counters;
#[cfg(any(test, feature = "mutants"))]
pub use mutants::Mutant;
#[cfg(not(any(test, feature = "mutants")))]
pub(crate) use mutants::Mutant;
pub(crate) use mutants::Switch;
pub use status::{PeerStatus, RoleName, Status, Vitals};

use crate::{Entries, HardState, Index, LogId, Membership, NodeId, PeerEnvelope, Recovered, Term};
use applying::LoadFor;
use divergence::Checkpoints;
use durability::{Debts, Durability};
use log::Log;
use memberships::Memberships;
use progress::Progress;
use role::{Follower, Role};

/// One server's part in the protocol.
///
/// Invariants, asserted by [`Raft::check_invariants`]: `applied <= commit_index <= last`;
/// `applied <= durable`; the term never falls; a vote never changes within a term.
#[derive(Debug)]
pub struct Raft {
    config: Config,
    identity: crate::Identity,
    rng: fastrand::Rng,

    /// The last time stepped in, and the tick it falls into.
    now: Duration,
    tick: u64,
    unix_millis: u64,

    /// The current term and vote, durable or not.
    hard_state: HardState,
    log: Log,
    memberships: Memberships,
    durability: Durability,
    /// The write under way has taken longer than it may.
    stalled: bool,

    commit_index: Index,
    /// The machine has been given everything up to here, and has applied everything up to `applied`.
    apply_issued: Index,
    applied: Index,

    role: Role,
    debts: Debts,
    checkpoints: Checkpoints,
    loads: Vec<(LoadId, LoadFor)>,
    next_load: LoadId,

    outbox: Vec<PeerEnvelope>,
    answers: Vec<Answer>,
    ready_apply: Option<Entries>,
    wanted_loads: Vec<Load>,
    fatal: Option<Fatal>,
    counters: Counters,
    foreign_birth: Option<ForeignBirth>,
    /// Who waited for what when this server was deposed: where a known bug keeps them.
    #[cfg(any(test, feature = "mutants"))]
    orphans: std::collections::VecDeque<(Index, Token)>,
    /// Whether anything happened since the last drain that gave nothing.
    stirred: bool,
}

impl Raft {
    /// A server as its store remembers it. It starts as a follower.
    ///
    /// # Panics
    ///
    /// Where `config` does not pass [`Config::validate`], or names another node than the store's
    /// identity: check both first.
    #[must_use]
    pub fn recover(config: Config, durable: Recovered) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        assert!(config.node == durable.identity.node, "the store belongs to another server");
        let log = Log::recover(&durable);
        let last = log.last().index;
        // The hint cannot be past the log: it is written no earlier than what it speaks of.
        let commit_index = durable.hard_state.commit.min(last).max(log.compacted().index);
        let mutant = Switch::of(&config);
        let commit_index =
            if mutant.is(Mutant::RecoveredLogIsCommitted) { last } else { commit_index };
        let mut hard_state = durable.hard_state;
        hard_state.voted_for =
            hard_state.voted_for.filter(|_| !mutant.is(Mutant::VoteForgottenByRestart));
        let applied = durable.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.last.index);
        let mut raft = Self {
            rng: fastrand::Rng::with_seed(config.seed),
            now: config.start,
            tick: config.tick_at(config.start),
            unix_millis: 0,
            hard_state,
            memberships: Memberships::recover(&durable),
            durability: Durability::recovered(hard_state, last),
            stalled: false,
            commit_index: commit_index.max(applied),
            apply_issued: applied,
            applied,
            role: Role::Follower(Follower::default()),
            debts: Debts::default(),
            checkpoints: Checkpoints::default(),
            loads: Vec::new(),
            next_load: LoadId(1),
            outbox: Vec::new(),
            answers: Vec::new(),
            ready_apply: None,
            wanted_loads: Vec::new(),
            fatal: None,
            counters: Counters::default(),
            foreign_birth: None,
            #[cfg(any(test, feature = "mutants"))]
            orphans: std::collections::VecDeque::new(),
            stirred: true,
            identity: durable.identity,
            log,
            config,
        };
        let deadline = raft.random_election_deadline();
        raft.role = Role::Follower(Follower { election_deadline: deadline, ..Follower::default() });
        raft
    }

    /// Takes in something that happened. After a [`Fatal`] everything is ignored.
    ///
    /// # Panics
    ///
    /// Where a driver breaks its contract: completes what was not under way, or proposes an entry of a
    /// kind that is the leader's own.
    pub fn step(&mut self, input: Input) {
        if self.fatal.is_some() {
            return;
        }
        // The time alone changes nothing within a tick, nor does an apply that leaves none to do.
        self.stirred |= match &input {
            Input::Time { .. } => false,
            Input::Applied { index, .. } => *index < self.commit_index,
            _ => true,
        };
        match input {
            Input::Time { now, unix_millis } => self.on_time(now, unix_millis),
            Input::Message(envelope) => self.on_envelope(envelope),
            Input::Propose(proposals) => self.on_propose(proposals),
            Input::Persisted(id) => self.on_persisted(id),
            Input::Applied { index, checkpoints } => self.on_applied(index, &checkpoints),
            Input::Loaded { id, entries } => self.on_loaded(id, entries),
            Input::Transfer { to, token } => self.on_transfer(to, token),
            Input::Campaign => self.on_campaign(),
        }
    }

    /// Says what must now happen. Appends to the lanes of `effects`, whose `write` and `apply` must
    /// have been taken.
    ///
    /// # Panics
    ///
    /// Where the last write or apply is still in `effects`.
    pub fn drain(&mut self, effects: &mut Effects) {
        assert!(effects.write.is_none(), "the last write must be taken first");
        assert!(effects.apply.is_none(), "the last apply must be taken first");
        if !self.stirred {
            return;
        }
        let (messages, loads) = (effects.messages.len(), effects.loads.len());
        if self.fatal.is_none() {
            self.release();
            self.advance_commit();
            self.replicate();
            effects.write = self.next_write();
            effects.apply = self.next_apply();
            let settled = self.commit_index.min(self.durability.durable);
            self.log.evict(settled, self.applied, self.config.tail_bytes);
        }
        effects.messages.append(&mut self.outbox);
        effects.answers.append(&mut self.answers);
        effects.loads.append(&mut self.wanted_loads);
        effects.fatal.clone_from(&self.fatal);
        // What gave something may give more: a window may have room for another message.
        self.stirred = effects.write.is_some()
            || effects.apply.is_some()
            || effects.messages.len() > messages
            || effects.loads.len() > loads;
    }

    /// Those who wait here for an entry that is not committed and handed to the machine yet, in the order
    /// of the entries: whoever stops a server owes them an answer. Their outcome is unknown.
    pub fn open_proposals(&self) -> impl Iterator<Item = Token> {
        let leading = match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        };
        leading.into_iter().flat_map(|leader| leader.open.iter().map(|(_, token)| *token))
    }

    /// The time passes. Ticks derive from it: a turn that comes late simply sees more of them.
    fn on_time(&mut self, now: Duration, unix_millis: u64) {
        self.now = self.now.max(now);
        self.unix_millis = unix_millis;
        let tick = self.config.tick_at(self.now);
        if tick == self.tick {
            return;
        }
        self.tick = tick;
        self.stirred = true;
        self.check_stalled();
        match &self.role {
            Role::Leader(_) => self.on_leader_time(),
            _ => self.on_election_time(),
        }
    }

    /// When the time must be stepped in next, on its own clock.
    #[must_use]
    pub fn next_deadline(&self) -> Duration {
        let role = match &self.role {
            Role::Follower(follower) => follower.election_deadline,
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                candidate.election_deadline
            }
            Role::Leader(leader) => leader.heartbeat_deadline,
        };
        let waiting = self.durability.waiting_since().filter(|_| !self.stalled);
        let stall = waiting.map(|since| since + self.config.stalled_write_ticks);
        let tick = stall.map_or(role, |stall| stall.min(role));
        let length = u64::try_from(self.config.tick.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(tick.saturating_mul(length))
    }

    /// Raises the commit index. Never lowers it, and never past what this server holds.
    fn commit_to(&mut self, index: Index) {
        let index = index.min(self.log.last().index);
        self.commit_index = self.commit_index.max(index);
    }

    /// Whether this server leads.
    #[must_use]
    pub const fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The leader of the current term, if known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Leader(_) => Some(self.config.node),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// The current term (Raft §5.1), durable or not.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The membership in force: the latest in the log.
    #[must_use]
    pub fn membership(&self) -> &Arc<Membership> {
        self.memberships.current()
    }

    /// The last entries that are in memory, at most `count`.
    #[must_use]
    pub fn entries_tail(&self, count: usize) -> Entries {
        let end = self.log.last().index.next();
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let start = Index(end.0.saturating_sub(count)).max(self.log.tail_first());
        self.log.entries(start..end, usize::MAX, usize::MAX).unwrap_or_default()
    }

    /// The last entry of the log, durable or not.
    #[must_use]
    pub const fn last(&self) -> LogId {
        self.log.last()
    }

    /// The term of the entry at `index`; `None` above the end and below what is compacted.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// How many bytes of the log are not committed, as far as they are in memory.
    fn uncommitted_bytes(&self) -> usize {
        self.log.bytes_above(self.commit_index)
    }

    fn unapplied_bytes(&self) -> usize {
        self.log.bytes_above(self.applied).saturating_sub(self.uncommitted_bytes())
    }

    /// Stops for good.
    fn fail(&mut self, fatal: Fatal) {
        self.fatal.get_or_insert(fatal);
        // Nothing is stepped any more: if the next drain does not tell, none does.
        self.stirred = true;
    }

    /// Checks everything that must hold between steps. Tests and simulators call it after each.
    ///
    /// # Panics
    ///
    /// Where something does not: that is a bug of this crate.
    pub fn check_invariants(&self) {
        let last = self.log.last().index;
        assert!(self.commit_index <= last, "what is committed is in the log");
        assert!(self.applied <= self.apply_issued, "what is applied was issued");
        assert!(self.apply_issued <= self.commit_index, "what is applied is committed");
        assert!(self.apply_issued <= self.durability.durable, "what is applied is durable");
        assert!(self.log.last().term <= self.hard_state.term, "no entry is from a later term");
        let stored = &self.durability.hard_state;
        assert!(stored.term <= self.hard_state.term, "terms only rise");
        let vote = self.hard_state.voted_for;
        assert!(
            stored.term < self.hard_state.term
                || stored.voted_for.is_none()
                || stored.voted_for == vote,
            "a vote never changes within a term"
        );
        self.durability.check(last);
        match &self.role {
            Role::Leader(leader) => {
                assert!(vote == Some(self.config.node), "a leader voted for itself");
                leader.peers.iter().for_each(|(_, progress)| progress.check());
            }
            Role::Candidate(_) => {
                assert!(vote == Some(self.config.node), "a candidate votes for itself");
            }
            Role::Follower(_) | Role::PreCandidate(_) => {}
        }
    }
}
