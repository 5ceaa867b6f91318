//! What a server must not forget: the orders to its store, and what the store gives back after a crash.

use std::fmt;

use bytes::Bytes;

use crate::{
    ClusterId, Entries, Epoch, GroupId, Incarnation, Index, LogId, LogTime, Membership, NodeId,
    Term,
};

/// The part of a server's state that Raft §5 ("persistent state") keeps beside the log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HardState {
    /// The latest term this server has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
    /// A hint of how far the log was committed. It rides along and is never written on its own account.
    pub commit: Index,
}

/// An order to the store. The orders of one batch become durable together or not at all, and batches
/// in the order they were given.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Write {
    /// Replaces the hard state.
    HardState(HardState),
    /// Appends entries. Whatever the log holds at and above the first index goes.
    Append(Entries),
    /// Makes the staged snapshot of this description the store's snapshot. Where the log holds
    /// `meta.last` its suffix stays; otherwise the whole log goes.
    InstallSnapshot(SnapshotMeta),
    /// Drops the log up to and including this entry.
    Compact(LogId),
}

/// Who a store belongs to, written once at its birth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The cluster's generation.
    pub epoch: Epoch,
    /// The server.
    pub node: NodeId,
    /// The server's name, of which `node` is the hash.
    pub name: String,
    /// Drawn at random at birth.
    pub incarnation: Incarnation,
    /// How it was born.
    pub birth: Birth,
    /// The name of the entry type of its machine.
    pub machine: String,
    /// A fingerprint of the format in which commands are archived.
    pub format: u64,
}

/// How a server came into its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Birth {
    /// With the cluster.
    Founder,
    /// Into a running cluster. It neither votes nor campaigns until its store holds a membership that
    /// names its incarnation.
    Joiner,
}

/// What a store holds of one group. Only what a power cut cannot undo, and none of it by scanning the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// Who the store belongs to.
    pub identity: Identity,
    /// The hard state last written; the default where none was.
    pub hard_state: HardState,
    /// The last entry that was compacted away, or zero.
    pub compacted: LogId,
    /// The last entry of the log; equals `compacted` where the log is empty.
    pub last: LogId,
    /// The time of that entry: the next leader's clock goes on from it.
    pub last_time: LogTime,
    /// Where each term begins: `(index, term)` with both rising, of the entries after `compacted`.
    pub terms: Vec<(Index, Term)>,
    /// The membership entries after `compacted`, in order.
    pub memberships: Vec<(LogId, Membership)>,
    /// The installed snapshot, if any.
    pub snapshot: Option<SnapshotMeta>,
}

impl Recovered {
    /// What the store of a server that was just born holds.
    #[must_use]
    pub fn newborn(identity: Identity) -> Self {
        Self {
            identity,
            hard_state: HardState::default(),
            compacted: LogId::ZERO,
            last: LogId::ZERO,
            last_time: LogTime(0),
            terms: Vec::new(),
            memberships: Vec::new(),
            snapshot: None,
        }
    }
}

/// What describes a snapshot.
#[derive(Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Distinguishes snapshots of one server.
    pub id: u64,
    /// The cluster it was taken in.
    pub cluster: ClusterId,
    /// The cluster's generation.
    pub epoch: Epoch,
    /// The group.
    pub group: GroupId,
    /// The last entry it covers.
    pub last: LogId,
    /// The time of that entry.
    pub time: LogTime,
    /// The membership in force there, and the entry that brought it.
    pub membership: (LogId, Membership),
    /// The version of the entry type that wrote it.
    pub schema: u16,
    /// Its size in bytes.
    pub size: u64,
    /// A checksum of its bytes.
    pub digest: u64,
    /// The fingerprint of its format.
    pub format: u64,
}

impl fmt::Debug for SnapshotMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {} up to {} ({}B)", self.id, self.last, self.size)
    }
}

/// A piece of a snapshot on its way in or out.
#[derive(Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The snapshot's description.
    pub meta: SnapshotMeta,
    /// Where the bytes belong.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

impl fmt::Debug for SnapshotChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} [{}..+{}]", self.meta, self.offset, self.bytes.len())
    }
}

/// What reading a range of the log gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// A non-empty run of entries that begins at the start of the range.
    Entries(Entries),
    /// The range begins at or below this entry, which was compacted away.
    Compacted(LogId),
}
