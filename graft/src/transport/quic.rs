//! Servers on different machines, over QUIC.

mod link;
mod refusal;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use graft_core::{Incarnation, Link, Membership, NodeId, Runtime, Transport};
pub use graft_transport::quic::{Bounds as QuicBounds, Timing as QuicTiming};
use graft_transport::quic::{
    FrameLimits, LinkConfig, Members, NetworkConfig, NetworkError as BindError, PeerPlace, Schema,
};

use self::link::{OnDemand, Way};
use super::{Local, Network, NetworkError, Port, View};
use crate::{Tls, panics};

/// What the last frames and the farewell to everybody may take. Each connection has a second of its own;
/// the rest is for a machine that is busy.
const FAREWELL: Duration = Duration::from_secs(5);

/// The way to servers and clients on other machines: QUIC, where both sides show certificates of the
/// cluster's own authority. See [`quic`].
#[must_use = "give it to `ServerBuilder::transport`"]
pub struct Quic {
    given: String,
    addresses: Vec<SocketAddr>,
    tls: Tls,
    bounds: QuicBounds,
    timing: QuicTiming,
}

/// Listens at `address` for the other servers and for clients, as whom the certificate in `tls` names.
///
/// The address is where *this* machine listens, like `0.0.0.0:4400`, over UDP; where others find it is said
/// by [`ServerBuilder::members`](crate::ServerBuilder::members). A host name is looked up here, which may
/// block for a moment.
///
/// The certificate must be that of a server, with the name and the cluster that the server is started with.
/// `graft certs` makes such certificates, and [`Tls::reload`] takes new ones up without a restart.
///
/// ```no_run
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = graft::Tls::from_files("certs/ca.pem", "certs/server1.pem", "certs/server1-key.pem")?;
/// let network = graft::transport::quic("0.0.0.0:4400", tls)?;
/// # drop(network);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`NetworkError`] where the address is none, and where the certificate is a client's. Whether the address
/// is free, and the certificate the server's own, shows when the server is started.
pub fn quic(address: impl ToSocketAddrs + fmt::Display, tls: Tls) -> Result<Quic, NetworkError> {
    let given = address.to_string();
    let addresses = address.to_socket_addrs().map_err(|error| {
        NetworkError::with_source(
            format!("`{given}` is no address to listen at: give HOST:PORT, like `0.0.0.0:4400`"),
            error,
        )
    })?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    if addresses.is_empty() {
        return Err(NetworkError::new(format!("`{given}` has no address: give an IP address")));
    }
    let identity = tls.identity();
    if !identity.is_server() {
        return Err(NetworkError::new(format!(
            "the certificate is of {identity}, and a server needs that of a server: give it its own"
        )));
    }
    let (bounds, timing) = (QuicBounds::default(), QuicTiming::default());
    Ok(Quic { given, addresses, tls, bounds, timing })
}

impl Quic {
    /// How much the server takes upon itself for others: connections, handshakes, bytes that wait.
    pub fn bounds(mut self, bounds: QuicBounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// How long connections, handshakes and attempts may take.
    pub fn timing(mut self, timing: QuicTiming) -> Self {
        self.timing = timing;
        self
    }

    /// Refuses a certificate of another server before anybody else has to.
    fn check_identity(&self, local: &Local) -> Result<(), NetworkError> {
        let identity = self.tls.identity();
        if identity.name() == local.name && identity.cluster() == local.cluster_name {
            return Ok(());
        }
        Err(NetworkError::new(format!(
            "the certificate is of {identity}, and this is server `{}` of cluster `{}`: give the server its own \
             certificate, or say the name and the cluster that stand in this one",
            local.name, local.cluster_name
        )))
    }

    /// Binds the first of the addresses that can be bound.
    fn bind(
        &self,
        config: &NetworkConfig,
        runtime: &Arc<dyn Runtime>,
    ) -> Result<graft_transport::quic::Network, NetworkError> {
        let bind = |address| {
            let (config, tls) = (config.clone(), self.tls.clone());
            graft_transport::quic::Network::bind(address, config, tls, Arc::clone(runtime))
        };
        let mut last = None;
        for address in &self.addresses {
            // tokio says by a panic alone that a runtime was built without sockets.
            match catch_unwind(AssertUnwindSafe(|| bind(*address))) {
                Ok(Ok(network)) => return Ok(network),
                Ok(Err(error @ BindError::Bind { .. })) => last = Some(error),
                Ok(Err(error)) => return Err(refusal::of_bind(error, &self.given)),
                Err(panic) => {
                    return Err(NetworkError::new(format!(
                        "no socket can be had from the tokio runtime around this call, which must be built with \
                         `enable_io` or `enable_all`: {}",
                        panics::message(&*panic)
                    )));
                }
            }
        }
        Err(last.map_or_else(
            || NetworkError::new(format!("`{}` has no address", self.given)),
            |error| refusal::of_bind(error, &self.given),
        ))
    }

    fn config(&self, local: &Local) -> NetworkConfig {
        NetworkConfig {
            epoch: local.epoch,
            machine: local.machine.clone(),
            format: local.format,
            schema: schema(local.version),
            election_timeout: local.election_timeout,
            frames: frames(local.max_entry_bytes, local.max_batch_bytes),
            bounds: self.bounds,
            timing: self.timing,
            ..NetworkConfig::new(local.name.clone(), local.cluster)
        }
    }
}

/// The versions of entries that a build reads which writes this one: older ones may be upgraded.
pub(crate) const fn schema(version: u16) -> Schema {
    Schema { lowest: 0, highest: version }
}

/// How large frames may be that carry entries of at most `max_entry_bytes` of archive.
pub(crate) fn frames(max_entry_bytes: usize, max_batch_bytes: usize) -> FrameLimits {
    let entry = max_entry_bytes.saturating_add(graft_client::HEADER_BYTES);
    FrameLimits::new(entry, max_batch_bytes, FrameLimits::default().max_reply_bytes())
}

impl Network for Quic {
    fn open(self: Box<Self>, local: Local) -> Result<Arc<dyn Port>, NetworkError> {
        self.check_identity(&local)?;
        let tokio = tokio::runtime::Handle::try_current()
            .map_err(|error| NetworkError::with_source("there is no tokio runtime here", error))?;
        let config = self.config(&local);
        let network = self.bind(&config, &local.runtime)?;
        let name = config.name;
        let link = LinkConfig {
            machine: config.machine,
            format: config.format,
            schema: config.schema,
            frames: config.frames,
            timing: self.timing,
            ..LinkConfig::default()
        };
        let own = reached_from_here(network.local_addr());
        let addresses = Arc::new(Mutex::new(BTreeSet::from([own.to_string()])));
        let (tls, runtime) = (self.tls, local.runtime);
        let way = Way { tokio, tls, config: link, runtime, addresses };
        Ok(Arc::new(QuicPort { network, name, own, way }))
    }
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quic")
            .field("address", &self.given)
            .field("identity", self.tls.identity())
            .finish_non_exhaustive()
    }
}

