//! A store on a disk. (Documentation follows.)

mod backend;
mod check;
mod codec;
mod error;
mod facts;
mod opening;
mod options;
mod reader;
mod record;
mod segment;
mod shared;
mod snapshot;
mod tables;
mod view;
mod witness;
mod writer;

use std::{
    fmt, io,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use async_trait::async_trait;
use bytes::Bytes;
use graft_core::{Identity, Index, Loaded, LogStore, Recovered, SnapshotChunk, StoreError, Write};
use tokio::sync::{mpsc, oneshot};

pub use self::{
    check::{Pace, Report, verify, verify_on},
    error::OpenError,
    options::Options,
};

use self::{
    opening::{inaccessible, look, not_a_directory, take_over},
    reader::{Load, Reader},
    shared::Shared,
    writer::{Batch, Born, Order, Writer},
};
use crate::medium::{Disk, Medium, Open};

/// How many writes may wait for the thread that writes; who comes later waits to be let in.
const MAX_ORDERS: usize = 4096;

/// How many reads and chunks may wait for the thread that reads.
const MAX_LOADS: usize = 256;

/// A [`LogStore`] in a directory, by way of redb.
pub struct RedbStore {
    engine: Arc<Engine>,
    /// The generation of the store in which this handle may write; zero is none.
    generation: AtomicU64,
}

/// The threads of a store, and how to reach them. Dropping it ends them.
struct Engine {
    shared: Arc<Shared>,
    orders: Option<mpsc::Sender<Order>>,
    loads: Option<mpsc::Sender<Load>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl RedbStore {
    /// The store in the directory at `path`, which is made where it does not exist.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is wrong, where, and what to do. The files are as they were.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, &Options::default())
    }

    /// The same with sizes other than the usual.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let disk = Disk::create(path).map_err(|source| not_a_directory(path, source))?;
        Self::open_on(Arc::new(disk), options)
    }

    /// The store on a medium that need not be a real disk.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_on(medium: Arc<dyn Medium>, options: &Options) -> Result<Self, OpenError> {
        if let Some(reason) = medium.poisoned() {
            return Err(OpenError::Poisoned { path: medium.describe(), reason });
        }
        let lock = opening::lock(&*medium)?;
        let found = look(&medium, Open::Existing, options)?;
        let (shared, born) = take_over(Arc::clone(&medium), options.clone(), lock, found)?;
        let engine =
            Engine::start(shared, born).map_err(|source| inaccessible(&*medium, source))?;
        Ok(Self { engine: Arc::new(engine), generation: AtomicU64::new(0) })
    }

    /// Reads every record once, slowly, beside everything else: what rots unread is found while the
    /// other servers still have it. Sealed files are read from the disk; of the file that is being
    /// written, pages in redb's memory are what is read. A scrub ends early where its future is dropped.
    ///
    /// A server that wants it always calls it again and again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] names the first record that is not what was written; the store goes on,
    /// and goes on refusing to return that record.
    pub async fn scrub(&self, pace: Pace) -> Result<Report, StoreError> {
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.engine.shared);
        let scrubbing = spawn("graft-store-scrub", move || check::scrub(&shared, pace, reply));
        let action = "start a scrub";
        let thread = scrubbing.map_err(|source| StoreError::Io { action, source })?;
        self.engine.join_later(thread);
        answer.await.map_err(|_| ended())?
    }

    /// Where the store is.
    #[must_use]
    pub fn describe(&self) -> String {
        self.engine.shared.medium.describe()
    }

    fn own(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Order,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let orders = self.engine.orders.as_ref().ok_or_else(ended)?;
        orders.send(order(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    async fn load<T>(
        &self,
        load: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Load,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let loads = self.engine.loads.as_ref().ok_or_else(ended)?;
        loads.send(load(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// A thread never ends while somebody can ask it, but by a panic.
fn ended() -> StoreError {
    StoreError::Backend { reason: "a thread of the store panicked: open the store again".into() }
}

impl Engine {
    fn start(shared: Shared, born: Option<Born>) -> io::Result<Self> {
        let shared = Arc::new(shared);
        let (orders, incoming) = mpsc::channel(MAX_ORDERS);
        let (loads, wanted) = mpsc::channel(MAX_LOADS);
        let writer = Writer::new(Arc::clone(&shared), born, loads.downgrade());
        let reader = Reader::new(Arc::clone(&shared));
        let writing = spawn("graft-store-write", move || writer.run(incoming))?;
        let engine = Self {
            shared,
            orders: Some(orders),
            loads: Some(loads),
            threads: Mutex::new(vec![writing]),
        };
        engine.join_later(spawn("graft-store-read", move || reader.run(wanted))?);
        Ok(engine)
    }

    /// The thread must end before the store is closed.
    fn join_later(&self, thread: JoinHandle<()>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

impl Drop for Engine {
    /// Ends the threads once they have done what they were asked for.
    fn drop(&mut self) {
        self.shared.close();
        self.orders = None;
        self.loads = None;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            thread.thread().unpark();
            // A panic was told to all who waited.
            let _ = thread.join();
        }
    }
}

impl Clone for RedbStore {
    /// Another handle on the same store. It must recover (or create) before it writes.
    fn clone(&self) -> Self {
        Self { engine: Arc::clone(&self.engine), generation: AtomicU64::new(0) }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let published = self.engine.shared.published();
        f.debug_struct("RedbStore")
            .field("path", &self.describe())
            .field("compacted", &published.as_ref().map(|published| published.compacted))
            .field("last", &published.as_ref().map(|published| published.last))
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LogStore for RedbStore {
    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        let identity = identity.clone();
        let generation = self.order(|reply| Order::Create(identity, reply)).await?;
        self.own(generation);
        Ok(())
    }

    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        let (recovered, generation) = self.order(Order::Recover).await?;
        self.own(generation);
        Ok(recovered)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        let generation = self.generation.load(Ordering::Relaxed);
        self.order(|reply| Order::Write(Batch { generation, writes, reply })).await
    }

    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        self.load(|reply| Load::Read(range, max_bytes, reply)).await
    }

    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        let generation = self.generation.load(Ordering::Relaxed);
        self.load(|reply| Load::Stage { generation, chunk, reply }).await
    }

    async fn read_snapshot(
        &self,
        id: u64,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Bytes, StoreError> {
        self.load(|reply| Load::ReadSnapshot { id, offset, max_bytes, reply }).await
    }
}
