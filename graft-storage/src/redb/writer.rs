//! The thread that writes.

use std::{io, mem, sync::Arc};

use graft_core::{Identity, Index, Recovered, SnapshotMeta, StoreError, Term, Write};
use tokio::sync::{mpsc, oneshot};

use super::{
    commit::{Commit, begin_segment},
    ended,
    facts::State,
    opening::{Files, look},
    reader::Load,
    segment::{Changes, Segment},
    shared::{Published, Shared, copy},
    snapshot::{Snapshot, Snapshots},
    witness::{Acknowledged, Witness},
};
use crate::{medium::Open, plan};

/// How many writes become one commit at most.
const MAX_BATCHES: usize = 1024;

/// A commit takes no further write once its entries have this size.
const MAX_COMMIT_BYTES: usize = 4 << 20;

/// A spare file costs as much writing as all that comes into it, and spares each commit the same. For
/// commits larger than this it does not pay.
const WORTH_A_SPARE: u64 = 32 << 10;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked for, in the order in which it happens.
pub(super) enum Order {
    /// Answered with the generation of the handle that now owns the store.
    Create(Identity, Reply<u64>),
    Recover(Reply<(Option<Recovered>, u64)>),
    Write(Batch),
}

/// A write of one handle.
pub(super) struct Batch {
    pub(super) generation: u64,
    pub(super) writes: Vec<Write>,
    pub(super) reply: Reply<Vec<Write>>,
}

/// A store that was born.
pub(super) struct Born {
    pub(super) state: State,
    pub(super) active: Arc<Segment>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) witness: Witness,
    /// The files that were there when it was opened, until it is taken over.
    pub(super) untouched: Option<Files>,
}

impl Born {
    /// Remembers outside the segment that its latest commit is durable.
    pub(super) fn acknowledge(&mut self) -> Result<(), StoreError> {
        let acknowledged = acknowledged(&self.state, &self.active);
        let action = "write the witness";
        self.witness.acknowledge(acknowledged).map_err(|source| StoreError::Io { action, source })
    }
}

