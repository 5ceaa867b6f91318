//! Those who connect to this server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use graft_core::LinkId;
use quinn::{Connection, Endpoint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use super::{
    client, limits,
    peer::{self, Side},
    rates::{Leave, Rates},
    shared::{Shared, Way, is_set},
    stream::{End, describe},
    tls::{self, Alpn},
};
use crate::wire::v1::{Refusal, RefusalCode};

/// Takes in connections until the network closes, and then waits for those that are there.
pub(super) async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    let bounds = shared.config.bounds;
    let mut door = Door {
        rates: Rates::new(bounds.handshakes_per_second, bounds.handshake_burst),
        handshakes: Arc::new(Semaphore::new(bounds.handshakes)),
        links: Arc::default(),
        connections: JoinSet::new(),
    };
    let mut closing = shared.closing.subscribe();
    loop {
        tokio::select! {
            biased;
            () = is_set(&mut closing) => break,
            Some(_) = door.connections.join_next() => {}
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => door.admit(&shared, incoming),
                None => break,
            },
        }
    }
    endpoint.set_server_config(None);
    while door.connections.join_next().await.is_some() {}
}

struct Door {
    rates: Rates,
    handshakes: Arc<Semaphore>,
    links: Arc<AtomicU64>,
    connections: JoinSet<()>,
}

impl Door {
    /// Begins a handshake, unless there are too many.
    fn admit(&mut self, shared: &Arc<Shared>, incoming: quinn::Incoming) {
        let counters = &shared.counters;
        let bounds = &shared.config.bounds;
        let under_way = bounds.handshakes - self.handshakes.available_permits();
        let is_proven = incoming.remote_address_validated();
        let leave = if under_way >= bounds.unproven_handshakes && !is_proven {
            Leave::Unproven
        } else {
            self.rates.ask(incoming.remote_address().ip(), is_proven, Instant::now())
        };
        match leave {
            Leave::Granted => {}
            Leave::Unproven => {
                counters.retries.add(1);
                // It may always be retried where the address is not validated.
                let _retried = incoming.retry();
                return;
            }
            Leave::Refused => {
                counters.handshakes_limited.add(1);
                incoming.refuse();
                return;
            }
        }
        let Ok(permit) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            counters.handshakes_limited.add(1);
            incoming.refuse();
            return;
        };
        counters.handshakes.add(1);
        let task = welcome(Arc::clone(shared), incoming, permit, Arc::clone(&self.links));
        self.connections.spawn(task);
    }
}

/// Runs a connection from its first packet to its end.
async fn welcome(
    shared: Arc<Shared>,
    incoming: quinn::Incoming,
    permit: OwnedSemaphorePermit,
    links: Arc<AtomicU64>,
) {
    let address = incoming.remote_address();
    let connection = match handshake(&shared, incoming).await {
        Ok(connection) => connection,
        Err(error) => {
            shared.counters.handshakes_failed.add(1);
            shared.say("a handshake failed", &address.ip().to_string(), &error);
            return;
        }
    };
    let certified = match shared.tls.certified_peer(&connection) {
        Ok(certified) => certified,
        Err(error) => {
            let end = End::Refuse(uncertified(&error));
            shared.conclude(Way::Client, &connection, &address.ip().to_string(), &end);
            return;
        }
    };
    match certified.alpn() {
        Alpn::Peer => {
            limits::widen_for_peer(&connection);
            peer::run(&shared, connection, certified, Side::Called, Some(permit)).await;
        }
        Alpn::Client => {
            let link = LinkId(links.fetch_add(1, Ordering::Relaxed) + 1);
            client::run(&shared, connection, certified, link, permit).await;
        }
    }
}

async fn handshake(shared: &Shared, incoming: quinn::Incoming) -> Result<Connection, String> {
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    match timeout(shared.config.timing.handshake, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err(format!("it took longer than {:?}", shared.config.timing.handshake)),
    }
}

/// The refusal of one whose certificate is not what its protocol takes.
fn uncertified(error: &tls::Refusal) -> Refusal {
    let code = match error {
        tls::Refusal::WrongRole { .. } => RefusalCode::WrongRole,
        tls::Refusal::WrongServer { .. } => RefusalCode::WrongServer,
        tls::Refusal::WrongCluster { .. } => RefusalCode::WrongCluster,
        _ => RefusalCode::Revoked,
    };
    Refusal { code, text: error.to_string() }
}

/// Ends the connections of those whose certificates are not valid any more. Who connects is checked by what
/// is known then.
pub(super) async fn watch_certificates(shared: Arc<Shared>) {
    let mut changed = shared.tls.changed();
    let mut closing = shared.closing.subscribe();
    loop {
        tokio::select! {
            biased;
            () = is_set(&mut closing) => return,
            change = changed.changed() => if change.is_err() {
                return;
            },
            // Certificates also expire while nothing changes.
            () = tokio::time::sleep(std::time::Duration::from_secs(60)) => {}
        }
        let is_over =
            |certified: &_| shared.tls.still_valid(certified).err().map(|error| error.to_string());
        shared.peers.close_where(is_over);
        shared.clients.close_where(is_over);
    }
}
