//! What servers on the loopback device need: certificates and addresses.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
};

use graft::Tls;
use graft_transport::certs::{Authority, Issued};

use crate::disk::Error;

/// The cluster that certificates name.
pub const CLUSTER: &str = "bench";

/// The certificates of one cluster, which nobody else trusts.
#[derive(Debug)]
pub struct Certificates(Box<Authority>);

impl Certificates {
    /// A new authority.
    ///
    /// # Errors
    ///
    /// Where the system has no randomness.
    pub fn new() -> Result<Self, Error> {
        Ok(Self(Box::new(Authority::new(CLUSTER)?)))
    }

    /// Who the server `name` is.
    ///
    /// # Errors
    ///
    /// Where `name` cannot stand in a certificate.
    pub fn server(&self, name: &str) -> Result<Tls, Error> {
        self.tls(&self.0.server(name)?)
    }

    /// Who a client is.
    ///
    /// # Errors
    ///
    /// Where the system has no randomness.
    pub fn client(&self) -> Result<Tls, Error> {
        self.tls(&self.0.client("client")?)
    }

    /// Writes the files that the server `name` needs to `directory`; those of the authority are there once.
    ///
    /// # Errors
    ///
    /// Where they cannot be written.
    pub fn write_server(&self, name: &str, directory: &Path) -> Result<(), Error> {
        if !directory.join("ca.pem").exists() {
            self.0.write_to(directory)?;
        }
        self.0.server(name)?.write_to(directory)?;
        Ok(())
    }

    fn tls(&self, issued: &Issued) -> Result<Tls, Error> {
        let (authority, certificate) = (self.0.certificate_pem(), issued.certificate_pem());
        let key = issued.key_pem();
        Ok(Tls::from_pem(authority.as_bytes(), certificate.as_bytes(), key.as_bytes())?)
    }
}

/// Addresses on the loopback device that were free a moment ago, for servers that must know each other's
/// before they bind their own.
///
/// # Errors
///
/// Where the system has none.
pub fn addresses<const COUNT: usize>() -> io::Result<[SocketAddr; COUNT]> {
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    // Held until all are found, so that none is found twice.
    let mut held = Vec::with_capacity(COUNT);
    for address in &mut addresses {
        let socket = UdpSocket::bind(*address)?;
        *address = socket.local_addr()?;
        held.push(socket);
    }
    Ok(addresses)
}
