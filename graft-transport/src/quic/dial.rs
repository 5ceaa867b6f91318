//! How a server reaches a peer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use graft_core::NodeId;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::{
    net::lookup_host,
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    limits,
    network::PeerPlace,
    peer::{self, Side},
    rates::Backoff,
    shared::{Shared, is_set},
    stream::describe,
    tls::{Alpn, SERVER_NAME},
};

/// A connection that lived for so long was a success: the next attempt is made at once.
pub(super) const STEADY: Duration = Duration::from_secs(1);

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

/// Keeps the connection with `node` up until its place is gone or the network closes. A peer of a lower number calls by
/// itself, and is called only where it has not for a while: it may not know where this server is.
pub(super) async fn dial(
    shared: Arc<Shared>,
    endpoint: Endpoint,
    node: NodeId,
    mut place: watch::Receiver<PeerPlace>,
) {
    let mut closing = shared.closing.subscribe();
    let mut changes = shared.peers.changes.subscribe();
    let timing = shared.config.timing;
    let mut backoff = Backoff::new(timing.backoff_min, timing.backoff_max);
    let next_turn = || Instant::now() + turn_after(node < shared.node, timing.await_call);
    let mut turn = next_turn();
    loop {
        if place.has_changed().is_err() {
            return;
        }
        let to = place.borrow_and_update().clone();
        changes.mark_unchanged();
        let left = turn.saturating_duration_since(Instant::now());
        let pause = if shared.peers.is_connected(node) {
            turn = next_turn();
            None
        } else if !left.is_zero() {
            Some(left)
        } else {
            let run = reach(&shared, &endpoint, node, &to);
            let lived = tokio::select! {
                biased;
                lived = run => lived,
                // Only an attempt is given up for another place; a connection stays.
                () = is_elsewhere(&mut place, &shared, node) => Duration::ZERO,
                () = closes_apart(&mut closing, &shared, node) => return,
            };
            if lived >= STEADY {
                backoff.reset();
                turn = next_turn();
            }
            Some(backoff.pause())
        };
        tokio::select! {
            biased;
            () = is_set(&mut closing) => return,
            change = place.changed() => if change.is_err() {
                return;
            },
            _ = changes.changed(), if pause.is_none() || !left.is_zero() => {}
            () = sleep(pause.unwrap_or(timing.backoff_max)) => {}
        }
    }
}

/// How long to wait for a peer to call first. Never the same for two who lost each other together.
fn turn_after(is_called_by: bool, patience: Duration) -> Duration {
    if is_called_by { patience.mul_f64(1.0 + fastrand::f64() / 2.0) } else { Duration::ZERO }
}

/// Ends once the network closes while the peer is not connected. One that is ends in order.
async fn closes_apart(closing: &mut watch::Receiver<bool>, shared: &Shared, node: NodeId) {
    is_set(closing).await;
    if shared.peers.is_connected(node) {
        std::future::pending::<()>().await;
    }
}

/// Ends once the peer has another place, or none, while it is not connected.
async fn is_elsewhere(place: &mut watch::Receiver<PeerPlace>, shared: &Shared, node: NodeId) {
    loop {
        let is_gone = place.changed().await.is_err();
        if !shared.peers.is_connected(node) {
            return;
        }
        if is_gone {
            std::future::pending::<()>().await;
        }
    }
}

/// Connects to a peer and runs the connection. Returns for how long both sides agreed.
async fn reach(
    shared: &Arc<Shared>,
    endpoint: &Endpoint,
    node: NodeId,
    place: &PeerPlace,
) -> Duration {
    shared.counters.dials.add(1);
    let connected = connect_peer(shared, endpoint, place).await;
    let connection = match connected {
        Ok(connection) => connection,
        Err(error) => {
            shared.say("a peer cannot be reached", &place.name, &error);
            return Duration::ZERO;
        }
    };
    match shared.tls.certified_peer(&connection) {
        Ok(certified) => peer::run(shared, connection, certified, Side::Caller(node), None).await,
        Err(error) => {
            shared.say("a peer cannot be reached", &place.name, &error);
            peer::hang_up(&connection);
            Duration::ZERO
        }
    }
}

async fn connect_peer(
    shared: &Shared,
    endpoint: &Endpoint,
    place: &PeerPlace,
) -> Result<Connection, String> {
    let timing = &shared.config.timing;
    let crypto = shared
        .tls
        .client_crypto(Alpn::Peer, Some(&place.name))
        .map_err(|error| error.to_string())?;
    let transport = limits::peer_transport(timing).map_err(|error| error.to_string())?;
    let mut config = ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    connect(endpoint, &config, &place.address, timing.dial).await
}

/// Looks an address up and connects to the first that answers.
pub(super) async fn connect(
    endpoint: &Endpoint,
    config: &ClientConfig,
    address: &str,
    patience: Duration,
) -> Result<Connection, String> {
    let found = timeout(patience, lookup_host(address)).await;
    let found: Vec<SocketAddr> = match found {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect(),
        Ok(Err(error)) => return Err(format!("{address} cannot be looked up: {error}")),
        Err(_) => return Err(format!("looking {address} up took longer than {patience:?}")),
    };
    let mut last = format!("{address} has no address that this socket reaches");
    for address in found {
        let connecting = match endpoint.connect_with(config.clone(), address, SERVER_NAME) {
            Ok(connecting) => connecting,
            Err(error) => {
                last = format!("{address}: {error}");
                continue;
            }
        };
        match timeout(patience, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = format!("{address}: {}", describe(&error)),
            Err(_) => last = format!("{address} did not answer in {patience:?}"),
        }
    }
    Err(last)
}
