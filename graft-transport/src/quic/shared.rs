//! What all tasks of a network share.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use graft_core::{Incarnation, NodeId, Runtime};
use quinn::Connection;
use tokio::sync::watch;

use super::{
    agreement,
    clients::Clients,
    config::NetworkConfig,
    gate::Gate,
    peers::{DONE, Peers},
    rates::Said,
    stats::Counters,
    stream::{self, End},
    tls::Tls,
    versions::Versions,
};
use crate::wire::v1::{Hello, Protocol, Refusal, RefusalCode, Role};

/// How often the same is said of the same at most.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// What all tasks of a network share.
pub(super) struct Shared {
    pub(super) config: NetworkConfig,
    pub(super) node: NodeId,
    /// The incarnation, zero while it is not known.
    pub(super) incarnation: AtomicU64,
    /// A number that this process has drawn.
    process: u64,
    pub(super) tls: Tls,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) gate: Gate,
    pub(super) peers: Peers,
    pub(super) clients: Clients,
    pub(super) counters: Counters,
    pub(super) versions: Versions,
    /// Whether the network is closing.
    pub(super) closing: watch::Sender<bool>,
    said: Mutex<Said<(&'static str, String)>>,
    /// In what each peer differs from this server, as far as that was said.
    differences: Mutex<BTreeMap<NodeId, String>>,
}

/// What a connection was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Peer,
    Client,
}

impl Way {
    const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Client => "client",
        }
    }
}

impl Shared {
    pub(super) fn new(config: NetworkConfig, tls: Tls, runtime: Arc<dyn Runtime>) -> Self {
        let incarnation = config.incarnation.unwrap_or_default();
        Self {
            node: NodeId::of_name(&config.name),
            incarnation: AtomicU64::new(incarnation.0),
            clients: Clients::new(&config.bounds),
            peers: Peers::default(),
            gate: Gate::default(),
            counters: Counters::default(),
            versions: Versions::default(),
            closing: watch::Sender::new(false),
            said: Mutex::new(Said::new(SAY_AGAIN)),
            differences: Mutex::default(),
            config,
            tls,
            // Zero says nothing.
            process: runtime.random().max(1),
            runtime,
        }
    }

    /// What this server says of itself now.
    pub(super) fn hello(&self) -> Hello {
        let config = &self.config;
        let limit = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Hello {
            cluster: config.cluster,
            protocol: Protocol::OWN,
            role: Role::Server,
            epoch: config.epoch,
            node: self.node,
            name: config.name.clone(),
            incarnation: Incarnation(self.incarnation.load(Ordering::Relaxed)),
            client: self.process,
            machine: config.machine.clone(),
            format: config.format,
            schema: config.schema,
            max_entry_bytes: limit(config.frames.max_entry_bytes()),
            max_frame_bytes: limit(config.frames.max_frame_bytes()),
            max_reply_bytes: limit(config.frames.max_reply_bytes()),
            election_timeout: config.election_timeout,
        }
    }

    /// Whether the same was not said of the same a moment ago.
    fn may_say(&self, what: &'static str, of: &str) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.may_say((what, of.to_owned()), Instant::now())
    }

    /// Warns of something, once in a while for each `what` and `of`.
    pub(super) fn say(&self, what: &'static str, of: &str, error: &dyn fmt::Display) {
        if self.may_say(what, of) {
            tracing::warn!(node = self.config.name, of, %error, "{what}");
        }
    }

    /// Warns that two processes of one name are connected, each with a birth of its own.
    pub(super) fn say_births(&self, came: &Hello, other: Incarnation) {
        let text = format!(
            "it came with birth {}, and one of its name with birth {other} is connected: its disk was emptied, or \
             another process uses its name",
            came.incarnation
        );
        self.say("a peer is there twice", &came.name, &text);
    }

    /// Tells who came, of one that comes again and again once in a while.
    pub(super) fn say_up(&self, way: Way, name: &str, address: SocketAddr) {
        if !self.may_say("connected", &format!("{} {name}", way.word())) {
            return;
        }
        let node = &self.config.name;
        match way {
            Way::Peer => {
                tracing::info!(node, peer = name, %address, "a peer is connected");
            }
            Way::Client => {
                tracing::debug!(node, client = name, %address, "a client is connected");
            }
        }
    }

    /// Warns of what should be the same on both sides and is not: once for each peer, and again when it
    /// differs otherwise.
    pub(super) fn compare(&self, theirs: &Hello) {
        let found = agreement::differences(&self.hello(), theirs);
        let mut known = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(text) = found else {
            known.remove(&theirs.node);
            return;
        };
        // One peer more than may be connected has made room for another one before.
        if known.len() > self.config.bounds.peers {
            known.clear();
        }
        if known.get(&theirs.node) == Some(&text) {
            return;
        }
        self.counters.differing_peers.add(1);
        tracing::warn!(
            node = self.config.name,
            peer = theirs.name,
            "the settings of a peer differ: {text}"
        );
        known.insert(theirs.node, text);
    }

    /// Who stops in order takes its leave: that is news, and nothing is wrong.
    fn say_stopped(&self, way: Way, name: &str, refusal: &Refusal, address: SocketAddr) {
        if self.may_say("stopped", name) {
            let (node, way, said) = (&self.config.name, way.word(), &refusal.text);
            tracing::info!(node, way, name, %address, said, "a connection is over in order");
        }
    }

    /// Counts and says how a connection ended, and makes sure that it has.
    pub(super) fn conclude(&self, way: Way, connection: &Connection, name: &str, end: &End) {
        let address = connection.remote_address();
        match end {
            End::Refuse(refusal) => {
                stream::close(connection, refusal);
                if refusal.code == RefusalCode::Closing {
                    return;
                }
                self.counters.count_refused(&stream::label(refusal.code));
                let what = match way {
                    Way::Peer => "a peer is refused",
                    Way::Client => "a client is refused",
                };
                self.say(
                    what,
                    &format!("{name}: {}", stream::label(refusal.code)),
                    &format_args!("{refusal} ({address})"),
                );
            }
            End::Refused(refusal) => {
                connection.close(DONE, b"");
                self.counters.count_refused_by_other(&stream::label(refusal.code));
                if refusal.code == RefusalCode::Closing {
                    self.say_stopped(way, name, refusal, address);
                    return;
                }
                let what = match way {
                    Way::Peer => "refused by a peer",
                    Way::Client => "refused by a client",
                };
                self.say(
                    what,
                    &format!("{name}: {}", stream::label(refusal.code)),
                    &format_args!("{refusal} ({address})"),
                );
            }
            End::Lost(error) => {
                if self.may_say("lost", name) {
                    let (way, error) = (way.word(), stream::describe(error));
                    let node = &self.config.name;
                    tracing::info!(node, way, name, %address, error, "a connection is over");
                }
            }
            End::Stopped => connection.close(DONE, b""),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Ends at `moment`, or never.
pub(super) async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Ends once a flag is set, or nobody can set it any more.
pub(super) async fn is_set(flag: &mut watch::Receiver<bool>) {
    drop(flag.wait_for(|flag| *flag).await);
}
