//! The doors to the outside (`LogStore`, `Transport`) and the two seams beside them (`StateMachine`, `Runtime`).
//!
//! Everything a [`Node`](crate::Node) touches that is not the protocol goes through one of these, as a
//! trait object: stores and transports are chosen at run time, and a simulator can stand in for all four.
//! `StateMachine` is here without the driver too, for those who step `Raft` and its sessions themselves.

#[cfg(feature = "node")]
mod link;
mod machine;
#[cfg(feature = "node")]
mod runtime;
#[cfg(feature = "node")]
mod store;
#[cfg(feature = "node")]
mod transport;

#[cfg(feature = "node")]
pub use link::{ClientRequest, Link, LinkError, Replies};
pub use machine::{
    ApplyMode, Command, CommandCheck, InvalidCommand, RestoreError, SnapshotSource, SnapshotStream,
    StateMachine, Undecodable,
};
#[cfg(feature = "tokio")]
pub use runtime::TokioRuntime;
#[cfg(feature = "node")]
pub use runtime::{BoxFuture, Runtime};
#[cfg(feature = "node")]
pub use store::{LogStore, StoreError};
#[cfg(feature = "node")]
pub use transport::{
    Arrivals, Envelope, Inbound, Inbox, InboxLimits, InboxReceiver, LeaderHint, RejectReason,
    Reply, ReplyEnvelope, Request, Transport,
};
