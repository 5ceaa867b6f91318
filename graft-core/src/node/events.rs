//! What a node tells the outside through `tracing` and its status: changes, and never an entry.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    NodeStatus, StopReason,
    clock::{Limiter, Limiters},
    pace::Slow,
};
use crate::{NodeId, Raft, Term, raft::RoleName};

/// Compares the state after each turn with the one before, and tells what is new.
pub(super) struct Events {
    node: NodeId,
    name: Arc<str>,
    known: Known,
    status: watch::Sender<NodeStatus>,
    overloads: Limiter,
    slow_entries: Limiter,
    foreign_births: u64,
    births: Limiters,
    warned_of_log: bool,
}

/// What is worth telling when it changes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    role: RoleName,
    term: Term,
    leader: Option<NodeId>,
}

impl Known {
    fn of(raft: &Raft) -> Self {
        Self { role: raft.role_name(), term: raft.term(), leader: raft.leader() }
    }
}

impl Events {
    /// A log that nothing compacts is worth a warning from this size.
    const LARGE_LOG: u64 = 64 << 20;

    pub(super) fn new(
        node: NodeId,
        name: Arc<str>,
        raft: &Raft,
    ) -> (Self, watch::Receiver<NodeStatus>) {
        let known = Known::of(raft);
        let (status, receiver) = watch::channel(NodeStatus {
            node,
            name: Arc::clone(&name),
            role: known.role,
            term: known.term,
            leader: known.leader,
            stopped: None,
        });
        let events = Self {
            node,
            name,
            known,
            status,
            overloads: Limiter::default(),
            slow_entries: Limiter::default(),
            foreign_births: 0,
            births: Limiters::default(),
            warned_of_log: false,
        };
        (events, receiver)
    }

    /// To be called after every turn: cheap where nothing changed.
    pub(super) fn after_turn(&mut self, raft: &Raft, time: Duration) {
        if raft.foreign_births() != self.foreign_births {
            self.on_foreign_birth(raft, time);
        }
        let now = Known::of(raft);
        if now == self.known {
            return;
        }
        let before = std::mem::replace(&mut self.known, now);
        self.tell_change(raft, before, now);
        self.status.send_modify(|status| {
            status.role = now.role;
            status.term = now.term;
            status.leader = now.leader;
        });
    }

    fn tell_change(&self, raft: &Raft, before: Known, now: Known) {
        let (node, term) = (&*self.name, now.term.0);
        if before.role != now.role {
            let (from, to) = (before.role, now.role);
            let reason = reason_of_change(before, now);
            if now.role == RoleName::Leader {
                tracing::info!(node, term, ?from, reason, "won the election and leads");
            } else {
                tracing::info!(node, term, ?from, ?to, reason, "changed its role");
            }
        }
        match now.leader {
            Some(leader) if before.leader != now.leader && leader != self.node => {
                // A leader may be none of the members that are known here yet.
                let info = raft.membership().nodes.get(&leader);
                let name = info.map(|info| info.name.as_str());
                tracing::info!(node, term, leader = name, number = %leader, "follows a leader");
            }
            _ => {}
        }
    }

    /// A server came with a birth that the cluster was not founded with, and was told so.
    fn on_foreign_birth(&mut self, raft: &Raft, time: Duration) {
        self.foreign_births = raft.foreign_births();
        let Some(birth) = raft.foreign_birth() else { return };
        let Some(unreported) = self.births.pass(birth.node, time) else { return };
        let (node, term) = (&*self.name, self.known.term.0);
        let membership = raft.membership();
        let server = membership.nodes.get(&birth.node).map_or("", |info| info.name.as_str());
        tracing::warn!(
            node,
            term,
            server,
            number = %birth.node,
            came = %birth.came,
            known = %birth.known,
            unreported,
            "a server wants to found this cluster with a store that it was not founded with: its disk \
             was emptied, or another uses its name; it was refused and takes no part"
        );
    }

    /// A request was refused because too much is waiting.
    pub(super) fn on_overload(&mut self, now: Duration, what: &'static str) {
        if let Some(unreported) = self.overloads.pass(now) {
            let (node, term) = (&*self.name, self.known.term.0);
            tracing::warn!(node, term, unreported, reason = what, "refuses requests");
        }
    }

    /// Entries held up their machine for longer than a heartbeat.
    pub(super) fn on_slow(&mut self, now: Duration, slow: Slow, inline: bool) {
        let Some(unreported) = self.slow_entries.pass(now) else {
            return;
        };
        let (node, term) = (&*self.name, self.known.term.0);
        let (first, last) = (slow.first.0, slow.last.0);
        let took_ms = u64::try_from(slow.took.as_millis()).unwrap_or(u64::MAX);
        if inline {
            tracing::warn!(
                node,
                term,
                first,
                last,
                took_ms,
                unreported,
                "applying took longer than a heartbeat and held up this server: \
                 give the machine `const APPLY: Apply = Apply::Thread`"
            );
        } else {
            tracing::debug!(
                node,
                term,
                first,
                last,
                took_ms,
                "applying took longer than a heartbeat"
            );
        }
    }

    /// The log has grown to `bytes`.
    pub(super) fn on_log_size(&mut self, bytes: u64, limit: u64) {
        if bytes < Self::LARGE_LOG || self.warned_of_log {
            return;
        }
        self.warned_of_log = true;
        let (node, term) = (&*self.name, self.known.term.0);
        tracing::warn!(
            node,
            term,
            bytes,
            limit,
            "the log grows and nothing compacts it: every restart replays it, and at the limit \
             requests are refused"
        );
    }

    /// The node has stopped.
    pub(super) fn on_stop(&self, reason: &StopReason) {
        let (node, term) = (&*self.name, self.known.term.0);
        if *reason == StopReason::Asked {
            tracing::info!(node, term, %reason, "stopped");
        } else {
            tracing::error!(node, term, %reason, "stopped");
        }
        self.status.send_modify(|status| status.stopped = Some(reason.clone()));
    }

    /// The transport took too long to close.
    pub(super) fn on_slow_close(&self, timeout: Duration) {
        let (node, term) = (&*self.name, self.known.term.0);
        tracing::warn!(node, term, ?timeout, "left its transport before it had closed");
    }
}

/// Why the role changed, as far as the states before and after tell.
fn reason_of_change(before: Known, now: Known) -> &'static str {
    match (before.role, now.role) {
        (_, RoleName::Leader) => "a quorum voted for it",
        (_, RoleName::PreCandidate) => "heard no leader for an election timeout",
        (RoleName::PreCandidate, RoleName::Candidate) => "a quorum would vote for it",
        (_, RoleName::Candidate) => "told to campaign",
        (RoleName::Leader, _) if now.term == before.term => {
            "handed over, or heard no quorum for an election timeout"
        }
        (_, RoleName::Follower) if now.leader.is_some() => "another server leads",
        (_, RoleName::Follower) if now.term > before.term => "saw a higher term",
        (_, RoleName::Follower) => "a quorum would not vote for it",
    }
}