/// The thread that writes. It alone changes the store.
pub(super) struct Writer {
    shared: Arc<Shared>,
    born: Option<Born>,
    /// Why nothing can be written any more.
    broken: Option<StoreError>,
    loads: mpsc::WeakSender<Load>,
    /// Files that nothing refers to any more.
    garbage: Vec<String>,
    scratch: Vec<(Index, Term)>,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        born: Option<Born>,
        loads: mpsc::WeakSender<Load>,
    ) -> Self {
        let (garbage, scratch, buffer) = (Vec::new(), Vec::new(), Vec::new());
        Self { shared, born, broken: None, loads, garbage, scratch, buffer }
    }

    /// Does what it is asked for until nobody is left who could ask.
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        keep_freed_memory();
        let mut next = orders.blocking_recv();
        while let Some(order) = next.take() {
            match order {
                Order::Create(identity, reply) => {
                    let _ = reply.send(self.create(&identity));
                }
                Order::Recover(reply) => {
                    let _ = reply.send(self.recover());
                }
                Order::Write(batch) => next = self.write(batch, &mut orders),
            }
            if next.is_none() {
                next = orders.blocking_recv();
            }
        }
        let is_written = |born: &&Born| born.untouched.is_none() && self.broken.is_none();
        if let Some(born) = self.born.as_ref().filter(is_written) {
            // The next opening could do without; but a disk that fails to sync is not to be
            // trusted.
            if let Err(error) = born.witness.sync() {
                self.shared.medium.poison(&format!("sync the witness: {error}"));
            }
        }
    }

    fn check_usable(&self) -> Result<(), StoreError> {
        self.shared.check_sound()?;
        self.broken.as_ref().map_or(Ok(()), |error| Err(copy(error)))
    }

    fn create(&mut self, identity: &Identity) -> Result<u64, StoreError> {
        if let Some(born) = &self.born {
            let name = born.state.identity.name.clone();
            return Err(StoreError::AlreadyBorn { name });
        }
        self.check_usable()?;
        let medium = &*self.shared.medium;
        let io = |source: io::Error| {
            medium.poison(&format!("the birth of the store: {source}"));
            StoreError::Io { action: "create the store", source }
        };
        let mut witness = Witness::create(medium, identity).map_err(io)?;
        let mut state = State::newborn(identity.clone());
        let active = begin_segment(&self.shared, &mut state, Changes::default())?;
        witness.acknowledge(acknowledged(&state, &active)).map_err(io)?;
        let born =
            self.born.insert(Born { state, active, snapshot: None, witness, untouched: None });
        self.shared.publish(Published::new(born));
        Ok(self.shared.next_generation())
    }

    fn recover(&mut self) -> Result<(Option<Recovered>, u64), StoreError> {
        self.shared.check_sound()?;
        self.reopen_if_failed()?;
        self.check_usable()?;
        let recovered = self.born.as_ref().map(|born| born.state.recovered()).transpose()?;
        // Behind that: what cannot be recovered stays as it was found.
        self.born.as_mut().map_or(Ok(()), |born| born.take_over(&*self.shared.medium))?;
        let mut snapshots = self.shared.snapshots();
        let generation = self.shared.next_generation();
        snapshots.forget_staged(&*self.shared.medium);
        Ok((recovered, generation))
    }

    /// redb does not go on with a file once a read of it has failed. Whoever recovers the store then
    /// begins anew with what the disk holds, as one who opens it.
    fn reopen_if_failed(&mut self) -> Result<(), StoreError> {
        let has_failed = |born: &&mut Born| born.active.backend().failure().is_some();
        let is_broken = self.broken.is_some();
        let Some(before) = self.born.as_mut().filter(|born| is_broken || has_failed(born)) else {
            return Ok(());
        };
        let Shared { medium, options, .. } = &*self.shared;
        let Some(mut born) = look(medium, Open::Existing, options)?.born else {
            return Err(StoreError::NotBorn);
        };
        if before.untouched.is_none() {
            born.untouched = born.untouched.map(Files::without_orphans);
        }
        before.active.freeze();
        *before = born;
        self.broken = None;
        self.shared.publish_anew(Published::new(before));
        tracing::info!(
            store = medium.describe(),
            "opened the store again, since a read had failed"
        );
        Ok(())
    }

    /// Does `first` and the writes that wait behind it in one commit. Returns the order behind
    /// them.
    fn write(&mut self, first: Batch, orders: &mut mpsc::Receiver<Order>) -> Option<Order> {
        let mut commit = Commit::default();
        let mut waiting = Vec::new();
        let mut next = Some(Order::Write(first));
        while let Some(Order::Write(batch)) = next {
            let Batch { generation, writes, reply } = batch;
            match self.plan(&mut commit, generation, writes) {
                Ok(buffer) => waiting.push((buffer, reply)),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
            let is_full =
                waiting.len() >= MAX_BATCHES || commit.changes.entries.size() >= MAX_COMMIT_BYTES;
            next = if is_full { None } else { orders.try_recv().ok() };
        }
        let outcome = if commit.is_empty { Ok(()) } else { self.commit(&mut commit) };
        if let Err(error) = &outcome {
            self.broken = Some(copy(error));
            // redb may show readers what it could not make durable.
            self.shared.end(copy(error));
        }
        for (buffer, reply) in waiting {
            let answer = outcome.as_ref().map(|()| buffer).map_err(copy);
            // Whoever does not wait any more does not mind.
            let _ = reply.send(answer);
        }
        next
    }

    /// Adds a write to a commit, or changes nothing. Returns the emptied buffer.
    fn plan(
        &mut self,
        commit: &mut Commit,
        generation: u64,
        mut writes: Vec<Write>,
    ) -> Result<Vec<Write>, StoreError> {
        if self.born.is_none() {
            return Err(StoreError::NotBorn);
        }
        self.check_usable()?;
        self.shared.check_owner(generation)?;
        let Some(born) = &mut self.born else {
            return Err(StoreError::NotBorn);
        };
        // Whoever stages holds the lock while the disk works, and only an installation has to wait.
        let installs = |order: &Write| matches!(order, Write::InstallSnapshot(_));
        let mut staged = writes.iter().any(installs).then(|| self.shared.snapshots());
        let known = Known { installed: born.snapshot.as_deref(), staged: staged.as_deref() };
        plan::check(&born.state.outline, &known, &writes, &mut self.scratch)?;
        for order in writes.drain(..) {
            match order {
                Write::HardState(hard_state) => {
                    born.state.hard_state = hard_state;
                    commit.is_empty = false;
                }
                Write::Append(entries) => commit.append(&mut born.state, entries),
                Write::InstallSnapshot(meta) => {
                    let Some(staged) = &mut staged else {
                        continue;
                    };
                    let snapshot = staged.install(&*self.shared.medium, meta);
                    let before = born.snapshot.replace(Arc::clone(&snapshot));
                    commit.install(&mut born.state, &snapshot, before.as_deref());
                }
                Write::Compact(upto) => commit.compact(&mut born.state, upto),
                unknown => unreachable!("the plan refuses what it does not know: {unknown:?}"),
            }
        }
        Ok(writes)
    }

    fn commit(&mut self, commit: &mut Commit) -> Result<(), StoreError> {
        let Some(born) = &mut self.born else {
            return Err(StoreError::NotBorn);
        };
        let shared = &self.shared;
        let io = |action: &'static str| {
            move |source: io::Error| {
                shared.medium.poison(&format!("{action}: {source}"));
                StoreError::Io { action, source }
            }
        };
        if commit.has_new_file {
            shared.medium.sync_names().map_err(io("make the names of files durable"))?;
        }
        let rotates = is_full(&born.active, &born.state, shared);
        let footprint = if rotates {
            commit.rotate(born, shared)?;
            born.state.written
        } else {
            let footprint = commit.changes.lay_out(born.active.version);
            commit.changes.facts = commit.changed_facts();
            born.state.advance(&commit.changes.facts);
            born.state.written += footprint;
            born.active.commit(&commit.changes, &born.state, &mut self.buffer)?;
            footprint
        };
        let acknowledged = acknowledged(&born.state, &born.active);
        born.witness.acknowledge(acknowledged).map_err(io("write the witness"))?;
        if rotates {
            born.witness.sync().map_err(io("sync the witness"))?;
        }
        shared.publish(match shared.published() {
            Some(before) => before.next(born, rotates || commit.sealed, commit.terms),
            None => Published::new(born),
        });
        self.garbage.append(&mut commit.garbage);
        let options = &shared.options;
        let needs_spare = options.preallocated_bytes > 0
            && footprint <= WORTH_A_SPARE
            && born.state.written > options.segment_bytes / 2
            && shared.spare.is_missing();
        if needs_spare || !self.garbage.is_empty() {
            self.ask_for_help(needs_spare);
        }
        Ok(())
    }

    /// Asks the thread that reads for what would take long, when it has time to be asked: files
    /// that are never removed are removed when the store is opened again, and without a spare file
    /// a new one grows.
    fn ask_for_help(&mut self, needs_spare: bool) {
        let Some(loads) = self.loads.upgrade() else {
            return;
        };
        if !self.garbage.is_empty()
            && let Ok(free) = loads.try_reserve()
        {
            free.send(Load::Remove(mem::take(&mut self.garbage)));
        }
        if needs_spare && let Ok(free) = loads.try_reserve() {
            self.shared.spare.want();
            free.send(Load::MakeSpare);
        }
    }
}

