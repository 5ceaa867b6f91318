//! Sockets and connections of the baseline over QUIC: the library, the certificates and the limits are
//! graft's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use graft_transport::quic::tls::{Alpn, SERVER_NAME, Tls};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig,
    VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::disk::Error;

/// What graft asks of the kernel.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What graft lets be on its way in a stream, from a peer, and from a client.
const STREAM_WINDOW: u32 = 4 << 20;
const PEER_WINDOW: u32 = 4 * STREAM_WINDOW;
const CLIENT_WINDOW: u32 = 1 << 20;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Other {
    /// A server.
    Peer,
    /// A client, or whom a client calls.
    Client,
}

/// A socket of one's own that takes in connections.
pub(super) fn listen(tls: &Tls, from: Other) -> Result<Endpoint, Error> {
    let mut config = quinn::ServerConfig::with_crypto(tls.server_crypto()?);
    let window = match from {
        Other::Peer => PEER_WINDOW,
        Other::Client => CLIENT_WINDOW,
    };
    let mut transport = transport()?;
    transport.receive_window(VarInt::from_u32(window)).send_window(window.into());
    config.transport_config(Arc::new(transport)).migration(false);
    endpoint(Some(config))
}

/// A socket of one's own that takes in none.
pub(super) fn call_only() -> Result<Endpoint, Error> {
    endpoint(None)
}

/// Calls a server: `name`, where the caller is one, too.
pub(super) async fn call(
    endpoint: &Endpoint,
    tls: &Tls,
    address: SocketAddr,
    name: Option<&str>,
) -> Result<Connection, Error> {
    let alpn = if name.is_some() { Alpn::Peer } else { Alpn::Client };
    let mut config = ClientConfig::new(tls.client_crypto(alpn, name)?);
    let mut transport = transport()?;
    transport.receive_window(VarInt::from_u32(PEER_WINDOW)).send_window(PEER_WINDOW.into());
    config.transport_config(Arc::new(transport));
    Ok(endpoint.connect_with(config, address, SERVER_NAME)?.await?)
}

/// Takes in one connection.
pub(super) async fn answer(endpoint: &Endpoint) -> Result<Connection, Error> {
    Ok(endpoint.accept().await.ok_or("the socket is closed")?.await?)
}

fn endpoint(config: Option<quinn::ServerConfig>) -> Result<Endpoint, Error> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(EndpointConfig::default(), config, socket.into(), runtime)?)
}

fn transport() -> Result<TransportConfig, Error> {
    const IDLE_TIMEOUT: Duration = Duration::from_millis(2500);
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_fairness(false)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT)?))
        .keep_alive_interval(Some(IDLE_TIMEOUT / 4))
        .initial_rtt(Duration::from_millis(20))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .allow_spin(false);
    Ok(transport)
}
