//! The disks: each outlives the processes that write to it, and keeps of a crash what disks keep.
//!
//! A disk is a model of a store and not a store on a medium: it keeps its batches in a
//! [`MemoryStore`], which obeys the whole contract of `LogStore`, and adds the time that a disk takes and
//! everything that can go wrong. (The stores of `graft-storage` that reach a real disk have a suite of
//! their own, on a medium that forgets and tears.) A batch under way is a few sectors. A crash keeps any
//! of them: with all of them the batch is there, with none it is lost, with some the tail is torn, and the
//! store cuts it as it must.

use std::{
    fmt, io,
    ops::Range,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use graft_core::{Identity, Index, Loaded, LogStore, Recovered, SnapshotChunk, StoreError, Write};
use graft_storage::{MemoryStore, fault::Fate};

use crate::{clock::nanos, executor::Kernel, faults::FaultKind, oracle::Oracle};

/// A server's disk. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Disk {
    shared: Arc<Shared>,
}

struct Shared {
    server: usize,
    kernel: Kernel,
    oracle: Oracle,
    state: Mutex<State>,
}

struct State {
    rng: fastrand::Rng,
    store: MemoryStore,
    pace: Pace,
    /// Until when it takes many times as long, and how many.
    slow: (u64, u32),
    stalled_until: u64,
    full: bool,
    fail_sync: bool,
    fail_read: bool,
    /// The index whose record is not what was written.
    rotten: Option<Index>,
    /// Faults that a server has seen and not got over: what it does now is their doing.
    wounded: bool,
    flight: Option<Flight>,
    /// What is to happen in the middle of the next write.
    ambush: Option<Box<dyn FnOnce() + Send>>,
    flights: u64,
    life: u64,
}

/// How long a disk takes when nothing is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pace {
    /// A sync takes at least this long; zero is a disk that answers at once.
    pub(crate) sync: Duration,
    /// And up to this much longer.
    pub(crate) jitter: Duration,
    pub(crate) read: Duration,
}

/// A batch that is not synced yet.
struct Flight {
    number: u64,
    handle: Arc<MemoryStore>,
    writes: Vec<Write>,
}