impl Drop for Writer {
    /// Also where it panicked: nobody is to wait for what does not come.
    fn drop(&mut self) {
        self.shared.end(ended());
    }
}

/// redb takes memory for each page it writes, and frees it. What a thread frees at the end of its heap,
/// glibc gives back to the system at once, to get it again page by page: a sixth of the time of a
/// commit of a megabyte. It does so no longer below twice the size of the largest block that was ever
/// freed, so one is taken and freed, which is never touched. Other allocators do not mind.
fn keep_freed_memory() {
    const BLOCK: usize = 4 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK)));
}

/// The snapshots that a write must fit.
struct Known<'a> {
    installed: Option<&'a Snapshot>,
    staged: Option<&'a Snapshots>,
}

impl plan::Snapshots for Known<'_> {
    fn covered(&self) -> Index {
        self.installed.map_or(Index(0), |snapshot| snapshot.installed.meta.last.index)
    }

    fn is_complete(&self, meta: &SnapshotMeta) -> bool {
        self.staged.is_some_and(|staged| staged.is_complete(meta))
    }
}

fn acknowledged(state: &State, active: &Segment) -> Acknowledged {
    Acknowledged { sequence: state.sequence, segment: state.active, length: active.length() }
}

/// Whether the next commit belongs into a new segment.
fn is_full(active: &Segment, state: &State, shared: &Shared) -> bool {
    let limit = shared.options.segment_bytes;
    // The pages of the tree take a part of the file, and so do those of the commit before.
    state.written >= limit / 16 * 15 || active.wanted_length() > shared.options.file_bytes()
}
