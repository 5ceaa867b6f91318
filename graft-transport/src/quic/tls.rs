//! Who speaks: identities by certificate, for both ends of every connection.
//!
//! A cluster has an authority of its own. Each server and client has a certificate of that authority
//! which names it, its cluster and its [`Role`] in one DNS name: `<name>.<cluster>.server.graft` or
//! `<name>.<cluster>.client.graft`. [`Tls`] is one process's identity together with whom it trusts, and gives both
//! ends of a connection what they need:
//!
//! * TLS 1.3 alone, both sides with a certificate, no resumption and no early data: every connection is
//!   checked in full, so nothing that was revoked slips in by an old ticket.
//! * One check for everyone ([`Refusal`] lists what it refuses): issued by the authority, in its time, not revoked,
//!   of this cluster, of the role that the protocol asks for and, where a certain server is called, that server.
//! * [`Tls::reload`] reads the files again. New handshakes see what they hold at once, on the same
//!   endpoint; [`Tls::changed`] and [`Tls::still_valid`] find the connections that must end.
//!
//! Not here: hostname checks, public authorities, OCSP. Addresses prove nothing; names in certificates do.

mod error;
mod material;
mod name;
mod peer;
mod trust;
mod verifier;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::Connection;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ring::hkdf;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use error::Moment;
pub use error::{Names, Part, Place, Refusal, TlsError, TlsWarning};
pub use name::{CertifiedName, Role};
pub use peer::{Alpn, CertifiedPeer, HandshakeRefused, alpn, certified_name};

use material::{Material, Parts, Piece};
use verifier::{Expected, Present, Verifier};

/// What to give [`quinn::Endpoint::connect_with`] as the server's name. It is not sent and not compared: whom a
/// dialer expects is part of [`Tls::client_crypto`].
pub const SERVER_NAME: &str = "server.graft";

/// One process's identity, and whom it trusts. Clones share it: a reload of one is a reload of all.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    /// Never changes: a reload that brings another name is refused.
    name: CertifiedName,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn TimeProvider>,
    material: RwLock<Arc<Material>>,
    /// What `material` was made from. Held while it is being replaced, so that reloads take turns.
    parts: Mutex<Parts>,
    changes: watch::Sender<u64>,
    secrets: hkdf::Prk,
}

