//! A store in memory that outlives the server that writes to it.

mod log;
mod snapshots;
mod switches;

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use async_trait::async_trait;
use bytes::Bytes;
use graft_core::{
    HardState, Identity, Index, Loaded, LogStore, Recovered, SnapshotChunk, StoreError, Term, Write,
};

use self::{
    log::Log,
    snapshots::Snapshots,
    switches::{Batch, Outcome, Ticket},
};
use crate::{
    fault::{Fate, Faults},
    plan,
};

pub(crate) use self::switches::{Switches, Told};

/// A [`LogStore`] in memory. It outlives its server, so a restart finds everything again; it does not
/// outlive the process.
///
/// Each clone is a handle of its own on the same store. Only the handle that was the last to
/// [`create`](LogStore::create) or [`recover`](LogStore::recover) may write and stage; all others get
/// [`StoreError::Fenced`]. Give each start of a server a clone of its own: then a server that was
/// thought dead cannot write any more once the next one has recovered. Any handle may read.
///
/// A write is done when its future is first polled, unless a switch of [`Faults`] says otherwise: it
/// costs a lock, nothing per entry that is there already, and a look at the kind of each new one.
/// Entries stay in the segments in which they came, shared with everybody else who holds them.
///
/// Where the promises of [`LogStore`] leave a choice, this store decides:
///
/// * An [`Append`](Write::Append) of no entries changes nothing. One that begins at or below what is
///   compacted, leaves a gap, or begins with a lower term than the entry before it is
///   [`StoreError::BadWrite`], and nothing of its batch happens.
/// * What could not be given back as it is, or not be counted on from, is [`StoreError::BadWrite`] too: an
///   index of 2^62 or above, a payload of 4 GiB or more, and a membership entry that does not decode,
///   without which the list of memberships that `recover` returns would be wrong.
/// * [`InstallSnapshot`](Write::InstallSnapshot) needs all bytes of the snapshot staged; their digest is
///   the caller's to check. Where the log holds the snapshot's last entry, the log stays as it is, and
///   a [`Compact`](Write::Compact) drops the part before: so slow followers can be served from it.
/// * A [`Compact`](Write::Compact) below what is compacted changes nothing. One that names an entry the
///   log does not hold, or drops entries that no installed snapshot covers, is
///   [`StoreError::BadWrite`]: after it the machine could never be built again.
/// * At most four snapshots are staged at once; a fifth displaces the one least recently added to. A
///   chunk at byte 0 begins its snapshot anew. Recovery forgets all that was staged.
///
/// ```
/// # graft_storage::conformance::block_on(std::time::Duration::from_secs(10), async {
/// use graft_core::{Birth, ClusterId, Epoch, Identity, Incarnation, LogStore, NodeId};
/// let store = graft_storage::MemoryStore::new();
/// let identity = Identity {
///     cluster: ClusterId::of("stack", &["server1"]),
///     epoch: Epoch(0),
///     node: NodeId::of_name("server1"),
///     name: "server1".into(),
///     incarnation: Incarnation(7),
///     birth: Birth::Founder,
///     machine: "stack".into(),
///     format: 0,
/// };
/// assert!(store.recover().await?.is_none());
/// store.create(&identity).await?;
///
/// let restarted = store.clone();
/// assert_eq!(restarted.recover().await?.map(|found| found.identity), Some(identity));
/// assert!(store.write(Vec::new()).await.is_err(), "the older handle is fenced");
/// # Ok::<(), graft_core::StoreError>(())
/// # }).expect("a memory store never waits").unwrap();
/// ```
pub struct MemoryStore {
    shared: Shared,
    /// The generation of the store in which this handle may write; zero is none.
    generation: AtomicU64,
}

/// What all handles of one store share.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

/// Invariant: `generation` rises with every recovery and every crash, and only what was given under
/// the current one is ever applied.
#[derive(Default)]
pub(crate) struct State {
    generation: u64,
    identity: Option<Identity>,
    hard_state: HardState,
    log: Log,
    snapshots: Snapshots,
    /// Why the store can no longer be trusted in this process.
    poisoned: Option<String>,
    pub(crate) switches: Switches,
    scratch: Vec<(Index, Term)>,
}

enum Submitted {
    Done(Outcome),
    Held(Ticket),
}

impl MemoryStore {
    /// An empty store, not born yet.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Shared(Arc::default()), generation: AtomicU64::new(0) }
    }

    /// The switches that make this store fail, for tests.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::new(self.shared.clone())
    }

    /// What [`recover`](LogStore::recover) would return now, without fencing anybody.
    ///
    /// # Errors
    ///
    /// Those of `recover`.
    pub fn peek(&self) -> Result<Option<Recovered>, StoreError> {
        self.shared.lock().recovered()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Does a write, or hands it to the switch that holds it.
    fn submit(&self, writes: Vec<Write>) -> Submitted {
        let generation = self.generation();
        let mut state = self.shared.lock();
        if let Err(error) = state.check_owner(generation) {
            return Submitted::Done(Err(error));
        }
        if !state.switches.is_write_in_doubt() {
            return Submitted::Done(state.apply(writes));
        }
        let batch = Batch { generation, writes, failure: state.switches.fail_write.take() };
        if !state.switches.hold_writes {
            return Submitted::Done(state.finish(batch));
        }
        let ticket = state.switches.hold(batch);
        let waiting = state.switches.take_waiting();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Submitted::Held(ticket)
    }

    fn own(&self, state: &mut State) {
        self.generation.store(state.next_generation(), Ordering::Relaxed);
    }
}

