//! How one server of a cluster across machines is started.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};

use graft_core::{
    ClusterId, Epoch, NodeId, Runtime,
    node::{NodeConfig, Observer},
};

use crate::{
    Config, FoundingProgress, Init, Machine, Server, ServerName, StartError,
    adaptor::Adaptor,
    birth::{Birthplace, OnWaiting},
    builder::around_here,
    cluster::{CloseOnDrop, Cluster, ClusterParts, EntryType, Make, Scope, check_names},
    embedding::Embedding,
    registry,
    store::LogStore,
    transport::{Local, Network},
};

/// The name of a cluster that was given none.
const UNNAMED: &str = "graft";

/// A server that is to be started, of a cluster whose other servers run elsewhere.
///
/// ```no_run
/// # #[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
/// # #[rkyv(crate = graft::rkyv)]
/// # struct Add(u64);
/// # impl graft::Entry for Add { type Response = u64; }
/// # #[derive(Default)]
/// # struct Counter(u64);
/// # impl graft::Machine for Counter {
/// #     type Entry = Add;
/// #     fn handle_entry(&mut self, Add(amount): Add) -> u64 { self.0 += amount; self.0 }
/// # }
/// # async fn run(network: graft::transport::Memory) -> Result<(), Box<dyn std::error::Error>> {
/// let server = graft::server("server1")
///     .cluster("counter")
///     .members([
///         ("server1", "10.0.0.1:4400"),
///         ("server2", "10.0.0.2:4400"),
///         ("server3", "10.0.0.3:4400"),
///     ])
///     .store(graft::store::redb("data/server1")?)
///     .transport(network)
///     .start(Counter::default)
///     .await?;
/// server.request(Add(5)).await?;
/// server.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server runs once `start` is awaited"]
pub struct ServerBuilder {
    name: ServerName,
    cluster: String,
    members: Vec<(ServerName, String)>,
    joins_at: Option<String>,
    store: Option<Box<dyn LogStore>>,
    network: Option<Box<dyn Network>>,
    config: Config,
    patience: Option<Duration>,
    on_waiting: Option<Box<OnWaiting>>,
    runtime: Option<Arc<dyn Runtime>>,
    embedding: Embedding,
}

impl ServerBuilder {
    pub(crate) fn new(name: ServerName) -> Self {
        Self {
            name,
            cluster: UNNAMED.to_owned(),
            members: Vec::new(),
            joins_at: None,
            store: None,
            network: None,
            config: Config::default(),
            patience: None,
            on_waiting: None,
            runtime: None,
            embedding: Embedding::default(),
        }
    }

