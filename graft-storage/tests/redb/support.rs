//! Entries, and a medium that counts and can be held up.

use std::{
    io,
    ops::Range,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use graft_core::{
    Entries, Entry, EntryKind, Epoch, GroupId, Index, LogId, LogStore, LogTime, Membership, NodeId,
    NodeInfo, SnapshotChunk, SnapshotMeta, StoreError, Write,
};
use graft_storage::{
    RedbStore,
    conformance::block_on,
    medium::{LockGuard, Medium, MediumFile, Open},
    redb::Options,
};

pub(crate) use crate::common::{directory::Directory, identity::identity, is_long};

/// Far above what anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// Sizes with which the log is soon in many files.
pub(crate) fn small() -> Options {
    Options::default().segment_bytes(256 << 10).preallocated_bytes(0).cache_bytes(1 << 20)
}

/// What `future` ends in; it must not hang.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    block_on(LIMIT, future).expect("the store hangs")
}

pub(crate) fn entry(term: u64, index: u64, size: usize) -> Entry {
    let payload: Bytes = vec![index.to_le_bytes()[0]; size].into();
    let log_id = LogId::new(term, index);
    Entry { log_id, time: LogTime(index), kind: EntryKind::Plain, payload }
}

pub(crate) fn append(term: u64, indexes: Range<u64>, size: usize) -> Write {
    let entries: Entries = indexes.map(|index| entry(term, index, size)).collect();
    Write::Append(entries)
}

/// A new store in which nothing is but its identity.
pub(crate) fn born(medium: Arc<dyn Medium>, options: &Options) -> RedbStore {
    let store = RedbStore::open_on(medium, options).unwrap();
    wait(store.create(&identity())).unwrap();
    store
}

pub(crate) fn write(store: &RedbStore, writes: Vec<Write>) {
    wait(store.write(writes)).unwrap();
}

/// A snapshot of `size` bytes up to `last`.
pub(crate) fn snapshot(last: LogId, size: usize) -> SnapshotChunk {
    let info = NodeInfo { name: "server1".into(), ..NodeInfo::default() };
    let meta = SnapshotMeta {
        id: last.index.0,
        cluster: identity().cluster,
        epoch: Epoch(0),
        group: GroupId(0),
        last,
        time: LogTime(last.index.0),
        membership: (LogId::new(1, 1), Membership::of_voters([(NodeId(1), info)])),
        schema: 1,
        size: size as u64,
        digest: 7,
        format: 1,
    };
    SnapshotChunk { meta, offset: 0, bytes: vec![3; size].into() }
}

/// Installs a snapshot of `size` bytes up to `last`, and drops the log up to there.
pub(crate) fn compact(store: &RedbStore, last: LogId, size: usize) -> Result<(), StoreError> {
    let chunk = snapshot(last, size);
    let meta = chunk.meta.clone();
    wait(async {
        store.stage(chunk).await?;
        store.write(vec![Write::InstallSnapshot(meta), Write::Compact(last)]).await.map(drop)
    })
}

/// Files that nothing refers to are removed by a thread that reads: whoever has read has waited for
/// it.
pub(crate) fn settle(store: &RedbStore) {
    let _ = wait(store.read_snapshot(u64::MAX, 0, 1));
}

/// Every entry of the log, however many reads it takes.
pub(crate) fn read_all(store: &RedbStore, from: u64, to: u64) -> Result<Entries, StoreError> {
    let mut all = Entries::new();
    let mut next = from;
    while next < to {
        match wait(store.read(Index(next)..Index(to), 1 << 20))? {
            graft_core::Loaded::Entries(entries) => {
                next += entries.len() as u64;
                all.append(entries);
            }
            compacted => panic!("{compacted:?}"),
        }
    }
    Ok(all)
}

/// A medium that counts what is asked of it, and whose syncs of files can be held up.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    inner: Arc<dyn Medium>,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) read: AtomicU64,
    pub(crate) syncs: AtomicU64,
    held: Mutex<bool>,
    released: Condvar,
}

impl Watched {
    pub(crate) fn new(inner: impl Medium) -> Self {
        Self { inner: Arc::new(inner), seen: Arc::default() }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    pub(crate) fn hold_syncs(&self, is_held: bool) {
        *self.seen.held.lock().unwrap() = is_held;
        self.seen.released.notify_all();
    }
}

impl Medium for Watched {
    fn open(&self, name: &str, how: Open) -> io::Result<Box<dyn MediumFile>> {
        let inner = self.inner.open(name, how)?;
        Ok(Box::new(WatchedFile { inner, seen: Arc::clone(&self.seen) }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }

    fn lock(&self) -> io::Result<LockGuard> {
        self.inner.lock()
    }

    fn poison(&self, reason: &str) {
        self.inner.poison(reason);
    }

    fn poisoned(&self) -> Option<String> {
        self.inner.poisoned()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct WatchedFile {
    inner: Box<dyn MediumFile>,
    seen: Arc<Seen>,
}

impl MediumFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.seen.read.fetch_add(into.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.seen.syncs.fetch_add(1, Ordering::Relaxed);
        let held = self.seen.held.lock().unwrap();
        drop(self.seen.released.wait_while(held, |is_held| *is_held).unwrap());
        self.inner.sync_data()
    }
}