impl Clone for MemoryStore {
    /// Another handle on the same store. It must recover (or create) before it writes.
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), generation: AtomicU64::new(0) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("MemoryStore")
            .field("server", &state.identity.as_ref().map(|own| &own.name))
            .field("hard_state", &state.hard_state)
            .field("compacted", &state.log.outline().compacted)
            .field("last", &state.log.outline().last)
            .field("snapshot", &state.snapshots.installed())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LogStore for MemoryStore {
    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        let state = self.shared.lock();
        state.check_sound()?;
        Ok(state.identity.clone())
    }

    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        let mut state = self.shared.lock();
        if let Some(owner) = &state.identity {
            let name = owner.name.clone();
            return Err(StoreError::AlreadyBorn { name });
        }
        state.identity = Some(identity.clone());
        self.own(&mut state);
        Ok(())
    }

    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        let mut state = self.shared.lock();
        state.switches.fail_recover()?;
        let recovered = state.recovered()?;
        self.own(&mut state);
        state.snapshots.forget_staged();
        let told = state.give_up_held();
        drop(state);
        told.into_iter().for_each(Told::tell);
        Ok(recovered)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        match self.submit(writes) {
            Submitted::Done(outcome) => outcome,
            Submitted::Held(ticket) => ticket.await,
        }
    }

    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        self.shared.until(|switches| !switches.hold_reads).await;
        let mut state = self.shared.lock();
        state.switches.fail_read()?;
        state.check_born()?;
        let last = state.log.outline().last.index;
        if range.is_empty() || range.start > last {
            return Err(StoreError::OutOfRange { range, last });
        }
        let compacted = state.log.outline().compacted;
        if range.start <= compacted.index {
            return Ok(Loaded::Compacted(compacted));
        }
        let range = range.start..range.end.min(last.next());
        Ok(Loaded::Entries(state.log.read(range, max_bytes)))
    }

    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        self.shared.until(|switches| !switches.hold_writes).await;
        let mut state = self.shared.lock();
        state.check_owner(self.generation())?;
        state.snapshots.stage(chunk)
    }

    async fn read_snapshot(
        &self,
        id: u64,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Bytes, StoreError> {
        self.shared.until(|switches| !switches.hold_reads).await;
        let mut state = self.shared.lock();
        state.switches.fail_read()?;
        state.check_born()?;
        state.snapshots.read(id, offset, max_bytes)
    }
}

impl Shared {
    /// No user's code runs while the lock is held, so a poisoned one is as good as any.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    fn check_born(&self) -> Result<&Identity, StoreError> {
        self.identity.as_ref().ok_or(StoreError::NotBorn)
    }

    fn check_owner(&self, generation: u64) -> Result<(), StoreError> {
        self.check_born()?;
        self.check_sound()?;
        if generation == self.generation { Ok(()) } else { Err(StoreError::Fenced) }
    }

    fn check_sound(&self) -> Result<(), StoreError> {
        match &self.poisoned {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned { reason: reason.clone() }),
        }
    }

    fn recovered(&self) -> Result<Option<Recovered>, StoreError> {
        self.check_sound()?;
        let Some(identity) = &self.identity else {
            return Ok(None);
        };
        let log = self.log.outline();
        Ok(Some(Recovered {
            identity: identity.clone(),
            hard_state: self.hard_state,
            compacted: log.compacted,
            last: log.last,
            last_time: log.last_time,
            terms: log.terms.clone(),
            memberships: log.decoded_memberships()?,
            snapshot: self.snapshots.installed().cloned(),
        }))
    }

    /// Applies a batch, or changes nothing.
    fn apply(&mut self, mut writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        plan::check(self.log.outline(), &self.snapshots, &writes, &mut self.scratch)?;
        for order in writes.drain(..) {
            self.apply_order(order);
        }
        Ok(writes)
    }

    fn apply_order(&mut self, order: Write) {
        match order {
            Write::HardState(hard_state) => self.hard_state = hard_state,
            Write::Append(entries) => self.log.append(entries),
            Write::InstallSnapshot(meta) => {
                if self.log.outline().term_at(meta.last.index) != Some(meta.last.term) {
                    self.log.restart_after(meta.last, meta.time);
                }
                self.snapshots.install(meta);
            }
            Write::Compact(upto) => {
                if upto.index > self.log.outline().compacted.index {
                    self.log.compact(upto);
                }
            }
            unknown => unreachable!("the plan refuses what it does not know: {unknown:?}"),
        }
    }

    /// Ends a write that a switch had a say in.
    fn finish(&mut self, batch: Batch) -> Result<Vec<Write>, StoreError> {
        self.check_owner(batch.generation)?;
        match batch.failure {
            None => return self.apply(batch.writes),
            Some(Fate::Kept) => drop(self.apply(batch.writes)?),
            Some(Fate::Lost) => {}
        }
        let error = switches::injected("write");
        self.poisoned = Some(error.to_string());
        Err(error)
    }

    /// The process ends: nothing given to a handle until now can happen after this.
    pub(crate) fn crash(&mut self, held: Fate) -> Vec<Told> {
        let told = match held {
            Fate::Lost => self.give_up_held(),
            Fate::Kept => self.release(usize::MAX),
        };
        self.next_generation();
        self.snapshots.forget_staged();
        self.poisoned = None;
        told
    }
}
