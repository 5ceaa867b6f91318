//! openraft 0.9, with as little around it as its traits allow.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    io::Cursor,
    ops::RangeBounds,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    Config, Entry, EntryPayload, LogId, LogState, OptionalSend, Raft, RaftLogReader, RaftNetwork,
    RaftNetworkFactory, RaftSnapshotBuilder, Snapshot, SnapshotMeta, SnapshotPolicy, StorageError,
    StoredMembership, Vote,
    error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
    storage::{LogFlushed, RaftLogStorage, RaftStateMachine},
};

use super::peer_log::PeerLog;
use crate::{Caller, Deployment, Failure, Workload};

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Command,
        R = Response,
        NodeId = u64,
        Node = (),
);

/// A command without content.
#[derive(Clone, Debug)]
pub(crate) struct Command;

/// A reply without content.
#[derive(Clone, Debug)]
pub(crate) struct Response;

type Log = PeerLog<Entry<Types>, LogId<u64>, Vote<u64>>;
type Result<T, E = StorageError<u64>> = std::result::Result<T, E>;

/// Three servers of openraft 0.9.
pub(super) struct Openraft09 {
    servers: Vec<Raft<Types>>,
}

impl Deployment for Openraft09 {
    const NAME: &'static str = "openraft 0.9";

    type Caller = Client;

    async fn found(_work: Workload) -> std::result::Result<Self, Failure> {
        let config = Arc::new(config()?);
        let network = Network::default();
        let mut servers = Vec::new();
        for id in 0..3 {
            let (log, machine) = (Log::default(), Machine::default());
            let server = Raft::new(id, Arc::clone(&config), network.clone(), log, machine);
            let server = server.await.map_err(failure)?;
            network.add(id, server.clone());
            servers.push(server);
        }
        let members: BTreeSet<u64> = (0..3).collect();
        servers[0].initialize(members).await.map_err(failure)?;
        // Entry 0 is the membership, entry 1 the leader's own.
        for server in &servers {
            let wait = server.wait(Some(Duration::from_secs(10)));
            wait.applied_index_at_least(Some(1), "start").await.map_err(failure)?;
        }
        Ok(Self { servers })
    }

    async fn connect(&self) -> std::result::Result<Client, Failure> {
        Ok(Client { leader: self.servers[0].clone() })
    }

    async fn close(self) {
        for server in &self.servers {
            // A server that panicked is reported by the requests it did not answer.
            let _ = server.shutdown().await;
        }
    }
}

/// What served openraft best of what was tried: rare heartbeats, large appends, and snapshots, which
/// cost this machine nothing, so that the log stays short enough for the processor's caches.
fn config() -> std::result::Result<Config, Failure> {
    let config = Config {
        election_timeout_min: 5_000,
        election_timeout_max: 10_000,
        heartbeat_interval: 1_000,
        max_payload_entries: 1024,
        purge_batch_size: 1024,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(5_000),
        ..Config::default()
    };
    config.validate().map_err(failure)
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::of(Openraft09::NAME, error)
}

/// A client that knows the leader.
#[derive(Clone)]
pub(super) struct Client {
    leader: Raft<Types>,
}

impl Caller for Client {
    async fn call(&mut self) -> std::result::Result<(), Failure> {
        let written = self.leader.client_write(Command).await;
        written.map(drop).map_err(failure)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>> {
        Ok(self.lock().range(&range))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>> {
        let state = self.lock();
        Ok(LogState {
            last_purged_log_id: state.purged,
            last_log_id: state.last().map(|entry| entry.log_id).or(state.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<()> {
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>> {
        Ok(self.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.lock().append(entries);
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Result<()> {
        self.lock().truncate(from.index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Result<()> {
        self.lock().purge(upto.index, upto);
        Ok(())
    }
}

/// A machine that does nothing and has nothing to save but where it stands.
#[derive(Clone, Default, Debug)]
struct Machine {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, ()>,
}

impl Machine {
    fn snapshot(&self) -> Snapshot<Types> {
        Snapshot {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                snapshot_id: self.applied.map_or(0, |id| id.index).to_string(),
            },
            snapshot: Box::default(),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership<u64, ()>)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Response>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter();
        let mut responses = Vec::with_capacity(entries.size_hint().0);
        for entry in entries {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            responses.push(Response);
        }
        Ok(responses)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, ()>,
        _snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<()> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>> {
        Ok(Some(self.snapshot()))
    }
}

/// Calls the other servers directly.
#[derive(Clone, Default)]
struct Network {
    servers: Arc<Mutex<BTreeMap<u64, Raft<Types>>>>,
}

impl Network {
    fn add(&self, id: u64, server: Raft<Types>) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(id, server);
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &()) -> Peer {
        Peer { target, network: self.clone(), server: None }
    }
}

/// The way to one server, looked up when it is first used: servers start one after the other.
struct Peer {
    target: u64,
    network: Network,
    server: Option<Raft<Types>>,
}

type RpcResult<T, E = openraft::error::Infallible> =
    std::result::Result<T, RPCError<u64, (), RaftError<u64, E>>>;

impl Peer {
    fn server(&mut self) -> Result<&Raft<Types>, Unreachable> {
        if self.server.is_none() {
            let servers = self.network.servers.lock();
            let servers = servers.unwrap_or_else(PoisonError::into_inner);
            self.server = servers.get(&self.target).cloned();
        }
        let absent = std::io::ErrorKind::NotConnected;
        self.server.as_ref().ok_or_else(|| Unreachable::new(&std::io::Error::from(absent)))
    }

    fn remote<E: std::error::Error>(
        &self,
        error: RaftError<u64, E>,
    ) -> RPCError<u64, (), RaftError<u64, E>> {
        RPCError::RemoteError(RemoteError::new(self.target, error))
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<u64>> {
        let answer = self.server()?.append_entries(request).await;
        answer.map_err(|error| self.remote(error))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> RpcResult<InstallSnapshotResponse<u64>, InstallSnapshotError> {
        let answer = self.server()?.install_snapshot(request).await;
        answer.map_err(|error| self.remote(error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> RpcResult<VoteResponse<u64>> {
        let answer = self.server()?.vote(request).await;
        answer.map_err(|error| self.remote(error))
    }
}
