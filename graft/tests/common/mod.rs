//! What several test files use: a small machine, stores that outlive clusters, and waits with an end.
#![allow(dead_code, missing_debug_implementations, unreachable_pub)]

#[cfg(feature = "redb")]
pub mod directory;
pub mod networks;
pub mod stores;

use std::{
    collections::BTreeMap,
    future::Future,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use graft::{LogStore, Machine, Overview, ServerName, Status, StoreError, Supervisor};
use graft_core::{Identity, Index, Loaded, Recovered, SnapshotChunk, Write};
use graft_storage::MemoryStore;
use tokio::sync::watch;

pub const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// The longest that anything in these tests may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What `future` gives; a test that waits longer than [`PATIENCE`] fails.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this should not have taken so long")
}

/// Waits until `server` looks as wanted.
pub async fn until<M: Machine>(
    cluster: &Supervisor<M>,
    server: impl AsRef<str>,
    wanted: impl FnMut(&Overview) -> bool,
) -> Overview {
    let mut watch = cluster.watch(server).unwrap();
    soon(watch.wait_for(wanted)).await.unwrap().clone()
}

/// Waits until `server` has failed.
pub async fn until_failed<M: Machine>(cluster: &Supervisor<M>, server: &str) -> Status {
    until(cluster, server, |overview| matches!(overview.status, Status::Failed { .. })).await.status
}

/// A list that entries are added to; each answers how long the list then is.
#[derive(Default)]
pub struct Notes(Vec<String>);

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
pub enum Note {
    Add(String),
    Read,
    /// Adds, then panics.
    Panic(String),
}

impl graft::Entry for Note {
    type Response = Vec<String>;
}

impl Machine for Notes {
    type Entry = Note;
    fn handle_entry(&mut self, entry: Note) -> Vec<String> {
        match entry {
            Note::Add(note) => self.0.push(note),
            Note::Read => {}
            Note::Panic(note) => {
                self.0.push(note);
                panic!("this machine was told to panic");
            }
        }
        self.0.clone()
    }
}

pub fn add(note: &str) -> Note {
    Note::Add(note.into())
}

/// A store for each server, which live as long as this does.
#[derive(Clone, Default)]
pub struct Disks(Arc<Mutex<BTreeMap<String, MemoryStore>>>);

impl Disks {
    pub fn of(&self, server: &str) -> MemoryStore {
        self.0.lock().unwrap().entry(server.to_owned()).or_default().clone()
    }

    pub fn replace(&self, server: &str, store: &MemoryStore) {
        self.0.lock().unwrap().insert(server.to_owned(), store.clone());
    }

    pub fn opener(
        &self,
    ) -> impl Fn(&ServerName) -> Result<Box<dyn LogStore>, StoreError> + Send + Sync + use<> {
        let disks = self.clone();
        move |name| Ok(Box::new(disks.of(name.as_str())))
    }
}

/// A store that panics in its next writes, in the midst of the server's driver.
pub struct Trap {
    store: MemoryStore,
    panics: Arc<AtomicUsize>,
    silent: Option<watch::Receiver<bool>>,
}

impl Trap {
    /// It goes off as often as `panics` says.
    pub fn new(store: MemoryStore, panics: Arc<AtomicUsize>) -> Self {
        Self { store, panics, silent: None }
    }

    /// And does not open while `silent` is true.
    pub fn silent_while(self, silent: watch::Receiver<bool>) -> Self {
        Self { silent: Some(silent), ..self }
    }
}

#[async_trait]
impl LogStore for Trap {
    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        self.store.create(identity).await
    }
    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        if let Some(mut silent) = self.silent.clone() {
            silent.wait_for(|silent| !silent).await.unwrap();
        }
        self.store.recover().await
    }
    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        let left = self
            .panics
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "the trap went off");
        self.store.write(writes).await
    }
    async fn read(&self, range: Range<Index>, max: usize) -> Result<Loaded, StoreError> {
        self.store.read(range, max).await
    }
    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        self.store.stage(chunk).await
    }
    async fn read_snapshot(&self, id: u64, at: u64, max: usize) -> Result<Bytes, StoreError> {
        self.store.read_snapshot(id, at, max).await
    }
}
