//! What is on the disks: every promise is held against it.

use graft_core::{Entries, HardState, LogId, Recovered, Write};

use super::{Check, Judge, demand, runs::Runs};

/// What a server's disk holds durably.
#[derive(Debug, Default)]
pub(super) struct DiskView {
    pub(super) hard_state: HardState,
    pub(super) log: Runs,
    /// Whether it was emptied after it had taken part.
    pub(super) wiped: bool,
    /// What it held before that: acknowledgements that are under way speak of it.
    ghost: Runs,
}

impl DiskView {
    /// Whether it holds this entry, or did before it was emptied.
    pub(super) fn has_held(&self, log_id: LogId) -> bool {
        self.log.holds(log_id) || (self.wiped && self.ghost.holds(log_id))
    }

    pub(super) fn wipe(&mut self) {
        let ghost = std::mem::take(&mut self.log);
        *self = Self { wiped: true, ghost, ..Self::default() };
    }
}

impl Judge {
    pub(super) fn durable(&mut self, server: usize, writes: &[Write]) -> Check {
        for write in writes {
            match write {
                Write::HardState(state) => self.durable_hard_state(server, state)?,
                Write::Append(entries) => self.durable_entries(server, entries)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn durable_hard_state(&mut self, server: usize, state: &HardState) -> Check {
        let before = self.disks[server].hard_state;
        let node = self.nodes[server];
        demand!(
            state.term >= before.term,
            TermMonotonic,
            "the disk of {node} goes from term {} back to {}",
            before.term,
            state.term
        );
        self.disks[server].hard_state = *state;
        if let Some(candidate) = state.voted_for {
            self.logs.vote(state.term, node, candidate)?;
        }
        Ok(())
    }

    fn durable_entries(&mut self, server: usize, entries: &Entries) -> Check {
        let Some(first) = entries.first() else { return Ok(()) };
        if first.log_id.index.0 == 1 {
            // The founding is written before there is a server to watch.
            self.logs.found(first)?;
        }
        let log = &mut self.disks[server].log;
        let gap = first.log_id.index > log.last_index().next();
        demand!(!gap, RecoveryComplete, "the disk of server {server} was given a gap");
        log.truncate_from(first.log_id.index);
        entries.iter().for_each(|entry| log.push(entry.log_id.term));
        Ok(())
    }

    pub(super) fn recovered(&mut self, server: usize, recovered: &Recovered) -> Check {
        let (node, disk) = (self.nodes[server], &self.disks[server]);
        let found = (recovered.hard_state, recovered.last);
        let kept = (disk.hard_state, disk.log.last());
        demand!(
            found == kept,
            RecoveryComplete,
            "the disk of {node} gave back {found:?} instead of {kept:?}"
        );
        Ok(())
    }
}
