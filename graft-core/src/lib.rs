//! Raft as a pure state machine, the doors around it, and the node that drives it.

mod durable;
mod entry;
mod membership;
mod message;
pub mod quorum;
pub mod raft;
pub mod session;
mod types;

mod doors;
#[cfg(feature = "node")]
pub mod node;

pub use durable::{
    Birth, HardState, Identity, Loaded, Recovered, SnapshotChunk, SnapshotMeta, Write,
};
pub use entry::{Entries, Entry, EntryKind, LogTime};
pub use membership::{Membership, MembershipError, NodeInfo};
pub use message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Checkpoint, Class, Heartbeat,
    HeartbeatResponse, InstallSnapshot, InstallSnapshotResponse, Message, PeerEnvelope,
    SnapshotOutcome, VoteRequest, VoteResponse,
};
pub use raft::{LinkId, Raft, Token};
pub use types::{
    ClusterId, Epoch, GroupId, Incarnation, Index, LogId, NodeId, SessionId, Term, stable_hash,
};

pub use doors::*;
#[cfg(feature = "node")]
pub use node::Node;