    /// The name of its cluster, which certificates name too. Default `graft`.
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = name.into();
        self
    }

    /// The servers that found the cluster, this one among them, and the address at which each is reached by
    /// the others and by clients.
    ///
    /// All founders must be given the same names. They say it at every start; once the cluster is founded
    /// its members come from the log, and only the addresses here are still used, to find the others.
    pub fn members(
        mut self,
        members: impl IntoIterator<Item = (impl Into<ServerName>, impl Into<String>)>,
    ) -> Self {
        let members = members.into_iter();
        self.members = members.map(|(name, address)| (name.into(), address.into())).collect();
        self
    }

    /// Makes it join a cluster that others have founded: those that [`members`](Self::members) names, to which it
    /// does not belong. `address` is where it is reached itself.
    ///
    /// It starts at once, passes requests on, and takes part in nothing until a membership change names its
    /// store's birth: until then it gives no votes and asks for none. Say so at each of its starts.
    pub fn join(mut self, address: impl Into<String>) -> Self {
        self.joins_at = Some(address.into());
        self
    }

    /// Where it keeps its log: see [`store`](crate::store). It must be there again when the server is started
    /// again; a server that comes back without its store is refused by the others.
    pub fn store(mut self, store: Box<dyn LogStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// How it reaches the others and is reached by clients: see [`transport`](crate::transport).
    pub fn transport(mut self, network: impl Network) -> Self {
        self.network = Some(Box::new(network));
        self
    }

    /// The numbers by which it runs. They should be the same on all servers.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long the first start may wait for the other founders. Default: for as long as it takes, because
    /// they may be started by hand.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = Some(limit);
        self
    }

    /// Called on the first start, whenever something has changed about whom it waits for.
    pub fn on_waiting(mut self, tell: impl Fn(&FoundingProgress) + Send + Sync + 'static) -> Self {
        self.on_waiting = Some(Box::new(tell));
        self
    }

    /// Where it takes time and tasks from, instead of the tokio runtime of the caller: for those who embed
    /// it in a runtime or a simulator of their own. Its name is then known to nobody else in the
    /// process: ask it by [`Server::request`].
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Called before each run of the server, the restarts after a panic included, with the numbers that
    /// [`Config`] comes to: for those that have no place there. What is out of range refuses the start.
    pub fn tune(mut self, tune: impl Fn(&mut NodeConfig) + Send + Sync + 'static) -> Self {
        self.embedding.tune = Some(Box::new(tune));
        self
    }

    /// Makes an observer for each run of the server, which sees its state after every turn: the hook for
    /// invariants and metrics.
    pub fn observer(
        mut self,
        make: impl Fn() -> Box<dyn Observer> + Send + Sync + 'static,
    ) -> Self {
        self.embedding.observe = Some(Box::new(make));
        self
    }

    /// Starts the server. On the first start of the cluster that takes until all founders have met; later
    /// it goes on from its log, and returns whether or not the others are there.
    ///
    /// # Errors
    ///
    /// [`StartError`]. Nothing of what was begun is left running.
    pub fn start<M: Machine, K>(
        self,
        init: impl Init<M, K>,
    ) -> impl Future<Output = Result<Server<M>, StartError>> + Send {
        let make: Box<Make> = Box::new(move || Ok(Box::new(Adaptor::new(init.init()?))));
        async move {
            let cluster = self.start_untyped(EntryType::of::<M::Entry>(), make).await?;
            Ok(Server::new(cluster))
        }
    }

    async fn start_untyped(
        self,
        entry: EntryType,
        make: Box<Make>,
    ) -> Result<Arc<Cluster>, StartError> {
        let (home, runtime) = match self.runtime {
            Some(own) => (None, own),
            None => around_here().map(|(home, runtime)| (Some(home), runtime))?,
        };
        let names: Vec<ServerName> = self.members.iter().map(|(name, _)| name.clone()).collect();
        check_names(&names)?;
        match (names.contains(&self.name), &self.joins_at) {
            (true, None) | (false, Some(_)) => {}
            (false, None) => {
                return Err(StartError::NotAMember { server: self.name, members: names });
            }
            (true, Some(_)) => return Err(StartError::FounderJoins { server: self.name }),
        }
        let own = self.joins_at.iter().map(|address| (&self.name, address));
        let founders = self.members.iter().map(|(name, address)| (name, address));
        check_addresses(founders.chain(own))?;
        self.config.validate()?;
        let server = || self.name.clone();
        let store = self.store.ok_or_else(|| StartError::NoStore { server: server() })?;
        let network = self.network.ok_or_else(|| StartError::NoTransport { server: server() })?;
        let texts: Vec<&str> = names.iter().map(ServerName::as_str).collect();
        let id = ClusterId::of(&self.cluster, &texts);
        let local = local(&self.name, self.cluster, id, &self.config, &entry, &runtime);
        let port = network
            .open(local)
            .map_err(|source| StartError::Network { server: self.name.clone(), source })?;
        let cluster = Arc::new(Cluster::new(ClusterParts {
            servers: vec![self.name],
            members: names,
            id,
            scope: Scope::Machines,
            config: self.config,
            entry,
            make,
            runtime,
            port,
            embedding: self.embedding,
        })?);
        // Until all is done, dropping this undoes what was done: also where the caller stops waiting.
        let begun = CloseOnDrop::new(Arc::clone(&cluster));
        if let Some(home) = home {
            cluster.keep(registry::claim(home, &cluster)?);
        }
        cluster.server(0).set_store(store.into());
        let place = Birthplace {
            members: self.members,
            joins_at: self.joins_at,
            patience: self.patience,
            on_waiting: self.on_waiting,
        };
        if let Err(error) = cluster.begin_alone(place).await {
            cluster.leave_network().await;
            return Err(error);
        }
        begun.disarm();
        Ok(cluster)
    }
}

/// Two servers at one address would be taken for each other, and never meet.
fn check_addresses<'a>(
    servers: impl Iterator<Item = (&'a ServerName, &'a String)>,
) -> Result<(), StartError> {
    let mut names = BTreeMap::new();
    for (name, address) in servers {
        if let Some(one) = names.insert(address, name) {
            let (one, other, address) = (one.clone(), name.clone(), address.clone());
            return Err(StartError::DuplicateAddress { one, other, address });
        }
    }
    Ok(())
}

fn local(
    name: &ServerName,
    cluster_name: String,
    cluster: ClusterId,
    config: &Config,
    entry: &EntryType,
    runtime: &Arc<dyn Runtime>,
) -> Local {
    Local {
        name: name.to_string(),
        node: NodeId::of_name(name.as_str()),
        cluster_name,
        cluster,
        epoch: Epoch(0),
        machine: entry.name.clone(),
        version: entry.version,
        format: entry.format,
        election_timeout: *config.election_timeout.start(),
        max_entry_bytes: config.max_entry_bytes,
        max_batch_bytes: config.max_batch_bytes,
        runtime: Arc::clone(runtime),
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .field("members", &self.members)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
