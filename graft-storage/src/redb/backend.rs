//! What redb sees of a segment's file.
//!
//! A file is opened *on trial*: what redb's recovery writes goes to memory, in order, until the
//! store has looked at what was recovered and its server has recovered the store. Then the writes are
//! done for real, syncs included; where it never comes to that, the file is as it was found. A file that is only read stays on trial for
//! good, and one whose segment is sealed goes back to it: nothing that redb does when it closes
//! reaches a sealed file.
//!
//! The length that redb sets is told to redb alone. The file grows when it is written, by less than
//! redb asks for, and never shrinks: writing into space that it has needs no commit of the file
//! system's journal. Recovery goes by the length of the file, which is all that a crash leaves.
//!
//! A file can be [copied](Backend::copy) while it is written. The copy is the file as it was at one instant, which
//! is what the end of a process at that instant would leave, and so what every opening can make sense of.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::StorageBackend;

use super::{
    check::Pacer,
    pages::{self, Pages},
    shared::Shared as Store,
};
use crate::medium::{Medium, MediumFile};

/// The size of redb's pages, of which all lengths it knows are multiples.
const BLOCK_SIZE: usize = 4096;
const BLOCK: u64 = BLOCK_SIZE as u64;

/// A file that needs more space than it was given ahead grows by a quarter, within these bounds:
/// redb would double it.
const MIN_GROWTH: u64 = 64 * 1024;
const MAX_GROWTH: u64 = 1024 * 1024;

/// A segment's file, shared by redb and the segment.
#[derive(Clone)]
pub(super) struct Backend(Arc<Shared>);

struct Shared {
    name: String,
    medium: Arc<dyn Medium>,
    file: Box<dyn MediumFile>,
    trial: RwLock<Option<Trial>>,
    /// The length that redb knows of.
    length: AtomicU64,
    /// The length of the file itself.
    physical: AtomicU64,
    growing: Mutex<()>,
    copies: Mutex<Copies>,
    /// Whether anything was written since the last sync.
    is_dirty: AtomicBool,
    failure: Mutex<Option<Failure>>,
    /// Makes whoever reads rest.
    pacer: OnceLock<(Arc<Pacer>, Arc<Store>)>,
    /// Whether redb is told that nothing can be written any more.
    closed: AtomicBool,
    /// Where redb read last.
    last_read: AtomicU64,
    /// The page that redb found not to be what was written when it opened the file.
    bad_page: OnceLock<u64>,
}

/// The first call that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) action: &'static str,
    pub(super) kind: io::ErrorKind,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(action: &'static str, error: &io::Error) -> Self {
        Self { action, kind: error.kind(), text: error.to_string() }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

/// The copies that are being made of the file.
#[derive(Default)]
struct Copies {
    count: usize,
    /// The blocks that were written since the first of them was begun.
    written: BTreeSet<u64>,
}

/// One copy. While there is one, what is written is noted.
struct Copying<'a>(&'a Shared);

impl<'a> Copying<'a> {
    fn begin(shared: &'a Shared) -> Self {
        // What is being written just now would not be noted any more.
        let _still = shared.write_trial();
        shared.lock_copies().count += 1;
        Self(shared)
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        let mut copies = self.0.lock_copies();
        copies.count -= 1;
        if copies.count == 0 {
            copies.written.clear();
        }
    }
}

/// How much of a file is copied at once, in bytes.
const PIECE: usize = 256 * 1024;

/// What was written on trial.
#[derive(Default)]
struct Trial {
    blocks: BTreeMap<u64, Box<[u8]>>,
    /// The calls to repeat on the file, where they may be.
    calls: Option<Vec<Call>>,
}

enum Call {
    Write(u64, Box<[u8]>),
    Sync,
}

impl Backend {
    /// A file on trial. redb is told that it is `length` bytes long: zero makes it begin a new
    /// database.
    pub(super) fn new(
        medium: Arc<dyn Medium>,
        name: &str,
        file: Box<dyn MediumFile>,
        length: u64,
    ) -> io::Result<Self> {
        let physical = file.len()?;
        Ok(Self(Arc::new(Shared {
            name: name.to_owned(),
            medium,
            file,
            trial: RwLock::new(Some(Trial { calls: Some(Vec::new()), ..Trial::default() })),
            length: AtomicU64::new(length),
            physical: AtomicU64::new(physical),
            growing: Mutex::default(),
            copies: Mutex::default(),
            // A process before this one may have written and not synced.
            is_dirty: AtomicBool::new(true),
            failure: Mutex::default(),
            pacer: OnceLock::new(),
            closed: AtomicBool::new(false),
            last_read: AtomicU64::new(0),
            bad_page: OnceLock::new(),
        })))
    }

