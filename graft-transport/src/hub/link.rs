//! A client's end of the hub.

use std::{fmt, sync::Arc};

use graft_core::{ClientRequest, Inbound, Link, LinkError, LinkId, NodeId, Replies, Request};

use super::{
    Place, Shared,
    courier::Load,
    table::{Mailbox, Refused, Station},
};

/// The [`Link`] of one client of a [`Hub`](super::Hub). Dropping it ends the way back: replies to it are
/// dropped, and its [`Replies`] is let go.
pub struct HubLink {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
}

impl HubLink {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mailbox = shared.board.open_mailbox();
        Self { shared, mailbox }
    }

    /// Its number: what servers answer to, and what faults know it by.
    #[must_use]
    pub fn id(&self) -> LinkId {
        self.mailbox.id()
    }
}

impl Link for HubLink {
    fn attach(&self, replies: Arc<dyn Replies>) {
        self.mailbox.attach(replies);
    }

    fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError> {
        let ClientRequest { request_id, deadline, kind, payload } = request;
        // One process has one clock: the deadline is the same at the other end.
        let request = Request { link: self.id(), request_id, deadline, kind, payload };
        if self.shared.has_faults() {
            let station = self.shared.board.station(to).filter(|station| station.is_open());
            let station = station.ok_or(LinkError::Unreachable(to))?;
            let (from, to) = (Place::Link(self.id()), Place::Server(to));
            self.shared.send_with_faults(from, to, Load::Request { station, request });
            return Ok(());
        }
        let offer = |station: &Station| self.shared.offer(station, Inbound::Request(request));
        match self.mailbox.ways.with_station(&self.shared.board, to, offer) {
            Some(Ok(())) => Ok(()),
            Some(Err(Refused::Full)) => Err(LinkError::Full(to)),
            Some(Err(Refused::Gone)) | None => Err(LinkError::Unreachable(to)),
        }
    }

    fn servers(&self) -> Vec<NodeId> {
        self.shared.board.servers()
    }
}

impl Drop for HubLink {
    fn drop(&mut self) {
        self.shared.board.close_mailbox(&self.mailbox);
        self.shared.change_faults(|weather| weather.forget(Place::Link(self.id())));
    }
}

impl fmt::Debug for HubLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubLink").field("id", &self.id()).finish_non_exhaustive()
    }
}
