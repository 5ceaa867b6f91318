//! What the machines do: all of them the same.

use super::{Check, Judge, demand};

/// A command as a machine carried it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Application {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) operation: u64,
    /// The wall clock that the machine was shown.
    pub(crate) unix_millis: u64,
    /// A hash of the response, `None` where the machine panicked.
    pub(crate) response: Option<u64>,
    /// A hash of the machine's state after it, zero where the workload has none.
    pub(crate) state: u64,
}

/// The commands in the order in which they were carried out, by the first machine that did.
#[derive(Debug)]
pub(super) struct Machines {
    order: Vec<Application>,
    runs: Vec<Run>,
}

/// How far the machine of a server is, in its current life.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    number: u64,
    done: usize,
}

impl Machines {
    pub(super) fn new(servers: usize) -> Self {
        Self { order: Vec::new(), runs: vec![Run::default(); servers] }
    }

    /// A server makes a new machine. Gives the number by which it is known.
    pub(super) fn begin(&mut self, server: usize) -> u64 {
        let run = &mut self.runs[server];
        *run = Run { number: run.number + 1, done: 0 };
        run.number
    }

    pub(super) fn done(&self, server: usize) -> usize {
        self.runs[server].done
    }

    pub(super) fn total(&self) -> usize {
        self.order.len()
    }

    /// The command that was carried out as number `at`.
    pub(super) fn at(&self, at: usize) -> Option<&Application> {
        self.order.get(at)
    }
}

impl Judge {
    pub(super) fn applied(&mut self, server: usize, life: u64, now: &Application) -> Check {
        let node = self.nodes[server];
        let run = self.machines.runs[server];
        if run.number != life {
            // A machine on a thread may still be at work for a server that has ended.
            return Ok(());
        }
        let index = graft_core::Index(now.index);
        let committed = self.logs.committed_term(index);
        demand!(
            committed == Some(graft_core::Term(now.term)),
            AppliedIsCommitted,
            "{node} applies {}.{}, committed is term {committed:?}",
            now.term,
            now.index
        );
        self.machines.runs[server].done += 1;
        if let Some(first) = self.machines.at(run.done) {
            let same =
                (first.index, first.term, first.operation) == (now.index, now.term, now.operation);
            demand!(same, StateMachineSafety, "{node} applies {now:?}, others {first:?} before");
            demand!(first == now, StateHash, "{node} comes to {now:?}, others to {first:?}");
            return Ok(());
        }
        if let Some(last) = self.machines.order.last() {
            demand!(
                last.index < now.index,
                StateMachineSafety,
                "{node} applies {now:?} after {last:?}"
            );
            let (then, shown) = (last.unix_millis, now.unix_millis);
            demand!(then <= shown, WallClockMonotonic, "machines are shown {shown} after {then}");
        }
        let at = self.machines.order.len();
        self.machines.order.push(*now);
        self.apply_request(now.operation, at)
    }

    /// Whether the machines of these servers have all carried out everything.
    pub(crate) fn all_applied(&self, mut servers: impl Iterator<Item = usize>) -> bool {
        servers.all(|server| self.machines.done(server) == self.machines.total())
    }
}
