//! How the servers of a test reach each other, each of which is started by itself.

#[cfg(feature = "quic")]
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use graft::{ServerBuilder, transport::Memory};
#[cfg(feature = "quic")]
use {graft::Tls, graft_transport::certs::Authority};

use super::SERVERS;

/// The name of the cluster that these are networks of.
pub const CLUSTER: &str = "matrix";

/// A network for [`SERVERS`].
pub enum Networks {
    Memory(Memory),
    #[cfg(feature = "quic")]
    Quic(Box<Sites>),
}

impl Networks {
    pub fn memory() -> Self {
        Self::Memory(Memory::default())
    }

    #[cfg(feature = "quic")]
    pub fn quic() -> Self {
        Self::Quic(Box::new(Sites::new()))
    }

    /// Gives the server called `name` its cluster, its members and its way to them.
    pub fn give_to(&self, name: &str, server: ServerBuilder) -> ServerBuilder {
        let server = server.cluster(CLUSTER);
        match self {
            Self::Memory(memory) => {
                server.members(SERVERS.map(|name| (name, name))).transport(memory.clone())
            }
            #[cfg(feature = "quic")]
            Self::Quic(sites) => {
                let own = graft::transport::quic(sites.address(name), sites.tls(name)).unwrap();
                server
                    .members(SERVERS.map(|name| (name, sites.address(name).to_string())))
                    .transport(own)
            }
        }
    }
}

/// An address on this machine for each server, and an authority that certifies who they are.
#[cfg(feature = "quic")]
pub struct Sites {
    authority: Authority,
    sites: [Site; SERVERS.len()],
}

#[cfg(feature = "quic")]
impl Sites {
    fn new() -> Self {
        Self { authority: Authority::new(CLUSTER).unwrap(), sites: SERVERS.map(|_| Site::new()) }
    }

    pub fn address(&self, server: &str) -> SocketAddr {
        let at = SERVERS.iter().position(|name| *name == server).unwrap();
        self.sites[at].address
    }

    /// The identity of a server, with a new certificate each time.
    pub fn tls(&self, server: &str) -> Tls {
        self.identity(&self.authority.server(server).unwrap())
    }

    pub fn client_tls(&self, client: &str) -> Tls {
        self.identity(&self.authority.client(client).unwrap())
    }

    fn identity(&self, issued: &graft_transport::certs::Issued) -> Tls {
        let pems = [self.authority.certificate_pem(), issued.certificate_pem(), issued.key_pem()];
        let [authority, certificate, key] = pems.map(str::as_bytes);
        Tls::from_pem(authority, certificate, key).unwrap()
    }
}

/// A port that the system chose and that nobody else comes to have while its server is down.
///
/// It is bound for as long as this lives, at an address of this process, and the server listens at the same port
/// of another such address: so the system gives it to no socket that listens everywhere, and at these addresses
/// nobody else listens.
#[cfg(feature = "quic")]
struct Site {
    address: SocketAddr,
    _guard: UdpSocket,
}

#[cfg(feature = "quic")]
impl Site {
    fn new() -> Self {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let [guarding, own] = [64, 128].map(|side| Ipv4Addr::new(127, side | (a & 63), b, c));
        let guard = UdpSocket::bind((guarding, 0)).unwrap();
        let port = guard.local_addr().unwrap().port();
        Self { address: (own, port).into(), _guard: guard }
    }
}
