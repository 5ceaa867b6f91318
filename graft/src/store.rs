//! Where servers keep their logs, for [`ClusterBuilder::stores`](crate::ClusterBuilder::stores).
//!
//! To write a store of your own, implement [`LogStore`]: the types it speaks of are in `graft-core`, and
//! `graft_storage::conformance` checks it against what it promises.

pub use graft_core::{LogStore, StoreError};
pub use graft_storage::MemoryStore;
#[cfg(feature = "redb")]
pub use graft_storage::redb::{OpenError, RedbStore};

/// A new store in memory: it outlives its server, and ends with the process. Keep a [`MemoryStore`]
/// and give clones of it where a log is to outlive its cluster, too.
#[must_use]
pub fn memory() -> Box<dyn LogStore> {
    Box::new(MemoryStore::new())
}

/// A store on the disk, in the directory at `path`, which is made where it does not exist. Each server
/// needs a directory of its own. What was acknowledged is found again after a crash of the process or a
/// power cut; see [`RedbStore`].
///
/// ```no_run
/// # let cluster = graft::cluster(["server1"]);
/// let cluster = cluster.stores(|name| Ok(graft::store::redb(format!("data/{name}"))?));
/// # drop(cluster);
/// ```
///
/// A directory is open in one place at a time: until the last handle on its store is dropped, opening it
/// again is refused with [`OpenError::InUse`]. For the servers of a cluster that is when
/// [`Supervisor::shutdown`](crate::Supervisor::shutdown) has returned; await it before opening the same
/// directories again. Where the supervisor was only dropped, they stay open until its servers have stopped, a
/// moment later.
///
/// # Errors
///
/// [`OpenError`] says what is wrong with the directory, and what to do; its files are as they were.
#[cfg(feature = "redb")]
pub fn redb(path: impl AsRef<std::path::Path>) -> Result<Box<dyn LogStore>, OpenError> {
    Ok(Box::new(RedbStore::open(path)?))
}
