//! Embed the driver: `Node` of graft-core alone, with a store, a transport and a machine of one's own.
//!
//! `cargo run -p graft-core --example embed_node`
//!
//! Three servers share a process. The store is a vector, the transport a table of inboxes, the machine
//! a word list. The store and the transport below do what their doors ask and no more: run
//! `graft_storage::conformance` and `graft_transport::conformance` over yours.

#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    error::Error,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use graft_core::{
    Birth, ClusterId, Command, CommandCheck, Entry, EntryKind, EntryRef, Envelope, Epoch,
    HardState, Identity, Inbound, Inbox, Incarnation, Index, LinkId, Loaded, LogId, LogStore,
    Membership, NodeId, NodeInfo, Recovered, Reply, ReplyEnvelope, Request, RestoreError, Runtime,
    SnapshotChunk, SnapshotSource, SnapshotStream, StateMachine, StoreError, TokioRuntime,
    Transport, Undecodable, Write,
    node::{Node, NodeConfig, NodeParts},
    raft::{Config, RoleName},
    session::encode_plain,
};
use tokio::sync::mpsc;

const NAMES: [&str; 3] = ["server1", "server2", "server3"];

/// A machine: the words so far, and the number of the last one as the reply.
#[derive(Default)]
struct Words(Vec<String>);

impl StateMachine for Words {
    fn check(&self) -> CommandCheck {
        |_version, body| match std::str::from_utf8(body) {
            Ok(_) => Ok(()),
            Err(error) => Err(graft_core::InvalidCommand { reason: error.to_string() }),
        }
    }

    fn apply(&mut self, command: &Command<'_>) -> Result<Bytes, Undecodable> {
        // The check has passed on every server before the command was committed.
        self.0.push(String::from_utf8_lossy(command.body).into_owned());
        Ok(Bytes::from(format!("word {} is {:?}", self.0.len(), self.0[self.0.len() - 1])))
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

/// A store: what a disk would hold.
#[derive(Default)]
struct VecStore(Mutex<Disk>);

#[derive(Default)]
struct Disk {
    identity: Option<Identity>,
    hard_state: HardState,
    log: Vec<Entry>,
}

#[async_trait]
impl LogStore for VecStore {
    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        let mut disk = lock(&self.0);
        match &disk.identity {
            Some(born) => Err(StoreError::AlreadyBorn { name: born.name.clone() }),
            None => {
                disk.identity = Some(identity.clone());
                Ok(())
            }
        }
    }

    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        let disk = lock(&self.0);
        let Some(identity) = disk.identity.clone() else { return Ok(None) };
        let mut found = Recovered::newborn(identity);
        found.hard_state = disk.hard_state;
        for entry in &disk.log {
            let LogId { term, index } = entry.log_id;
            if found.last.term != term {
                found.terms.push((index, term));
            }
            if entry.kind == EntryKind::Membership {
                let membership = Membership::decode(&entry.payload);
                let membership = membership.map_err(|error| StoreError::Corrupt {
                    location: format!("entry {index}"),
                    reason: error.to_string(),
                })?;
                found.memberships.push((entry.log_id, membership));
            }
            (found.last, found.last_time) = (entry.log_id, entry.time);
        }
        Ok(Some(found))
    }

    async fn write(&self, mut writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        let mut disk = lock(&self.0);
        for write in writes.drain(..) {
            match write {
                Write::HardState(hard_state) => disk.hard_state = hard_state,
                Write::Append(entries) => {
                    let Some(first) = entries.first_index() else { continue };
                    disk.log.retain(|entry| entry.log_id.index < first);
                    disk.log.extend(entries.iter().map(EntryRef::to_entry));
                }
                _ => return Err(StoreError::Backend { reason: "no snapshots here".into() }),
            }
        }
        Ok(writes)
    }

    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        let disk = lock(&self.0);
        let last = disk.log.last().map_or(Index(0), |entry| entry.log_id.index);
        let mut room = max_bytes;
        let wanted = disk.log.iter().filter(|entry| range.contains(&entry.log_id.index));
        let taken = wanted.enumerate().take_while(|(at, entry)| {
            let fits = *at == 0 || entry.size() <= room;
            room = room.saturating_sub(entry.size());
            fits
        });
        let entries: Vec<Entry> = taken.map(|(_, entry)| entry.clone()).collect();
        if entries.is_empty() {
            return Err(StoreError::OutOfRange { range, last });
        }
        Ok(Loaded::Entries(entries.into()))
    }

    async fn stage(&self, _chunk: SnapshotChunk) -> Result<(), StoreError> {
        Err(StoreError::Backend { reason: "no snapshots here".into() })
    }

    async fn read_snapshot(&self, id: u64, _: u64, _: usize) -> Result<Bytes, StoreError> {
        Err(StoreError::NoSnapshot { id })
    }
}