impl Shared {
    fn material(&self) -> Arc<Material> {
        Arc::clone(&self.material.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> UnixTime {
        self.clock.current_time().unwrap_or_else(UnixTime::now)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// An identity from PEM in memory: the authority's certificate (or several), one's own certificate with any
    /// intermediate ones behind it, and its private key.
    ///
    /// # Errors
    ///
    /// [`TlsError`] says which part is wrong and why. A certificate that others would refuse is refused here too.
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        TlsBuilder::from_pem(authority, certificate, key).build()
    }

    /// An identity from PEM files; [`Tls::reload`] reads them again. Reads files, so it blocks for a moment.
    ///
    /// # Errors
    ///
    /// As for [`Tls::from_pem`]; and where a file is missing or unreadable, its path.
    pub fn from_files(
        authority: impl AsRef<Path>,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        TlsBuilder::from_files(authority, certificate, key).build()
    }

    /// Who this process is.
    pub fn identity(&self) -> &CertifiedName {
        &self.shared.name
    }

    /// When one's own certificate ends.
    pub fn expires(&self) -> SystemTime {
        let seconds = Duration::from_secs(self.shared.material().not_after);
        // A certificate's year has four digits, which every platform's clock can hold.
        UNIX_EPOCH.checked_add(seconds).unwrap_or(UNIX_EPOCH)
    }

    /// What is worth a warning in the identity in force. Each was also logged when it came into force.
    pub fn warnings(&self) -> Vec<TlsWarning> {
        self.shared.material().warnings.clone()
    }

    /// Reads all files again and puts what they hold into force, for every handshake from now on. Blocks for
    /// a moment.
    ///
    /// # Errors
    ///
    /// Nothing changes then: the former identity, authorities and lists stay in force. Besides what
    /// [`Tls::from_files`] refuses: a certificate that names somebody else, and an identity that has no files.
    pub fn reload(&self) -> Result<(), TlsError> {
        let parts = self.parts();
        if !parts.are_files() {
            return Err(TlsError::NotFromFiles);
        }
        let renewed = parts.read_again().inspect_err(log_failure)?;
        self.put_into_force(parts, renewed)
    }

    /// Puts other PEM into force, as [`Tls::from_pem`] takes it; files named earlier are not read again
    /// for these three, while revocation lists stay as they are.
    ///
    /// # Errors
    ///
    /// As for [`Tls::reload`]; nothing changes then.
    pub fn replace(
        &self,
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
    ) -> Result<(), TlsError> {
        let parts = self.parts();
        let renewed = Parts {
            authority: Piece::memory(Part::Authority, authority),
            certificate: Piece::memory(Part::Certificate, certificate),
            key: Piece::memory(Part::Key, key),
            ..parts.clone()
        };
        self.put_into_force(parts, renewed)
    }

    /// Puts revocation lists (PEM, one or several) into force, beside those of files and in the place of those
    /// that an earlier call gave. They stay over reloads. With empty PEM an earlier call is undone.
    ///
    /// # Errors
    ///
    /// Where the lists are malformed or not of a trusted authority; nothing changes then.
    pub fn revoke(&self, lists: &[u8]) -> Result<(), TlsError> {
        let parts = self.parts();
        let mut renewed = parts.clone();
        renewed.revoked.clear();
        if !lists.is_empty() {
            renewed.revoked.push(Piece::memory(Part::RevocationList, lists));
        }
        self.put_into_force(parts, renewed)
    }

    /// Counts the reloads that came into force. Whoever holds connections watches it, and asks
    /// [`Tls::still_valid`] for each at every change.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Judges a connection's certificate again by the authorities, lists and time of this moment.
    ///
    /// # Errors
    ///
    /// Why the connection must end.
    pub fn still_valid(&self, peer: &CertifiedPeer) -> Result<(), Refusal> {
        let shared = &self.shared;
        shared
            .material()
            .trust
            .check(&peer.chain, peer.acted_as, &shared.name, shared.now())
            .map(|_name| ())
    }

    /// Who is at the other end of a connection whose handshake is over, judged by the authorities and lists
    /// of this moment: a reload during the handshake counts.
    ///
    /// # Errors
    ///
    /// Why the connection must be closed; in particular [`Refusal::WrongRole`], which no handshake can see,
    /// where a client's certificate speaks `graft-peer/1`.
    pub fn certified_peer(&self, connection: &Connection) -> Result<CertifiedPeer, Refusal> {
        let peer = CertifiedPeer::of(connection, self.shared.name.cluster())?;
        self.still_valid(&peer)?;
        Ok(peer)
    }

    /// TLS for an endpoint that servers and clients may dial. It lives as long as the endpoint: reloads
    /// reach it.
    ///
    /// # Errors
    ///
    /// [`TlsError::WrongOwnRole`] for a client's identity.
    pub fn server_crypto(&self) -> Result<Arc<QuicServerConfig>, TlsError> {
        self.needs(Role::Server, "accept connections")?;
        let verifier = self.verifier(Expected::Anyone);
        let mut config = rustls::ServerConfig::builder_with_details(
            Arc::clone(&self.shared.provider),
            Arc::clone(&self.shared.clock),
        )
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unsupported)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Present(Arc::clone(&self.shared))));
        config.alpn_protocols =
            [Alpn::Peer, Alpn::Client].map(|alpn| alpn.as_bytes().to_vec()).to_vec();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(QuicServerConfig::try_from(config).map_err(unsupported)?))
    }

    /// TLS for dialing a server: a certain one, where any other that answers is refused, or with `None`
    /// whichever server of the cluster answers; [`Tls::certified_peer`] then tells its name.
    ///
    /// # Errors
    ///
    /// [`TlsError::BadName`], and [`TlsError::WrongOwnRole`] where one's own certificate is not for that protocol.
    pub fn client_crypto(
        &self,
        alpn: Alpn,
        server: Option<&str>,
    ) -> Result<Arc<QuicClientConfig>, TlsError> {
        match alpn {
            Alpn::Peer => self.needs(Role::Server, "speak to servers as a peer")?,
            // A server also asks, for those who ask it.
            Alpn::Client => {}
        }
        let expected = match server {
            Some(server) => Expected::Exactly(self.server_named(server)?),
            None => Expected::AnyServer,
        };
        self.dialer(alpn, expected)
    }

    /// A secret that grows from the private key this identity was made with: the same for the same key
    /// and label after every restart, unrelated for any other. A reload does not change it.
    pub fn secret(&self, label: &[u8]) -> [u8; 64] {
        let mut secret = [0; 64];
        let info = [label];
        let filled = self
            .shared
            .secrets
            .expand(&info, hkdf::HKDF_SHA512)
            .and_then(|okm| okm.fill(&mut secret));
        // The only error is an output beyond 255 hashes; this is one.
        assert!(filled.is_ok(), "one hash of output was refused");
        secret
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_into_force(
        &self,
        mut parts: MutexGuard<'_, Parts>,
        renewed: Parts,
    ) -> Result<(), TlsError> {
        let shared = &self.shared;
        let material = Material::new(&renewed, &shared.provider, shared.now())
            .and_then(|material| {
                if material.name == shared.name {
                    return Ok(material);
                }
                Err(TlsError::OtherIdentity {
                    place: renewed.certificate_place(),
                    found: material.name,
                    expected: shared.name.clone(),
                })
            })
            .inspect_err(log_failure)?;
        log_warnings(&material);
        let expires = Moment(material.not_after);
        tracing::info!(identity = %shared.name, %expires, "certificates are in force");
        *shared.material.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
        *parts = renewed;
        shared.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    fn needs(&self, needed: Role, purpose: &'static str) -> Result<(), TlsError> {
        if self.shared.name.role() == needed {
            return Ok(());
        }
        Err(TlsError::WrongOwnRole { own: self.shared.name.clone(), purpose, needed })
    }

    fn server_named(&self, server: &str) -> Result<CertifiedName, TlsError> {
        CertifiedName::server(server, self.shared.name.cluster())
    }

    fn verifier(&self, expected: Expected) -> Arc<Verifier> {
        Arc::new(Verifier { shared: Arc::clone(&self.shared), expected })
    }

    fn dialer(&self, alpn: Alpn, expected: Expected) -> Result<Arc<QuicClientConfig>, TlsError> {
        let mut config = rustls::ClientConfig::builder_with_details(
            Arc::clone(&self.shared.provider),
            Arc::clone(&self.shared.clock),
        )
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unsupported)?
        .dangerous()
        .with_custom_certificate_verifier(self.verifier(expected))
        .with_client_cert_resolver(Arc::new(Present(Arc::clone(&self.shared))));
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // The first packets can be read by anyone on the way, and a server has one certificate.
        config.enable_sni = false;
        Ok(Arc::new(QuicClientConfig::try_from(config).map_err(unsupported)?))
    }
}

