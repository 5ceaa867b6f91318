//! Which versions of entries the members of the cluster read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use graft_core::NodeId;

/// Where no member has said what it reads.
const UNSAID: u32 = u32::MAX;

/// The newest version that each peer reads, as it said last; also of those that are not connected now: they will
/// be sent the log when they come back.
#[derive(Debug)]
pub(super) struct Versions {
    known: Mutex<Known>,
    /// The lowest of the members' newest, for whoever asks with every batch.
    newest: AtomicU32,
}

#[derive(Debug, Default)]
struct Known {
    members: BTreeSet<NodeId>,
    said: BTreeMap<NodeId, u16>,
}

impl Default for Versions {
    fn default() -> Self {
        Self { known: Mutex::default(), newest: AtomicU32::new(UNSAID) }
    }
}

impl Versions {
    /// A peer said what it reads. At most `bound` peers that are no members are kept in mind: one may say so
    /// before it becomes one.
    pub(super) fn on_said(&self, node: NodeId, newest: u16, bound: usize) {
        self.change(|known| {
            if known.said.len() >= known.members.len() + bound {
                known.said.retain(|node, _| known.members.contains(node));
            }
            known.said.insert(node, newest);
        });
    }

    /// Says who the members are, this server itself or not.
    pub(super) fn set_members(&self, members: BTreeSet<NodeId>) {
        self.change(|known| known.members = members);
    }

    /// The newest version that all members read which have said so.
    pub(super) fn newest(&self) -> Option<u16> {
        u16::try_from(self.newest.load(Ordering::Relaxed)).ok()
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let of_members = known.members.iter().filter_map(|node| known.said.get(node));
        let newest = of_members.min().map_or(UNSAID, |newest| u32::from(*newest));
        self.newest.store(newest, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn the_member_that_reads_least_decides_and_strangers_do_not() {
        let versions = Versions::default();
        assert_eq!(versions.newest(), None);
        versions.on_said(NodeId(1), 3, 2);
        assert_eq!(versions.newest(), None, "it is no member yet");
        versions.set_members(nodes(&[1, 2, 3]));
        assert_eq!(versions.newest(), Some(3));
        versions.on_said(NodeId(2), 1, 2);
        versions.on_said(NodeId(9), 0, 2);
        assert_eq!(versions.newest(), Some(1));
        versions.on_said(NodeId(2), 4, 2);
        assert_eq!(versions.newest(), Some(3));
        versions.set_members(nodes(&[2]));
        assert_eq!(versions.newest(), Some(4));
    }

    #[test]
    fn those_that_are_no_members_take_no_memory_for_ever() {
        let versions = Versions::default();
        versions.set_members(nodes(&[1]));
        versions.on_said(NodeId(1), 7, 4);
        for stranger in 100..1000 {
            versions.on_said(NodeId(stranger), 0, 4);
        }
        assert!(versions.known.lock().unwrap().said.len() <= 5);
        assert_eq!(versions.newest(), Some(7));
    }
}
