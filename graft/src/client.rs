//! A client of servers on other machines.

use std::{
    fmt, future::Future, future::poll_fn, io, marker::PhantomData, pin::pin, sync::Arc, task::Poll,
    time::Duration,
};

use graft_core::{NodeId, Runtime};
use graft_transport::quic::{ConnectError as LinkError, LinkConfig, Members, QuicLink};
use tokio::sync::watch;

use crate::{
    Config, ConfigError, Entry, Request, ServerName, StartError, Tls, builder::around_here,
    tls::TlsError, transport, wire,
};

/// How long telling the servers that the client is gone may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// A client of a cluster on other machines, for requests of type `E`. Clones share it.
///
/// It needs to know one of the servers that are up: from that it learns of all others, keeps a connection with each,
/// and follows the leader and the membership as they change. Many tasks can ask at once; a request is sent again, to
/// whoever leads, until its deadline, and is applied at most once.
///
/// Dropping the last clone ends it, and [`shutdown`](Self::shutdown) waits until the servers have heard of that.
///
/// ```no_run
/// # #[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
/// # #[rkyv(crate = graft::rkyv)]
/// # struct Add(u64);
/// # impl graft::Entry for Add { type Response = u64; }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = graft::Tls::from_files("certs/ca.pem", "certs/client.pem", "certs/client-key.pem")?;
/// let client = graft::Client::connect(["10.0.0.2:4400"], tls).await?;
/// let sum = client.request(Add(5)).await?;
/// client.shutdown().await;
/// # let _ = sum;
/// # Ok(())
/// # }
/// ```
pub struct Client<E: Entry> {
    client: graft_client::Client,
    members: watch::Receiver<Option<Members>>,
    runtime: Arc<dyn Runtime>,
    max_entry_bytes: usize,
    entry: PhantomData<fn(E)>,
}

impl<E: Entry> Client<E> {
    /// Connects to the cluster that these addresses belong to, and returns once a server is connected. Each is
    /// a host name or an IP address, and a port; any of the cluster's servers will do, and one that is down does
    /// no harm.
    ///
    /// `tls` is the client's identity: a certificate of the cluster's own authority, as `graft certs` makes it.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; it waits at most 5 seconds.
    pub fn connect(
        addresses: impl IntoIterator<Item = impl Into<String>>,
        tls: Tls,
    ) -> impl Future<Output = Result<Self, ConnectError>> + Send {
        Self::builder().connect(addresses, tls)
    }

    /// A client with other numbers than the usual ones.
    pub fn builder() -> ClientBuilder<E> {
        ClientBuilder { config: Config::default(), patience: None, entry: PhantomData }
    }

    /// Asks the machine: the request reaches the leader wherever that is, and is answered once a majority has it. Like
    /// [`graft::request`](crate::request()), from another process.
    #[expect(clippy::needless_pass_by_value, reason = "an entry is sent, and it is gone then")]
    pub fn request(&self, entry: E) -> Request<E> {
        Request::by(&self.client, self.max_entry_bytes, &entry)
    }

    /// The servers of the cluster, as they were last heard of.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerName> {
        let members = self.members.borrow();
        let nodes = members.as_ref().map(|members| members.membership.nodes.values());
        nodes.into_iter().flatten().map(|info| ServerName::from(info.name.as_str())).collect()
    }

    /// The server that leads, as it was last heard of.
    #[must_use]
    pub fn leader(&self) -> Option<ServerName> {
        let members = self.members.borrow();
        let Members { leader, membership, .. } = members.as_ref()?;
        let leader: NodeId = (*leader)?;
        membership.nodes.get(&leader).map(|info| ServerName::from(info.name.as_str()))
    }

    /// Ends the client for all clones: open requests end as [`Shutdown`](crate::RequestError::Shutdown). Returns when
    /// the servers were told and the connections are closed, or after 3 seconds; clones that are kept hold
    /// the connections open so long.
    pub async fn shutdown(self) {
        let Self { client, mut members, runtime, .. } = self;
        client.shutdown();
        drop(client);
        let mut alarm = runtime.sleep_until(runtime.now().saturating_add(FAREWELL));
        // The sender goes with the last task of the link.
        let ended = async { while members.changed().await.is_ok() {} };
        let mut ended = pin!(ended);
        poll_fn(|context| {
            if ended.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            alarm.as_mut().poll(context)
        })
        .await;
    }
}

