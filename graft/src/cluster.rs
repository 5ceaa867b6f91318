//! The servers of one process that belong together, without the types of their machine.

use std::{
    any::{TypeId, type_name},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use graft_client::Client;
use graft_core::{
    ClusterId, Index, Loaded, LogStore, Node, NodeId, Runtime, StateMachine, Transport,
    node::{Detail, Handle, HandleError, NodeParts, Observer, OpenError},
};
use graft_storage::MemoryStore;
use tokio::sync::watch;

use crate::{
    Config, Entry, InitError, RequestError, ServerData, ServerName, StartError, adaptor,
    builder::OpenStore,
    data::{Describe, LINES, ServerState},
    embedding::Embedding,
    founding::{self, Founder},
    members::{Announcer, Members},
    panics,
    registry::{ClusterClaim, Door, Owner},
    server::Server,
    supervision,
    transport::Port,
    wire,
};

/// All servers that one call of `start` started, and the way to them.
pub(crate) struct Cluster {
    servers: Vec<Server>,
    config: Config,
    id: ClusterId,
    entry: EntryType,
    make: Box<Make>,
    runtime: Arc<dyn Runtime>,
    port: Arc<dyn Port>,
    embedding: Embedding,
    client: Client,
    members: Arc<Members>,
    scope: Scope,
    /// The names in the registry, for as long as the cluster has them.
    claim: Mutex<Option<ClusterClaim>>,
    /// Whether it has been shut down.
    closed: watch::Sender<bool>,
}

/// Makes a machine in its first state.
pub(crate) type Make = dyn Fn() -> Result<Box<dyn StateMachine>, InitError> + Send + Sync;

/// What must be known of a type of entries.
pub(crate) struct EntryType {
    /// By which requests in this process are checked.
    pub(crate) id: TypeId,
    /// What it is called in errors.
    pub(crate) rust_name: &'static str,
    /// By which stores know it.
    pub(crate) name: String,
    pub(crate) version: u16,
    /// The form in which this build archives.
    pub(crate) format: u64,
    pub(crate) describe: Describe,
}

impl EntryType {
    pub(crate) fn of<E: Entry>() -> Self {
        Self {
            id: TypeId::of::<E>(),
            rust_name: type_name::<E>(),
            name: E::name(),
            version: E::VERSION,
            format: wire::format_fingerprint(),
            describe: adaptor::describe::<E>,
        }
    }
}

/// A node that is ready to run.
pub(crate) struct Opened {
    node: Node,
    handle: Handle,
    pub(crate) transport: Arc<dyn Transport>,
}

/// Where the servers of a cluster are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// All in this process.
    Process,
    /// One here, the others elsewhere: its network must be told where.
    Machines,
}

/// What a cluster is made of.
pub(crate) struct ClusterParts {
    /// Those of its servers that are to run here.
    pub(crate) servers: Vec<ServerName>,
    /// All of its servers.
    pub(crate) members: Vec<ServerName>,
    pub(crate) id: ClusterId,
    pub(crate) scope: Scope,
    pub(crate) config: Config,
    pub(crate) entry: EntryType,
    pub(crate) make: Box<Make>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) port: Arc<dyn Port>,
    pub(crate) embedding: Embedding,
}

impl Owner for Cluster {
    type Door = Door;

    fn door(&self) -> Door {
        Door::new(&self.client, &self.entry, self.config.max_entry_bytes)
    }
}

impl Cluster {
    pub(crate) fn new(parts: ClusterParts) -> Result<Self, StartError> {
        let ClusterParts {
            servers,
            members,
            id,
            scope,
            config,
            entry,
            make,
            runtime,
            port,
            embedding,
        } = parts;
        let client = Client::new(port.link(), Arc::clone(&runtime), config.for_client())
            .map_err(|error| config.refused_by_client(&error))?;
        Ok(Self {
            servers: servers.into_iter().map(Server::new).collect(),
            members: Arc::new(Members::new(members)),
            scope,
            config,
            id,
            entry,
            make,
            runtime,
            port,
            embedding,
            client,
            claim: Mutex::new(None),
            closed: watch::Sender::new(false),
        })
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) const fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    pub(crate) const fn port(&self) -> &Arc<dyn Port> {
        &self.port
    }

    pub(crate) const fn id(&self) -> ClusterId {
        self.id
    }

