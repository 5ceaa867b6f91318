//! A server's end of the hub.

use std::{fmt, iter, sync::Arc};

use async_trait::async_trait;
use graft_core::{Envelope, Inbox, NodeId, ReplyEnvelope, Transport};

use super::{Place, Shared, courier::Load, table::Station};

/// The [`Transport`] of one server of a [`Hub`](super::Hub). Dropping it closes it.
pub struct HubTransport {
    shared: Arc<Shared>,
    station: Arc<Station>,
}

impl HubTransport {
    pub(super) fn new(shared: Arc<Shared>, node: NodeId) -> Self {
        let station = shared.board.open_station(node);
        Self { shared, station }
    }

    /// The server it belongs to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.station.node()
    }

    fn send_with_faults(&self, envelope: Envelope) {
        if self.station.ways.is_shut() {
            self.shared.count_unreachable();
            return;
        }
        let (to, load) = match envelope {
            Envelope::Peer(envelope) => (Place::Server(envelope.to), Load::Peer(envelope)),
            Envelope::Reply(reply) => {
                let station = Arc::clone(&self.station);
                (Place::Link(reply.link), Load::Reply { station, reply })
            }
        };
        self.shared.send_with_faults(Place::Server(self.node()), to, load);
    }
}

#[async_trait]
impl Transport for HubTransport {
    fn attach(&self, inbox: Inbox) {
        self.station.attach(inbox);
    }

    fn send(&self, envelope: Envelope) {
        let Self { shared, station } = self;
        if shared.has_faults() {
            self.send_with_faults(envelope);
            return;
        }
        match envelope {
            Envelope::Peer(envelope) => shared.send_to_peer(&station.ways, envelope),
            Envelope::Reply(reply) => shared.send_to_link(&station.ways, station.node(), reply),
        }
    }

    fn send_replies(&self, replies: &mut Vec<ReplyEnvelope>) {
        let Self { shared, station } = self;
        if shared.has_faults() {
            replies.drain(..).for_each(|reply| self.send_with_faults(Envelope::Reply(reply)));
            return;
        }
        let mut rest = replies.drain(..).peekable();
        while let Some(link) = rest.peek().map(|reply| reply.link) {
            let mut same = iter::from_fn(|| rest.next_if(|reply| reply.link == link))
                .map(|reply| (reply.request_id, reply.reply));
            shared.send_all_to_link(&station.ways, station.node(), link, &mut same);
        }
    }

    async fn close(&self) {
        self.shared.board.close_station(&self.station);
    }
}

impl Drop for HubTransport {
    fn drop(&mut self) {
        self.shared.board.close_station(&self.station);
    }
}

impl fmt::Debug for HubTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubTransport")
            .field("node", &self.node())
            .field("open", &self.station.is_open())
            .finish_non_exhaustive()
    }
}
