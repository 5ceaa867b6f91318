//! Those who keep no rules: connections made by hand.

use std::{net::SocketAddr, sync::Arc};

use graft_core::{ClusterId, Epoch, Incarnation, NodeId};
use graft_transport::{
    quic::tls::{Alpn, SERVER_NAME, Tls},
    wire::v1::{Hello, Outgoing, Protocol, RefusalCode, Role, Schema, encode_hello},
};
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, SendStream, TokioRuntime};
use tokio::time::timeout;

use rustls::{
    DigitallySignedStruct,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    authority::Issued,
    common::{PATIENCE, client_tls, config, loopback},
};

/// A connection whose other side does what a test says.
pub(crate) struct Raw {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    /// Kept open.
    _receive: Option<quinn::RecvStream>,
    _endpoint: Endpoint,
}

pub(crate) fn endpoint() -> Endpoint {
    let socket = std::net::UdpSocket::bind(loopback()).unwrap();
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(EndpointConfig::default(), None, socket, runtime).unwrap()
}

pub(crate) async fn connect(
    endpoint: &Endpoint,
    tls: &Tls,
    alpn: Alpn,
    to: SocketAddr,
) -> Result<Connection, ConnectionError> {
    let crypto = tls.client_crypto(alpn, None).unwrap();
    let config = quinn::ClientConfig::new(crypto);
    let connecting = endpoint.connect_with(config, to, SERVER_NAME).unwrap();
    timeout(PATIENCE, connecting).await.expect("the handshake ends in time")
}

impl Raw {
    /// A client with a certificate of its own, which has said nothing yet.
    pub(crate) async fn client(to: SocketAddr) -> Self {
        let endpoint = endpoint();
        let tls = client_tls("mallory");
        let connection = connect(&endpoint, &tls, Alpn::Client, to).await.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        Self { connection, send, _receive: Some(receive), _endpoint: endpoint }
    }

    /// A server with the certificate of `name`, which has said nothing yet.
    pub(crate) async fn server(name: &str, to: SocketAddr) -> Self {
        let endpoint = endpoint();
        let tls = crate::common::server_tls(name);
        let connection = connect(&endpoint, &tls, Alpn::Peer, to).await.unwrap();
        let send = connection.open_uni().await.unwrap();
        Self { connection, send, _receive: None, _endpoint: endpoint }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn hello(&mut self, hello: &Hello) {
        let bytes = frames(|outgoing| encode_hello(hello, outgoing).unwrap());
        self.write(&bytes).await;
    }

    /// Waits until the server ends the connection with this code.
    pub(crate) async fn ends_with(&self, code: RefusalCode) {
        let end = timeout(PATIENCE, self.connection.closed()).await.expect("it is ended in time");
        let ConnectionError::ApplicationClosed(close) = &end else {
            panic!("ended by {end}, not refused");
        };
        let found = RefusalCode::from_number(u64::from(close.error_code).try_into().unwrap());
        assert_eq!(found, code, "{end}");
    }
}

/// What a client says that keeps the rules.
pub(crate) fn client_hello() -> Hello {
    Hello {
        cluster: ClusterId(0),
        protocol: Protocol::OWN,
        role: Role::Client,
        epoch: Epoch(0),
        node: NodeId(0),
        name: "mallory".into(),
        incarnation: Incarnation(0),
        client: 1,
        machine: String::new(),
        format: 0,
        schema: Schema::default(),
        max_entry_bytes: 1,
        max_frame_bytes: 1,
        max_reply_bytes: 1,
        election_timeout: std::time::Duration::ZERO,
    }
}

/// What the server `name` says that keeps the rules.
pub(crate) fn server_hello(name: &str) -> Hello {
    Hello {
        cluster: config(name).cluster,
        role: Role::Server,
        node: NodeId::of_name(name),
        name: name.into(),
        ..client_hello()
    }
}

/// The bytes of what `write` appends.
pub(crate) fn frames(write: impl FnOnce(&mut Outgoing)) -> Vec<u8> {
    let mut outgoing = Outgoing::new();
    write(&mut outgoing);
    outgoing.chunks().iter().flat_map(|chunk| chunk.to_vec()).collect()
}

/// A certificate on any protocol, and no question who answers.
pub(crate) fn anything_goes(issued: &Issued, alpn: &[u8]) -> quinn::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Arc::new(Credulous(Arc::clone(&provider)));
    let chain = vec![issued.certificate.der().clone()];
    let key = issued.key_der.clone();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(trust)
        .with_client_auth_cert(chain, key.try_into().unwrap())
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    quinn::ClientConfig::new(Arc::new(crypto))
}

/// Believes everyone.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