impl<E: Entry> Clone for Client<E> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            members: self.members.clone(),
            runtime: Arc::clone(&self.runtime),
            max_entry_bytes: self.max_entry_bytes,
            entry: PhantomData,
        }
    }
}

impl<E: Entry> fmt::Debug for Client<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("servers", &self.servers())
            .field("leader", &self.leader())
            .finish_non_exhaustive()
    }
}

/// A [`Client`] that is to be connected.
#[must_use = "a client is there once `connect` is awaited"]
pub struct ClientBuilder<E: Entry> {
    config: Config,
    patience: Option<Duration>,
    entry: PhantomData<fn(E)>,
}

impl<E: Entry> ClientBuilder<E> {
    /// The numbers by which the servers run: of them the deadline, the largest entry and the election timeout count
    /// for clients.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long connecting may wait for the first server. Default: as long as a request may take,
    /// [`Config::deadline`](field@Config::deadline).
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = Some(limit);
        self
    }

    /// Connects, as [`Client::connect`] does.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect(
        self,
        addresses: impl IntoIterator<Item = impl Into<String>>,
        tls: Tls,
    ) -> impl Future<Output = Result<Client<E>, ConnectError>> + Send {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        async move {
            let (_, runtime) = around_here().map_err(ConnectError::of_start)?;
            let Self { config, patience, .. } = self;
            config.validate()?;
            let link = LinkConfig {
                machine: E::name(),
                format: wire::format_fingerprint(),
                schema: transport::schema(E::VERSION),
                frames: transport::frames(config.max_entry_bytes, config.max_batch_bytes),
                ..LinkConfig::default()
            };
            let link = QuicLink::connect(addresses, tls, link, Arc::clone(&runtime))
                .map_err(ConnectError::of_link)?;
            let link = Arc::new(link);
            let members = link.members();
            let client = graft_client::Client::new(
                Arc::clone(&link) as Arc<dyn graft_core::Link>,
                Arc::clone(&runtime),
                config.for_client(),
            );
            let client = client.map_err(|error| config.refused_by_client(&error))?;
            let patience = patience.unwrap_or(config.deadline);
            link.ready(patience).await.map_err(ConnectError::of_link)?;
            let max_entry_bytes = config.max_entry_bytes;
            Ok(Client { client, members, runtime, max_entry_bytes, entry: PhantomData })
        }
    }
}

impl<E: Entry> fmt::Debug for ClientBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("config", &self.config)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// Why a client has no cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address was given.
    #[error("no address of a server was given: give at least one, like `10.0.0.2:4400`")]
    NoAddress,
    /// Not called from within a tokio runtime.
    #[error(
        "a client runs on a tokio runtime and there is none here: call this inside `#[tokio::main]`, `#[tokio::test]` or `Runtime::block_on`"
    )]
    NoRuntime,
    /// The tokio runtime has no timers.
    #[error(
        "the tokio runtime around this call has no timers: build it with `enable_time` or `enable_all`"
    )]
    NoTimers,
    /// A value of the configuration is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client's own certificates cannot be used.
    #[error("the client's certificates cannot be used")]
    Tls(#[source] Box<TlsError>),
    /// No socket could be had.
    #[error("the system gives this process no UDP socket")]
    Socket(#[source] io::Error),
    /// No server was reached in time.
    #[error("no server was reached in {waited:?}: {reasons}")]
    Unreachable {
        /// How long was waited.
        waited: Duration,
        /// What was in the way, for each address.
        reasons: String,
    },
    /// Something else is in the way.
    #[error("the client cannot connect: {reason}")]
    Other {
        /// What it is.
        reason: String,
    },
}

impl ConnectError {
    fn of_start(error: StartError) -> Self {
        match error {
            StartError::NoRuntime => Self::NoRuntime,
            StartError::NoTimers => Self::NoTimers,
            other => Self::Other { reason: other.to_string() },
        }
    }

    fn of_link(error: LinkError) -> Self {
        match error {
            LinkError::NoAddress => Self::NoAddress,
            LinkError::NoRuntime => Self::NoRuntime,
            LinkError::Bind(source) => Self::Socket(source),
            LinkError::Tls(source) => Self::Tls(source.into()),
            LinkError::Unreachable { waited, reasons } => Self::Unreachable { waited, reasons },
            other => Self::Other { reason: crate::error::with_causes(&other) },
        }
    }
}
