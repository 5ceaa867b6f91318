//! graft's own driver: three `Node`s, asked through one `Client`, by channels or over QUIC.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use graft_client::{Client, ClientConfig, HEADER_BYTES, RequestOptions};
use graft_core::{
    Command, CommandCheck, Incarnation, Link, LogStore, Membership, Node, NodeId, NodeInfo,
    RestoreError, Runtime, SnapshotSource, SnapshotStream, StateMachine, TokioRuntime, Transport,
    Undecodable,
    node::{Handle, NodeConfig, NodeParts},
    raft,
};
use graft_storage::{MemoryStore, RedbStore};
use graft_transport::{
    Hub,
    quic::{LinkConfig, Members, Network, NetworkConfig, PeerPlace, QuicLink},
};
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

use super::loopback::Certificates;
use crate::{Caller, Deployment, Failure, Workload, disk, samples};

const NAMES: [&str; 3] = ["server1", "server2", "server3"];

/// Longer than any election.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asked under a session: no request is ever applied twice. This is what graft does by itself.
pub(super) struct NodeSession(Cluster);

/// Asked without a session: what openraft does.
pub(super) struct NodePlain(Cluster);

impl Deployment for NodeSession {
    const NAME: &'static str = "graft Node, exactly once";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        Cluster::found(Self::NAME, work.payload, memory, hub).await.map(Self)
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        self.0.asker(RequestOptions::new(0)).await
    }

    async fn close(self) {
        self.0.close().await;
    }
}

impl Deployment for NodePlain {
    const NAME: &'static str = "graft Node, idempotent";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        Cluster::found(Self::NAME, work.payload, memory, hub).await.map(Self)
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        self.0.asker(RequestOptions::new(0).idempotent()).await
    }

    async fn close(self) {
        self.0.close().await;
    }
}

/// Asked under a session over QUIC.
pub(super) struct QuicNode(Cluster);

impl Deployment for QuicNode {
    const NAME: &'static str = "graft Node over QUIC, exactly once";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        Cluster::found(Self::NAME, work.payload, memory, quic).await.map(Self)
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        self.0.asker(RequestOptions::new(0)).await
    }

    async fn close(self) {
        self.0.close().await;
    }
}

/// Asked under a session, with every log on the disk.
pub(super) struct NodeOnDisk(OnDisk);

impl Deployment for NodeOnDisk {
    const NAME: &'static str = "graft Node on redb, exactly once";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        OnDisk::found(Self::NAME, work.payload, hub).await.map(Self)
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        self.0.cluster.asker(RequestOptions::new(0)).await
    }

    async fn close(self) {
        self.0.close().await;
    }
}

/// Asked under a session over QUIC, with every log on the disk.
pub(super) struct QuicNodeOnDisk(OnDisk);

impl Deployment for QuicNodeOnDisk {
    const NAME: &'static str = "graft Node over QUIC, on redb, exactly once";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        OnDisk::found(Self::NAME, work.payload, quic).await.map(Self)
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        self.0.cluster.asker(RequestOptions::new(0)).await
    }

    async fn close(self) {
        self.0.close().await;
    }
}

/// A cluster, and where its logs are.
struct OnDisk {
    cluster: Cluster,
    directory: TempDir,
}

impl OnDisk {
    async fn found(
        contender: &'static str,
        payload: usize,
        net: impl FnOnce(&Arc<dyn Runtime>) -> Result<Net, disk::Error>,
    ) -> Result<Self, Failure> {
        let directory = disk::scratch().map_err(|error| Failure::of(contender, error))?;
        let open = |name: &str| -> Result<Arc<dyn LogStore>, disk::Error> {
            Ok(Arc::new(RedbStore::open(directory.path().join(name))?))
        };
        let cluster = Cluster::found(contender, payload, open, net).await?;
        Ok(Self { cluster, directory })
    }

    async fn close(self) {
        self.cluster.close().await;
        drop(self.directory);
    }
}

