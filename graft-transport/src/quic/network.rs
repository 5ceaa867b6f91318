//! A server's place on the network: its socket, and everything that goes over it.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use graft_core::{Incarnation, NodeId, Runtime};
use quinn::{AsyncUdpSocket, Endpoint, Runtime as _, VarInt};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{
    accept,
    config::NetworkConfig,
    dial,
    gate::Run,
    limits,
    shared::Shared,
    stats::Stats,
    tls::{Tls, TlsError},
    transport::QuicTransport,
};
use crate::wire::v1::{Hello, Members, RefusalCode};

/// Why a server has no place on the network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The address cannot be used.
    #[error("the address {address} cannot be bound: is it this machine's, and free?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was called outside of a tokio runtime.
    #[error("a QUIC endpoint needs a tokio runtime: call this inside one")]
    NoRuntime,
    /// The certificate is another's.
    #[error(
        "the certificate is of {certified}, the server is called {name:?}: give it its own certificate"
    )]
    WrongCertificate {
        /// Whose it is.
        certified: String,
        /// The server's name in its configuration.
        name: String,
    },
    /// The certificates cannot be used.
    #[error("the certificates cannot be used")]
    Tls(#[from] TlsError),
    /// A limit is beyond what QUIC can state.
    #[error("the idle timeout {idle_timeout:?} is longer than QUIC can state")]
    Timing {
        /// The idle timeout.
        idle_timeout: Duration,
    },
}

/// Where a peer is reached, and what it is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerPlace {
    /// Its name: that of its certificate.
    pub name: String,
    /// A host name or an IP address, and a port: `10.0.0.2:4400`, `[::1]:4400`, `server2:4400`. A host name
    /// is looked up at each attempt.
    pub address: String,
}

/// What is known of a peer that is connected.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Where it is.
    pub address: SocketAddr,
    /// What it said of itself.
    pub hello: Hello,
    /// The time that a packet takes there and back.
    pub round_trip: Duration,
}

/// A server's place on the network: one UDP socket for peers and clients alike. Clones are the same place.
///
/// It outlives the runs of its server: each gets a [`transport`](Self::transport) of its own, and the
/// connections with peers stay. Of two servers the one with the lower [`NodeId`] connects, again and again
/// until it succeeds and whenever the connection is lost. The other one does so where it has waited in vain for
/// [`Timing::await_call`](super::Timing::await_call). Each pair has one connection: where two calls cross, that of the
/// lower number stays.
///
/// Dropping the last clone, with all transports, ends everything at once. [`shutdown`](Self::shutdown) does
/// it in order.
#[derive(Clone)]
pub struct Network {
    handle: Arc<Handle>,
}

/// What ends the network when nobody holds it any more.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    address: SocketAddr,
    tokio: tokio::runtime::Handle,
    /// The socket, as long as the library holds it.
    socket: Weak<dyn AsyncUdpSocket>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    endpoint: Option<Endpoint>,
    tasks: Vec<JoinHandle<()>>,
    dials: BTreeMap<NodeId, Dial>,
}

struct Dial {
    place: watch::Sender<PeerPlace>,
    task: JoinHandle<()>,
}

impl Network {
    /// Binds `address` and listens. Port 0 takes any that is free.
    ///
    /// Everything runs on the tokio runtime that is current; `runtime` tells the time that the server's
    /// deadlines are on.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] says what is in the way.
    pub fn bind(
        address: SocketAddr,
        config: NetworkConfig,
        tls: Tls,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, NetworkError> {
        let tokio = tokio::runtime::Handle::try_current().map_err(|_| NetworkError::NoRuntime)?;
        let identity = tls.identity();
        if !identity.is_server() || identity.name() != config.name {
            let (certified, name) = (identity.to_string(), config.name);
            return Err(NetworkError::WrongCertificate { certified, name });
        }
        let server = server_config(&tls, &config)?;
        let endpoint_config = limits::endpoint_config(&tls);
        let failed = |source| NetworkError::Bind { address, source };
        let socket = limits::bind(address).map_err(failed)?;
        let socket = quinn::TokioRuntime.wrap_udp_socket(socket).map_err(failed)?;
        let weak = Arc::downgrade(&socket);
        let address = socket.local_addr().map_err(failed)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config,
            Some(server),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .map_err(failed)?;
        let shared = Arc::new(Shared::new(config, tls, runtime));
        let tasks = vec![
            tokio.spawn(accept::accept(Arc::clone(&shared), endpoint.clone())),
            tokio.spawn(accept::watch_certificates(Arc::clone(&shared))),
        ];
        let state = State { endpoint: Some(endpoint), tasks, dials: BTreeMap::new() };
        let state = Mutex::new(state);
        let handle = Handle { shared, address, tokio, socket: weak, state };
        Ok(Self { handle: Arc::new(handle) })
    }

    /// The address that is bound, with its port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.address
    }

