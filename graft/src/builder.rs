//! How the servers of one process are started.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use graft_core::{ClusterId, Runtime, TokioRuntime};
use tokio::runtime::{Handle, Id};

use crate::{
    Config, Init, Machine, ServerName, StartError, Supervisor,
    adaptor::Adaptor,
    cluster::{CloseOnDrop, Cluster, ClusterParts, EntryType, Make, Scope, check_names},
    embedding::Embedding,
    registry,
    store::{LogStore, StoreError},
    transport::HubPort,
};

/// A cluster that is to be started in this process.
///
/// ```
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
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// let counter = graft::cluster(["server1", "server2", "server3"])
///     .config(graft::Config::default().deadline(Duration::from_secs(2)))
///     .start(Counter::default)
///     .await?;
/// assert_eq!(graft::request("server2", Add(5)).await?, 5);
/// counter.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a cluster runs once `start` is awaited"]
pub struct ClusterBuilder {
    servers: Vec<ServerName>,
    stores: Option<Box<OpenStore>>,
    config: Config,
}

pub(crate) type OpenStore =
    dyn Fn(&ServerName) -> Result<Box<dyn LogStore>, StoreError> + Send + Sync;

impl ClusterBuilder {
    pub(crate) fn new(servers: Vec<ServerName>) -> Self {
        Self { servers, stores: None, config: Config::default() }
    }

    /// How each server gets its store, instead of a new one in memory: see [`store`](crate::store). The closure
    /// runs once for each server; the store then lives as long as the cluster, through all restarts of
    /// the server.
    ///
    /// A store that only one can have open, as one on the disk, is free again when
    /// [`Supervisor::shutdown`] has returned: await it before starting a cluster on the same stores. Servers whose
    /// supervisor was only dropped keep theirs open until they have stopped, and a start that comes before
    /// that is refused because they are in use.
    ///
    /// ```
    /// # let cluster = graft::cluster(["server1"]);
    /// let cluster = cluster.stores(|_name| Ok(graft::store::memory()));
    /// # drop(cluster);
    /// ```
    pub fn stores(
        mut self,
        open: impl Fn(&ServerName) -> Result<Box<dyn LogStore>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        self.stores = Some(Box::new(open));
        self
    }

    /// The numbers by which the servers run.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Starts the servers. They are born together where their stores are empty; otherwise they go on
    /// from their logs. Returns when all run; a request made right after waits for the first leader.
    ///
    /// # Errors
    ///
    /// [`StartError`]. Nothing of what was begun is left running.
    pub fn start<M: Machine, K>(
        self,
        init: impl Init<M, K>,
    ) -> impl Future<Output = Result<Supervisor<M>, StartError>> + Send {
        let make: Box<Make> = Box::new(move || Ok(Box::new(Adaptor::new(init.init()?))));
        async move {
            let cluster = self.start_untyped(EntryType::of::<M::Entry>(), make).await?;
            Ok(Supervisor::new(cluster))
        }
    }

    async fn start_untyped(
        self,
        entry: EntryType,
        make: Box<Make>,
    ) -> Result<Arc<Cluster>, StartError> {
        let (home, runtime) = around_here()?;
        check_names(&self.servers)?;
        self.config.validate()?;
        let names: Vec<&str> = self.servers.iter().map(ServerName::as_str).collect();
        let cluster = Cluster::new(ClusterParts {
            members: self.servers.clone(),
            id: ClusterId::of(LOCAL, &names),
            scope: Scope::Process,
            config: self.config,
            entry,
            make,
            port: Arc::new(HubPort::new(&runtime)),
            runtime,
            servers: self.servers,
            embedding: Embedding::default(),
        })?;
        let cluster = Arc::new(cluster);
        // Until all is done, dropping this undoes what was done: also where the caller stops waiting.
        let begun = CloseOnDrop::new(Arc::clone(&cluster));
        cluster.keep(registry::claim(home, &cluster)?);
        cluster.open_stores(self.stores.as_deref())?;
        cluster.begin().await?;
        begun.disarm();
        Ok(cluster)
    }
}

/// The runtime around the caller, and what it is known by.
pub(crate) fn around_here() -> Result<(Id, Arc<dyn Runtime>), StartError> {
    let Ok(home) = Handle::try_current() else { return Err(StartError::NoRuntime) };
    let Some(runtime) = TokioRuntime::current() else { return Err(StartError::NoRuntime) };
    if !has_timers(&runtime) {
        return Err(StartError::NoTimers);
    }
    warn_of_abort();
    Ok((home.id(), Arc::new(runtime)))
}

/// The cluster name of everything that is started in one process.
const LOCAL: &str = "local";

/// tokio says by a panic alone that a runtime was built without timers; better here than in a server.
fn has_timers(runtime: &TokioRuntime) -> bool {
    let timer = catch_unwind(AssertUnwindSafe(|| runtime.sleep_until(runtime.now())));
    timer.is_ok()
}

/// Where a panic ends the process, no panic of a machine can be caught.
fn warn_of_abort() {
    if cfg!(panic = "abort") {
        tracing::warn!(
            "built with panic = \"abort\": an entry over which the machine panics ends this process, and every \
             process that replays it"
        );
    }
}

impl fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBuilder")
            .field("servers", &self.servers)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