fn memory(_name: &str) -> Result<Arc<dyn LogStore>, disk::Error> {
    Ok(Arc::new(MemoryStore::new()))
}

fn hub(runtime: &Arc<dyn Runtime>) -> Result<Net, disk::Error> {
    Ok(Net::Hub(Hub::new(Arc::clone(runtime), 0)))
}

fn quic(runtime: &Arc<dyn Runtime>) -> Result<Net, disk::Error> {
    let certificates = Certificates::new()?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |name| -> Result<Network, disk::Error> {
        let config = NetworkConfig::new(name, samples::CLUSTER);
        Ok(Network::bind(any, config, certificates.server(name)?, Arc::clone(runtime))?)
    };
    let networks = NAMES.into_iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    let places = NAMES.iter().zip(&networks).map(|(name, network)| {
        let address = network.local_addr().to_string();
        (network.node(), PeerPlace { name: (*name).to_owned(), address })
    });
    let places: BTreeMap<_, _> = places.collect();
    networks.iter().for_each(|network| network.set_peers(places.clone()));
    Ok(Net::Quic { networks, certificates })
}

/// What is between the servers, and between them and their client.
enum Net {
    Hub(Hub),
    Quic { networks: Vec<Network>, certificates: Certificates },
}

impl Net {
    fn transport(&self, node: NodeId) -> Option<Arc<dyn Transport>> {
        match self {
            Self::Hub(hub) => Some(Arc::new(hub.transport(node))),
            Self::Quic { networks, .. } => {
                let network = networks.iter().find(|network| network.node() == node)?;
                Some(Arc::new(network.transport()))
            }
        }
    }

    /// A way for a client, and what ends with it.
    async fn link(
        &self,
        runtime: &Arc<dyn Runtime>,
    ) -> Result<(Arc<dyn Link>, Option<End>), disk::Error> {
        let (networks, certificates) = match self {
            Self::Hub(hub) => return Ok((Arc::new(hub.link()), None)),
            Self::Quic { networks, certificates } => (networks, certificates),
        };
        let addresses = networks.iter().map(|network| network.local_addr().to_string());
        let (tls, config) = (certificates.client()?, LinkConfig::default());
        let link = QuicLink::connect(addresses, tls, config, Arc::clone(runtime))?;
        link.ready(PATIENCE).await?;
        let end = link.members();
        Ok((Arc::new(link), Some(end)))
    }
}

/// Its sender goes with the last task of a link.
type End = watch::Receiver<Option<Members>>;

/// A task that sends requests by a client it shares with all others, as the tasks of a program do.
#[derive(Clone)]
pub(super) struct Asker {
    contender: &'static str,
    client: Client,
    options: RequestOptions,
    payload: usize,
    end: Option<End>,
}

impl Caller for Asker {
    async fn call(&mut self) -> Result<(), Failure> {
        let answer = match self.payload {
            0 => self.client.request([0_u8; HEADER_BYTES], self.options).await,
            bytes => self.client.request(vec![0xA5; HEADER_BYTES + bytes], self.options).await,
        };
        answer.map(drop).map_err(|error| Failure::of(self.contender, error))
    }

    async fn leave(self) {
        let Self { client, end, .. } = self;
        client.shutdown();
        drop(client);
        if let Some(mut end) = end {
            let ended = async { while end.changed().await.is_ok() {} };
            // What does not end in time goes with its runtime.
            let _ = timeout(PATIENCE, ended).await;
        }
    }
}

struct Cluster {
    contender: &'static str,
    payload: usize,
    handles: Vec<Handle>,
    net: Net,
}