/// A server's place on the network.
struct QuicPort {
    network: graft_transport::quic::Network,
    /// What the server is called.
    name: String,
    /// Where the server finds itself, whatever address others know it by.
    own: SocketAddr,
    /// For clients in this process.
    way: Way,
}

impl QuicPort {
    /// Where a client in this process is to look for servers from now on.
    fn note_addresses(&self, members: &Membership) {
        let of_members = members.nodes.values().map(|info| match info.client_address.as_str() {
            "" => info.peer_address.clone(),
            address => address.to_owned(),
        });
        let mut addresses: BTreeSet<String> =
            of_members.filter(|address| !address.is_empty()).collect();
        addresses.insert(self.own.to_string());
        *self.way.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }
}

#[async_trait]
impl Port for QuicPort {
    fn on_birth(&self, incarnation: Incarnation) {
        self.network.set_incarnation(incarnation);
    }

    fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        assert_eq!(node, self.network.node(), "a port is one server's");
        Arc::new(self.network.transport())
    }

    fn link(&self) -> Arc<dyn Link> {
        Arc::new(OnDemand::new(self.way.clone()))
    }

    fn on_view(&self, view: &View) {
        let View { members, leader, term } = view;
        let places = members.nodes.iter().map(|(node, info)| {
            let (name, address) = (info.name.clone(), info.peer_address.clone());
            (*node, PeerPlace { name, address })
        });
        let places: BTreeMap<NodeId, PeerPlace> = places.collect();
        self.note_addresses(members);
        self.network.set_peers(places);
        let (term, leader, membership) = (*term, *leader, Arc::clone(members));
        self.network.announce(&Members { term, leader, membership });
    }

    async fn close(&self) {
        if !self.network.shutdown(FAREWELL).await {
            tracing::warn!(
                node = %self.name, waited = ?FAREWELL,
                "left the network before everybody had heard the farewell"
            );
        }
    }
}

/// How a process reaches its own socket.
fn reached_from_here(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(bound) if bound.ip().is_unspecified() => {
            (Ipv4Addr::LOCALHOST, bound.port()).into()
        }
        SocketAddr::V6(bound) if bound.ip().is_unspecified() => {
            (Ipv6Addr::LOCALHOST, bound.port()).into()
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_listens_everywhere_is_found_on_this_machine() {
        for (bound, found) in [
            ("0.0.0.0:4400", "127.0.0.1:4400"),
            ("[::]:4400", "[::1]:4400"),
            ("10.0.0.1:4400", "10.0.0.1:4400"),
        ] {
            let bound: SocketAddr = bound.parse().unwrap();
            assert_eq!(reached_from_here(bound).to_string(), found);
        }
    }

    #[test]
    fn the_largest_entry_travels_with_its_header() {
        let frames = frames(3 << 20, 1 << 20);
        assert_eq!(frames.max_entry_bytes(), (3 << 20) + graft_client::HEADER_BYTES);
    }
}