    /// The server's number.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.handle.shared.node
    }

    /// Says where the peers are. Those that are new are connected to, those that are not in it any more are
    /// not called again; who is connected stays so.
    ///
    /// The server itself may be among them. A peer with a lower number is waited for first. What these have said of
    /// the versions of entries that they read is what
    /// [`newest_version`](graft_core::Transport::newest_version) tells.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, PeerPlace>) {
        let Handle { shared, tokio, .. } = &*self.handle;
        shared.versions.set_members(peers.keys().copied().collect());
        let mut state = self.handle.lock();
        let Some(endpoint) = state.endpoint.clone() else {
            return;
        };
        // Dropping its place ends a task.
        state.dials.retain(|node, dial| peers.contains_key(node) && !dial.task.is_finished());
        for (node, place) in peers.into_iter().filter(|(node, _)| *node != shared.node) {
            if let Some(dial) = state.dials.get(&node) {
                dial.place.send_if_modified(|known| {
                    let is_new = *known != place;
                    if is_new {
                        *known = place;
                    }
                    is_new
                });
                continue;
            }
            let (sender, receiver) = watch::channel(place);
            let task = dial::dial(Arc::clone(shared), endpoint.clone(), node, receiver);
            let task = tokio.spawn(task);
            state.dials.insert(node, Dial { place: sender, task });
        }
    }

    /// Says of which birth the server's store is. Connections that are there already keep what they were
    /// told.
    pub fn set_incarnation(&self, incarnation: Incarnation) {
        self.handle.shared.incarnation.store(incarnation.0, Ordering::Relaxed);
    }

    /// The transport of the server's next run. It takes the place of an earlier one, which is closed by this
    /// as by [`close`](graft_core::Transport::close).
    #[must_use]
    pub fn transport(&self) -> QuicTransport {
        QuicTransport::new(Arc::clone(&self.handle))
    }

    /// Tells all clients who belongs to the cluster and who leads, now and as they connect.
    pub fn announce(&self, members: &Members) {
        let shared = &self.handle.shared;
        shared.clients.announce(members, &shared.counters);
    }

    /// The peers that are connected, by number.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<NodeId, PeerStatus> {
        let lines = self.handle.shared.peers.all();
        let status = lines.into_iter().map(|line| {
            let address = line.connection.remote_address();
            let round_trip = line.connection.rtt();
            (line.hello.node, PeerStatus { address, hello: line.hello.clone(), round_trip })
        });
        status.collect()
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.handle.shared;
        shared.counters.snapshot(shared.peers.count(), shared.clients.count())
    }

    /// Ends everything in order: what waits is sent, connections are closed with a reason, and the port is
    /// free. What is not done after `limit` is cut off. Says whether all was done in time.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        self.handle.shutdown(Instant::now() + limit).await
    }
}

impl Handle {
    pub(super) fn begin_run(&self) -> Run {
        let run = self.shared.gate.begin();
        self.shared.clients.close_except(run);
        run
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn shutdown(&self, deadline: Instant) -> bool {
        let shared = &self.shared;
        shared.gate.close();
        shared.closing.send_replace(true);
        shared.clients.close_all();
        shared.peers.close();
        let State { endpoint, tasks, dials } = std::mem::take(&mut *self.lock());
        let dials = dials.into_values().map(|dial| dial.task);
        let mut in_time = true;
        for mut task in tasks.into_iter().chain(dials) {
            if timeout_at(deadline, &mut task).await.is_err() {
                in_time = false;
                task.abort();
            }
        }
        if let Some(endpoint) = endpoint {
            end(&endpoint);
            in_time &= timeout_at(deadline, endpoint.wait_idle()).await.is_ok();
        }
        // The library lets go of the socket on a task of its own.
        while self.socket.strong_count() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(Duration::from_millis(2)).await;
        }
        in_time
    }
}

fn end(endpoint: &Endpoint) {
    let code = VarInt::from_u32(RefusalCode::Closing.number().into());
    endpoint.close(code, b"this server is stopping");
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &state.endpoint {
            end(endpoint);
        }
        let dials = state.dials.values().map(|dial| &dial.task);
        state.tasks.iter().chain(dials).for_each(JoinHandle::abort);
    }
}

/// The settings for those who connect to this server, with its present certificate.
fn server_config(tls: &Tls, config: &NetworkConfig) -> Result<quinn::ServerConfig, NetworkError> {
    let crypto = tls.server_crypto()?;
    let idle_timeout = config.timing.idle_timeout;
    limits::server_config(crypto, &config.timing).map_err(|_| NetworkError::Timing { idle_timeout })
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handle { shared, address, .. } = &*self.handle;
        f.debug_struct("Network")
            .field("node", &shared.node)
            .field("address", address)
            .finish_non_exhaustive()
    }
}
