//! A server's end of the network, as long as it runs.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use graft_core::{Envelope, Inbox, NodeId, ReplyEnvelope, Transport};

use super::{gate::Run, network::Handle};

/// The [`Transport`] of one run of a server on a [`Network`](super::Network). Dropping it closes it.
///
/// Closing it ends the connections of clients, whose waiting replies are still sent; peers stay connected
/// with the network, and what they send is dropped until the next run is attached.
pub struct QuicTransport {
    network: Arc<Handle>,
    run: Run,
}

impl QuicTransport {
    pub(super) fn new(network: Arc<Handle>) -> Self {
        let run = network.begin_run();
        Self { network, run }
    }

    /// The server it belongs to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.network.shared.node
    }

    fn end(&self) {
        let shared = &self.network.shared;
        if shared.gate.end(self.run) {
            shared.clients.close(self.run);
        }
    }
}

#[async_trait]
impl Transport for QuicTransport {
    fn attach(&self, inbox: Inbox) {
        self.network.shared.gate.attach(self.run, inbox);
    }

    fn send(&self, envelope: Envelope) {
        let shared = &self.network.shared;
        match envelope {
            Envelope::Peer(envelope) if shared.gate.is_running(self.run) => {
                shared.peers.send(envelope, &shared.counters);
            }
            Envelope::Peer(_) => shared.counters.unreachable.add(1),
            Envelope::Reply(reply) => self.send_replies(&mut vec![reply]),
        }
    }

    fn send_replies(&self, replies: &mut Vec<ReplyEnvelope>) {
        let shared = &self.network.shared;
        if shared.gate.is_running(self.run) {
            shared.clients.send(self.run, replies, &shared.counters);
        } else {
            shared.counters.unwanted_replies.add(replies.len() as u64);
            replies.clear();
        }
    }

    fn newest_version(&self) -> Option<u16> {
        self.network.shared.versions.newest()
    }

    async fn close(&self) {
        self.end();
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport")
            .field("node", &self.node())
            .field("open", &self.network.shared.gate.is_running(self.run))
            .finish_non_exhaustive()
    }
}
