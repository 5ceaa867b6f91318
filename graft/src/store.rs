//! Where servers keep their logs, for [`ClusterBuilder::stores`](crate::ClusterBuilder::stores).
//!
//! To write a store of your own, implement [`LogStore`]: the types it speaks of are in `graft-core`, and
//! `graft_storage::conformance` checks it against what it promises.

pub use graft_core::{LogStore, StoreError};
pub use graft_storage::MemoryStore;
#[cfg(feature = "redb")]
pub use graft_storage::redb::{OpenError, Options, Pace, RedbStore, Report, verify};

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
/// It reads itself once a day, slowly, and logs as an error of `tracing` what is not what was written any more, while
/// the other servers still have it. To scrub it at other times, or with other [`Options`], open a [`RedbStore`] and keep
/// a clone of it; [`verify`] reads one that nobody has open.
///
/// ```no_run
/// # let cluster = graft::cluster(["server1"]);
/// let cluster = cluster.stores(|name| Ok(graft::store::redb(format!("data/{name}"))?));
/// # drop(cluster);
/// ```
///
/// ```no_run
/// # async fn scrub_now() -> Result<(), Box<dyn std::error::Error>> {
/// use graft::store::{Pace, RedbStore};
///
/// let store = RedbStore::open("data/server1")?;
/// let handle = store.clone();
/// let cluster = graft::cluster(["server1"]).stores(move |_| Ok(Box::new(store.clone())));
/// // ... and while it serves:
/// println!("{:?}", handle.scrub(Pace::default()).await?);
/// # drop(cluster);
/// # Ok(())
/// # }
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
    let options = Options::default().scrub_every(DAY, Pace::default());
    Ok(Box::new(RedbStore::open_with(path, &options)?))
}

/// How long a store is left alone between two scrubs.
#[cfg(feature = "redb")]
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
