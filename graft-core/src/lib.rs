//! Raft as a pure state machine, the doors around it, and the node that drives it.
//!
//! This crate is the part of graft that must be right. It is also meant to be read: every paragraph
//! of the Raft paper ("In Search of an Understandable Consensus Algorithm", extended version; cited
//! as *Raft*) and of Ongaro's thesis that is built here has one place in the code, and the place
//! says which paragraph it is.
//!
//! # Raft, through the code
//!
//! **The problem.** Some servers each keep a log of commands. If all logs agree, and each server feeds
//! its log to the same deterministic machine, all machines agree, and any of them may fail. An
//! [`Entry`] is a place in that log; its [`LogId`] is the term of the leader that created it and its
//! [`Index`].
//!
//! **Terms** (Raft §5.1). Time is cut into terms, numbered upwards. A term has at most one leader. Every
//! [`Message`] states its sender's term; whoever hears of a higher one takes it on and follows, and
//! whoever hears of a lower one says so. That exchange is `take_term` in `raft/messages.rs`.
//!
//! **Elections** (Raft §5.2, §5.4.1). A follower that hears from no leader for a random time campaigns:
//! a new term, a vote for itself, and [`Message::RequestVote`] to the others. A server gives one vote a
//! term, and only to a log at least as good as its own: [`LogId`]'s order *is* that comparison. Before it
//! campaigns a server asks whether it would win ([`Message::PreVote`], thesis §9.6), so that one with a
//! bad cable disturbs nobody; and a leader that a quorum has not answered for an election timeout steps
//! down (thesis §6.2). `raft/election.rs`.
//!
//! **Replication** (Raft §5.3). The leader sends entries with the identity of the one before them. A
//! follower that does not have that one refuses, and says how far back the logs might agree; one that
//! does cuts off whatever contradicts and appends. So two logs with an equal entry are equal up to it.
//! `raft/leader.rs` sends, `raft/follower.rs` receives, and `raft/progress.rs` decides how much may be on
//! its way.
//!
//! **Commitment** (Raft §5.3, §5.4.2). An entry of the leader's own term that a quorum holds is committed:
//! it will never be lost. Entries of older terms are committed by those after them, never by counting,
//! which is why a leader opens its term with a blank entry. Figure 8 of the paper shows what happens
//! otherwise, and `tests/scripts/` plays it. [`quorum`] holds the arithmetic.
//!
//! **Stable storage** (Raft, Figure 2). All of this is a promise only as far as it is on disk. Here the
//! disk works *beside* the protocol: a vote, an acknowledgement, even a mention of a new term waits as a
//! debt, and one function pays what the durable state covers. `raft/durability.rs` is the most important
//! file of the crate, and a short one.
//!
//! **Clients** (Raft §8, thesis §6.3). A client whose answer was lost must ask again, and then its command
//! may be in the log twice. [`session`] is the table, itself replicated, that applies it once.
//!
//! **The beginning.** Raft starts from servers that know each other. [`founding`] is how servers on
//! different machines get there: all write the same first entry, or none does, and a server that lost
//! its disk is not taken for the one it was.
//!
//! # Three ways in
//!
//! - The crate `graft` on top of this one, for somebody with a state machine.
//! - [`Node`] (feature `node`, and `tokio` for a [`Runtime`] of
//!   tokio's), for somebody with doors of their own: a
//!   [`LogStore`], a [`Transport`], a [`StateMachine`]. `examples/embed_node.rs`.
//! - [`Raft`] alone, without default features: no runtime, no I/O, [`Raft::step`] and [`Raft::drain`] in
//!   a loop of one's own. `examples/embed_raft.rs`.
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | none | the pure `Raft`, sessions, the rules of founding, all types |
//! | `node` | the driver and the doors, with the synchronisation primitives of tokio and no runtime |
//! | `tokio` (default) | `node`, and the `Runtime` of tokio |

mod birth;
mod durable;
mod entries;
mod entry;
pub mod founding;
mod membership;
mod message;
pub mod quorum;
pub mod raft;
pub mod session;
mod types;

mod doors;
#[cfg(feature = "node")]
pub mod node;

pub use birth::{BirthReport, BirthStage};
pub use durable::{
    Birth, HardState, Identity, Loaded, Recovered, SnapshotChunk, SnapshotMeta, Write,
};
pub use entries::{Disordered, Entries, EntriesBuilder, Misfit, Run};
pub use entry::{Entry, EntryKind, EntryRef, LogTime};
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
