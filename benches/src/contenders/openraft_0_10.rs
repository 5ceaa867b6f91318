//! openraft 0.10, with as little around it as its traits allow.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Debug, Display},
    future::Future,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt};
use openraft10::{
    Config, EntryPayload, LogState, OptionalSend, Raft, RaftLogReader, RaftNetworkFactory,
    RaftNetworkV2, RaftSnapshotBuilder, SnapshotPolicy,
    alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
        VoteRequest, VoteResponse,
    },
    storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine},
};

use super::peer_log::PeerLog;
use crate::{Caller, Deployment, Failure, Workload};

openraft10::declare_raft_types!(
    pub(crate) Types:
        D = Command,
        R = Response,
        NodeId = u64,
        Node = (),
);

/// A command without content.
#[derive(Clone, Debug)]
pub(crate) struct Command;

impl Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("command")
    }
}

/// A reply without content.
#[derive(Clone, Debug)]
pub(crate) struct Response;

type Log = PeerLog<EntryOf<Types>, LogIdOf<Types>, VoteOf<Types>>;
type Server = Raft<Types, Machine>;

/// Three servers of openraft 0.10.
pub(super) struct Openraft010 {
    servers: Vec<Server>,
}

impl Deployment for Openraft010 {
    const NAME: &'static str = "openraft 0.10 alpha";

    type Caller = Client;

    async fn found(_work: Workload) -> Result<Self, Failure> {
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

    async fn connect(&self) -> Result<Client, Failure> {
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
fn config() -> Result<Config, Failure> {
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

fn failure(error: impl Display) -> Failure {
    Failure::of(Openraft010::NAME, error)
}

/// A client that knows the leader.
#[derive(Clone)]
pub(super) struct Client {
    leader: Server,
}

impl Caller for Client {
    async fn call(&mut self) -> Result<(), Failure> {
        let written = self.leader.client_write(Command).await;
        written.map(drop).map_err(failure)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<EntryOf<Types>>> {
        Ok(self.lock().range(&range))
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.lock();
        Ok(LogState {
            last_purged_log_id: state.purged,
            last_log_id: state.last().map(|entry| entry.log_id).or(state.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        self.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.lock().append(entries);
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        self.lock().truncate(last.map_or(0, |id| id.index + 1));
        Ok(())
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> io::Result<()> {
        self.lock().purge(upto.index, upto);
        Ok(())
    }
}

/// A machine that does nothing and has nothing to save but where it stands.
#[derive(Clone, Default, Debug)]
struct Machine {
    applied: Option<LogIdOf<Types>>,
    membership: StoredMembershipOf<Types>,
}

impl Machine {
    fn snapshot(&self) -> SnapshotOf<Types, ()> {
        SnapshotOf::<Types, ()> {
            meta: SnapshotMetaOf::<Types> {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            snapshot: (),
        }
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, ()>> {
        Ok(self.snapshot())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Response);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        _snapshot: (),
    ) -> io::Result<()> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, ()>>> {
        Ok(Some(self.snapshot()))
    }
}

/// Calls the other servers directly.
#[derive(Clone, Default)]
struct Network {
    servers: Arc<Mutex<BTreeMap<u64, Server>>>,
}

impl Network {
    fn add(&self, id: u64, server: Server) {
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
    server: Option<Server>,
}

type RpcResult<T> = Result<T, RPCError<Types>>;

impl Peer {
    fn server(&mut self) -> Result<&Server, Unreachable<Types>> {
        if self.server.is_none() {
            let servers = self.network.servers.lock();
            let servers = servers.unwrap_or_else(PoisonError::into_inner);
            self.server = servers.get(&self.target).cloned();
        }
        let absent = || Unreachable::from_string("the server has not been started");
        self.server.as_ref().ok_or_else(absent)
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = ();

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Types>> {
        let answer = self.server()?.append_entries(request).await;
        answer.map_err(|error| Unreachable::new(&error).into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<Types>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let answers = self.server()?.stream_append(input);
            let answers =
                answers.map(|answer| answer.map_err(|fatal| Unreachable::new(&fatal).into()));
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _option: RPCOption,
    ) -> RpcResult<VoteResponse<Types>> {
        let answer = self.server()?.vote(request).await;
        answer.map_err(|error| Unreachable::new(&error).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let answer = self.server()?.install_full_snapshot(vote, snapshot).await;
        answer.map_err(|error| Unreachable::new(&error).into())
    }
}