    /// The same for a thread that is to read it slowly.
    pub(super) fn paced(self, pacer: (Arc<Pacer>, Arc<Store>)) -> Self {
        // A second one would change nothing: it is set where the file is opened.
        let _ = self.0.pacer.set(pacer);
        self
    }

    /// Ends the trial: what was written in it is written to the file, and so is what comes. What the
    /// file then holds is durable.
    pub(super) fn accept(&self) -> io::Result<()> {
        let mut trial = self.0.write_trial();
        let calls = trial.take().and_then(|trial| trial.calls).unwrap_or_default();
        calls.iter().try_for_each(|call| match call {
            Call::Write(offset, bytes) => self.0.write_file(*offset, bytes),
            Call::Sync => self.0.sync_file(),
        })?;
        // Also where redb had nothing to write: what it found may be of a process that ended before
        // its sync did.
        self.0.sync_file()
    }

    /// Ends the trial of a file that nobody knows by its name yet: one sync at the end is enough.
    pub(super) fn accept_new(&self) -> io::Result<()> {
        if let Some(Trial { calls: Some(calls), .. }) = &mut *self.0.write_trial() {
            calls.retain(|call| !matches!(call, Call::Sync));
            calls.push(Call::Sync);
        }
        self.accept()
    }

    /// From now on the file stays as it is, whatever redb does.
    pub(super) fn freeze(&self) {
        let mut trial = self.0.write_trial();
        match &mut *trial {
            Some(trial) => trial.calls = None,
            none => *none = Some(Trial::default()),
        }
    }

    /// From now on redb cannot write, and does not try for long: it is about to be dropped, and
    /// what it does to close a database in an orderly way is of no use to files that are never
    /// taken for orderly.
    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }

    /// The name that the file has, or is to have.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// redb, which checks pages one by one as it reads them, has just found one that is not what
    /// was written.
    pub(super) fn note_bad_page(&self) {
        // The first one counts: behind it redb begins anew, with an earlier commit.
        let _ = self.0.bad_page.set(self.0.last_read.load(Ordering::Relaxed));
    }

    /// Whether redb has found such a page, and whose it is.
    pub(super) fn bad_page(&self) -> Option<Pages> {
        self.0.bad_page.get().map(|at| self.owner(*at))
    }

    /// Whose page redb was at when it gave up opening the file.
    pub(super) fn suspect(&self) -> Pages {
        let at = || self.owner(self.0.last_read.load(Ordering::Relaxed));
        self.bad_page().unwrap_or_else(at)
    }

    fn owner(&self, at: u64) -> Pages {
        pages::owner(at, &|offset, into| self.0.read_padded(offset, into))
    }

    /// The length of the file.
    pub(super) fn physical_length(&self) -> u64 {
        self.0.physical.load(Ordering::Relaxed)
    }

    /// The length that redb has set.
    pub(super) fn wanted_length(&self) -> u64 {
        self.0.length.load(Ordering::Relaxed)
    }

    /// The first call that failed, if one did.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bytes of the file itself at one instant, whatever redb has in its memory; or `None` where `step`,
    /// which is told after each piece how many bytes were read, says that it is enough. A read that fails is
    /// nothing to redb.
    ///
    /// First all of it is read while it may be written, and then, while it is not, what was written
    /// meanwhile. That is in the system's cache, so nobody waits for long.
    pub(super) fn copy(&self, step: &mut dyn FnMut(usize) -> bool) -> io::Result<Option<Vec<u8>>> {
        let shared = &*self.0;
        let _noted = Copying::begin(shared);
        let length =
            || Ok::<_, io::Error>(usize::try_from(shared.file.len()?).unwrap_or(usize::MAX));
        let mut bytes = vec![0; length()?];
        let mut at = 0;
        for piece in bytes.chunks_mut(PIECE) {
            shared.file.read_at(at, piece)?;
            at += piece.len() as u64;
            if !step(piece.len()) {
                return Ok(None);
            }
        }
        // Whoever writes holds this for reading.
        let _still = shared.write_trial();
        bytes.resize(length()?, 0);
        let mut read = |from: u64| -> io::Result<()> {
            let begin = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            let end = bytes.len().min(begin + BLOCK_SIZE);
            shared.file.read_at(from, &mut bytes[begin..end])
        };
        let written = shared.lock_copies().written.clone();
        written.into_iter().map(|block| block * BLOCK).try_for_each(&mut read)?;
        let end = shared.file.len()?;
        (at / BLOCK * BLOCK..end).step_by(BLOCK_SIZE).try_for_each(read)?;
        Ok(Some(bytes))
    }

    /// Bytes of the file itself, whatever redb has written on trial.
    pub(super) fn read_file(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.note("read", self.0.file.read_at(offset, into))
    }
}