/// Makes a [`Tls`] with more than the three files: revocation lists, and another clock.
#[derive(Debug)]
pub struct TlsBuilder {
    authority: Source,
    certificate: Source,
    key: Source,
    lists: Vec<Source>,
    clock: Arc<dyn TimeProvider>,
}

/// Where to take a part from. Keys are not shown.
enum Source {
    File(PathBuf),
    Pem(Vec<u8>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => path.fmt(f),
            Source::Pem(_) => f.write_str("PEM"),
        }
    }
}

impl Source {
    fn piece(&self, part: Part) -> Result<Piece, TlsError> {
        match self {
            Source::File(path) => Piece::read(part, path),
            Source::Pem(pem) => Ok(Piece::memory(part, pem)),
        }
    }
}

impl TlsBuilder {
    /// As [`Tls::from_files`].
    pub fn from_files(
        authority: impl AsRef<Path>,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Self {
        let file = |path: &Path| Source::File(path.to_owned());
        TlsBuilder::new([file(authority.as_ref()), file(certificate.as_ref()), file(key.as_ref())])
    }

    /// As [`Tls::from_pem`].
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Self {
        let pem = |pem: &[u8]| Source::Pem(pem.to_owned());
        TlsBuilder::new([pem(authority), pem(certificate), pem(key)])
    }

    fn new([authority, certificate, key]: [Source; 3]) -> Self {
        TlsBuilder {
            authority,
            certificate,
            key,
            lists: Vec::new(),
            clock: Arc::new(DefaultTimeProvider),
        }
    }

    /// A revocation list of the authority, in a PEM file. Can be given several times; [`Tls::reload`] reads it again.
    #[must_use]
    pub fn revocation_file(mut self, list: impl AsRef<Path>) -> Self {
        self.lists.push(Source::File(list.as_ref().to_owned()));
        self
    }

    /// By which clock certificates are judged; by default that of the system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn TimeProvider>) -> Self {
        self.clock = clock;
        self
    }

    /// Reads, checks and makes the identity.
    ///
    /// # Errors
    ///
    /// As for [`Tls::from_files`], and where a revocation list is malformed or not of a trusted authority.
    pub fn build(self) -> Result<Tls, TlsError> {
        let parts = Parts {
            authority: self.authority.piece(Part::Authority)?,
            certificate: self.certificate.piece(Part::Certificate)?,
            key: self.key.piece(Part::Key)?,
            lists: self
                .lists
                .iter()
                .map(|list| list.piece(Part::RevocationList))
                .collect::<Result<_, _>>()?,
            revoked: Vec::new(),
        };
        // Named, not taken from the process: a program whose tree has two providers has no default one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let now = self.clock.current_time().unwrap_or_else(UnixTime::now);
        let material = Material::new(&parts, &provider, now)?;
        log_warnings(&material);
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA512, b"graft identity secrets, version 1");
        let shared = Shared {
            name: material.name.clone(),
            provider,
            clock: self.clock,
            material: RwLock::new(Arc::new(material)),
            secrets: salt.extract(parts.key_bytes()?.secret_der()),
            parts: Mutex::new(parts),
            changes: watch::Sender::new(0),
        };
        Ok(Tls { shared: Arc::new(shared) })
    }
}

fn log_warnings(material: &Material) {
    for warning in &material.warnings {
        tracing::warn!(identity = %material.name, "{warning}");
    }
}

fn log_failure(error: &TlsError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "the certificates were not reloaded: the former ones stay in force");
}

fn unsupported(error: impl fmt::Display) -> TlsError {
    TlsError::Unsupported(error.to_string())
}
