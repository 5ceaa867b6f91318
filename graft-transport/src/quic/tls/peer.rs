//! The other side of a connection, once the handshake is over; and why a handshake failed.

use std::sync::Arc;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Side};
use rustls_pki_types::CertificateDer;

use super::{ALPN_CLIENT, ALPN_PEER, CertifiedName, Refusal, Role, trust};

/// Which of the two protocols a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Between servers: `graft-peer/1`.
    Peer,
    /// From a client to a server: `graft-client/1`.
    Client,
}

impl Protocol {
    fn of(alpn: &[u8]) -> Option<Self> {
        match alpn {
            ALPN_PEER => Some(Protocol::Peer),
            ALPN_CLIENT => Some(Protocol::Client),
            _ => None,
        }
    }
}

/// Who is at the other end of a connection: what its certificate names, and the certificate itself, so
/// that it can be judged again after a reload ([`Tls::still_valid`](super::Tls::still_valid)).
///
/// There is one only for a connection whose handshake is over, hence for a certificate that was valid then;
/// its role is the one that the connection's protocol asks for.
#[derive(Clone, Debug)]
pub struct CertifiedPeer {
    name: CertifiedName,
    protocol: Protocol,
    pub(super) acted_as: Role,
    pub(super) chain: Arc<[CertificateDer<'static>]>,
}

impl CertifiedPeer {
    /// Whom the certificate names.
    pub fn name(&self) -> &CertifiedName {
        &self.name
    }

    /// What the connection speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn of(connection: &Connection, cluster: &str) -> Result<Self, Refusal> {
        let protocol = protocol(connection).ok_or(Refusal::NoCertificate)?;
        let chain = chain(connection).ok_or(Refusal::NoCertificate)?;
        let leaf = chain.first().ok_or(Refusal::NoCertificate)?;
        let name = trust::parse(leaf).and_then(|leaf| trust::named(&leaf, cluster))?;
        let (acted_as, due) = match (connection.side(), protocol) {
            (Side::Client, _) => (Role::Server, Role::Server),
            (Side::Server, Protocol::Peer) => (Role::Client, Role::Server),
            (Side::Server, Protocol::Client) => (Role::Client, Role::Client),
        };
        if name.role() != due {
            return Err(Refusal::WrongRole { found: name, expected: due });
        }
        Ok(CertifiedPeer { name, protocol, acted_as, chain: chain.into() })
    }
}

/// Whom the certificate at the other end of a connection names.
///
/// # Errors
///
/// [`Refusal`] where the handshake is not over, or the role does not suit the protocol. Whether the
/// certificate still is valid is [`Tls::certified_peer`](super::Tls::certified_peer)'s to say.
pub fn certified_name(connection: &Connection) -> Result<CertifiedName, Refusal> {
    CertifiedPeer::of(connection, "CLUSTER").map(|peer| peer.name)
}

/// What a connection speaks; `None` before the handshake is over.
pub fn protocol(connection: &Connection) -> Option<Protocol> {
    let data = connection.handshake_data()?;
    let data = data.downcast::<HandshakeData>().ok()?;
    Protocol::of(data.protocol.as_deref()?)
}

fn chain(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some(*chain)
}

/// A handshake that failed for a reason of TLS: who refused whom, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeRefused {
    /// This side refuses the other.
    #[error("the other side is refused: {0}")]
    Here(String),
    /// The other side refuses this one. Its words are shown as they came, cut to 600 characters.
    #[error("refused by the other side: {0}")]
    There(String),
}

impl HandshakeRefused {
    /// What TLS has to do with the end of a connection; `None` if nothing.
    pub fn of(error: &ConnectionError) -> Option<Self> {
        match error {
            ConnectionError::TransportError(error) if is_crypto(error.code.into()) => {
                Some(HandshakeRefused::Here(words(error.reason.as_bytes())))
            }
            ConnectionError::ConnectionClosed(close) if is_crypto(close.error_code.into()) => {
                Some(HandshakeRefused::There(words(&close.reason)))
            }
            _ => None,
        }
    }
}

/// QUIC's error codes for alerts of TLS (RFC 9001 §4.8).
fn is_crypto(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}

/// A reason without what rustls puts before our words, and without anything that could write on a
/// terminal or fill a log.
fn words(reason: &[u8]) -> String {
    const MAX_CHARS: usize = 600;
    let reason = String::from_utf8_lossy(reason);
    let reason = reason.strip_prefix("other error: ").unwrap_or(&reason);
    reason.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_CHARS).collect()
}