impl Cluster {
    async fn found(
        contender: &'static str,
        payload: usize,
        store: impl Fn(&str) -> Result<Arc<dyn LogStore>, disk::Error>,
        net: impl FnOnce(&Arc<dyn Runtime>) -> Result<Net, disk::Error>,
    ) -> Result<Self, Failure> {
        let runtime = current(contender)?;
        let net = net(&runtime).map_err(|error| Failure::of(contender, error))?;
        let founding = Membership::of_voters(NAMES.map(|name| {
            let (name, incarnation) = (name.to_owned(), Incarnation(1));
            (NodeId::of_name(&name), NodeInfo { name, incarnation, ..NodeInfo::default() })
        }));
        let mut handles = Vec::new();
        for name in NAMES {
            let store = store(name).map_err(|error| Failure::of(contender, error))?;
            let handle = start(name, store, &founding, &net, &runtime).await;
            handles.push(handle.map_err(|error| Failure::of(contender, error))?);
        }
        let first = handles[0].campaign().await;
        first.map_err(|error| Failure::of(contender, error))?;
        for handle in &handles {
            let mut status = handle.watch();
            let led = status.wait_for(|status| status.leader.is_some());
            let led = timeout(PATIENCE, led).await;
            led.map_err(|_| Failure::of(contender, "no leader was elected"))?
                .map_err(|_| Failure::of(contender, "a server stopped"))?;
        }
        Ok(Self { contender, payload, handles, net })
    }

    async fn asker(&self, options: RequestOptions) -> Result<Asker, Failure> {
        let Self { contender, payload, .. } = *self;
        let runtime = current(contender)?;
        let link = self.net.link(&runtime).await;
        let (link, end) = link.map_err(|error| Failure::of(contender, error))?;
        let client = Client::new(link, runtime, ClientConfig::default())
            .map_err(|error| Failure::of(contender, error))?;
        Ok(Asker { contender, client, options, payload, end })
    }

    async fn close(self) {
        for handle in &self.handles {
            handle.stop();
        }
        for handle in &self.handles {
            // What does not stop in time goes with its runtime.
            let _ = handle.stopped(PATIENCE).await;
        }
        if let Net::Quic { networks, .. } = &self.net {
            join_all(networks.iter().map(|network| network.shutdown(PATIENCE))).await;
        }
    }
}

fn current(contender: &'static str) -> Result<Arc<dyn Runtime>, Failure> {
    let runtime = TokioRuntime::current().ok_or_else(|| Failure::of(contender, "no tokio"))?;
    Ok(Arc::new(runtime))
}

/// Starts a newborn server on a new store.
async fn start(
    name: &str,
    store: Arc<dyn LogStore>,
    founding: &Membership,
    net: &Net,
    runtime: &Arc<dyn Runtime>,
) -> Result<Handle, Box<dyn std::error::Error + Send + Sync>> {
    let (cluster, node) = (samples::CLUSTER, NodeId::of_name(name));
    store.create(&samples::identity(name)).await?;
    store.write(founding.founding_writes()).await?;
    let parts = NodeParts {
        config: NodeConfig::new(raft::Config { cluster, ..raft::Config::new(node) }),
        store,
        transport: net.transport(node).ok_or("no place on the network")?,
        machine: Box::new(Nothing),
        runtime: Arc::clone(runtime),
        observer: None,
    };
    let (node, handle) = Node::open(parts).await?;
    runtime.spawn(Box::pin(async move {
        // Whoever holds the handle hears why it stopped.
        let _ = node.run().await;
    }));
    Ok(handle)
}

/// A machine that does nothing.
struct Nothing;

impl StateMachine for Nothing {
    fn check(&self) -> CommandCheck {
        |_, _| Ok(())
    }

    fn apply(&mut self, _command: &Command<'_>) -> Result<Bytes, Undecodable> {
        Ok(Bytes::new())
    }

    fn query(&self, _version: u16, _body: &[u8]) -> Option<Bytes> {
        None
    }

    fn snapshot(&self) -> Option<SnapshotSource> {
        None
    }

    fn restore(&mut self, _snapshot: SnapshotStream) -> Result<(), RestoreError> {
        Err(RestoreError::Unsupported)
    }
}
