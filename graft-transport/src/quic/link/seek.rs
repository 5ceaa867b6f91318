//! How a client finds its servers: one task for each address.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use graft_core::NodeId;
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{Shared, server};
use crate::quic::{
    dial::{self, STEADY},
    limits,
    peers::DONE,
    rates::Backoff,
    shared::is_set,
    tls::Alpn,
};

/// Keeps a task for each address until the link is dropped.
pub(super) async fn seek_all(shared: Arc<Shared>, endpoint: Endpoint) {
    let mut addresses = shared.addresses.subscribe();
    let mut closing = shared.closing.subscribe();
    let mut tasks = JoinSet::new();
    let mut by_address: BTreeMap<String, AbortHandle> = BTreeMap::new();
    loop {
        let wanted = addresses.borrow_and_update().clone();
        // One whose address is not wanted any more ends by itself, once it has no connection.
        by_address.retain(|_, task| !task.is_finished());
        for address in wanted {
            by_address.entry(address).or_insert_with_key(|address| {
                tasks.spawn(seek(Arc::clone(&shared), endpoint.clone(), address.clone()))
            });
        }
        tokio::select! {
            biased;
            () = is_set(&mut closing) => break,
            change = addresses.changed() => if change.is_err() {
                break;
            },
            Some(_) = tasks.join_next() => {}
        }
    }
    let farewell = shared.config.timing.farewell;
    // What waits is still sent, for a moment: a server ends its connection once it has read it.
    let rest = async { while tasks.join_next().await.is_some() {} };
    let in_order = timeout(farewell, rest).await.is_ok();
    tasks.shutdown().await;
    endpoint.close(DONE, b"");
    if in_order {
        // The link is over for whoever waits for that. QUIC remembers a connection for a while after both sides have
        // ended it, so as to know what comes late.
        drop((addresses, closing, shared));
    }
    let _in_time = timeout(farewell, endpoint.wait_idle()).await;
}

/// Keeps the connection with the server behind `address` up.
async fn seek(shared: Arc<Shared>, endpoint: Endpoint, address: String) {
    let mut closing = shared.closing.subscribe();
    let mut changes = shared.changes.subscribe();
    let timing = shared.config.timing;
    let mut backoff = Backoff::new(timing.backoff_min, timing.backoff_max);
    // Who was there last. It may be connected by another of its addresses.
    let mut known: Option<NodeId> = None;
    loop {
        changes.mark_unchanged();
        if *closing.borrow() || !shared.addresses.borrow().contains(&address) {
            return;
        }
        if known.is_some_and(|node| shared.is_connected(node)) {
            tokio::select! {
                biased;
                () = is_set(&mut closing) => return,
                _ = changes.changed() => {}
            }
            continue;
        }
        let connection = tokio::select! {
            biased;
            () = is_set(&mut closing) => return,
            connection = connect(&shared, &endpoint, &address) => connection,
        };
        let lived = match connection {
            Ok(connection) => {
                let ended = server::run(&shared, connection, &address).await;
                known = ended.node.or(known);
                ended.lived
            }
            Err(reason) => {
                shared.note(&address, reason);
                Duration::ZERO
            }
        };
        if lived >= STEADY {
            backoff.reset();
        }
        tokio::select! {
            biased;
            () = is_set(&mut closing) => return,
            () = sleep(backoff.pause()) => {}
        }
    }
}

async fn connect(
    shared: &Shared,
    endpoint: &Endpoint,
    address: &str,
) -> Result<Connection, String> {
    let timing = &shared.config.timing;
    let crypto = shared.tls.client_crypto(Alpn::Client, None).map_err(|error| error.to_string())?;
    let transport = limits::client_transport(timing).map_err(|error| error.to_string())?;
    let mut config = ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport));
    dial::connect(endpoint, &config, address, timing.dial).await
}
