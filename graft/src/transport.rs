//! How the servers of a cluster across machines reach each other, for
//! [`ServerBuilder::transport`](crate::ServerBuilder::transport).
//!
//! `quic` (with the feature `quic`) connects servers on different machines, and their clients elsewhere. [`memory`] connects servers of one
//! process, each of which is started by itself.
//!
//! To bring a network of your own, implement [`Network`] and [`Port`]: it gives each run of a server its
//! [`Transport`], and clients in the process their [`Link`]. `graft_transport::conformance` checks both against
//! what they promise.

#[cfg(feature = "quic")]
mod quic;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use graft_core::{ClusterId, Epoch, Incarnation, Membership, NodeId, Runtime, Term};
pub use graft_core::{Link, Transport};
use graft_transport::Hub;

#[cfg(feature = "quic")]
pub use quic::{Quic, QuicBounds, QuicTiming, quic};
#[cfg(feature = "quic")]
pub(crate) use quic::{frames, schema};

/// A network that one server is to join.
pub trait Network: Send + 'static {
    /// Joins it. Nothing arrives before the first [`Port::transport`] is attached.
    ///
    /// # Errors
    ///
    /// [`NetworkError`] where it cannot be this server's.
    fn open(self: Box<Self>, local: Local) -> Result<Arc<dyn Port>, NetworkError>;
}

/// The place of one server in its network, from before its store is born until after its last run.
#[async_trait]
pub trait Port: Send + Sync + 'static {
    /// The server's store is born, or was long ago: its peers know it by this.
    fn on_birth(&self, incarnation: Incarnation);

    /// A transport for the next run of the server `node`, which closes that of the run before.
    fn transport(&self, node: NodeId) -> Arc<dyn Transport>;

    /// A link for a client in this process.
    fn link(&self) -> Arc<dyn Link>;

    /// What the server now knows of its cluster: whom to reach where, and whom clients should ask. Called
    /// from the server's own task: it must be quick.
    fn on_view(&self, view: &View);

    /// Sends what waits, tells everybody that the server is gone, and frees what it holds. Returns soon
    /// even where nobody listens.
    async fn close(&self);
}

/// Whose network it is.
#[derive(Clone)]
#[non_exhaustive]
pub struct Local {
    /// The server's name.
    pub name: String,
    /// Its number.
    pub node: NodeId,
    /// The name of its cluster.
    pub cluster_name: String,
    /// Its cluster: name and founders.
    pub cluster: ClusterId,
    /// The cluster's generation.
    pub epoch: Epoch,
    /// The name of the entries its machine takes.
    pub machine: String,
    /// The highest version of these that this build knows.
    pub version: u16,
    /// The form in which it archives them.
    pub format: u64,
    /// The shortest time without a leader before it campaigns.
    pub election_timeout: Duration,
    /// The largest entry it takes, in bytes.
    pub max_entry_bytes: usize,
    /// The most bytes of entries in one message.
    pub max_batch_bytes: usize,
    /// Time and tasks.
    pub runtime: Arc<dyn Runtime>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("name", &self.name)
            .field("cluster", &self.cluster_name)
            .finish_non_exhaustive()
    }
}

/// What a server knows of its cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct View {
    /// Who belongs to it, and where each is reached.
    pub members: Arc<Membership>,
    /// Who leads, as far as is known.
    pub leader: Option<NodeId>,
    /// The server's term.
    pub term: Term,
}

/// Why a network cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct NetworkError {
    reason: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl NetworkError {
    /// An error in words.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), source: None }
    }

    /// An error with what caused it.
    #[must_use]
    pub fn with_source(
        reason: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { reason: reason.into(), source: Some(source.into()) }
    }
}

/// The network of servers that live in one process. Clones are the same network: give one to each server.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    hub: Arc<OnceLock<Hub>>,
}

/// A network for servers of this process, each of which is started by itself. It knows nobody outside.
#[must_use]
pub fn memory() -> Memory {
    Memory::default()
}

impl Network for Memory {
    fn open(self: Box<Self>, local: Local) -> Result<Arc<dyn Port>, NetworkError> {
        let Local { runtime, .. } = local;
        let hub = self.hub.get_or_init(|| Hub::new(Arc::clone(&runtime), runtime.random()));
        Ok(Arc::new(HubPort(hub.clone())))
    }
}

/// Servers at a hub: one, or all of a cluster in one process.
pub(crate) struct HubPort(Hub);

impl HubPort {
    pub(crate) fn new(runtime: &Arc<dyn Runtime>) -> Self {
        Self(Hub::new(Arc::clone(runtime), runtime.random()))
    }
}

#[async_trait]
impl Port for HubPort {
    // Births are told apart by the envelopes alone.
    fn on_birth(&self, _: Incarnation) {}

    fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(self.0.transport(node))
    }

    fn link(&self) -> Arc<dyn Link> {
        Arc::new(self.0.link())
    }

    // A hub finds everybody, and refusals tell its clients who leads.
    fn on_view(&self, _: &View) {}

    // What a transport of a hub has sent has arrived.
    async fn close(&self) {}
}
