//! The doors to the outside (`LogStore`, `Transport`) and the two seams beside them (`StateMachine`, `Runtime`).
//!
//! Everything a [`Node`](crate::Node) touches that is not the protocol goes through one of these, as a
//! trait object: stores and transports are chosen at run time, and a simulator can stand in for all four.

mod link;
mod machine;
mod runtime;
mod store;
mod transport;

pub use link::{ClientRequest, Link, LinkError, Replies};
pub use machine::{
    ApplyMode, Command, CommandCheck, InvalidCommand, RestoreError, SnapshotSource, SnapshotStream,
    StateMachine, Undecodable,
};
#[cfg(feature = "tokio")]
pub use runtime::TokioRuntime;
pub use runtime::{BoxFuture, Runtime};
pub use store::{LogStore, StoreError};
pub use transport::{
    Arrivals, Envelope, Inbound, Inbox, InboxLimits, InboxReceiver, LeaderHint, RejectReason,
    Reply, ReplyEnvelope, Request, Transport,
};
