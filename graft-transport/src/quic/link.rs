//! A client's end of the network.

mod seek;
mod server;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use graft_core::{
    ClientRequest, ClusterId, Epoch, Incarnation, Link, LinkError, NodeId, Replies, Runtime,
};
use quinn::{Endpoint, EndpointConfig, Runtime as _};
use tokio::{sync::watch, time::timeout};

use self::{server::ServerLine, waiting::Waiting};
use super::{
    config::LinkConfig,
    limits,
    queue::Refused,
    rates::Said,
    stats::Counter,
    tls::{Tls, TlsError},
};
use crate::wire::v1::{Hello, Members, Protocol, Refusal, RefusalCode, Role, Schema};

/// Why a client has no way to any server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address was given.
    #[error("no address of a server was given")]
    NoAddress,
    /// It was called outside of a tokio runtime.
    #[error("a QUIC endpoint needs a tokio runtime: call this inside one")]
    NoRuntime,
    /// No socket could be had.
    #[error("no UDP socket could be bound")]
    Bind(#[source] io::Error),
    /// The certificates cannot be used.
    #[error("the certificates cannot be used")]
    Tls(#[from] TlsError),
    /// No server was reached in time.
    #[error("no server was reached in {waited:?}: {reasons}")]
    Unreachable {
        /// How long was waited.
        waited: Duration,
        /// What was in the way, for each address.
        reasons: String,
    },
}

/// What the servers of a cluster said they serve.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Served {
    /// The name of the type of their entries; empty where they state none.
    pub machine: String,
    /// The lowest version of that type which every connected server reads.
    pub lowest: u16,
    /// The highest version of that type which every connected server reads.
    pub highest: u16,
    /// The fingerprint of the form in which entries are archived; zero where they state none.
    pub format: u64,
}

impl Served {
    fn of(hello: &Hello) -> Self {
        let Hello { machine, schema, format, .. } = hello;
        let Schema { lowest, highest } = *schema;
        Self { machine: machine.clone(), lowest, highest, format: *format }
    }
}

/// The [`Link`] of one client to the servers of a cluster on other machines.
///
/// It begins with the addresses it was given, any of the cluster's, and goes on with those that the servers
/// tell it: it keeps a connection with each server, and tries again and again, with growing pauses, where
/// there is none. A server's number is that of the name in its certificate.
///
/// Requests wait in a bounded queue for each server, in one stream each. Dropping the link ends it: what
/// waits is still sent, for a moment, and no reply is delivered any more.
pub struct QuicLink {
    shared: Arc<Shared>,
}

