//! Those who keep no rules: connections made by hand.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use graft_core::{ClusterId, Epoch, Incarnation, NodeId};
use graft_transport::{
    quic::tls::{Alpn, SERVER_NAME, Tls},
    wire::v1::{Hello, Outgoing, Protocol, RefusalCode, Role, Schema, encode_hello},
};
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, SendStream, TokioRuntime};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};

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
    /// Kept open, and not read.
    receive: Option<quinn::RecvStream>,
    endpoint: Endpoint,
}

pub(crate) fn endpoint() -> Endpoint {
    endpoint_at(Ipv4Addr::LOCALHOST)
}

/// One at another address of this machine.
pub(crate) fn endpoint_at(address: Ipv4Addr) -> Endpoint {
    let socket = std::net::UdpSocket::bind((address, 0)).unwrap();
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
        Self { connection, send, receive: Some(receive), endpoint }
    }

    /// A server with the certificate of `name`, which has said nothing yet.
    pub(crate) async fn server(name: &str, to: SocketAddr) -> Self {
        let endpoint = endpoint();
        let tls = crate::common::server_tls(name);
        let connection = connect(&endpoint, &tls, Alpn::Peer, to).await.unwrap();
        let send = connection.open_uni().await.unwrap();
        Self { connection, send, receive: None, endpoint }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn hello(&mut self, hello: &Hello) {
        let bytes = frames(|outgoing| encode_hello(hello, outgoing).unwrap());
        self.write(&bytes).await;
    }

    /// From now on it reads whatever comes, as long as the result lives.
    pub(crate) fn read_all(&mut self) -> JoinSet<()> {
        let mut receive = self.receive.take().unwrap();
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            while let Ok(Some(_)) = receive.read_chunk(usize::MAX, true).await {}
        });
        reading
    }

    /// From now on it speaks from another address.
    pub(crate) fn rebind(&self) {
        self.endpoint.rebind(std::net::UdpSocket::bind(loopback()).unwrap()).unwrap();
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
        client: 0,
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

/// Answers at an address of its own with any certificate, on both protocols, and asks nobody for one. Handshakes go
/// on for as long as it lives.
pub(crate) struct Impostor {
    pub(crate) address: SocketAddr,
    _endpoint: Endpoint,
    handshakes: JoinHandle<()>,
}

impl Impostor {
    pub(crate) fn showing(issued: &Issued) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![issued.certificate.der().clone()];
        let key = issued.key_der.clone().try_into().unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"graft-peer/1".to_vec(), b"graft-client/1".to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = Endpoint::server(config, loopback()).unwrap();
        let listening = endpoint.clone();
        let handshakes = tokio::spawn(async move {
            while let Some(incoming) = listening.accept().await {
                // Whoever goes on after this has let itself be deceived.
                let _gone = incoming.await;
            }
        });
        Self { address: endpoint.local_addr().unwrap(), _endpoint: endpoint, handshakes }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.handshakes.abort();
    }
}

/// A certificate on any protocol, and no question who answers. Early data is sent wherever it can be.
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
    config.enable_early_data = true;
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
