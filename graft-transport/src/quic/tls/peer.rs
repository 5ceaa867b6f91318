//! The other side of a connection, once the handshake is over; and why a handshake failed.

use std::sync::Arc;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Side};
use rustls_pki_types::CertificateDer;

use super::{CertifiedName, Refusal, Role, trust};

/// Which of the two protocols a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// Between servers: `graft-peer/1`.
    Peer,
    /// From a client to a server: `graft-client/1`.
    Client,
}

impl Alpn {
    /// The protocol's name in the handshake.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Alpn::Peer => b"graft-peer/1",
            Alpn::Client => b"graft-client/1",
        }
    }
}

/// Who is at the other end of a connection: what its certificate names, and the certificate itself, so
/// that it can be judged again after a reload ([`Tls::still_valid`](super::Tls::still_valid)).
///
/// There is one only for a connection whose handshake is over, hence for a certificate that was valid then;
/// its role is one that the connection's protocol admits: servers alone are peers, and answer; a server may
/// also ask as clients do.
#[derive(Clone, Debug)]
pub struct CertifiedPeer {
    name: CertifiedName,
    alpn: Alpn,
    pub(super) acted_as: Role,
    pub(super) chain: Arc<[CertificateDer<'static>]>,
}

impl CertifiedPeer {
    /// The server's or client's own name, without cluster and role: those were checked.
    pub fn name(&self) -> &str {
        self.name.name()
    }

    /// Whom the certificate names.
    pub fn certified_name(&self) -> &CertifiedName {
        &self.name
    }

    /// What the connection speaks.
    pub fn alpn(&self) -> Alpn {
        self.alpn
    }

    pub(super) fn of(connection: &Connection, cluster: &str) -> Result<Self, Refusal> {
        let alpn = alpn(connection).ok_or(Refusal::NoCertificate)?;
        let chain = chain(connection).ok_or(Refusal::NoCertificate)?;
        let leaf = chain.first().ok_or(Refusal::NoCertificate)?;
        let name = trust::parse(leaf).and_then(|leaf| trust::named(&leaf, cluster))?;
        let (acted_as, due) = match (connection.side(), alpn) {
            (Side::Client, _) => (Role::Server, Some(Role::Server)),
            (Side::Server, Alpn::Peer) => (Role::Client, Some(Role::Server)),
            // Whoever may write the log as a server may also ask for an entry in it.
            (Side::Server, Alpn::Client) => (Role::Client, None),
        };
        if let Some(expected) = due.filter(|due| *due != name.role()) {
            return Err(Refusal::WrongRole { found: name, expected });
        }
        Ok(CertifiedPeer { name, alpn, acted_as, chain: chain.into() })
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
pub fn alpn(connection: &Connection) -> Option<Alpn> {
    let data = connection.handshake_data()?;
    let data = data.downcast::<HandshakeData>().ok()?;
    let agreed = data.protocol.as_deref()?;
    [Alpn::Peer, Alpn::Client].into_iter().find(|alpn| alpn.as_bytes() == agreed)
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
