//! The network: ways between servers and clients, and everything that can go wrong on them.

mod lanes;
mod link;
mod port;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use graft_core::{
    Class, Inbound, Inbox, LinkId, NodeId, PeerEnvelope, RejectReason, Replies, Reply,
    ReplyEnvelope, Request, Runtime,
};

use self::lanes::{Fall, Lanes};
pub(crate) use self::{lanes::Weather, link::SimLink, port::SimNetwork};
use crate::{executor::Kernel, executor::SimRuntime, faults::FaultKind, oracle::Oracle};

/// The network of one run. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    kernel: Kernel,
    oracle: Oracle,
    nodes: Vec<NodeId>,
    state: Mutex<State>,
}

struct State {
    lanes: Lanes,
    stations: Vec<Station>,
    /// By number, which begins with 1.
    links: Vec<LinkEnd>,
}

/// A server's place: who hears there now.
#[derive(Default)]
struct Station {
    inbox: Option<Inbox>,
    /// The number of the transport that hears, or did.
    current: u64,
    /// Counts the transports.
    transports: u64,
    /// Whether links have been told that the last one is gone.
    gone_told: bool,
    runtime: Option<Arc<SimRuntime>>,
}

/// A client's end.
struct LinkEnd {
    /// The machine that it is on.
    place: usize,
    replies: Option<Arc<dyn Replies>>,
}

impl Network {
    /// A network of these servers and of some machines with clients.
    pub(crate) fn new(
        nodes: Vec<NodeId>,
        clients: usize,
        weather: Weather,
        seed: u64,
        kernel: Kernel,
        oracle: Oracle,
    ) -> Self {
        let state = State {
            lanes: Lanes::new(nodes.len(), clients, weather, seed),
            stations: nodes.iter().map(|_| Station::default()).collect(),
            links: Vec::new(),
        };
        Self { shared: Arc::new(Shared { kernel, oracle, nodes, state: Mutex::new(state) }) }
    }

    /// The network as server `at` joins it, in a process.
    pub(crate) fn of_server(&self, at: usize, runtime: Arc<SimRuntime>) -> SimNetwork {
        SimNetwork::new(self.clone(), at, runtime)
    }

    /// A link for a client on machine `at` of those with clients.
    pub(crate) fn of_client(&self, at: usize, runtime: Arc<SimRuntime>) -> SimLink {
        let place = self.shared.nodes.len() + at;
        SimLink::new(self.clone(), place, runtime)
    }

    /// A process has ended: nobody hears in its place any more.
    pub(crate) fn detach(&self, server: usize) {
        let mut state = self.shared.lock();
        let station = &mut state.stations[server];
        station.inbox = None;
        station.runtime = None;
        self.shared.oracle.on_silence(server);
    }

    /// The links learn that whoever heard at `server` is gone.
    pub(crate) fn tell_gone(&self, server: usize) {
        let mut state = self.shared.lock();
        let station = &mut state.stations[server];
        if station.inbox.is_some() || station.gone_told {
            return;
        }
        station.gone_told = true;
        self.shared.tell_links(state, server);
    }