impl Disk {
    pub(crate) fn new(
        server: usize,
        pace: Pace,
        seed: u64,
        kernel: Kernel,
        oracle: Oracle,
    ) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            store: MemoryStore::new(),
            pace,
            slow: (0, 1),
            stalled_until: 0,
            full: false,
            fail_sync: false,
            fail_read: false,
            rotten: None,
            wounded: false,
            flight: None,
            ambush: None,
            flights: 0,
            life: 0,
        };
        Self { shared: Arc::new(Shared { server, kernel, oracle, state: Mutex::new(state) }) }
    }

    /// The store as the next process of its server opens it. Those before have ended.
    pub(crate) fn open(&self) -> SimStore {
        let mut state = self.shared.lock();
        state.life += 1;
        state.wounded = false;
        let handle = Arc::new(state.store.clone());
        SimStore { shared: Arc::clone(&self.shared), handle, life: state.life }
    }

    /// The process has ended, or the power has gone.
    pub(crate) fn crash(&self) {
        let mut state = self.shared.lock();
        state.life += 1;
        let flight = state.flight.take();
        let struck = flight.map(|flight| {
            let fate = state.draw_fate(&flight.writes);
            (fate, flight)
        });
        let store = state.store.clone();
        drop(state);
        if let Some((kind, flight)) = struck {
            self.shared.oracle.strike(kind);
            if kind == FaultKind::UnsyncedKept {
                self.shared.land(&flight.handle, flight.writes);
            }
        }
        store.faults().crash(Fate::Lost);
    }

    /// Everything that was on it is gone, unless somebody has kept a copy of whose it was.
    pub(crate) fn wipe(&self, with_identity: bool) {
        self.crash();
        let mut state = self.shared.lock();
        let before = std::mem::replace(&mut state.store, MemoryStore::new());
        let identity = before.peek().ok().flatten().map(|found| found.identity);
        if let Some(identity) = identity.filter(|_| with_identity) {
            // A store in memory is done when it is asked.
            let _ = pin!(state.store.create(&identity))
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
        }
        state.rotten = None;
        state.ambush = None;
        drop(state);
        self.shared.oracle.on_wiped(self.shared.server);
    }

    /// Calls `then` in the middle of the next write.
    pub(crate) fn ambush(&self, then: impl FnOnce() + Send + 'static) {
        self.shared.lock().ambush = Some(Box::new(then));
    }

    pub(crate) fn slow_down(&self, until: u64, factor: u32) {
        self.shared.lock().slow = (until, factor);
    }

    pub(crate) fn stall(&self, until: u64) {
        self.shared.lock().stalled_until = until;
    }

    pub(crate) fn fill(&self) {
        self.shared.lock().full = true;
    }

    pub(crate) fn fail_next_sync(&self) {
        self.shared.lock().fail_sync = true;
    }

    pub(crate) fn fail_next_read(&self) {
        self.shared.lock().fail_read = true;
    }

    /// Some record of the log turns bad. Says whether there is one.
    pub(crate) fn rot(&self) -> bool {
        let mut state = self.shared.lock();
        let last = state.store.peek().ok().flatten().map_or(0, |found| found.last.index.0);
        if last < 2 {
            return false;
        }
        let index = state.rng.u64(2..=last);
        state.rotten = Some(Index(index));
        true
    }

    /// Somebody sees to it: space is made, bad records come back from their copies.
    pub(crate) fn mend(&self) {
        let mut state = self.shared.lock();
        (state.full, state.fail_sync, state.fail_read) = (false, false, false);
        state.rotten = None;
    }

    /// And nothing is slow any more.
    pub(crate) fn heal(&self) {
        self.mend();
        let mut state = self.shared.lock();
        state.slow = (0, 1);
        state.stalled_until = 0;
    }

    /// Whether a fault struck this life of its server.
    pub(crate) fn is_wounded(&self) -> bool {
        self.shared.lock().wounded
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is on the disk.
    fn land(
        &self,
        handle: &MemoryStore,
        writes: Vec<Write>,
    ) -> Option<Result<Vec<Write>, StoreError>> {
        let told = writes.clone();
        let mut write = pin!(handle.write(writes));
        // A store in memory is done when it is asked.
        let Poll::Ready(done) = write.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            return None;
        };
        if done.is_ok() {
            self.oracle.on_durable(self.server, &told);
        }
        Some(done)
    }

    fn wound(&self, kind: FaultKind) {
        self.lock().wounded = true;
        self.oracle.strike(kind);
        self.oracle.note(|| format!("disk {}: {}", self.server, kind.meaning()));
    }

    /// The time that something takes which takes `base` on a disk that is well; and the disk answers. Who
    /// waits looks up now and then, because the disk may be well again before its time.
    async fn wait(&self, base: impl Fn(&mut State) -> Duration) {
        /// How long nobody looks up.
        const LOOK: u64 = 200_000_000;
        let begun = self.kernel.now();
        let base = nanos(base(&mut self.lock()));
        loop {
            let now = self.kernel.now();
            let end = self.lock().end_of(begun, base, now);
            if now >= end {
                return;
            }
            self.kernel.sleep(Duration::from_nanos((end - now).min(LOOK))).await;
        }
    }
}

impl State {
    /// When that ends which began at `begun` and takes `base` on a disk that is well, as it looks at `now`.
    fn end_of(&self, begun: u64, base: u64, now: u64) -> u64 {
        let (until, factor) = self.slow;
        let factor = if now < until { u64::from(factor) } else { 1 };
        (begun + base * factor).max(self.stalled_until)
    }

    fn sync_time(&mut self) -> Duration {
        let jitter = u64::try_from(self.pace.jitter.as_nanos()).unwrap_or(u64::MAX);
        let extra = if jitter == 0 { 0 } else { self.rng.u64(..jitter) };
        self.pace.sync + Duration::from_nanos(extra)
    }

    /// What a crash leaves of a batch: any subset of its sectors.
    fn draw_fate(&mut self, writes: &[Write]) -> FaultKind {
        let bytes: usize = writes.iter().map(size).sum();
        // A record and the mark of its commit are sectors of their own.
        let sectors = (2 + bytes / 512).min(64);
        let likely = self.rng.f64();
        let kept = (0..sectors).filter(|_| self.rng.f64() < likely).count();
        if kept == sectors {
            FaultKind::UnsyncedKept
        } else if kept == 0 {
            FaultKind::UnsyncedLost
        } else {
            FaultKind::TornTail
        }
    }
}

fn size(write: &Write) -> usize {
    match write {
        Write::Append(entries) => entries.size(),
        _ => 32,
    }
}

