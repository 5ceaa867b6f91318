//! The limits of the QUIC library, set on purpose, in one place; and which ones are left as it has them, and why.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    EndpointConfig, IdleTimeout, TransportConfig, VarInt, VarIntBoundsExceeded,
    crypto::ServerConfig as CryptoServerConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::{config::Timing, tls::Tls};

/// What the kernel is asked to buffer in each direction: bursts at full speed were lost at its default of
/// about 200 KiB, and none at this.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What may be on its way in one stream. Enough for 40 MB/s at a round trip of 100 ms, and for any speed
/// within a site. What a writer has put into a stream stays in memory until the other side has it, so this
/// also bounds what a peer that has stopped can hold here, a stream.
pub(super) const STREAM_WINDOW: u32 = 4 << 20;

/// What may be on its way in all streams of a peer: those of the three classes at once, and then as much
/// again. Were it smaller, a snapshot or an append that is stuck could use up what votes and heartbeats
/// need.
const PEER_WINDOW: u32 = 4 * STREAM_WINDOW;

/// What a server may have on its way to a client, and a client that sends much to a server before that has read it. Far
/// below a peer's: there are many clients.
const CLIENT_WINDOW: u32 = 1 << 20;

/// The same where it yields to one that asks for little, or is refused again and again: what comes at once is unpacked at once, and
/// whoever asks meanwhile waits for that.
const YIELDING_CLIENT_WINDOW: u32 = 256 << 10;

/// What any client may have on its way to a server before that has read it: a thousand of them can put down 32 MiB. It
/// is as much as a few hundred small requests, and [`Begun`](super::begun::Begun) gives more where more comes.
const NARROW_WINDOW: u32 = 32 << 10;

/// How many streams the other side may open: a peer has one for each of its three classes.
pub(super) const PEER_STREAMS: u32 = 3;
/// A client has one stream, in both directions.
const CLIENT_STREAMS: u32 = 1;

/// How many connection attempts may wait to be looked at. They are looked at at once, so more than this is
/// an attack.
const MAX_INCOMING: usize = 1024;
/// What each of them may have sent meanwhile: a first flight has some 5 KiB at most.
const INCOMING_BYTES: u64 = 16 << 10;
/// What all of them may have sent.
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// The handshake messages of a few certificates: a chain of three has some 3 KiB.
const CRYPTO_BUFFER_BYTES: usize = 32 << 10;

/// How long a proof of one's address holds. It is used in the next packet.
const RETRY_LIFETIME: Duration = Duration::from_secs(5);

/// The one version of QUIC that is spoken, by its number on the wire.
const QUIC_V1: u32 = 1;

/// How often at most a stranger is told that nobody here knows its connection. It is how a restarted server
/// is noticed, so it must be fast; it must not answer floods packet by packet.
const RESET_INTERVAL: Duration = Duration::from_millis(5);

/// The settings of a server's endpoint. Its keys are the same at every start of this server: what a peer
/// still holds of a connection with an earlier process is then answered with a reset that it believes, and
/// it reconnects at once instead of waiting for its idle timeout.
pub(super) fn endpoint_config(tls: &Tls) -> EndpointConfig {
    let reset = tls.secret(b"graft quic stateless reset");
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &reset);
    let mut config = EndpointConfig::new(Arc::new(reset));
    let [a, b, c, d, e, f, g, h, ..] = tls.secret(b"graft quic connection ids");
    let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)))
        .min_reset_interval(RESET_INTERVAL)
        // Nobody here speaks the drafts that came before it.
        .supported_versions(vec![QUIC_V1]);
    config
}