/// A transport: every server's inbox in one table, and one channel for all replies.
#[derive(Clone)]
struct Table {
    inboxes: Arc<Mutex<BTreeMap<NodeId, Inbox>>>,
    replies: mpsc::Sender<ReplyEnvelope>,
}

/// One server's view of it.
struct TableTransport {
    node: NodeId,
    table: Table,
}

#[async_trait]
impl Transport for TableTransport {
    fn attach(&self, inbox: Inbox) {
        lock(&self.table.inboxes).insert(self.node, inbox);
    }

    fn send(&self, envelope: Envelope) {
        // A message that finds no room is lost, and Raft sends it again. So may be a reply.
        match envelope {
            Envelope::Peer(envelope) => {
                let inbox = lock(&self.table.inboxes).get(&envelope.to).cloned();
                if let Some(inbox) = inbox {
                    let _ = inbox.offer(Inbound::Peer(envelope));
                }
            }
            Envelope::Reply(reply) => {
                let _ = self.table.replies.try_send(reply);
            }
        }
    }

    async fn close(&self) {
        lock(&self.table.inboxes).remove(&self.node);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Arc::new(TokioRuntime::current().ok_or("this runs inside a tokio runtime")?);
    let (replies, mut answers) = mpsc::channel(16);
    let table = Table { inboxes: Arc::default(), replies };
    let cluster = ClusterId::of("words", &NAMES);
    let members = NAMES.map(|name| {
        let incarnation = Incarnation(runtime.random().max(1));
        (NodeId::of_name(name), NodeInfo { name: name.into(), incarnation, ..NodeInfo::default() })
    });
    let membership = Membership::of_voters(members.clone());

    let mut servers = Vec::new();
    for (node, info) in members {
        // Born once: an identity, and the founding membership. After a restart `recover` finds both.
        let store = Arc::new(VecStore::default());
        let birth = Birth::Founder;
        let (name, incarnation) = (info.name, info.incarnation);
        let (machine, format, epoch) = ("words".into(), 0, Epoch(0));
        store
            .create(&Identity { cluster, epoch, node, name, incarnation, birth, machine, format })
            .await?;
        store.write(membership.founding_writes()).await?;

        let raft = Config { cluster, seed: runtime.random(), ..Config::new(node) };
        let (server, handle) = Node::open(NodeParts {
            config: NodeConfig::new(raft),
            store,
            transport: Arc::new(TableTransport { node, table: table.clone() }),
            machine: Box::new(Words::default()),
            runtime: Arc::clone(&runtime) as Arc<dyn Runtime>,
            observer: None,
        })
        .await?;
        servers.push((handle, tokio::spawn(server.run())));
    }

    let mut status = servers[0].0.watch();
    let elected = async { status.wait_for(|status| status.leader.is_some()).await.map(|_| ()) };
    tokio::time::timeout(Duration::from_secs(10), elected).await??;
    let leads = servers.iter().find(|(handle, _)| handle.status().role == RoleName::Leader);
    let leader = leads.ok_or("the leader has changed already")?.0.status();
    println!("{} leads term {}", leader.name, leader.term);

    let inbox = lock(&table.inboxes).get(&leader.node).cloned().ok_or("the leader is gone")?;
    for (request_id, word) in (1..).zip(["log", "term", "vote"]) {
        let request = Request {
            link: LinkId(1),
            request_id,
            deadline: runtime.now() + Duration::from_secs(5),
            kind: EntryKind::Plain,
            payload: encode_plain(0, word.as_bytes()),
        };
        inbox.offer(Inbound::Request(request)).map_err(|_| "the leader is overloaded")?;
        let answer = tokio::time::timeout(Duration::from_secs(5), answers.recv()).await?;
        match answer.map(|answer| answer.reply) {
            Some(Reply::Applied(reply)) => println!("{}", String::from_utf8_lossy(&reply)),
            other => return Err(format!("the request failed: {other:?}").into()),
        }
    }

    for (handle, task) in servers {
        handle.stop();
        println!("{}: {}", handle.status().name, task.await?);
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