    /// Nothing is wrong any more.
    pub(crate) fn calm(&self) {
        self.shared.lock().lanes.calm();
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Lanes) -> T) -> T {
        change(&mut self.shared.lock().lanes)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place_of(&self, node: NodeId) -> Option<usize> {
        self.nodes.iter().position(|other| *other == node)
    }

    fn tell_links(&self, state: MutexGuard<'_, State>, server: usize) {
        let ends: Vec<_> = state.links.iter().filter_map(|end| end.replies.clone()).collect();
        drop(state);
        for replies in ends {
            replies.on_server_gone(self.nodes[server]);
        }
    }

    fn strike(&self, kind: FaultKind) {
        self.oracle.strike(kind);
    }

    // -- Peers -------------------------------------------------------------------------------------

    fn send_peer(self: &Arc<Self>, from: usize, envelope: PeerEnvelope) {
        let Some(to) = self.place_of(envelope.to) else { return };
        let mut state = self.lock();
        let now = self.kernel.now();
        let class = envelope.message.class();
        let Fall { first, second, kinds } = state.lanes.fall((from, to), class, now, true);
        let hearer = state.stations[to].current;
        drop(state);
        kinds.into_iter().flatten().for_each(|kind| self.strike(kind));
        if let Some(at) = second {
            self.bring_peer(at, (from, to), hearer, envelope.clone());
        }
        if let Some(at) = first {
            self.bring_peer(at, (from, to), hearer, envelope);
        }
    }

    fn bring_peer(
        self: &Arc<Self>,
        at: u64,
        way: (usize, usize),
        hearer: u64,
        envelope: PeerEnvelope,
    ) {
        let shared = Arc::clone(self);
        self.kernel.call_at(at, move || {
            let mut state = shared.lock();
            if !state.lanes.arrived(way) {
                return;
            }
            let station = &state.stations[way.1];
            let Some(inbox) = station.inbox.clone() else { return };
            let old = station.current != hearer;
            drop(state);
            if old {
                shared.strike(FaultKind::OldMessage);
            }
            shared.oracle.on_arrival(way.0, way.1, &envelope);
            // What an inbox refuses is lost.
            let _ = inbox.offer(Inbound::Peer(envelope));
        });
    }

    // -- Clients -----------------------------------------------------------------------------------

    /// Brings a request to whoever hears at `to` now, and to nobody else: links are told when that one is
    /// gone.
    fn send_request(self: &Arc<Self>, from: usize, to: usize, request: Request, left: Duration) {
        let mut state = self.lock();
        let now = self.kernel.now();
        let Fall { first, kinds, .. } = state.lanes.fall((from, to), Class::Request, now, false);
        let hearer = state.stations[to].current;
        drop(state);
        kinds.into_iter().flatten().for_each(|kind| self.strike(kind));
        self.oracle.note(|| {
            let (link, number, kind) = (request.link, request.request_id, request.kind);
            let fate = if first.is_some() { "" } else { ", which is lost" };
            format!("link {} asks s{to}: {kind:?} {number:x}{fate}", link.0)
        });
        let Some(at) = first else { return };
        let shared = Arc::clone(self);
        self.kernel.call_at(at, move || shared.bring_request((from, to), hearer, request, left));
    }

    fn bring_request(
        self: &Arc<Self>,
        way: (usize, usize),
        hearer: u64,
        mut request: Request,
        left: Duration,
    ) {
        let mut state = self.lock();
        if !state.lanes.arrived(way) {
            return;
        }
        let station = &state.stations[way.1];
        let (Some(inbox), Some(runtime)) = (station.inbox.clone(), station.runtime.clone()) else {
            return;
        };
        if station.current != hearer {
            return;
        }
        drop(state);
        request.deadline = runtime.now().saturating_add(left);
        let (link, request_id) = (request.link, request.request_id);
        let offered = inbox.offer(Inbound::Request(request));
        if offered.is_ok() {
            self.oracle.on_request(way.1, link.0, request_id);
        } else if !inbox.is_closed() {
            self.strike(FaultKind::Overload);
            let reply = Reply::Rejected(RejectReason::Overloaded);
            self.send_reply(way.1, hearer, ReplyEnvelope { link, request_id, reply });
        }
    }

    fn send_reply(self: &Arc<Self>, from: usize, speaker: u64, reply: ReplyEnvelope) {
        let Some(end) = slot_of(reply.link) else { return };
        let mut state = self.lock();
        let Some(to) = state.links.get(end).map(|link| link.place) else { return };
        let now = self.kernel.now();
        let Fall { first, second, kinds } = state.lanes.fall((from, to), Class::Request, now, true);
        drop(state);
        kinds.into_iter().flatten().for_each(|kind| self.strike(kind));
        if let Some(at) = second {
            self.bring_reply(at, (from, to), speaker, reply.clone());
        }
        if let Some(at) = first {
            self.bring_reply(at, (from, to), speaker, reply);
        }
    }

    fn bring_reply(
        self: &Arc<Self>,
        at: u64,
        way: (usize, usize),
        speaker: u64,
        envelope: ReplyEnvelope,
    ) {
        let shared = Arc::clone(self);
        self.kernel.call_at(at, move || {
            let Some(end) = slot_of(envelope.link) else { return };
            let mut state = shared.lock();
            if !state.lanes.arrived(way) {
                return;
            }
            let station = &state.stations[way.0];
            // Once links were told that a server is gone it answers no more.
            if station.current != speaker || station.gone_told {
                return;
            }
            let replies = state.links.get(end).and_then(|link| link.replies.clone());
            drop(state);
            shared.oracle.note(|| {
                let (link, number) = (envelope.link.0, envelope.request_id);
                format!(
                    "link {link} hears from s{}: {number:x} {}",
                    way.0,
                    in_short(&envelope.reply)
                )
            });
            if let Some(replies) = replies {
                replies.on_reply(shared.nodes[way.0], envelope.request_id, envelope.reply);
            }
        });
    }
}

/// A reply without what it carries.
fn in_short(reply: &Reply) -> String {
    match reply {
        Reply::Applied(bytes) => format!("Applied({} bytes)", bytes.len()),
        Reply::Rejected(RejectReason::NotLeader(hint)) => format!("NotLeader({:?})", hint.leader),
        Reply::Rejected(RejectReason::LeadershipLost(_)) => "LeadershipLost".into(),
        other => format!("{other:?}"),
    }
}

fn slot_of(link: LinkId) -> Option<usize> {
    usize::try_from(link.0).ok()?.checked_sub(1)
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("nodes", &self.shared.nodes).finish_non_exhaustive()
    }
}
