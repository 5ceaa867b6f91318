//! Committed entries on their way to the machine (Raft §5.3), and entries that only the disk still has.

use std::ops::Range;

use super::{Apply, Load, LoadId, Mutant, Raft, Role, Token};
use crate::{Entries, Index, NodeId, Term};

/// What a load was wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LoadFor {
    Apply,
    Peer { node: NodeId, term: Term, from: Index },
}

impl Raft {
    /// Committed and durable entries that the machine has not had yet, one batch at a time.
    pub(super) fn next_apply(&mut self) -> Option<Apply> {
        if self.apply_issued > self.applied {
            return None;
        }
        let upto = if self.is_mutant(Mutant::ReplyBeforeFlush) {
            self.commit_index
        } else {
            self.commit_index.min(self.durability.durable)
        };
        let entries = match self.ready_apply.take() {
            Some(loaded) => loaded,
            None if upto > self.apply_issued => {
                let range = self.apply_issued.next()..upto.next();
                let bytes = self.config.max_batch_bytes;
                let Some(entries) = self.log.entries(range.clone(), usize::MAX, bytes) else {
                    self.want_load(LoadFor::Apply, range);
                    return None;
                };
                entries
            }
            None => return None,
        };
        self.apply_issued = entries.last_log_id().map_or(self.apply_issued, |last| last.index);
        let waiting = self.take_waiting(self.apply_issued);
        Some(Apply { entries, waiting })
    }

    /// Those who wait on this server for entries up to `index`.
    fn take_waiting(&mut self, index: Index) -> Vec<(Index, Token)> {
        let mut waiting = if self.is_mutant(Mutant::ProposalAnsweredByIndex) {
            self.take_orphans(index)
        } else {
            Vec::new()
        };
        if let Role::Leader(leader) = &mut self.role {
            let count = leader.open.partition_point(|(waiting, _)| *waiting <= index);
            waiting.extend(leader.open.drain(..count));
        }
        waiting
    }

    pub(super) fn on_applied(&mut self, index: Index, checkpoints: &[crate::Checkpoint]) {
        assert!(index > self.applied, "an apply was completed twice");
        assert!(index <= self.apply_issued, "the machine applied what it was not given");
        self.applied = index;
        self.apply_issued = index;
        self.note_checkpoints(checkpoints);
    }

    /// Asks the store for entries that are no longer in memory, once for each who wants some.
    pub(super) fn want_load(&mut self, purpose: LoadFor, range: Range<Index>) {
        let same = |known: &LoadFor| match (known, &purpose) {
            (LoadFor::Peer { node: known, .. }, LoadFor::Peer { node, .. }) => known == node,
            (known, purpose) => known == purpose,
        };
        if self.loads.iter().any(|(_, known)| same(known)) {
            return;
        }
        let id = self.next_load;
        self.next_load = LoadId(id.0 + 1);
        self.loads.push((id, purpose));
        self.wanted_loads.push(Load { id, range, max_bytes: self.config.max_batch_bytes });
    }

    /// The store read something. It counts only where it is still our log.
    pub(super) fn on_loaded(&mut self, id: LoadId, entries: Entries) {
        let position = self.loads.iter().position(|(known, _)| *known == id);
        assert!(position.is_some(), "a load was completed that is not under way");
        let Some((_, purpose)) = position.map(|position| self.loads.swap_remove(position)) else {
            return;
        };
        let ours = !entries.is_empty() && self.log.contains(&entries);
        match purpose {
            LoadFor::Apply => {
                let upto = self.commit_index.min(self.durability.durable);
                let fits = entries.first_index() == Some(self.apply_issued.next());
                if ours && fits {
                    let mut entries = entries;
                    entries.truncate_from(upto.next());
                    self.ready_apply = Some(entries);
                }
            }
            LoadFor::Peer { node, term, from } => {
                if ours && term == self.hard_state.term {
                    self.send_loaded(node, from, entries);
                }
            }
        }
    }
}
