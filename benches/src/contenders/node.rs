//! graft's own driver: three `Node`s, asked through one `Client`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use graft_client::{Client, ClientConfig, HEADER_BYTES, RequestOptions};
use graft_core::{
    Command, CommandCheck, Incarnation, LogStore, Membership, Node, NodeId, NodeInfo, RestoreError,
    Runtime, SnapshotSource, SnapshotStream, StateMachine, TokioRuntime, Undecodable,
    node::{Handle, NodeConfig, NodeParts},
    raft,
};
use graft_storage::{MemoryStore, RedbStore};
use graft_transport::Hub;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{Caller, Deployment, Failure, disk, samples};

const NAMES: [&str; 3] = ["server1", "server2", "server3"];

/// Asked under a session: no request is ever applied twice. This is what graft does by itself.
pub(super) struct NodeSession(Cluster);

/// Asked without a session: what openraft does.
pub(super) struct NodePlain(Cluster);

impl Deployment for NodeSession {
    const NAME: &'static str = "graft Node, exactly once";

    type Caller = Asker;

    async fn found() -> Result<Self, Failure> {
        Cluster::found(Self::NAME, memory).await.map(Self)
    }

    fn caller(&self) -> Asker {
        self.0.asker(RequestOptions::new(0))
    }

    async fn close(self) {
        self.0.close().await;
    }
}

impl Deployment for NodePlain {
    const NAME: &'static str = "graft Node, idempotent";

    type Caller = Asker;

    async fn found() -> Result<Self, Failure> {
        Cluster::found(Self::NAME, memory).await.map(Self)
    }

    fn caller(&self) -> Asker {
        self.0.asker(RequestOptions::new(0).idempotent())
    }

    async fn close(self) {
        self.0.close().await;
    }
}

/// Asked under a session, with every log on the disk.
pub(super) struct NodeOnDisk {
    cluster: Cluster,
    directory: TempDir,
}

impl Deployment for NodeOnDisk {
    const NAME: &'static str = "graft Node on redb, exactly once";

    type Caller = Asker;

    async fn found() -> Result<Self, Failure> {
        let directory = disk::scratch().map_err(|error| Failure::of(Self::NAME, error))?;
        let open = |name: &str| -> Result<Arc<dyn LogStore>, disk::Error> {
            Ok(Arc::new(RedbStore::open(directory.path().join(name))?))
        };
        let cluster = Cluster::found(Self::NAME, open).await?;
        Ok(Self { cluster, directory })
    }

    fn caller(&self) -> Asker {
        self.cluster.asker(RequestOptions::new(0))
    }

    async fn close(self) {
        self.cluster.close().await;
        drop(self.directory);
    }
}

fn memory(_name: &str) -> Result<Arc<dyn LogStore>, disk::Error> {
    Ok(Arc::new(MemoryStore::new()))
}

/// A task that sends requests by a client it shares with all others, as the tasks of a program do.
pub(super) struct Asker {
    contender: &'static str,
    client: Client,
    options: RequestOptions,
}

impl Caller for Asker {
    async fn call(&mut self) -> Result<(), Failure> {
        let answer = self.client.request([0_u8; HEADER_BYTES], self.options).await;
        answer.map(drop).map_err(|error| Failure::of(self.contender, error))
    }
}

struct Cluster {
    contender: &'static str,
    handles: Vec<Handle>,
    client: Client,
}

impl Cluster {
    /// Longer than any election.
    const PATIENCE: Duration = Duration::from_secs(10);

    async fn found(
        contender: &'static str,
        store: impl Fn(&str) -> Result<Arc<dyn LogStore>, disk::Error>,
    ) -> Result<Self, Failure> {
        let runtime = TokioRuntime::current().ok_or_else(|| Failure::of(contender, "no tokio"))?;
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let hub = Hub::new(Arc::clone(&runtime), 0);
        let founding = Membership::of_voters(NAMES.map(|name| {
            let (name, incarnation) = (name.to_owned(), Incarnation(1));
            (NodeId::of_name(&name), NodeInfo { name, incarnation, ..NodeInfo::default() })
        }));
        let mut handles = Vec::new();
        for name in NAMES {
            let store = store(name).map_err(|error| Failure::of(contender, error))?;
            let handle = start(name, store, &founding, &hub, &runtime).await;
            handles.push(handle.map_err(|error| Failure::of(contender, error))?);
        }
        let first = handles[0].campaign().await;
        first.map_err(|error| Failure::of(contender, error))?;
        for handle in &handles {
            let mut status = handle.watch();
            let led = status.wait_for(|status| status.leader.is_some());
            let led = timeout(Self::PATIENCE, led).await;
            led.map_err(|_| Failure::of(contender, "no leader was elected"))?
                .map_err(|_| Failure::of(contender, "a server stopped"))?;
        }
        let client = Client::new(Arc::new(hub.link()), runtime, ClientConfig::default())
            .map_err(|error| Failure::of(contender, error))?;
        Ok(Self { contender, handles, client })
    }

    fn asker(&self, options: RequestOptions) -> Asker {
        Asker { contender: self.contender, client: self.client.clone(), options }
    }

    async fn close(self) {
        self.client.shutdown();
        for handle in &self.handles {
            handle.stop();
        }
        for handle in &self.handles {
            // What does not stop in time goes with its runtime.
            let _ = handle.stopped(Self::PATIENCE).await;
        }
    }
}

/// Starts a newborn server on a new store.
async fn start(
    name: &str,
    store: Arc<dyn LogStore>,
    founding: &Membership,
    hub: &Hub,
    runtime: &Arc<dyn Runtime>,
) -> Result<Handle, Box<dyn std::error::Error + Send + Sync>> {
    let (cluster, node) = (samples::CLUSTER, NodeId::of_name(name));
    store.create(&samples::identity(name)).await?;
    store.write(founding.founding_writes()).await?;
    let parts = NodeParts {
        config: NodeConfig::new(raft::Config { cluster, ..raft::Config::new(node) }),
        store,
        transport: Arc::new(hub.transport(node)),
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