    pub(crate) const fn entry(&self) -> &EntryType {
        &self.entry
    }

    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(crate) fn server(&self, at: usize) -> &Server {
        &self.servers[at]
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.name() == name)
    }

    pub(crate) fn name_of(&self, node: NodeId) -> Option<ServerName> {
        self.members.name_of(node)
    }

    // -- Start -------------------------------------------------------------------------------------

    pub(crate) fn keep(&self, claim: ClusterClaim) {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim);
    }

    pub(crate) fn open_stores(&self, open: Option<&OpenStore>) -> Result<(), StartError> {
        for server in &self.servers {
            let store: Arc<dyn LogStore> = match open {
                None => Arc::new(MemoryStore::new()),
                Some(open) => Arc::new(open(server.name()).map_err(|source| {
                    let server = server.name().clone();
                    StartError::Store { server, place: None, source }
                })?),
            };
            server.set_store(store);
        }
        Ok(())
    }

    /// Founds the cluster where it is new, and starts all servers.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<(), StartError> {
        let founders: Vec<Founder<'_>> = self
            .servers
            .iter()
            .filter_map(|server| {
                let store = server.store()?;
                Some(Founder { name: server.name(), node: server.node(), store })
            })
            .collect();
        let is_new = founding::found(&founders, self.id, &self.entry, &*self.runtime).await?;
        let mut opened = Vec::with_capacity(self.servers.len());
        for at in 0..self.servers.len() {
            opened.push(self.open(at).await?);
        }
        for (at, opened) in opened.into_iter().enumerate() {
            self.launch(at, opened);
        }
        self.keep_alive();
        if is_new && let Some(first) = self.servers[0].handle() {
            // Nobody can lead yet, so nobody is disturbed: the first leader need not wait for a timeout. Where this
            // fails the timeouts elect one.
            let _ = first.campaign().await;
        }
        Ok(())
    }

    /// From now on the cluster lives until it is closed or its runtime ends.
    pub(crate) fn keep_alive(self: &Arc<Self>) {
        self.runtime.spawn(Box::pin(keep_names(Arc::clone(self))));
    }

    /// Makes server `at` ready to run.
    pub(crate) async fn open(&self, at: usize) -> Result<Opened, StartError> {
        let server = &self.servers[at];
        let name = || server.name().clone();
        let machine =
            self.make_machine().map_err(|source| StartError::Init { server: name(), source })?;
        let Some(store) = server.store() else {
            return Err(StartError::StoreClosed { server: name() });
        };
        let place = store.place();
        let transport: Arc<dyn Transport> = self.port.transport(server.node());
        let mut config = self.config.for_node(server.node(), self.id, self.runtime.random());
        self.embedding.tune(&mut config);
        let parts = NodeParts {
            config,
            store,
            transport: Arc::clone(&transport),
            machine,
            runtime: Arc::clone(&self.runtime),
            observer: self.observer(),
        };
        let (node, handle) = Node::open(parts).await.map_err(|error| match error {
            OpenError::Store(source) => StartError::Store { server: name(), place, source },
            other => StartError::Unusable { server: name(), reason: other.to_string() },
        })?;
        Ok(Opened { node, handle, transport })
    }

    fn observer(&self) -> Option<Box<dyn Observer>> {
        let own: Option<Box<dyn Observer>> = match self.scope {
            Scope::Process => None,
            Scope::Machines => {
                let (port, members) = (Arc::clone(&self.port), Arc::clone(&self.members));
                Some(Box::new(Announcer::new(port, members)))
            }
        };
        self.embedding.observer(own)
    }

    fn make_machine(&self) -> Result<Box<dyn StateMachine>, InitError> {
        // The closure is the user's: its panic is an error of this start like any other.
        catch_unwind(AssertUnwindSafe(|| (self.make)())).unwrap_or_else(|panic| {
            Err(InitError(format!("it panicked: {}", panics::message(&*panic)).into()))
        })
    }

    /// Gives server `at` a task of its own.
    pub(crate) fn launch(self: &Arc<Self>, at: usize, opened: Opened) {
        let (node, transport) = self.enter(at, opened);
        let task = supervision::supervise(Arc::clone(self), at, node, transport);
        self.runtime.spawn(Box::pin(task));
    }

    /// Counts a node as server `at`, whose task is about to run it.
    pub(crate) fn enter(self: &Arc<Self>, at: usize, opened: Opened) -> (Node, Arc<dyn Transport>) {
        let Opened { node, handle, transport } = opened;
        let status = handle.watch();
        let run = self.servers[at].on_start(&handle);
        let follow = supervision::follow(Arc::clone(self), at, run, status);
        self.runtime.spawn(Box::pin(follow));
        (node, transport)
    }

    // -- End ---------------------------------------------------------------------------------------

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(crate) fn watch_closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Frees the names: from now on nobody finds the cluster by them.
    pub(crate) fn free_names(&self) {
        let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(claim);
    }

    /// Says farewell to the other machines, and frees the address.
    pub(crate) async fn leave_network(&self) {
        self.port.close().await;
    }

    /// Ends everything without waiting for it: the names are free, the servers stop, and whoever waits
    /// for a response is told.
    pub(crate) fn close(&self) {
        self.free_names();
        for server in &self.servers {
            server.stop();
        }
        self.client.shutdown();
        self.closed.send_replace(true);
    }

    // -- Data --------------------------------------------------------------------------------------

    /// What server `at` is and has now.
    pub(crate) async fn data(&self, at: usize) -> Result<ServerData, RequestError> {
        let server = &self.servers[at];
        let mut state = None;
        if let Some(handle) = server.handle() {
            match handle.detail().await {
                Ok(mut detail) => {
                    self.lengthen(&mut detail, server).await;
                    let name = |node| self.name_of(node).unwrap_or_else(|| node.to_string().into());
                    state = Some(ServerState::new(&detail, self.entry.describe, name));
                }
                // It stopped meanwhile; its status says why.
                Err(HandleError::Stopped) => {}
                Err(HandleError::NoAnswer { waited }) => {
                    let outcome = graft_client::Outcome::NotApplied;
                    return Err(RequestError::Timeout { waited, outcome });
                }
                Err(_) => return Err(RequestError::Overloaded),
            }
        }
        Ok(ServerData {
            me: server.name().clone(),
            status: server.overview().status,
            servers: self.members.names(),
            machine: format!("{} version {}", self.entry.name, self.entry.version),
            state,
        })
    }

    /// Takes what is to be shown of the log, and is no longer in memory, from the store.
    async fn lengthen(&self, detail: &mut Detail, server: &Server) {
        /// Entries may be large, and this is only to be looked at.
        const MOST_BYTES: usize = 4 << 20;
        let Detail { raft, tail, .. } = detail;
        let shown = Index((raft.last.index.0 + 1).saturating_sub(LINES as u64));
        let first = shown.max(raft.compacted.index.next());
        let known = tail.first_index().unwrap_or(raft.durable.next());
        let Some(store) = server.store().filter(|_| first < known) else { return };
        let read = self.within(STORE_PATIENCE, store.read(first..known, MOST_BYTES)).await;
        let Some(Ok(Loaded::Entries(mut older))) = read else { return };
        // The server goes on meanwhile: what does not fit any more is not shown.
        let end = older.last_log_id().unwrap_or_default();
        let fits = tail.first().is_none_or(|next| {
            next.log_id.index == end.index.next() && next.log_id.term >= end.term
        });
        if fits {
            older.append(std::mem::take(tail));
            *tail = older;
        }
    }
}

