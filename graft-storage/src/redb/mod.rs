//! A store on a disk that survives whatever happens to the process, the machine and single bits of
//! the disk, by way of [redb](https://docs.rs/redb).
//!
//! redb is behind this module alone: nothing of it is in a public signature.
//!
//! # The files
//!
//! A store is a directory.
//!
//! * `log-N.redb`: *segments*. The one with the highest number is *active*, the only one that is
//!   written; the others are *sealed* and never change. A segment is sealed when it is full, 16 MiB
//!   by default.
//! * `witness`: how far commits have been acknowledged.
//! * `snapshot-N`: snapshots, the installed one and those that are coming in.
//! * `lock`: only where a directory itself cannot be locked, and locked in its place while the store is
//!   open. Files that end in `.tmp` are not complete yet.
//!
//! On Unix all of them are reached through the directory as it was opened, not by its path, and the lock
//! is on that directory: one that is moved while it is in use, or whose path another one takes, stays
//! what it is.
//!
//! Everything that is not a record is in the active segment: the *head*, which every commit writes,
//! and the *facts* for which it vouches, each with the number of the commit that wrote it:
//! identity, term runs, memberships, the installed snapshot, and which sealed segments count, with
//! the indexes that count in each. So every write, a truncation or compaction of sealed segments
//! included, is one transaction on one file: it happens whole or not at all. A new segment is
//! written under another name with all of this and the commit that did not fit any more, synced,
//! and then renamed: it is the store from that moment on, and the one before it was until then.
//!
//! # What a crash costs
//!
//! Every commit is `Durability::Immediate` and one-phase: redb writes the pages and the header and
//! syncs once. (Two-phase commit, and quick-repair, which needs it, sync twice: 2,300 to 2,500
//! commits a second where one-phase makes 3,600, at 100 entries of 128 bytes each.) The header
//! names two commits. After a crash redb checks every page of the later one against its checksum
//! and takes the earlier one where that fails; a crash in the midst of a commit leaves exactly
//! that. Checking reads the whole file (2 s for 1.1 GB), which is why the file that may need it is
//! small: what is opened after a crash is one segment whatever the size of the store. That is how
//! one sync a commit and a fast opening go together: a store of 1 GiB opens in 6 ms, in 20 ms where
//! nothing of it is in the system's cache (medians of 3). It is also why no segment is ever closed
//! in redb's sense: each opening does what an opening after a crash does, so there is one path and
//! it is always in use.
//!
//! Falling back to the earlier commit is right for a commit that a crash tore, and wrong for one
//! that was acknowledged and then rotted; a file cannot tell one from the other. The `witness` can.
//! It gets the number of each commit after its sync has returned and before it is acknowledged. It
//! is not synced itself: it survives the end of the process exactly, and a power cut as a lower
//! bound, which is the safe side. A store whose head is older than its witness is
//! [corrupt](OpenError::Corrupt).
//!
//! One thing is left, by decision: where the pages of the very last acknowledged commit rot *and* a
//! power cut came before its witness reached the disk, that commit looks as one that the cut tore,
//! and the store opens as of the one before, short by exactly that commit. The next commit closes
//! the window, since its pages rest on these and neither of the two is whole any more; so do a
//! clean close and the beginning of a segment, which sync the witness. Nothing but a second sync for
//! each commit would close it at once, at 1.3 to 1.6 times the time of a commit: 212 to 240
//! microseconds with one sync, 295 to 343 with two, for one entry of 128 bytes.
//!
//! # Damage
//!
//! Each record, each fact, the head, the witness and each block of a snapshot carry a crc32c that
//! covers where they belong: group, index and term for a record. Above them the chain is closed:
//! the witness names the head, the head its facts, the terms among them the term of every index,
//! and a missing index is an error. So a wrong bit is in space that nothing refers to, or it is an
//! error that names file, table and record; redb's own pages are checked whenever a segment is
//! opened, and there the error names the file, the table that the page is part of, and the record in
//! it that is not what was written, by the store's own checksums: where no record is, those that the page holds.
//! What is part of no table, as redb's header, is called *redb's own pages*. redb opens a file *on trial*: what its
//! recovery would write is kept in memory until what it recovered has been found sound and the store
//! is recovered by its server. So what is refused, here or by whoever asks for its
//! [`identity`](LogStore::identity), is left as it was found, byte for byte, and sealed segments and
//! [`verify`] never write.
//!
//! [`RedbStore::scrub`] reads everything slowly beside the work, [`verify`] in one go. The file that is
//! written is copied for it as it is at one instant, which is what the end of the process would have
//! left then, and the copy is opened and read like any store. [`Options::scrub_every`] makes a store
//! scrub itself.
//!
//! # Failures
//!
//! A write, a sync or a change of length or of names that fails poisons the directory for the life
//! of the process: [`StoreError::Poisoned`] from then on, whoever opens it, with what failed. redb does not go
//! on with a file after a read that failed, so the next recovery opens the store again in place, and
//! finds what an opening would.
//! redb may panic over pages that changed after they were checked; that is caught and is
//! [`StoreError::Corrupt`] as well, unless the program is built with `panic = "abort"`.
//!
//! # Layout
//!
//! A batch is stored as few *chunks*: runs of entries of at most 64 KiB (or one entry) as one
//! value. A value of redb takes pages in powers of two, so a chunk is cut into parts that fill
//! theirs to three quarters at least. The head is a row of the same table, behind all chunks: a
//! table of its own costs a page more in small commits. A commit with a chunk of more than half a
//! page takes the head out first and puts it back behind the chunk: redb would give a chunk that comes
//! between a small one and the head a page of twice its size, together with the small one. So 1,024
//! entries of 32 bytes are a page of 64 KiB and a few small ones, not one of 128 KiB.
//!
//! Commands of one session that count up are one record, a *chain* (`record.rs`): a short one takes a byte or two beside
//! its body, where its header and that of a record take 64. With thousands of clients a request costs a
//! quarter less on a disk (4,096 of them: 0.69 to 0.52 microseconds of processor time for three servers and the clients).
//!
//! Measured on a virtual machine with two processors and ext4 on a virtio disk, entries of 128
//! bytes, commits a second, the better of two interleaved rounds on a new file of 16 MiB:
//!
//! | entries a commit | 1 | 10 | 100 | 150 | 1000 |
//! | --- | --- | --- | --- | --- | --- |
//! | a row an entry | 5,360 | 4,090 | 2,270 | 2,180 | 750 |
//! | a row an entry, by cursor | 5,350 | 4,300 | 2,990 | 2,650 | 1,240 |
//! | one value | 5,600 | 4,320 | 3,370 | 3,020 | 1,960 |
//! | one value, by cursor | 5,140 | 4,330 | 2,870 | 2,750 | 1,280 |
//! | parts | 5,550 | 4,760 | 3,070 | 2,940 | 1,990 |
//! | parts, file filled ahead | 4,120 | 4,680 | 3,650 | 3,790 | 2,560 |
//! | parts, file filled ahead, two-phase | 3,460 | 3,130 | 2,500 | 2,810 | 2,060 |
//! | parts, file filled ahead, head among them | 4,990 | 4,950 | 3,880 | 3,940 | 2,540 |
//!
//! A commit of one entry is 8 writes and 28 KiB.
//!
//! Writing where there are blocks already spares each sync the search for new ones, 30 to 130
//! microseconds; a length without blocks does not. So a file is filled with zeros before it is used:
//! the first one at the birth of the store (13 ms), and for commits of at most 32 KiB each other one
//! ahead, in pieces, by the thread that reads, unless the file of a segment that was purged can be
//! used again, which costs nothing. For larger commits filling costs more than it spares, and the
//! file grows. The zeros are written a page at a time: Linux keeps what is written at once as one
//! large piece of its cache, and each later sync of a page in one takes a fifth longer.
//! [`Options::preallocated_bytes`] of zero is for logs that grow as fast as a disk can and are never
//! purged. redb's own way would be to double a file that is full
//! and to cut one that is mostly empty, by steps that depend on the first values in it: a
//! *ballast*, a value of 512 KiB that comes before all others, makes the lengths the same whatever
//! comes (17 MiB for a segment of 16), and the file does not follow when redb sets a length: it
//! grows when it is written.
//!
//! A caller who waits for each write before it makes the next gets 78 to 90 of 100 commits of a bare
//! loop around redb with values of the same sizes on a file filled ahead, for 1 to 1000 entries of
//! 128 bytes or 1 KiB; most of the rest is the two changes of thread, which the bare loop loses as
//! well once it is asked from another thread, and what is left are checksums, the head and the
//! witness. Against a bare loop that lets redb grow its file, a log of 128 MiB gets 89 to 128 of
//! 100. (`versus disk`, medians of 15 and of 3.) Writers that do not wait for each other share commits.
//!
//! # Space
//!
//! Nothing is deleted row by row. What a compaction covers goes when the last index of its segment
//! is covered: the commit takes the segment off the list, and then its file is removed, by the
//! thread that reads. So purging costs the thread that writes nothing, however many entries it
//! drops, and what is dead on the disk is at most the rest of the oldest segment and of the active
//! one, 34 MiB, beside a spare file of 17 MiB. Whenever the last of 256 MiB was purged, ten times
//! in a row, a store took 34 MiB.
//!
//! # Threads
//!
//! One thread writes, one reads; a scrub has one of its own while it runs. What waits for the first
//! becomes one commit. The second also takes in snapshots, whose files it syncs before the last
//! piece is acknowledged, so that installing one is a small commit: no load delays a write. A
//! reader sees what was acknowledged, never a commit on its way, and waits for one only where that
//! has just taken away what is to be read.
//!
//! A file on its way to become a segment has a name that no other ever has, and belongs to one
//! thread at a time. The file of a purged segment is used again only where no scrub runs, which may
//! still be reading it; else it is removed.
//!
//! The cache of the active segment is 16 MiB, its own size: half of it may hold pages of a commit
//! before they are written. A sealed segment gets 1 MiB: what is read of it is read in order and
//! once.