/// The settings of a server for those who connect to it. Whether it is a peer or a client shows only once
/// the handshake is over: until then all have the narrow limits of clients.
pub(super) fn server_config(
    crypto: Arc<dyn CryptoServerConfig>,
    timing: &Timing,
) -> Result<quinn::ServerConfig, VarIntBoundsExceeded> {
    let mut transport = transport_config(timing)?;
    transport
        .receive_window(VarInt::from_u32(NARROW_WINDOW))
        .send_window(u64::from(CLIENT_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(CLIENT_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(PEER_STREAMS));
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport))
        // Servers stay where they are, and a client that moves connects anew: an address that changes under
        // a connection is nothing that anybody here needs, and one more thing to abuse.
        .migration(false)
        .retry_token_lifetime(RETRY_LIFETIME)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    // No tokens for later connections: connections live long, and a token is a thing to keep.
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    config.validation_token_config(tokens);
    Ok(config)
}

/// The settings of a server that connects to a peer.
pub(super) fn peer_transport(timing: &Timing) -> Result<TransportConfig, VarIntBoundsExceeded> {
    let mut transport = transport_config(timing)?;
    transport
        .receive_window(VarInt::from_u32(PEER_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(PEER_STREAMS));
    Ok(transport)
}

/// The settings of a client that connects to a server.
pub(super) fn client_transport(timing: &Timing) -> Result<TransportConfig, VarIntBoundsExceeded> {
    let mut transport = transport_config(timing)?;
    // What a server answers is never more than what was asked for, and it is read at once.
    transport
        .receive_window(VarInt::from_u32(PEER_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    Ok(transport)
}

/// Widens the limits of one who connected and has shown to be a peer.
pub(super) fn widen_for_peer(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(PEER_WINDOW));
    connection.set_send_window(u64::from(PEER_WINDOW));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
}

/// Sends a peer something that it acknowledges at once: a window that is a byte wider, once.
pub(super) fn ask_for_sign_of_life(connection: &quinn::Connection) {
    connection.set_receive_window(VarInt::from_u32(PEER_WINDOW + 1));
    connection.set_receive_window(VarInt::from_u32(PEER_WINDOW));
}

/// Widens the window of a client that sends much, less so where it yields to others.
pub(super) fn widen_for_client(connection: &quinn::Connection, yields: bool) {
    let window = if yields { YIELDING_CLIENT_WINDOW } else { CLIENT_WINDOW };
    connection.set_receive_window(VarInt::from_u32(window));
}

/// Lets a client with a narrow window send so much more, once.
pub(super) fn allow_more(connection: &quinn::Connection, bytes: usize) {
    let more = u32::try_from(bytes).unwrap_or(u32::MAX - NARROW_WINDOW);
    // What it was let send beyond its window is not let send again when it was read.
    connection.set_receive_window(VarInt::from_u32(NARROW_WINDOW.saturating_add(more)));
    connection.set_receive_window(VarInt::from_u32(NARROW_WINDOW));
}

fn transport_config(timing: &Timing) -> Result<TransportConfig, VarIntBoundsExceeded> {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(u64::from(PEER_WINDOW))
        // Streams have priorities; among equals the one that came first is done first.
        .send_fairness(false)
        // One that is silent for so long is taken for dead; what is sent to it until then is lost.
        .max_idle_timeout(Some(IdleTimeout::try_from(timing.idle_timeout)?))
        // Three of these may be lost before that.
        .keep_alive_interval(Some(timing.idle_timeout / 4))
        // Servers are near each other. A guess of 333 ms would repeat a lost first packet after a second.
        .initial_rtt(Duration::from_millis(20))
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        // Everything here is a stream.
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        // Nobody on the way needs to know the round trip times.
        .allow_spin(false);
    // The search for the largest packet (up to the 1,472 bytes that an Ethernet carries, which is also the most that
    // is received), the congestion control, and how often is acknowledged are as the library has them: what was
    // tried instead was slower, or fell back with stalls.
    Ok(transport)
}

/// A socket with wide buffers. The address is never shared with another socket: two servers at one address
/// would each get half of the packets.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Where the system cannot do both, IPv6 alone is what was asked for.
        let _only_v6 = socket.set_only_v6(false);
    }
    socket.bind(&address.into())?;
    // The kernel gives what its own limit allows, and less is slower, not wrong.
    for outcome in [
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES),
    ] {
        if let Err(error) = outcome {
            tracing::debug!(%error, "the socket keeps its buffers as they are");
        }
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