impl Shared {
    fn read_trial(&self) -> RwLockReadGuard<'_, Option<Trial>> {
        self.trial.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_trial(&self) -> RwLockWriteGuard<'_, Option<Trial>> {
        self.trial.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(io::Error::other("the segment is being closed"));
        }
        Ok(())
    }

    /// Remembers the first failure.
    fn note<T>(&self, action: &'static str, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| Failure::new(action, error));
        }
        outcome
    }

    /// After a change has failed, what the disk holds is not known any more.
    fn change<T>(&self, action: &'static str, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome {
            self.medium.poison(&format!("{action} {}: {error}", self.name));
        }
        self.note(action, outcome)
    }

    fn write_file(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.grow_to(offset + bytes.len() as u64)?;
        let mut copies = self.lock_copies();
        if copies.count > 0 {
            copies.written.extend(blocks(offset, bytes.len()).map(|(block, ..)| block));
        }
        drop(copies);
        let written = self.change("write", self.file.write_at(offset, bytes));
        // Behind the write: a sync that came in between has not covered all of it.
        self.is_dirty.store(true, Ordering::SeqCst);
        written
    }

    /// Makes the file as long as `end` and a little longer, unless it is. redb may write from any
    /// thread that reads, and a file must not become shorter by two who make it longer.
    fn grow_to(&self, end: u64) -> io::Result<()> {
        if end <= self.physical.load(Ordering::Acquire) {
            return Ok(());
        }
        let _alone = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let length = self.physical.load(Ordering::Acquire);
        if end > length {
            let grown = end.max(length + (length / 4).clamp(MIN_GROWTH, MAX_GROWTH));
            let grown = grown.next_multiple_of(BLOCK);
            self.change("extend", self.file.set_len(grown))?;
            self.physical.store(grown, Ordering::Release);
        }
        Ok(())
    }

    /// redb also syncs when it sets a length, which the file does not follow.
    fn sync_file(&self) -> io::Result<()> {
        if !self.is_dirty.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        self.change("sync", self.file.sync_data())
    }

    /// Reads what may be beyond the end of the file, as zeros there.
    fn read_padded(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let there = self.physical.load(Ordering::Relaxed).saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(into.len());
        let (there, behind) = into.split_at_mut(there);
        behind.fill(0);
        if there.is_empty() { Ok(()) } else { self.note("read", self.file.read_at(offset, there)) }
    }
}

impl Trial {
    fn write(&mut self, shared: &Shared, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(calls) = &mut self.calls {
            calls.push(Call::Write(offset, bytes.into()));
        }
        for (block, within, part) in blocks(offset, bytes.len()) {
            let found = match self.blocks.entry(block) {
                Entry::Occupied(found) => found.into_mut(),
                Entry::Vacant(place) => {
                    let mut found = vec![0; BLOCK_SIZE].into_boxed_slice();
                    shared.read_padded(block * BLOCK, &mut found)?;
                    place.insert(found)
                }
            };
            found[within..within + part.len()].copy_from_slice(&bytes[part]);
        }
        Ok(())
    }

    fn read(&self, shared: &Shared, offset: u64, into: &mut [u8]) -> io::Result<()> {
        shared.read_padded(offset, into)?;
        for (block, within, part) in blocks(offset, into.len()) {
            if let Some(found) = self.blocks.get(&block) {
                let length = part.len();
                into[part].copy_from_slice(&found[within..within + length]);
            }
        }
        Ok(())
    }
}

/// The blocks that `length` bytes from `offset` touch: the number of each, where in it they begin,
/// and which of the bytes are in it.
fn blocks(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK).unwrap_or(0);
        let part = done..length.min(done + BLOCK_SIZE - within);
        done = part.end;
        Some((at / BLOCK, within, part))
    })
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.length.load(Ordering::Relaxed))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.last_read.store(offset, Ordering::Relaxed);
        // Beyond the end there are zeros, and no error: a commit that a crash tore may refer to
        // pages that the file never got. redb takes zeros for a page that is not what was written,
        // and falls back; an error would end its recovery.
        match &*self.0.read_trial() {
            Some(trial) => trial.read(&self.0, offset, out)?,
            None => self.0.read_padded(offset, out)?,
        }
        if let Some((pacer, store)) = self.0.pacer.get() {
            pacer.rest_after(out.len(), || store.is_closing());
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.check_open()?;
        self.0.length.store(length, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.check_open()?;
        if self.0.read_trial().is_none() {
            // Not under the lock: readers go on while the disk works.
            return self.0.sync_file();
        }
        if let Some(Trial { calls: Some(calls), .. }) = &mut *self.0.write_trial() {
            calls.push(Call::Sync);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.check_open()?;
        let trial = self.0.read_trial();
        if trial.is_none() {
            return self.0.write_file(offset, data);
        }
        drop(trial);
        match &mut *self.0.write_trial() {
            Some(trial) => trial.write(&self.0, offset, data),
            None => self.0.write_file(offset, data),
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backend").field(&self.0.name).finish()
    }
}
