//! Identities, servers and clients.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use graft_core::{
    AppendEntries, Arrivals, ClientRequest, ClusterId, Entry, EntryKind, Envelope, GroupId,
    Heartbeat, Inbox, InboxLimits, InboxReceiver, Incarnation, Index, Link, LogId, LogTime,
    Message, NodeId, PeerEnvelope, Replies, Reply, Request, Runtime, Term, TokioRuntime, Transport,
};
use graft_transport::quic::{
    LinkConfig, Network, NetworkConfig, PeerPlace, QuicLink, QuicTransport, Stats, tls::Tls,
};
use tokio::time::timeout;

use crate::authority::{self, CLUSTER};

/// Only what is broken takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn server_tls(name: &str) -> Tls {
    authority::server(name).tls()
}

pub(crate) fn client_tls(name: &str) -> Tls {
    authority::client(name).tls()
}

pub(crate) fn runtime() -> Arc<dyn Runtime> {
    Arc::new(TokioRuntime::current().expect("the test runs on tokio"))
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn config(name: &str) -> NetworkConfig {
    NetworkConfig::new(name, ClusterId::of(CLUSTER, &["a", "b", "c"]))
}

pub(crate) fn bind(name: &str) -> Network {
    bind_with(config(name))
}

pub(crate) fn bind_with(config: NetworkConfig) -> Network {
    let tls = server_tls(&config.name);
    Network::bind(loopback(), config, tls, runtime()).unwrap()
}

/// Tells all of them where all of them are.
pub(crate) fn introduce(networks: &[(&str, &Network)]) {
    let places: BTreeMap<NodeId, PeerPlace> = networks
        .iter()
        .map(|(name, network)| (network.node(), place(name, network.local_addr())))
        .collect();
    for (_, network) in networks {
        network.set_peers(places.clone());
    }
}

pub(crate) fn place(name: &str, address: SocketAddr) -> PeerPlace {
    PeerPlace { name: name.to_owned(), address: address.to_string() }
}

/// A server that takes what arrives when a test says so.
pub(crate) struct Server {
    pub(crate) network: Network,
    pub(crate) transport: QuicTransport,
    receiver: InboxReceiver,
}

impl Server {
    pub(crate) fn start(name: &str) -> Self {
        Self::of(bind(name))
    }

    pub(crate) fn of(network: Network) -> Self {
        Self::with_inbox(network, InboxLimits::default())
    }

    pub(crate) fn with_inbox(network: Network, limits: InboxLimits) -> Self {
        let transport = network.transport();
        let (inbox, receiver) = Inbox::new(limits);
        transport.attach(inbox);
        Self { network, transport, receiver }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.network.node()
    }

    pub(crate) async fn arrivals(&mut self) -> Arrivals {
        let mut arrivals = Arrivals::default();
        let taken = poll_fn(|context| self.receiver.poll_take(context, &mut arrivals));
        timeout(PATIENCE, taken).await.expect("something arrives in time");
        arrivals
    }

    pub(crate) async fn message(&mut self) -> PeerEnvelope {
        loop {
            let mut arrivals = self.arrivals().await;
            if !arrivals.peers.is_empty() {
                return arrivals.peers.swap_remove(0);
            }
        }
    }

    pub(crate) async fn request(&mut self) -> Request {
        loop {
            let mut arrivals = self.arrivals().await;
            if !arrivals.requests.is_empty() {
                return arrivals.requests.swap_remove(0);
            }
        }
    }

    pub(crate) fn take(&mut self) -> Arrivals {
        let mut arrivals = Arrivals::default();
        self.receiver.take_now(&mut arrivals);
        arrivals
    }

    pub(crate) fn send(&self, to: NodeId, number: u64) {
        self.transport.send(Envelope::Peer(heartbeat(self.node(), to, number)));
    }

    pub(crate) fn answer(&self, request: &Request, reply: Reply) {
        let Request { link, request_id, .. } = *request;
        let reply = graft_core::ReplyEnvelope { link, request_id, reply };
        self.transport.send(Envelope::Reply(reply));
    }
}

pub(crate) fn heartbeat(from: NodeId, to: NodeId, number: u64) -> PeerEnvelope {
    PeerEnvelope {
        group: GroupId(0),
        from,
        to,
        from_incarnation: Incarnation(1),
        to_incarnation: Incarnation(2),
        message: Message::Heartbeat(Heartbeat {
            term: Term(number),
            commit: Index(0),
            round: 1,
            checksum: None,
        }),
    }
}

/// One entry with this payload.
pub(crate) fn append(from: NodeId, to: NodeId, payload: Bytes) -> PeerEnvelope {
    let entry =
        Entry { log_id: LogId::new(1, 1), time: LogTime(0), kind: EntryKind::Plain, payload };
    let append = AppendEntries {
        term: Term(1),
        prev: LogId::ZERO,
        commit: Index(0),
        round: 0,
        entries: vec![entry].into(),
    };
    PeerEnvelope { message: Message::AppendEntries(append), ..heartbeat(from, to, 1) }
}

/// Waits until the numbers of a network say so.
pub(crate) async fn until(network: &Network, what: &str, is_so: impl Fn(&Stats) -> bool) -> Stats {
    eventually(what, || Some(network.stats()).filter(|stats| is_so(stats))).await
}

/// Waits until something is found.
pub(crate) async fn eventually<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = find() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("in time: {what}"))
}

/// A client that writes down what it hears.
pub(crate) struct Client {
    pub(crate) link: QuicLink,
    pub(crate) heard: Arc<Heard>,
    runtime: Arc<dyn Runtime>,
}

#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) replies: Mutex<Vec<(NodeId, u64, Reply)>>,
    pub(crate) gone: Mutex<Vec<NodeId>>,
}

impl Replies for Heard {
    fn on_reply(&self, from: NodeId, request_id: u64, reply: Reply) {
        self.replies.lock().unwrap().push((from, request_id, reply));
    }

    fn on_server_gone(&self, server: NodeId) {
        self.gone.lock().unwrap().push(server);
    }
}

impl Client {
    pub(crate) fn start(addresses: &[SocketAddr]) -> Self {
        Self::with_config(addresses, LinkConfig::default())
    }

    pub(crate) fn with_config(addresses: &[SocketAddr], config: LinkConfig) -> Self {
        let runtime = runtime();
        let addresses = addresses.iter().map(ToString::to_string);
        let tls = client_tls("shop");
        let link = QuicLink::connect(addresses, tls, config, Arc::clone(&runtime)).unwrap();
        let heard = Arc::new(Heard::default());
        link.attach(Arc::clone(&heard) as Arc<dyn Replies>);
        Self { link, heard, runtime }
    }

    pub(crate) async fn connects_to(&self, node: NodeId) {
        let is_there = || self.link.servers().contains(&node).then_some(());
        eventually("the client connects", is_there).await;
    }

    pub(crate) fn send(&self, to: NodeId, request_id: u64) -> Result<(), graft_core::LinkError> {
        let deadline = self.runtime.now() + PATIENCE;
        let payload = b"command".as_slice().into();
        self.link.send(to, ClientRequest { request_id, deadline, kind: EntryKind::Plain, payload })
    }

    pub(crate) async fn hears(&self, wanted: &(NodeId, u64, Reply)) {
        let is_heard = || self.heard.replies.lock().unwrap().contains(wanted).then_some(());
        eventually("the client hears the reply", is_heard).await;
    }
}
