//! A client's end of the network.

use std::{fmt, sync::Arc};

use graft_core::{ClientRequest, Link, LinkError, LinkId, NodeId, Replies, Request, Runtime};

use super::{LinkEnd, Network};
use crate::executor::SimRuntime;

/// The link of one client. Dropping it ends the way back.
pub(crate) struct SimLink {
    network: Network,
    place: usize,
    id: LinkId,
    runtime: Arc<SimRuntime>,
}

impl SimLink {
    pub(super) fn new(network: Network, place: usize, runtime: Arc<SimRuntime>) -> Self {
        let mut state = network.shared.lock();
        state.links.push(LinkEnd { place, replies: None });
        let id = LinkId(state.links.len() as u64);
        drop(state);
        Self { network, place, id, runtime }
    }

    fn with_end<T>(&self, change: impl FnOnce(&mut LinkEnd) -> T) -> Option<T> {
        let end = super::slot_of(self.id)?;
        self.network.shared.lock().links.get_mut(end).map(change)
    }
}

impl Link for SimLink {
    fn attach(&self, replies: Arc<dyn Replies>) {
        self.with_end(|end| end.replies = Some(replies));
    }

    fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError> {
        let shared = &self.network.shared;
        let server = shared.place_of(to).ok_or(LinkError::Unreachable(to))?;
        if shared.lock().stations[server].gone_told {
            return Err(LinkError::Unreachable(to));
        }
        let ClientRequest { request_id, deadline, kind, payload } = request;
        // Clocks differ: what travels is how long is left.
        let left = deadline.saturating_sub(self.runtime.now());
        let request = Request { link: self.id, request_id, deadline, kind, payload };
        shared.send_request(self.place, server, request, left);
        Ok(())
    }

    fn servers(&self) -> Vec<NodeId> {
        self.network.shared.nodes.clone()
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        // What is dropped may be a client, which may come back here.
        let replies = self.with_end(|end| end.replies.take());
        drop(replies);
    }
}

impl fmt::Debug for SimLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLink").field("id", &self.id).finish_non_exhaustive()
    }
}
