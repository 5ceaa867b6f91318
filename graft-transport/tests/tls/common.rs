//! Two endpoints that meet, and a clock that a test sets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use graft_transport::certs::{Authority, Issued};
use graft_transport::quic::tls::{
    Alpn, HandshakeRefused, Refusal, SERVER_NAME, Tls, TlsBuilder, TlsError,
};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, ServerConfig};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use tokio::time::timeout;

pub(crate) const DAY: u64 = 86_400;

/// A bound for what must come; no test waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(second)
}

/// A clock that shows what a test sets.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn showing(second: u64) -> Arc<Self> {
        Arc::new(Clock(AtomicU64::new(second)))
    }

    pub(crate) fn set(&self, second: u64) {
        self.0.store(second, Ordering::SeqCst);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let second = Duration::from_secs(self.0.load(Ordering::SeqCst));
        Some(UnixTime::since_unix_epoch(second))
    }
}

pub(crate) fn builder(authority: &str, issued: &Issued) -> TlsBuilder {
    TlsBuilder::from_pem(
        authority.as_bytes(),
        issued.certificate_pem().as_bytes(),
        issued.key_pem().as_bytes(),
    )
}

pub(crate) fn server(authority: &Authority, name: &str) -> Tls {
    let issued = authority.server(name).unwrap();
    builder(authority.certificate_pem(), &issued).build().unwrap()
}

pub(crate) fn client(authority: &Authority, name: &str) -> Tls {
    let issued = authority.client(name).unwrap();
    builder(authority.certificate_pem(), &issued).build().unwrap()
}

/// Accepts by the rules.
pub(crate) fn accepting(tls: &Tls) -> ServerConfig {
    ServerConfig::with_crypto(tls.server_crypto().unwrap())
}

/// Dials by the rules.
pub(crate) fn dialing(tls: &Tls, alpn: Alpn, expected: Option<&str>) -> ClientConfig {
    ClientConfig::new(tls.client_crypto(alpn, expected).unwrap())
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Both ends of one connection, and what keeps them alive.
pub(crate) struct Met {
    pub(crate) dialer: Result<Connection, ConnectionError>,
    pub(crate) acceptor: Result<Connection, ConnectionError>,
    _endpoints: [Endpoint; 2],
}

/// An endpoint that answers.
pub(crate) fn listen(config: ServerConfig) -> Endpoint {
    Endpoint::server(config, loopback()).unwrap()
}

/// One dials, the other accepts.
pub(crate) async fn meet(acceptor: ServerConfig, dialer: ClientConfig) -> Met {
    meet_at(&listen(acceptor), dialer).await
}

/// As [`meet`], where the acceptor is there already.
pub(crate) async fn meet_at(listening: &Endpoint, dialer: ClientConfig) -> Met {
    let calling = Endpoint::client(loopback()).unwrap();
    let address = listening.local_addr().unwrap();
    let connecting = calling.connect_with(dialer, address, SERVER_NAME).unwrap();
    let accepted = async { listening.accept().await.unwrap().await };
    let (dialer, acceptor) =
        timeout(PATIENCE, async { tokio::join!(connecting, accepted) }).await.unwrap();
    Met { dialer, acceptor, _endpoints: [listening.clone(), calling] }
}

impl Met {
    pub(crate) fn both(self) -> (Connection, Connection, [Endpoint; 2]) {
        (self.dialer.unwrap(), self.acceptor.unwrap(), self._endpoints)
    }

    /// The words with which the acceptor refused the dialer, which hears the same.
    pub(crate) async fn refused_by_acceptor(self) -> String {
        let said = self.acceptor.unwrap_err();
        // A dialer's handshake is over before the acceptor has seen its certificate.
        let heard = match self.dialer {
            Ok(connection) => timeout(PATIENCE, connection.closed()).await.unwrap(),
            Err(error) => error,
        };
        same_words(&said, &heard)
    }

    /// The words with which the dialer refused the acceptor, which hears the same.
    pub(crate) async fn refused_by_dialer(self) -> String {
        let said = self.dialer.unwrap_err();
        let heard = match self.acceptor {
            Ok(connection) => timeout(PATIENCE, connection.closed()).await.unwrap(),
            Err(error) => error,
        };
        same_words(&said, &heard)
    }
}

fn same_words(said: &ConnectionError, heard: &ConnectionError) -> String {
    let Some(HandshakeRefused::Here(said)) = HandshakeRefused::of(said) else {
        panic!("not refused here: {said}");
    };
    let Some(HandshakeRefused::There(heard)) = HandshakeRefused::of(heard) else {
        panic!("not refused there: {heard}");
    };
    assert_eq!(said, heard);
    said
}

/// Every word is in the text.
#[track_caller]
pub(crate) fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

/// The text of an error and of what is behind it.
pub(crate) fn chain(error: &TlsError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Why one's own certificate is of no use.
pub(crate) fn own_refusal(error: TlsError) -> Refusal {
    match error {
        TlsError::OwnCertificate { source, .. } => *source,
        other => panic!("{other}"),
    }
}