/// A disk as one process has it open.
pub(crate) struct SimStore {
    shared: Arc<Shared>,
    handle: Arc<MemoryStore>,
    life: u64,
}

impl SimStore {
    fn check_life(&self) -> Result<(), StoreError> {
        if self.shared.lock().life == self.life { Ok(()) } else { Err(StoreError::Fenced) }
    }

    fn failed(&self, kind: FaultKind, action: &'static str) -> StoreError {
        self.shared.wound(kind);
        let reason = match kind {
            FaultKind::FullDisk => io::ErrorKind::StorageFull,
            _ => io::ErrorKind::Other,
        };
        StoreError::Io { action, source: io::Error::new(reason, kind.meaning()) }
    }

    fn corrupt(&self, index: Index) -> StoreError {
        self.shared.wound(FaultKind::BitRot);
        StoreError::Corrupt {
            location: format!("entry {index}"),
            reason: "the checksum does not match".into(),
        }
    }

    /// Reads fail where the disk says so.
    fn check_read(&self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.shared.lock().fail_read) {
            return Err(self.failed(FaultKind::ReadError, "read"));
        }
        Ok(())
    }

    /// Puts a batch on its way. Gives its number.
    fn take_off(&self, writes: Vec<Write>) -> u64 {
        let mut state = self.shared.lock();
        state.flights += 1;
        let number = state.flights;
        state.flight = Some(Flight { number, handle: Arc::clone(&self.handle), writes });
        if let Some(then) = state.ambush.take() {
            let shortest = u64::try_from(state.pace.sync.as_nanos()).unwrap_or(u64::MAX);
            let soon = self.shared.kernel.now() + state.rng.u64(..=shortest);
            self.shared.kernel.call_at(soon, then);
        }
        number
    }
}

#[async_trait]
impl LogStore for SimStore {
    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        self.handle.identity().await
    }

    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        self.shared.wait(State::sync_time).await;
        self.check_life()?;
        self.handle.create(identity).await
    }

    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        self.shared.wait(|state| state.pace.read * 4).await;
        self.check_life()?;
        self.check_read()?;
        // Opening looks at the end of the log, and at little else.
        let (rotten, last) = {
            let state = self.shared.lock();
            let last = state.store.peek().ok().flatten().map_or(Index(0), |found| found.last.index);
            (state.rotten, last)
        };
        if let Some(index) = rotten.filter(|index| index.0 + 64 > last.0) {
            return Err(self.corrupt(index));
        }
        let recovered = self.handle.recover().await?;
        if let Some(recovered) = &recovered {
            self.shared.oracle.on_recovered(self.shared.server, recovered);
        }
        Ok(recovered)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        self.check_life()?;
        if self.shared.lock().full {
            return Err(self.failed(FaultKind::FullDisk, "write"));
        }
        let number = self.take_off(writes);
        self.shared.wait(State::sync_time).await;
        let flight = {
            let mut state = self.shared.lock();
            state.flight.take_if(|flight| flight.number == number)
        };
        // Whoever crashed the disk has decided about it.
        let Some(flight) = flight else { return Err(StoreError::Fenced) };
        if std::mem::take(&mut self.shared.lock().fail_sync) {
            let kind = self.shared.lock().draw_fate(&flight.writes);
            if kind == FaultKind::UnsyncedKept {
                self.shared.land(&flight.handle, flight.writes);
            }
            return Err(self.failed(FaultKind::SyncError, "sync"));
        }
        let done = self.shared.land(&flight.handle, flight.writes);
        done.unwrap_or(Err(StoreError::Fenced))
    }

    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        self.shared.wait(|state| state.pace.read).await;
        self.check_read()?;
        let loaded = self.handle.read(range, max_bytes).await?;
        let rotten = self.shared.lock().rotten;
        if let (Some(index), Loaded::Entries(entries)) = (rotten, &loaded)
            && entries.get(index).is_some()
        {
            return Err(self.corrupt(index));
        }
        Ok(loaded)
    }

    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        self.shared.wait(State::sync_time).await;
        self.check_life()?;
        self.handle.stage(chunk).await
    }

    async fn read_snapshot(
        &self,
        id: u64,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Bytes, StoreError> {
        self.shared.wait(|state| state.pace.read).await;
        self.check_read()?;
        self.handle.read_snapshot(id, offset, max_bytes).await
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("server", &self.shared.server).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
