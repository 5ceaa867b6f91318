//! A server's end of the network.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use graft::transport::{Local, Network as Join, NetworkError, Port, View};
use graft_core::{Envelope, Inbox, Incarnation, Link, NodeId, RejectReason, Reply, Transport};

use super::{Network, SimLink};
use crate::executor::SimRuntime;

/// The network as one process of a server joins it.
#[derive(Clone)]
pub(crate) struct SimNetwork {
    network: Network,
    server: usize,
    runtime: Arc<SimRuntime>,
}

impl SimNetwork {
    pub(super) const fn new(network: Network, server: usize, runtime: Arc<SimRuntime>) -> Self {
        Self { network, server, runtime }
    }

    fn next_transport(&self) -> SimTransport {
        let mut state = self.network.shared.lock();
        let station = &mut state.stations[self.server];
        station.transports += 1;
        // The one before is closed by this.
        station.inbox = None;
        self.network.shared.oracle.on_silence(self.server);
        let number = station.transports;
        let (network, runtime) = (self.network.clone(), Arc::clone(&self.runtime));
        SimTransport { network, server: self.server, number, runtime }
    }
}

impl Join for SimNetwork {
    fn open(self: Box<Self>, _: Local) -> Result<Arc<dyn Port>, NetworkError> {
        Ok(Arc::new(*self))
    }
}

#[async_trait]
impl Port for SimNetwork {
    // Births are told apart by the envelopes alone.
    fn on_birth(&self, _: Incarnation) {}

    fn transport(&self, _: NodeId) -> Arc<dyn Transport> {
        Arc::new(self.next_transport())
    }

    fn link(&self) -> Arc<dyn Link> {
        Arc::new(SimLink::new(self.network.clone(), self.server, Arc::clone(&self.runtime)))
    }

    // The network finds everybody, and refusals tell its clients who leads.
    fn on_view(&self, _: &View) {}

    // Whoever leaves says so.
    async fn close(&self) {
        self.network.detach(self.server);
        self.network.tell_gone(self.server);
    }
}

/// The transport of one run of a server.
struct SimTransport {
    network: Network,
    server: usize,
    number: u64,
    runtime: Arc<SimRuntime>,
}

impl SimTransport {
    fn speaks(&self) -> bool {
        let state = self.network.shared.lock();
        let station = &state.stations[self.server];
        station.current == self.number && station.inbox.is_some()
    }
}

#[async_trait]
impl Transport for SimTransport {
    fn attach(&self, inbox: Inbox) {
        let shared = &self.network.shared;
        let mut state = shared.lock();
        let station = &mut state.stations[self.server];
        if station.transports != self.number {
            return;
        }
        let news = station.current != 0 && !station.gone_told;
        station.inbox = Some(inbox);
        station.current = self.number;
        station.gone_told = false;
        station.runtime = Some(Arc::clone(&self.runtime));
        if news {
            // What was sent to the one before and is not answered never will be.
            shared.tell_links(state, self.server);
        }
    }

    fn send(&self, envelope: Envelope) {
        if !self.speaks() {
            return;
        }
        let shared = &self.network.shared;
        match envelope {
            Envelope::Peer(envelope) => {
                shared.oracle.on_message(self.server, &envelope);
                shared.send_peer(self.server, envelope);
            }
            Envelope::Reply(reply) => {
                shared.oracle.on_reply(self.server, reply.link.0, reply.request_id);
                if reply.reply == Reply::Rejected(RejectReason::Overloaded) {
                    shared.oracle.on_overloaded(self.server);
                }
                shared.send_reply(self.server, self.number, reply);
            }
        }
    }

    async fn close(&self) {
        let mut state = self.network.shared.lock();
        let station = &mut state.stations[self.server];
        if station.current == self.number {
            station.inbox = None;
            self.network.shared.oracle.on_silence(self.server);
        }
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetwork").field("server", &self.server).finish_non_exhaustive()
    }
}