/// What all tasks of a link share.
struct Shared {
    config: LinkConfig,
    tls: Tls,
    runtime: Arc<dyn Runtime>,
    /// A number that this client has drawn.
    number: u64,
    /// The cluster, once a server has said it; zero before.
    cluster: AtomicU64,
    lines: RwLock<BTreeMap<NodeId, Arc<ServerLine>>>,
    /// What the servers serve, once one has said it.
    served: Mutex<Option<Served>>,
    replies: RwLock<Option<Arc<dyn Replies>>>,
    /// How often a server came or went.
    changes: watch::Sender<u64>,
    seeds: BTreeSet<String>,
    /// The addresses that are tried.
    addresses: watch::Sender<BTreeSet<String>>,
    members: watch::Sender<Option<Members>>,
    /// What was last in the way, for each address.
    reasons: Mutex<BTreeMap<String, String>>,
    said: Mutex<Said<(&'static str, String)>>,
    closing: watch::Sender<bool>,
    bytes_sent: Counter,
    bytes_received: Counter,
}

impl QuicLink {
    /// A link to the cluster that these addresses belong to: any of its servers, each a host name or an IP
    /// address, and a port. It begins to connect at once; [`ready`](Self::ready) waits for it.
    ///
    /// Everything runs on the tokio runtime that is current; `runtime` is the client's, which its deadlines
    /// are on.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says what is in the way.
    pub fn connect(
        addresses: impl IntoIterator<Item = impl Into<String>>,
        tls: Tls,
        config: LinkConfig,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ConnectError> {
        let tokio = tokio::runtime::Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let seeds: BTreeSet<String> =
            addresses.into_iter().map(Into::into).take(config.addresses).collect();
        if seeds.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        let endpoint = endpoint().map_err(ConnectError::Bind)?;
        let shared = Arc::new(Shared {
            config,
            tls,
            number: runtime.random(),
            runtime,
            cluster: AtomicU64::new(0),
            lines: RwLock::default(),
            served: Mutex::default(),
            replies: RwLock::default(),
            changes: watch::Sender::new(0),
            addresses: watch::Sender::new(seeds.clone()),
            seeds,
            members: watch::Sender::new(None),
            reasons: Mutex::default(),
            said: Mutex::new(Said::new(Duration::from_secs(30))),
            closing: watch::Sender::new(false),
            bytes_sent: Counter::default(),
            bytes_received: Counter::default(),
        });
        tokio.spawn(seek::seek_all(Arc::clone(&shared), endpoint));
        Ok(Self { shared })
    }

    /// Waits until a server is connected.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Unreachable`] after `limit`, with what was in the way.
    pub async fn ready(&self, limit: Duration) -> Result<(), ConnectError> {
        let mut changes = self.shared.changes.subscribe();
        let connected = async {
            while self.servers().is_empty() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(limit, connected).await.map_err(|_| ConnectError::Unreachable {
            waited: limit,
            reasons: self.shared.describe_reasons(),
        })
    }

    /// What the servers serve, as they said last: `None` before the first is connected. All servers of a
    /// cluster have the same type of entries; one that says it has another is not connected to.
    #[must_use]
    pub fn served(&self) -> Option<Served> {
        self.shared.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The servers and their leader as they were last heard of.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Option<Members>> {
        self.shared.members.subscribe()
    }
}

impl Link for QuicLink {
    fn attach(&self, replies: Arc<dyn Replies>) {
        let mut attached = self.shared.replies.write().unwrap_or_else(PoisonError::into_inner);
        assert!(attached.is_none(), "a link is attached once");
        *attached = Some(replies);
    }

    fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError> {
        let size = Waiting::size(&request);
        let lines = self.shared.lines.read().unwrap_or_else(PoisonError::into_inner);
        let line = lines.get(&to).ok_or(LinkError::Unreachable(to))?;
        line.queue.push(request.into(), size).map_err(|refused| match refused {
            Refused::Full => LinkError::Full(to),
            Refused::Closed => LinkError::Unreachable(to),
        })
    }

    fn servers(&self) -> Vec<NodeId> {
        let lines = self.shared.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.keys().copied().collect()
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        let mut replies = self.shared.replies.write().unwrap_or_else(PoisonError::into_inner);
        let let_go = replies.take();
        drop(replies);
        drop(let_go);
        self.shared.closing.send_replace(true);
    }
}

impl Shared {
    fn hello(&self) -> Hello {
        let Self { config, .. } = self;
        let limit = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Hello {
            cluster: self.cluster(),
            protocol: Protocol::OWN,
            role: Role::Client,
            epoch: Epoch(0),
            node: NodeId(0),
            name: self.tls.identity().name().to_owned(),
            incarnation: Incarnation(0),
            client: self.number,
            machine: config.machine.clone(),
            format: config.format,
            schema: config.schema,
            max_entry_bytes: limit(config.frames.max_entry_bytes()),
            max_frame_bytes: limit(config.frames.max_frame_bytes()),
            max_reply_bytes: limit(config.frames.max_reply_bytes()),
            election_timeout: Duration::ZERO,
        }
    }

    fn cluster(&self) -> ClusterId {
        ClusterId(self.cluster.load(Ordering::Relaxed))
    }

    /// Whom replies go to, as long as the link is there.
    fn replies(&self) -> Option<Arc<dyn Replies>> {
        self.replies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_connected(&self, node: NodeId) -> bool {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).contains_key(&node)
    }

    /// Takes in a line, unless there is one with the same server.
    fn join(&self, line: &Arc<ServerLine>) -> bool {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if lines.contains_key(&line.node) || *self.closing.borrow() {
            return false;
        }
        lines.insert(line.node, Arc::clone(line));
        self.note_schema(&lines);
        drop(lines);
        self.changes.send_modify(|changes| *changes += 1);
        // Who was named while there was no way to it could not be asked. Whoever is named from now on can be.
        let leads =
            self.members.borrow().as_ref().is_some_and(|known| known.leader == Some(line.node));
        if leads && let Some(replies) = self.replies() {
            replies.on_leader(line.node);
        }
        true
    }

    /// Notes which versions of entries all connected servers read. What they said last stays when the last
    /// is gone.
    fn note_schema(&self, lines: &BTreeMap<NodeId, Arc<ServerLine>>) {
        let schemas = lines.values().map(|line| line.schema);
        let common = schemas.reduce(|a, b| Schema {
            lowest: a.lowest.max(b.lowest),
            highest: a.highest.min(b.highest),
        });
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(served), Some(common)) = (&mut *served, common) {
            (served.lowest, served.highest) = (common.lowest, common.highest);
        }
    }

    /// Checks that a server serves what the others do. The first that says it decides, for as long as the
    /// link lives.
    fn check_served(&self, theirs: &Hello) -> Result<(), Refusal> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let known = served.get_or_insert_with(|| Served::of(theirs));
        if (&known.machine, known.format) == (&theirs.machine, theirs.format) {
            return Ok(());
        }
        let text = format!(
            "{:?} serves entries of type {} in form {:016x}, the others {} in form {:016x}: an address is wrong",
            theirs.name, theirs.machine, theirs.format, known.machine, known.format
        );
        Err(Refusal { code: RefusalCode::WrongEntry, text })
    }

    /// Forgets a line that has ended, and says that nothing more comes from it.
    fn leave(&self, line: &ServerLine) {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        let gone = lines.remove(&line.node);
        self.note_schema(&lines);
        drop(lines);
        drop(gone);
        line.queue.close();
        if let Some(replies) = self.replies() {
            replies.on_server_gone(line.node);
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Takes up what a server says of the cluster, unless something newer is known.
    fn learn(&self, members: Members) {
        let addresses = self.addresses_of(&members);
        let leader = members.leader;
        let mut former = None;
        let is_new = self.members.send_if_modified(|known| {
            let is_older = known.as_ref().is_some_and(|known| known.term > members.term);
            let is_new = !is_older && known.as_ref() != Some(&members);
            if is_new {
                former = known.replace(members).and_then(|known| known.leader);
            }
            is_new
        });
        if is_new {
            let news = leader.filter(|_| leader != former);
            if let Some((leader, replies)) = news.zip(self.replies()) {
                replies.on_leader(leader);
            }
            self.addresses.send_if_modified(|known| {
                let is_new = *known != addresses;
                *known = addresses;
                is_new
            });
        }
    }

    /// The addresses that were given, and those of the members.
    fn addresses_of(&self, members: &Members) -> BTreeSet<String> {
        let of_members = members.membership.nodes.values().map(|info| {
            if info.client_address.is_empty() { &info.peer_address } else { &info.client_address }
        });
        let of_members = of_members.filter(|address| !address.is_empty()).cloned();
        let mut addresses = self.seeds.clone();
        for address in of_members {
            if addresses.len() < self.config.addresses {
                addresses.insert(address);
            }
        }
        addresses
    }

    /// Notes what is in the way to an address, and says it once in a while.
    fn note(&self, address: &str, reason: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.may_say(("no way", address.to_owned()), Instant::now()) {
            tracing::debug!(address, reason, "a server cannot be reached");
        }
        drop(said);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.insert(address.to_owned(), reason);
    }

    /// What is in the way to each address that is tried.
    fn describe_reasons(&self) -> String {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let describe = |address: &String| match reasons.get(address) {
            // Most say themselves which address they mean.
            Some(reason) if reason.contains(address.as_str()) => reason.clone(),
            Some(reason) => format!("{address}: {reason}"),
            None => format!("{address} has not answered yet"),
        };
        let described: Vec<_> = self.addresses.borrow().iter().map(describe).collect();
        described.join("; ")
    }
}

/// A socket of one's own, for both families of addresses where the system has both.
fn endpoint() -> io::Result<Endpoint> {
    let any = |ip: std::net::IpAddr| SocketAddr::new(ip, 0);
    let socket = limits::bind(any(Ipv6Addr::UNSPECIFIED.into()))
        .or_else(|_| limits::bind(any(Ipv4Addr::UNSPECIFIED.into())))?;
    let socket = quinn::TokioRuntime.wrap_udp_socket(socket)?;
    Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        socket,
        Arc::new(quinn::TokioRuntime),
    )
}

impl fmt::Debug for QuicLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicLink").field("servers", &self.servers()).finish_non_exhaustive()
    }
}