mod active;
mod backend;
mod check;
mod codec;
mod commit;
mod error;
mod facts;
mod opening;
mod options;
mod pages;
mod reader;
mod record;
mod rows;
mod segment;
mod shared;
mod snapshot;
mod spare;
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
    opening::{Found, look, not_a_directory},
    reader::{Load, Reader},
    shared::{Published, Shared},
    writer::{Batch, Born, Order, Writer},
};
use crate::medium::{Disk, Medium, Open};

/// How many writes may wait for the thread that writes; who comes later waits to be let in.
const MAX_ORDERS: usize = 4096;

/// How many reads and chunks may wait for the thread that reads.
const MAX_LOADS: usize = 256;

/// A [`LogStore`] in a directory. See the [module](self) for how it is made.
///
/// Each clone is a handle of its own on the same store. Only the handle that was the last to
/// [`create`](LogStore::create) or [`recover`](LogStore::recover) may write and stage; all others
/// get [`StoreError::Fenced`]. Give each start of a server a clone of its own. Any handle may read.
/// The store is closed when the last handle is dropped, which waits for what was asked for before.
///
/// Where the promises of [`LogStore`] leave a choice, this store decides as
/// [`MemoryStore`](crate::MemoryStore) does. Beyond that:
///
/// * A write whose caller is gone happens all the same.
/// * Writes of several callers that wait at the same time become one commit. Each is whole, and
///   they happen in the order in which they came.
/// * Opening changes no file: the store is written from the first
///   [`recover`](LogStore::recover) or [`create`](LogStore::create) on, so what was opened by mistake
///   stays as it was. What is read or told before that is what was found, some of which a power cut
///   may still undo.
///
/// ```
/// # graft_storage::conformance::block_on(std::time::Duration::from_secs(60), async {
/// use graft_core::{Birth, ClusterId, Epoch, Identity, Incarnation, LogStore, NodeId};
/// use graft_storage::RedbStore;
/// # let path = std::env::temp_dir().join(format!("graft-doc-{}", std::process::id()));
/// # let identity = Identity {
/// #     cluster: ClusterId::of("stack", &["server1"]),
/// #     epoch: Epoch(0),
/// #     node: NodeId::of_name("server1"),
/// #     name: "server1".into(),
/// #     incarnation: Incarnation(7),
/// #     birth: Birth::Founder,
/// #     machine: "stack".into(),
/// #     format: 0,
/// # };
/// let store = RedbStore::open(&path)?;
/// assert!(store.recover().await?.is_none(), "never born");
/// store.create(&identity).await?;
/// drop(store);
///
/// let store = RedbStore::open(&path)?;
/// assert_eq!(store.recover().await?.map(|found| found.identity), Some(identity));
/// # drop(store);
/// # std::fs::remove_dir_all(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).expect("the store hangs").unwrap();
/// ```
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
    /// The store in the directory at `path`, which is made where it does not exist. Opening changes no
    /// file, whatever comes of it.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is wrong, where, and what to do.
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
        let lock = opening::lock(&*medium)?;
        let Found { born, snapshots } = look(&medium, Open::Existing, options)?;
        let published = born.as_ref().map(Published::new);
        let shared = Shared::new(medium, options.clone(), lock, snapshots, published);
        let (path, action) = (shared.medium.describe(), "start a thread of the store");
        let engine = Engine::start(shared, born);
        let engine = engine.map_err(|source| OpenError::Io { path, action, source })?;
        Ok(Self { engine: Arc::new(engine), generation: AtomicU64::new(0) })
    }

    /// Reads every record, slowly, beside everything else: what rots unread is found while the
    /// other servers still have it. All files are read from the disk, or what the system has in memory
    /// of it, as they are when a store is opened: so it finds whatever the next opening would. Of the file
    /// that is being written a copy is read, for which writers wait no longer than it takes to copy what
    /// they wrote meanwhile; it takes as much memory as the file is long. Where the log goes on in other files
    /// meanwhile, those that it has left are read at the end, some of them again. A scrub ends early where its
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] names the first record that is not what was written; the store goes
    /// on, and goes on refusing to return that record.
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
        let scrubs = shared.options.scrubs;
        let engine = Self {
            shared,
            orders: Some(orders),
            loads: Some(loads),
            threads: Mutex::new(vec![writing]),
        };
        engine.join_later(spawn("graft-store-read", move || reader.run(wanted))?);
        if let Some((interval, pace)) = scrubs {
            let shared = Arc::clone(&engine.shared);
            let scrubbing = move || check::scrub_again_and_again(&shared, pace, interval);
            engine.join_later(spawn("graft-store-scrub", scrubbing)?);
        }
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
    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        let shared = &self.engine.shared;
        shared.check_sound()?;
        Ok(shared.published().map(|published| Identity::clone(&published.identity)))
    }

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
        let chunk = Box::new(chunk);
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

    fn place(&self) -> Option<String> {
        Some(self.describe())
    }
}
