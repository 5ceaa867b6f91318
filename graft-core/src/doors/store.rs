//! The door to the disk.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Identity, Index, Loaded, LogId, Recovered, SnapshotChunk, Write};

/// Where a server keeps what it must not forget.
///
/// A handle is one group's view of the store. `graft_storage::conformance` checks any implementation
/// against what is promised here. Every error but those of [`identity`](Self::identity),
/// [`create`](Self::create) and [`recover`](Self::recover) is fatal for the node that gets it.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Whose store this is, as far as that can be told by looking: nothing is changed and nobody is
    /// fenced, so that a store of somebody else can be refused as it is. `None` where it was never
    /// born, or only [`recover`](Self::recover) can tell, which is what is provided; whoever recovers
    /// checks again.
    ///
    /// # Errors
    ///
    /// Those of [`recover`](Self::recover).
    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        Ok(None)
    }

    /// Gives the store its identity, durably.
    ///
    /// # Errors
    ///
    /// [`StoreError::AlreadyBorn`] where it has one; whatever the medium says.
    async fn create(&self, identity: &Identity) -> Result<(), StoreError>;

    /// What the store holds, or `None` where it was never born.
    ///
    /// This fences: every write given to an earlier handle is either in what is returned or never
    /// happens, and from now on writing and staging through earlier handles fails with
    /// [`StoreError::Fenced`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Poisoned`] after a failed sync in this process; [`StoreError::Corrupt`] where
    /// a record is not what was written: corruption is never read as a shorter log.
    async fn recover(&self) -> Result<Option<Recovered>, StoreError>;

    /// Makes a batch durable, all or nothing, before it returns. Gives the buffer back, emptied.
    ///
    /// # Errors
    ///
    /// Any error means that nothing is known about this batch; it is never tried again.
    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError>;

    /// Entries from the start of `range`, as many as fit `max_bytes` but at least one; or that the
    /// start is compacted.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfRange`] where the range is empty or begins after the last entry.
    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError>;

    /// Keeps a piece of a snapshot that is coming in. Invisible until a [`Write::InstallSnapshot`].
    ///
    /// # Errors
    ///
    /// [`StoreError::BadChunk`] where it does not continue what was staged for that snapshot.
    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError>;

    /// At most `max_bytes` of the installed snapshot `id` from `offset`; empty at its end.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSnapshot`] where that snapshot is not the installed one.
    async fn read_snapshot(
        &self,
        id: u64,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Bytes, StoreError>;

    /// Where the store is, for the texts of errors; `None` where that has no name, as in memory.
    fn place(&self) -> Option<String> {
        None
    }
}

#[async_trait]
impl<S: LogStore + ?Sized> LogStore for Box<S> {
    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        (**self).identity().await
    }
    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        (**self).create(identity).await
    }
    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        (**self).recover().await
    }
    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        (**self).write(writes).await
    }
    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        (**self).read(range, max_bytes).await
    }
    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        (**self).stage(chunk).await
    }
    async fn read_snapshot(
        &self,
        id: u64,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Bytes, StoreError> {
        (**self).read_snapshot(id, offset, max_bytes).await
    }
    fn place(&self) -> Option<String> {
        (**self).place()
    }
}

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store has an identity already.
    #[error(
        "the store already belongs to server `{name}`: open it as that server or use an empty one"
    )]
    AlreadyBorn {
        /// Its server's name.
        name: String,
    },
    /// The store has no identity yet.
    #[error("the store was never born: create it first")]
    NotBorn,
    /// A newer handle has recovered this store.
    #[error("this handle is fenced: the store has been recovered by a newer one")]
    Fenced,
    /// A sync, or another change, failed earlier in this process; what the disk holds is not known.
    #[error(
        "the store failed earlier in this process ({reason}), so what its disk holds is not known: \
         restart the process after checking the disk"
    )]
    Poisoned {
        /// What failed, and what the system said.
        reason: String,
    },
    /// A record is not what was written.
    #[error(
        "the store is corrupt at {location}: {reason}; leave this server stopped: the others go on as \
         long as they are a majority, and nothing takes a server in anew yet"
    )]
    Corrupt {
        /// Which table and record.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A range that is empty or begins after the log.
    #[error("entries {}..{} were asked for, the log ends at {last}", .range.start, .range.end)]
    OutOfRange {
        /// What was asked for.
        range: Range<Index>,
        /// The end of the log.
        last: Index,
    },
    /// A write that does not fit what the store holds: a bug of the caller.
    #[error("a write does not fit the log ({reason}); the log ends at {last}")]
    BadWrite {
        /// What does not fit.
        reason: &'static str,
        /// The end of the log.
        last: LogId,
    },
    /// A snapshot chunk that does not continue what was staged.
    #[error("snapshot {id}: a chunk at byte {offset} came, byte {expected} is next")]
    BadChunk {
        /// Which snapshot.
        id: u64,
        /// Where the chunk begins.
        offset: u64,
        /// Where it should.
        expected: u64,
    },
    /// Not the installed snapshot.
    #[error("snapshot {id} is not in the store")]
    NoSnapshot {
        /// Which.
        id: u64,
    },
    /// The medium failed.
    #[error("the store failed to {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It could not be opened. The backend's own error says where, why, and what to do.
    #[error(transparent)]
    Open(Box<dyn std::error::Error + Send + Sync>),
    /// Anything else a backend has to say.
    #[error("the store failed: {reason}")]
    Backend {
        /// In the backend's words.
        reason: String,
    },
}
