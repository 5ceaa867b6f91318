//! Servers and clients of one process, connected by their inboxes.

mod courier;
mod faults;
mod link;
mod table;
mod transport;
mod weather;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use graft_core::{
    Class, Inbound, LinkId, NodeId, PeerEnvelope, RejectReason, Reply, ReplyEnvelope, Runtime,
};

pub use self::{
    faults::{Fault, FaultCounts, HubFaults, Place},
    link::HubLink,
    transport::HubTransport,
};

use self::{
    courier::{Courier, Load, Parcel},
    table::{Refused, Station, Switchboard, Ways},
    weather::{Fall, Forecast},
};

/// Connects the servers and clients of one process. Clones are the same hub.
///
/// A message goes straight from the sender into the receiver's [`Inbox`](graft_core::Inbox), and a
/// reply straight into the client's [`Replies`](graft_core::Replies), on the sender's task: nothing is
/// queued in between, so what is in flight is bounded by the inbox. A peer's message that the inbox
/// refuses is dropped and counted; a request that it refuses is
/// [`LinkError::Full`](graft_core::LinkError::Full) at once. Between two servers messages keep their
/// order as long as no delay is set.
///
/// Sending takes no lock that another sender to another server takes: each transport remembers its
/// ways, and looks again only where somebody came or went. As long as no fault is set, faults cost one
/// read of a flag.
///
/// ```
/// use std::sync::Arc;
/// use graft_core::{Inbox, InboxLimits, Link, NodeId, Runtime, TokioRuntime, Transport};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::current().unwrap());
/// let hub = graft_transport::Hub::new(runtime, 42);
/// let transport = hub.transport(NodeId(1));
/// let (inbox, _receiver) = Inbox::new(InboxLimits::default());
/// transport.attach(inbox);
/// let link = hub.link();
/// assert_eq!(link.servers(), [NodeId(1)]);
/// transport.close().await;
/// assert!(link.servers().is_empty());
/// # });
/// ```
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Arc<dyn Runtime>,
    board: Switchboard,
    /// Whether any fault is set: the one thing that is looked at while none is.
    has_faults: AtomicBool,
    forecast: Forecast,
    courier: Courier,
    refused: [AtomicU64; Class::ALL.len()],
    unreachable: AtomicU64,
}

impl Hub {
    /// A hub that nobody is connected to. `runtime` delivers what is delayed, and `seed` decides what
    /// happens by chance: the same seed and the same messages in each direction, the same faults.
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>, seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                runtime,
                board: Switchboard::default(),
                has_faults: AtomicBool::new(false),
                forecast: Forecast::new(seed),
                courier: Courier::default(),
                refused: Default::default(),
                unreachable: AtomicU64::new(0),
            }),
        }
    }

    /// The transport of the server `node`, reachable once it is attached.
    ///
    /// It takes the place of an earlier one of the same server, which is closed by this as by
    /// [`close`](graft_core::Transport::close).
    #[must_use]
    pub fn transport(&self, node: NodeId) -> HubTransport {
        HubTransport::new(Arc::clone(&self.shared), node)
    }

    /// A link for one client. Its number is never given to another.
    #[must_use]
    pub fn link(&self) -> HubLink {
        HubLink::new(Arc::clone(&self.shared))
    }

    /// The control of this hub's faults.
    #[must_use]
    pub fn faults(&self) -> HubFaults {
        HubFaults::new(Arc::clone(&self.shared))
    }

    /// How many messages and requests of `class` found an inbox full.
    #[must_use]
    pub fn refused(&self, class: Class) -> u64 {
        self.shared.refused[class as usize].load(Ordering::Relaxed)
    }

    /// How many messages, requests and replies found nobody at the other end, or were sent by one who
    /// had closed.
    #[must_use]
    pub fn unreachable(&self) -> u64 {
        self.shared.unreachable.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("servers", &self.shared.board.servers()).finish_non_exhaustive()
    }
}

impl Shared {
    fn has_faults(&self) -> bool {
        self.has_faults.load(Ordering::Relaxed)
    }

    /// Offers to a server's inbox and counts what it refuses.
    fn offer(&self, station: &Station, inbound: Inbound) -> Result<(), Refused> {
        let class = match &inbound {
            Inbound::Peer(envelope) => envelope.message.class(),
            Inbound::Request(_) => Class::Request,
        };
        let outcome = station.offer(inbound);
        match &outcome {
            Ok(()) => {}
            Err(Refused::Full) => {
                self.refused[class as usize].fetch_add(1, Ordering::Relaxed);
            }
            Err(Refused::Gone) => self.count_unreachable(),
        }
        outcome
    }

    fn count_unreachable(&self) {
        self.unreachable.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends something while faults are set: it may be lost, repeated or late.
    fn send_with_faults(self: &Arc<Self>, from: Place, to: Place, load: Load) {
        let class = load.class();
        // A request comes once at most: a server's word that it did nothing could not be trusted
        // otherwise.
        let may_repeat = !matches!(load, Load::Request { .. });
        let Fall { first, second } = self.forecast.fall(from, to, class, may_repeat);
        if let Some(delay) = second {
            self.send_late(Parcel { class, load: load.clone() }, delay);
        }
        if let Some(delay) = first {
            self.send_late(Parcel { class, load }, delay);
        }
    }

    fn send_late(self: &Arc<Self>, parcel: Parcel, delay: Duration) {
        if delay.is_zero() {
            self.deliver(parcel.load);
        } else if !courier::post(self, parcel, delay) {
            self.forecast.count_overflow();
        }
    }

    /// Hands over what has arrived, by the ways of this moment.
    fn deliver(&self, load: Load) {
        match load {
            Load::Peer(envelope) => self.send_to_peer(&self.board.ways, envelope),
            Load::Reply { station, reply } => {
                // Links were told that a server which is gone answers no more.
                if station.is_open() {
                    self.send_to_link(&self.board.ways, station.node(), reply);
                }
            }
            Load::Request { station, request } => {
                let (link, request_id) = (request.link, request.request_id);
                let offer = || self.offer(&station, Inbound::Request(request));
                if let Err(Refused::Full) = self.board.ways.hold(offer) {
                    let reply = Reply::Rejected(RejectReason::Overloaded);
                    let reply = ReplyEnvelope { link, request_id, reply };
                    self.send_to_link(&self.board.ways, station.node(), reply);
                }
            }
        }
    }

    /// Offers a message to its receiver, by the ways of the sender.
    fn send_to_peer(&self, ways: &Ways, envelope: PeerEnvelope) {
        let to = envelope.to;
        let offer = |station: &Station| self.offer(station, Inbound::Peer(envelope));
        if ways.with_station(&self.board, to, offer).is_none() {
            self.count_unreachable();
        }
    }

    /// Calls the client that a reply is for, by the ways of the sender.
    fn send_to_link(&self, ways: &Ways, from: NodeId, reply: ReplyEnvelope) {
        match ways.mailbox(&self.board, reply.link) {
            Some(mailbox) => mailbox.deliver(from, reply),
            None => self.count_unreachable(),
        }
    }

    /// Calls the client that all these replies are for. Whatever happens, none is left.
    fn send_all_to_link(
        &self,
        ways: &Ways,
        from: NodeId,
        link: LinkId,
        replies: &mut dyn Iterator<Item = (u64, Reply)>,
    ) {
        match ways.mailbox(&self.board, link) {
            Some(mailbox) => mailbox.deliver_all(from, replies),
            None => replies.for_each(|_| self.count_unreachable()),
        }
    }
}
