//! The oracle: what is true of the cluster as a whole, as far as it has shown itself, and what it must
//! never do. No server knows these things.
//!
//! Everything that a server does is told to the oracle as it happens: each turn, each message before it
//! leaves, each write when it is durable, each command as the machine carries it out, each request with
//! its end. What is new is held against what was known before, so a turn in which nothing changed costs a
//! comparison, and no check looks at a whole log.

mod answers;
mod checkers;
mod disk;
mod log;
mod machines;
mod messages;
mod reigns;
mod requests;
mod runs;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use graft_core::{Membership, NodeId, PeerEnvelope, Raft, Recovered, Term, Write};

pub use self::checkers::Checker;
use self::{answers::Owed, disk::DiskView, log::Logs, machines::Machines, reigns::Contacts};
pub(crate) use self::{
    machines::Application,
    requests::{End, Requests},
    turns::View,
};
use crate::{
    executor::Kernel,
    faults::{FaultCounts, FaultKind},
    journal::Journal,
};

/// A property that did not hold, and how that showed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{checker:?} after {at:?}: {what}")]
pub struct Violation {
    /// Which property.
    pub checker: Checker,
    /// When, in simulated time.
    pub at: Duration,
    /// What was seen.
    pub what: String,
}

/// What came of a check.
type Check = Result<(), Breach>;

/// A property that does not hold, in words.
#[derive(Debug)]
pub(crate) struct Breach {
    checker: Checker,
    what: String,
}

impl Breach {
    pub(crate) const fn new(checker: Checker, what: String) -> Self {
        Self { checker, what }
    }
}

/// Ends a check where a condition does not hold.
macro_rules! demand {
    ($holds:expr, $checker:ident, $($words:tt)*) => {
        if !$holds {
            return Err($crate::oracle::Breach::new(
                $crate::oracle::Checker::$checker,
                format!($($words)*),
            ));
        }
    };
}
use demand;

/// The oracle of one run. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Oracle {
    judge: Arc<Mutex<Judge>>,
    /// Whether anybody reads the trace.
    is_read: bool,
}

/// Everything that the oracle knows.
pub(crate) struct Judge {
    kernel: Kernel,
    pub(crate) journal: Journal,
    pub(crate) faults: FaultCounts,
    violation: Option<Violation>,
    nodes: Vec<NodeId>,
    logs: Logs,
    pub(crate) views: Vec<View>,
    disks: Vec<DiskView>,
    machines: Machines,
    pub(crate) requests: Requests,
    owed: Vec<Owed>,
    contacts: Vec<Contacts>,
    /// The terms that somebody has campaigned in.
    campaigns: BTreeSet<Term>,
    bounds: Bounds,
}

/// What the servers of a run are bounded by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) window_entries: usize,
    pub(crate) uncommitted_bytes: usize,
    pub(crate) unapplied_bytes: usize,
    /// The longest time without a leader after which a server campaigns.
    pub(crate) election_timeout: Duration,
}

impl Oracle {
    pub(crate) fn new(
        kernel: Kernel,
        nodes: Vec<NodeId>,
        bounds: Bounds,
        journal: Journal,
    ) -> Self {
        let is_read = journal.is_read();
        let judge = Judge {
            kernel,
            journal,
            faults: FaultCounts::default(),
            violation: None,
            logs: Logs::default(),
            views: nodes.iter().map(|_| View::default()).collect(),
            disks: nodes.iter().map(|_| DiskView::default()).collect(),
            machines: Machines::new(nodes.len()),
            requests: Requests::default(),
            owed: nodes.iter().map(|_| Owed::default()).collect(),
            contacts: nodes.iter().map(|_| Contacts::default()).collect(),
            campaigns: BTreeSet::new(),
            nodes,
            bounds,
        };
        Self { judge: Arc::new(Mutex::new(judge)), is_read }
    }