/// How long a look into a store may take.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

/// Holds the cluster for as long as its runtime lives, so that its names are free when either ends.
async fn keep_names(cluster: Arc<Cluster>) {
    let mut closed = cluster.closed.subscribe();
    let _cluster = CloseOnDrop::new(cluster);
    // The sender lives in what is held here, so this ends only where it is told to.
    let _ = closed.wait_for(|closed| *closed).await;
}

/// Closes the cluster unless it is disarmed before.
pub(crate) struct CloseOnDrop(Option<Arc<Cluster>>);

impl CloseOnDrop {
    pub(crate) const fn new(cluster: Arc<Cluster>) -> Self {
        Self(Some(cluster))
    }

    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(cluster) = &self.0 {
            cluster.close();
        }
    }
}

pub(crate) fn check_names(servers: &[ServerName]) -> Result<(), StartError> {
    if servers.is_empty() {
        return Err(StartError::NoServers);
    }
    if let Some(at) = servers.iter().position(|name| name.as_str().is_empty()) {
        return Err(StartError::EmptyName { position: at + 1 });
    }
    for (at, name) in servers.iter().enumerate() {
        for other in &servers[..at] {
            if other == name {
                return Err(StartError::DuplicateName { name: name.clone() });
            }
            if NodeId::of_name(other.as_str()) == NodeId::of_name(name.as_str()) {
                let (one, other) = (other.clone(), name.clone());
                return Err(StartError::NameCollision { one, other });
            }
        }
    }
    Ok(())
}
