//! What happened so far, in numbers.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use graft_core::Class;

/// What a [`Network`](super::Network) did since it was bound.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Peers that are connected now.
    pub peers: usize,
    /// Clients that are connected now.
    pub clients: usize,
    /// Connections to and from peers that came to an agreement.
    pub peers_connected: u64,
    /// Connections of clients that came to an agreement.
    pub clients_connected: u64,
    /// Attempts to reach a peer, whatever came of them.
    pub dials: u64,
    /// Connections that were refused here, by the cause as its refusal is called.
    pub refused: BTreeMap<String, u64>,
    /// Connections that the other side refused, by the cause as its refusal is called.
    pub refused_by_others: BTreeMap<String, u64>,
    /// Messages to peers that were dropped because too much waits for that peer, by class.
    pub dropped: [u64; Class::ALL.len()],
    /// Messages to peers that were dropped because that peer is not connected.
    pub unreachable: u64,
    /// Messages and requests that the server's inbox refused, by class.
    pub refused_by_inbox: [u64; Class::ALL.len()],
    /// Messages and requests that arrived while no run of the server was there.
    pub unattended: u64,
    /// Messages of a peer in another one's name, or for another server.
    pub misaddressed: u64,
    /// How often a client's requests had to wait before they were let in, because too much of what it asked, or of what
    /// all clients did, was not answered yet.
    pub waits_of_clients: u64,
    /// How often a client was not listened to for a while, because it was refused again and again.
    pub rests_of_clients: u64,
    /// Replies to clients that are not there any more.
    pub unwanted_replies: u64,
    /// Replies that were larger than they may be. Their clients were told so instead.
    pub oversized_replies: u64,
    /// Clients that were disconnected because they do not read their replies.
    pub slow_clients: u64,
    /// Peers that were found to have another election timeout or other limits than this server: one for each
    /// peer, and again whenever what it says has changed.
    pub differing_peers: u64,
    /// Handshakes that were begun here by others.
    pub handshakes: u64,
    /// Handshakes that failed, or took too long. Among them: certificates that are not trusted.
    pub handshakes_failed: u64,
    /// Handshakes not begun because their address began too many, or too many are under way.
    pub handshakes_limited: u64,
    /// Senders that were asked to prove their address first.
    pub retries: u64,
    /// Bytes of frames written to streams.
    pub bytes_sent: u64,
    /// Bytes of frames read from streams.
    pub bytes_received: u64,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The numbers as they are counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) peers_connected: Counter,
    pub(super) clients_connected: Counter,
    pub(super) dials: Counter,
    pub(super) dropped: [Counter; Class::ALL.len()],
    pub(super) unreachable: Counter,
    pub(super) refused_by_inbox: [Counter; Class::ALL.len()],
    pub(super) unattended: Counter,
    pub(super) misaddressed: Counter,
    pub(super) waits_of_clients: Counter,
    pub(super) rests_of_clients: Counter,
    pub(super) unwanted_replies: Counter,
    pub(super) oversized_replies: Counter,
    pub(super) slow_clients: Counter,
    pub(super) differing_peers: Counter,
    pub(super) handshakes: Counter,
    pub(super) handshakes_failed: Counter,
    pub(super) handshakes_limited: Counter,
    pub(super) retries: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) bytes_received: Counter,
    refused: Mutex<BTreeMap<String, u64>>,
    refused_by_others: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    pub(super) fn count_refused(&self, cause: &str) {
        count(&self.refused, cause);
    }

    pub(super) fn count_refused_by_other(&self, cause: &str) {
        count(&self.refused_by_others, cause);
    }

    /// The numbers of this moment, with how many are connected now.
    pub(super) fn snapshot(&self, peers: usize, clients: usize) -> Stats {
        let by_class =
            |counters: &[Counter; Class::ALL.len()]| counters.each_ref().map(Counter::read);
        Stats {
            peers,
            clients,
            peers_connected: self.peers_connected.read(),
            clients_connected: self.clients_connected.read(),
            dials: self.dials.read(),
            refused: causes(&self.refused),
            refused_by_others: causes(&self.refused_by_others),
            dropped: by_class(&self.dropped),
            unreachable: self.unreachable.read(),
            refused_by_inbox: by_class(&self.refused_by_inbox),
            unattended: self.unattended.read(),
            misaddressed: self.misaddressed.read(),
            waits_of_clients: self.waits_of_clients.read(),
            rests_of_clients: self.rests_of_clients.read(),
            unwanted_replies: self.unwanted_replies.read(),
            oversized_replies: self.oversized_replies.read(),
            slow_clients: self.slow_clients.read(),
            differing_peers: self.differing_peers.read(),
            handshakes: self.handshakes.read(),
            handshakes_failed: self.handshakes_failed.read(),
            handshakes_limited: self.handshakes_limited.read(),
            retries: self.retries.read(),
            bytes_sent: self.bytes_sent.read(),
            bytes_received: self.bytes_received.read(),
        }
    }
}

/// Causes are names of this build, so there are few of them.
fn count(causes: &Mutex<BTreeMap<String, u64>>, cause: &str) {
    let mut causes = causes.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(count) = causes.get_mut(cause) {
        *count += 1;
    } else {
        causes.insert(cause.to_owned(), 1);
    }
}

fn causes(causes: &Mutex<BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    causes.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
