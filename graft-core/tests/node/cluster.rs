//! Servers of the test's own doors, and what tests ask of them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use graft_core::{
    ApplyMode, Birth, ClusterId, EntryKind, Epoch, Identity, Incarnation, LogStore, Membership,
    NodeId, NodeInfo, Raft, Reply, Request, Runtime,
    node::{Handle, Node, NodeConfig, NodeParts, NodeStatus, Observer, StopReason},
    raft,
    session::encode_plain,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::doors::{Disk, Journal, Network, Seen, Ticker};

/// Far above anything that should take time. Paused time makes it cost nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) network: Arc<Network>,
    pub(crate) runtime: Arc<Ticker>,
    pub(crate) servers: Vec<Server>,
    pub(crate) mode: ApplyMode,
    adjust: fn(&mut NodeConfig),
}

pub(crate) struct Server {
    pub(crate) id: NodeId,
    pub(crate) disk: Arc<Disk>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) handle: Handle,
    pub(crate) task: JoinHandle<StopReason>,
}

/// Every turn of every test holds what must hold.
struct Invariants;

impl Observer for Invariants {
    fn turn(&mut self, raft: &Raft) {
        raft.check_invariants();
    }
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity {
        cluster: ClusterId(7),
        epoch: Epoch(0),
        node: NodeId::of_name(name),
        name: name.into(),
        incarnation: Incarnation(1),
        birth: Birth::Founder,
        machine: "journal".into(),
        format: 0,
    }
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, ApplyMode::Inline, |_| {}).await
    }

    pub(crate) async fn start_with(
        count: usize,
        mode: ApplyMode,
        adjust: fn(&mut NodeConfig),
    ) -> Self {
        let runtime = Ticker::new();
        let network = Network::new(Arc::clone(&runtime));
        let names: Vec<String> = (1..=count).map(|number| format!("server{number}")).collect();
        let info = |name: &String| NodeInfo {
            name: name.clone(),
            incarnation: Incarnation(1),
            ..NodeInfo::default()
        };
        let nodes = names.iter().map(|name| (NodeId::of_name(name), info(name)));
        let founding = Membership::of_voters(nodes).founding_writes();
        let mut cluster = Self { network, runtime, servers: Vec::new(), mode, adjust };
        for name in &names {
            let disk = Arc::new(Disk::default());
            disk.create(&identity(name)).await.unwrap();
            disk.write(founding.clone()).await.unwrap();
            let server = cluster.boot(NodeId::of_name(name), disk).await;
            cluster.servers.push(server);
        }
        cluster
    }

    pub(crate) fn parts(&self, id: NodeId, disk: &Arc<Disk>, seen: &Arc<Seen>) -> NodeParts {
        let mut config =
            NodeConfig::new(raft::Config { cluster: ClusterId(7), ..raft::Config::new(id) });
        (self.adjust)(&mut config);
        NodeParts {
            config,
            store: Arc::clone(disk) as _,
            transport: self.network.port(id),
            machine: Box::new(Journal {
                seen: Arc::clone(seen),
                mode: self.mode,
                runtime: Arc::clone(&self.runtime),
            }),
            runtime: Arc::clone(&self.runtime) as _,
            observer: Some(Box::new(Invariants)),
        }
    }

    /// Starts the server of this disk with a new machine.
    pub(crate) async fn boot(&self, id: NodeId, disk: Arc<Disk>) -> Server {
        let seen = Arc::new(Seen::default());
        let (node, handle) = Node::open(self.parts(id, &disk, &seen)).await.unwrap();
        Server { id, disk, seen, handle, task: tokio::spawn(node.run()) }
    }

    pub(crate) async fn restart(&mut self, at: usize) {
        let (id, disk) = (self.servers[at].id, Arc::clone(&self.servers[at].disk));
        self.servers[at] = self.boot(id, disk).await;
    }

    /// Stops a server and says why it stopped.
    pub(crate) async fn stop(&mut self, at: usize) -> StopReason {
        self.servers[at].handle.stop();
        self.stopped(at).await
    }

    pub(crate) async fn stopped(&mut self, at: usize) -> StopReason {
        timeout(PATIENCE, &mut self.servers[at].task).await.unwrap().unwrap()
    }

    /// Waits until the server at `at` knows a leader that is none of `not`, and gives its place.
    pub(crate) async fn leader_of(&self, at: usize, not: &[NodeId]) -> usize {
        let known = |status: &NodeStatus| status.leader.filter(|leader| !not.contains(leader));
        let mut status = self.servers[at].handle.watch();
        let status = wait_for(&mut status, |status| known(status).is_some()).await;
        let leader = known(&status).unwrap();
        self.servers.iter().position(|server| server.id == leader).unwrap()
    }

    /// Waits for a leader that answers.
    pub(crate) async fn leader(&self) -> usize {
        let leader = self.leader_of(0, &[]).await;
        let mut status = self.servers[leader].handle.watch();
        wait_for(&mut status, |status| status.leader == Some(status.node)).await;
        leader
    }

    /// Offers a command to a server.
    pub(crate) fn send(&self, at: usize, body: &[u8]) -> oneshot::Receiver<Reply> {
        self.network.request(self.servers[at].id, self.command(body))
    }

    pub(crate) fn command(&self, body: &[u8]) -> Request {
        Request {
            link: Network::CLIENT,
            request_id: 0,
            deadline: self.runtime.now() + PATIENCE,
            kind: EntryKind::Plain,
            payload: encode_plain(3, body),
        }
    }

    pub(crate) async fn request(&self, at: usize, body: &[u8]) -> Reply {
        reply(self.send(at, body)).await
    }

    /// Waits until the machine at `at` has applied `count` commands.
    pub(crate) async fn applied(&self, at: usize, count: usize) -> Vec<Bytes> {
        let mut applied = self.servers[at].seen.applied.subscribe();
        wait_for(&mut applied, |applied| applied.len() >= count).await
    }
}

pub(crate) async fn reply(waiting: oneshot::Receiver<Reply>) -> Reply {
    timeout(PATIENCE, waiting).await.expect("an answer in time").expect("an answer")
}

pub(crate) async fn wait_for<T: Clone>(
    watched: &mut watch::Receiver<T>,
    condition: impl FnMut(&T) -> bool,
) -> T {
    timeout(PATIENCE, watched.wait_for(condition)).await.unwrap().unwrap().clone()
}