    /// An oracle that lets everything pass, for tests of what it watches.
    #[cfg(test)]
    pub(crate) fn blind(kernel: Kernel, nodes: Vec<NodeId>) -> Self {
        let oracle = Self::new(kernel, nodes, Bounds::default(), Journal::new(false));
        // Only the first violation counts.
        let (checker, what) = (Checker::NothingUnexplained, "it is blind".into());
        oracle.lock().violation = Some(Violation { checker, at: Duration::ZERO, what });
        oracle
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fault struck.
    pub(crate) fn strike(&self, kind: FaultKind) {
        self.lock().faults.strike(kind);
    }

    /// Writes a line into the trace, if anybody reads it.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        if self.is_read {
            self.lock().note(line);
        }
    }

    /// A server ended a turn. Says whether its driver is to panic.
    pub(crate) fn on_turn(&self, server: usize, raft: &Raft) -> bool {
        let mut judge = self.lock();
        let checked = judge.turn(server, raft);
        judge.judge(checked);
        std::mem::take(&mut judge.views[server].panic_ordered)
    }

    /// A server sends a message to another.
    pub(crate) fn on_message(&self, server: usize, envelope: &PeerEnvelope) {
        let mut judge = self.lock();
        let checked = judge.message(server, envelope);
        judge.judge(checked);
    }

    /// A write of a server has become durable.
    pub(crate) fn on_durable(&self, server: usize, writes: &[Write]) {
        let mut judge = self.lock();
        let checked = judge.durable(server, writes);
        judge.judge(checked);
    }

    /// A store gave back what it holds.
    pub(crate) fn on_recovered(&self, server: usize, recovered: &Recovered) {
        let mut judge = self.lock();
        let checked = judge.recovered(server, recovered);
        judge.judge(checked);
    }

    /// A machine carried out a command.
    pub(crate) fn on_applied(&self, server: usize, life: u64, application: &Application) {
        let mut judge = self.lock();
        let checked = judge.applied(server, life, application);
        judge.judge(checked);
    }

    /// A machine was made: it has carried out nothing.
    pub(crate) fn on_new_machine(&self, server: usize) -> u64 {
        self.lock().machines.begin(server)
    }

    /// A server's process has ended, or its driver is about to.
    pub(crate) fn on_end_of_life(&self, server: usize) {
        self.lock().views[server].forget_life();
    }

    /// A server refused a request as too much: because of its bounds, or because it hands over.
    pub(crate) fn on_overloaded(&self, server: usize) {
        let mut judge = self.lock();
        let bounds = judge.bounds;
        let full = judge.views[server].vitals.is_some_and(|vitals| {
            vitals.uncommitted_bytes * 2 > bounds.uncommitted_bytes
                || vitals.unapplied_bytes * 2 > bounds.unapplied_bytes
        });
        if full {
            judge.faults.strike(FaultKind::Overload);
        }
    }

    /// A message between servers arrives.
    pub(crate) fn on_arrival(&self, from: usize, to: usize, envelope: &PeerEnvelope) {
        self.lock().note_contact(from, to, &envelope.message);
    }

    /// A server takes in a request of a client.
    pub(crate) fn on_request(&self, server: usize, link: u64, number: u64) {
        self.lock().request_taken(server, link, number);
    }

    /// A server answers a client.
    pub(crate) fn on_reply(&self, server: usize, link: u64, number: u64) {
        let mut judge = self.lock();
        let checked = judge.request_answered(server, link, number);
        judge.judge(checked);
    }

    /// Nobody hears at a server any more, or somebody new does.
    pub(crate) fn on_silence(&self, server: usize) {
        self.lock().forget_owed(server);
    }

    /// A disk was emptied.
    pub(crate) fn on_wiped(&self, server: usize) {
        self.lock().disks[server].wipe();
    }

    /// A request is about to be sent. Gives its number.
    pub(crate) fn begin_request(&self) -> u64 {
        self.lock().requests.begin()
    }

    /// A request has ended.
    pub(crate) fn end_request(&self, operation: u64, end: &End) {
        let mut judge = self.lock();
        let checked = judge.end_request(operation, end);
        judge.judge(checked);
    }

    /// A property was seen not to hold.
    pub(crate) fn accuse(&self, checker: Checker, what: String) {
        self.lock().judge(Err(Breach::new(checker, what)));
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }
}

impl Judge {
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.journal.is_read() {
            let (now, line) = (self.kernel.now(), self.with_names(line()));
            self.journal.write(now, &line);
        }
    }

    /// Takes note of a broken property, the first one; then nothing happens any more.
    pub(crate) fn judge(&mut self, checked: Check) {
        let Err(Breach { checker, what }) = checked else { return };
        if self.violation.is_none() {
            let at = Duration::from_nanos(self.kernel.now());
            let what = self.with_names(what);
            self.note(|| format!("{checker:?}: {what}"));
            self.violation = Some(Violation { checker, at, what });
            self.kernel.halt();
        }
    }

    /// The servers by their places instead of their numbers, which nobody can tell apart.
    fn with_names(&self, mut text: String) -> String {
        for (at, node) in self.nodes.iter().enumerate() {
            text = text.replace(&node.to_string(), &format!("s{at}"));
        }
        text
    }

    fn place_of(&self, node: NodeId) -> Option<usize> {
        self.nodes.iter().position(|other| *other == node)
    }

    /// Whether those servers of whom `has` is true are a quorum, counted by hand.
    fn is_quorum(&self, membership: &Membership, has: impl Fn(&Self, usize) -> bool) -> bool {
        let held = |node: &&NodeId| self.place_of(**node).is_some_and(|at| has(self, at));
        let majority = |half: &BTreeSet<NodeId>| {
            half.is_empty() || half.iter().filter(held).count() * 2 > half.len()
        };
        majority(&membership.voters) && majority(&membership.outgoing)
    }

    pub(crate) fn violation_of_run(&self) -> Option<Violation> {
        self.violation.clone()
    }

    pub(crate) fn committed(&self) -> u64 {
        self.logs.committed().0
    }
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oracle").field("violation", &self.violation()).finish_non_exhaustive()
    }
}
