//! The client's end of the way to the servers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::Reply;
use crate::{EntryKind, NodeId};

/// How a client reaches the servers of one cluster: in the same process, or over a network.
///
/// Requests and replies may be lost, and a reply may come twice; the client sorts that out. A request
/// comes once at most: a server's word that it did nothing could not be trusted otherwise.
pub trait Link: Send + Sync + 'static {
    /// Called once, before anything is sent: from now on replies go to `replies`.
    fn attach(&self, replies: Arc<dyn Replies>);

    /// Sends without ever waiting.
    ///
    /// # Errors
    ///
    /// [`LinkError`] where it is certain that the request did not leave.
    fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError>;

    /// The servers that can be tried now, in a stable order.
    fn servers(&self) -> Vec<NodeId>;
}

/// Where a [`Link`] delivers. Called from the server's or the network's task: it must not block.
pub trait Replies: Send + Sync + 'static {
    /// `from` answered the request with this number.
    fn on_reply(&self, from: NodeId, request_id: u64, reply: Reply);

    /// `from` answered several requests, in this order. As provided it takes them one after the other.
    fn on_replies(&self, from: NodeId, replies: &mut dyn Iterator<Item = (u64, Reply)>) {
        for (request_id, reply) in replies {
            self.on_reply(from, request_id, reply);
        }
    }

    /// Requests sent to `server` that are not answered yet never will be: it is gone. They may have
    /// been taken in.
    fn on_server_gone(&self, server: NodeId);

    /// The servers say that `leader` leads now, and it did not lead before or could not be reached. What was sent to
    /// others may have been taken in, and will be answered late if ever: they may be cut off, or dead without anybody
    /// having noticed yet. As provided nothing follows from it.
    fn on_leader(&self, leader: NodeId) {
        let _ = leader;
    }
}

/// A request as a client sends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientRequest {
    /// The client's number for it, repeated by the reply.
    pub request_id: u64,
    /// When the client stops waiting, on the client's clock. A link across machines translates it.
    pub deadline: Duration,
    /// What to put into the log.
    pub kind: EntryKind,
    /// What it carries.
    pub payload: Bytes,
}

/// A request that certainly did not leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no way to that server now.
    #[error("server {0} cannot be reached now")]
    Unreachable(NodeId),
    /// Too much waits on the way to that server.
    #[error("the way to server {0} is full")]
    Full(NodeId),
}
