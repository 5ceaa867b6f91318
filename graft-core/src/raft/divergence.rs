//! Comparing machines: replicas that answered differently have diverged, and the one that notices stops.

use std::collections::VecDeque;

use super::{Fatal, Raft, Role};
use crate::{Checkpoint, Index};

/// The checksums of this server's machine at the last multiples of [`Checkpoint::INTERVAL`].
#[derive(Debug, Default)]
pub(super) struct Checkpoints(VecDeque<Checkpoint>);

impl Checkpoints {
    /// How many are kept: a million entries' worth, so that a slow peer can still be compared.
    const KEPT: usize = 1024;

    /// The latest at or below `index`.
    pub(super) fn latest_at_most(&self, index: Index) -> Option<Checkpoint> {
        let after = self.0.partition_point(|checkpoint| checkpoint.index <= index);
        self.0.get(after.checked_sub(1)?).copied()
    }

    fn at(&self, index: Index) -> Option<Checkpoint> {
        self.latest_at_most(index).filter(|checkpoint| checkpoint.index == index)
    }
}

impl Raft {
    pub(super) fn note_checkpoints(&mut self, checkpoints: &[Checkpoint]) {
        for checkpoint in checkpoints {
            if self.checkpoints.0.len() == Checkpoints::KEPT {
                self.checkpoints.0.pop_front();
            }
            self.checkpoints.0.push_back(*checkpoint);
        }
        if !checkpoints.is_empty() {
            self.compare_expected();
        }
    }

    /// A leader says what its machine's checksum was.
    pub(super) fn on_leader_checkpoint(&mut self, checkpoint: Checkpoint) {
        if let Role::Follower(follower) = &mut self.role {
            follower.expected = Some(checkpoint);
            self.compare_expected();
        }
    }

    fn compare_expected(&mut self) {
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let Some(expected) = follower.expected.filter(|expected| expected.index <= self.applied)
        else {
            return;
        };
        follower.expected = None;
        let own = self.checkpoints.at(expected.index);
        if own.is_some_and(|own| own.checksum != expected.checksum) {
            self.fail(Fatal::Diverged { index: expected.index });
        }
    }
}
