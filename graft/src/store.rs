//! Where servers keep their logs, for [`ClusterBuilder::stores`](crate::ClusterBuilder::stores).
//!
//! To write a store of your own, implement [`LogStore`]: the types it speaks of are in `graft-core`, and
//! `graft_storage::conformance` checks it against what it promises.

pub use graft_core::{LogStore, StoreError};
pub use graft_storage::MemoryStore;

/// A new store in memory: it outlives its server, and ends with the process. Keep a [`MemoryStore`]
/// and give clones of it where a log is to outlive its cluster, too.
#[must_use]
pub fn memory() -> Box<dyn LogStore> {
    Box::new(MemoryStore::new())
}
