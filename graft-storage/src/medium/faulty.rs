//! A medium that fails as disks do, as often and where a test wants it.

mod file;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::file::{FaultyFile, Held};
use super::{
    LockGuard, Medium, MediumFile, Open, SECTOR, check_name,
    image::{FileId, Image, PAGE},
    platter::{Change, Machine, Step},
    random::Random,
    trace::Trace,
};

/// A directory in memory on a disk that forgets, tears, refuses and lies as real ones do, for tests of
/// stores. It is a medium of its own: it weakens nothing that lies on another.
///
/// What is written sits in a cache until it is synced; so do names until the directory is. A
/// [`crash`](Self::crash) keeps of that whatever its seed says, within what the
/// [module](super) allows, torn at any sector; an [`exit`](Self::exit) keeps everything in the
/// cache, which is all that the death of a process does. Both return the medium as the next process finds
/// it; every later call on the old one fails.
///
/// Everything that changes what the medium holds, or makes it durable, is a numbered *boundary*: a write,
/// a change of length, a sync, the creation, renaming and removal of a file, a sync of the names. A test
/// can [stop the world](Self::stop_at) at any of them. It can also [record](Self::recording) them all
/// once, and take from the [`Trace`] what a crash at each would leave, without doing the work again.
///
/// Each clone is the same medium in the same process.
///
/// ```
/// use graft_storage::medium::{FaultyMedium, Medium, Open};
///
/// let medium = FaultyMedium::new(7);
/// let file = medium.open("a", Open::CreateNew)?;
/// medium.sync_names()?;
/// file.write_at(0, b"kept")?;
/// file.sync_data()?;
/// file.write_at(0, b"lost, or torn, or kept")?;
/// let medium = medium.crash(1);
/// let mut found = [0; 4];
/// medium.open("a", Open::Existing)?.read_at(0, &mut found)?;
/// assert!(&found == b"kept" || &found == b"lost");
/// assert!(file.sync_data().is_err(), "the process that had it open is gone");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct FaultyMedium {
    shared: Arc<Mutex<State>>,
}

/// A call on a medium or a file of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Call {
    /// [`Medium::open`].
    Open,
    /// [`Medium::list`].
    List,
    /// [`Medium::rename`].
    Rename,
    /// [`Medium::remove`].
    Remove,
    /// [`Medium::sync_names`].
    SyncNames,
    /// [`Medium::lock`].
    Lock,
    /// [`MediumFile::len`].
    Len,
    /// [`MediumFile::read_at`].
    Read,
    /// [`MediumFile::write_at`].
    Write,
    /// [`MediumFile::set_len`].
    SetLen,
    /// [`MediumFile::sync_data`].
    Sync,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::List,
        Self::Rename,
        Self::Remove,
        Self::SyncNames,
        Self::Lock,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::SetLen,
        Self::Sync,
    ];
}

/// Calls that are going to fail with an error of the disk.
///
/// A write that fails may have been done in part. A sync that fails leaves on the disk a part of what it
/// was to make durable, and no later sync makes up for the rest, while reads go on showing all of it:
/// that is what the system's cache does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Which calls; `None` for any.
    pub call: Option<Call>,
    /// How many of them succeed before.
    pub after: u64,
    /// How many fail then. All of them with `u64::MAX`; a few make a short outage.
    pub times: u64,
}

/// Invariant: where `recorded` is, performing its steps on its start gives `machine`.
struct State {
    machine: Machine,
    /// How often each file is open, for those that are.
    open: BTreeMap<FileId, usize>,
    next_file: FileId,
    is_locked: bool,
    poisoned: Option<String>,
    /// Why no call succeeds any more, if so.
    ended: Option<&'static str>,
    faults: Vec<Fault>,
    failed: BTreeMap<Call, u64>,
    calls: BTreeMap<Call, u64>,
    space: Option<u64>,
    boundaries: u64,
    stop_at: Option<u64>,
    recorded: Option<Trace>,
    random: Random,
}

impl FaultyMedium {
    /// An empty one without faults. The seed decides what is left open, such as how much of a write that
    /// fails is done.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::holding(Image::default(), seed)
    }

    /// One whose disk holds `image`.
    #[must_use]
    pub fn holding(image: Image, seed: u64) -> Self {
        Self::of(Machine::new(image), seed)
    }

    pub(super) fn of(machine: Machine, seed: u64) -> Self {
        let state = State {
            next_file: machine.unused_file(),
            machine,
            open: BTreeMap::new(),
            is_locked: false,
            poisoned: None,
            ended: None,
            faults: Vec::new(),
            failed: BTreeMap::new(),
            calls: BTreeMap::new(),
            space: None,
            boundaries: 0,
            stop_at: None,
            recorded: None,
            random: Random::new(seed),
        };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// The same, remembering from now on all that is done to it. Counting of boundaries begins anew.
    #[must_use]
    pub fn recording(self) -> Self {
        let mut state = self.lock_state();
        state.recorded = Some(Trace::beginning_at(state.machine.clone()));
        state.boundaries = 0;
        drop(state);
        self
    }

    /// What was done so far to a medium that [records](Self::recording), or `None` where it does not.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        self.lock_state().recorded.clone()
    }

    /// What whoever reads now sees, synced or not.
    #[must_use]
    pub fn image(&self) -> Image {
        let mut image = self.lock_state().machine.cache.clone();
        image.forget_unnamed(|_| false);
        image
    }

    /// How many boundaries were passed so far.
    #[must_use]
    pub fn boundaries(&self) -> u64 {
        self.lock_state().boundaries
    }

    /// How many calls of this kind were made so far, the failed ones included.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.lock_state().calls.get(&call).copied().unwrap_or(0)
    }

    /// How many calls of this kind a [`Fault`] or a lack of space has made fail so far.
    #[must_use]
    pub fn failed(&self, call: Call) -> u64 {
        self.lock_state().failed.get(&call).copied().unwrap_or(0)
    }

    /// Once so many boundaries were passed since the beginning, nothing happens any more: every call
    /// fails. What is left to do is to [`crash`](Self::crash) or to [`exit`](Self::exit).
    pub fn stop_at(&self, boundary: u64) {
        self.lock_state().stop_at = Some(boundary);
    }

    /// From now on calls fail as `fault` says, beside those that fail already.
    pub fn fail(&self, fault: Fault) {
        self.lock_state().faults.push(fault);
    }

    /// No call fails any more because of a [`Fault`], and there is space again.
    pub fn heal(&self) {
        let mut state = self.lock_state();
        state.faults.clear();
        state.space = None;
    }

    /// Files may take so many bytes more, in pages of 4096; then creating files and writing where nothing
    /// was written yet fails with [`io::ErrorKind::StorageFull`]. A length beyond what is written takes
    /// no space.
    pub fn limit_space(&self, bytes: u64) {
        let mut state = self.lock_state();
        state.space = Some(state.machine.cache.space() + bytes);
    }

    /// The power goes and comes back: what was not synced is kept, torn or lost as the seed says. Nobody
    /// holds the lock any more, and the next process knows nothing of poison. It begins without faults.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut state = self.lock_state();
        state.ended = Some("the power is gone");
        Self::holding(state.machine.crash(seed), seed)
    }

    /// The process ends and another begins, and the system goes on: all that was done can be seen, and
    /// what was not synced would still be lost in a [`crash`](Self::crash). Nobody holds the lock any
    /// more, and the next process knows nothing of poison. It begins without faults.
    #[must_use]
    pub fn exit(&self) -> Self {
        let mut state = self.lock_state();
        state.ended = Some("the process is gone");
        let seed = state.random.next();
        Self::of(state.machine.clone().exit(), seed)
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call in, or says why it fails.
    fn enter(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock_state();
        state.enter(call)?;
        Ok(state)
    }
}

impl State {
    fn enter(&mut self, call: Call) -> io::Result<()> {
        *self.calls.entry(call).or_default() += 1;
        if self.stop_at.is_some_and(|stop| self.boundaries >= stop) {
            self.ended = self.ended.or(Some("the world has stopped"));
        }
        if let Some(reason) = self.ended {
            return Err(io::Error::other(reason));
        }
        let mut is_failing = false;
        for fault in &mut self.faults {
            if fault.call.is_some_and(|meant| meant != call) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times = if fault.times == u64::MAX { u64::MAX } else { fault.times - 1 };
                is_failing = true;
            }
        }
        if is_failing {
            *self.failed.entry(call).or_default() += 1;
            return Err(io::Error::other(format!("the disk failed to {call:?}, as a test wanted")));
        }
        Ok(())
    }

    /// Passes a boundary.
    fn perform(&mut self, step: Step) {
        let open = &self.open;
        self.machine.perform(&step, |file| open.contains_key(&file));
        if let Some(trace) = &mut self.recorded {
            trace.push(step);
        }
        self.boundaries += 1;
    }

    /// Does a sync of a file or of the names, or what is left of one that fails.
    fn sync(&mut self, call: Call, file: Option<FileId>) -> io::Result<()> {
        let entered = self.enter(call);
        if self.ended.is_some() {
            return entered;
        }
        let step = match (&entered, file) {
            (Ok(()), Some(file)) => Step::Sync { file },
            (Ok(()), None) => Step::SyncNames,
            (Err(_), file) => Step::FailedSync { file, seed: self.random.next() },
        };
        self.perform(step);
        entered
    }

    fn file(&self, name: &str) -> io::Result<FileId> {
        check_name(name)?;
        self.machine.cache.names.get(name).copied().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no file `{name}`"))
        })
    }

    fn create(&mut self, name: &str) -> io::Result<FileId> {
        if self.space.is_some_and(|space| self.machine.cache.space() + PAGE as u64 > space) {
            return Err(self.full(Call::Open));
        }
        let file = self.next_file;
        self.next_file += 1;
        self.perform(Step::Change(Change::Create { name: name.into(), file }));
        Ok(file)
    }

    /// How many of the bytes of a write there is space for.
    fn room_for(&self, file: FileId, offset: u64, length: usize) -> usize {
        let (Some(space), Some(content)) = (self.space, self.machine.cache.files.get(&file)) else {
            return length;
        };
        let mut left = space.saturating_sub(self.machine.cache.space()) / PAGE as u64;
        let mut at = 0;
        while at < length {
            if content.is_hole(offset + at as u64) {
                let Some(less) = left.checked_sub(1) else { return at };
                left = less;
            }
            let into_page = usize::try_from((offset + at as u64) % PAGE as u64).unwrap_or(0);
            at = length.min(at + PAGE - into_page);
        }
        length
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) {
        self.perform(Step::Change(Change::Write { file, offset, bytes: bytes.into() }));
    }

    fn full(&mut self, call: Call) -> io::Error {
        *self.failed.entry(call).or_default() += 1;
        io::Error::new(io::ErrorKind::StorageFull, "the disk is full, as a test wanted")
    }

    /// What a failed call leaves behind.
    fn leave_behind(&mut self, file: FileId, offset: u64, bytes: &[u8]) {
        let part = bytes.len().min(SECTOR * self.random.index(bytes.len() / SECTOR + 2));
        if part > 0 {
            self.write(file, offset, &bytes[..part]);
        }
    }
}

impl Medium for FaultyMedium {
    fn open(&self, name: &str, how: Open) -> io::Result<Box<dyn MediumFile>> {
        let mut state = self.enter(Call::Open)?;
        let found = state.file(name);
        let file = match (how, found) {
            (Open::CreateNew, Ok(_)) => {
                let problem = format!("there is a file `{name}` already");
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
            }
            (Open::Create | Open::CreateNew, Err(error))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                state.create(name)?
            }
            (_, found) => found?,
        };
        *state.open.entry(file).or_default() += 1;
        drop(state);
        Ok(Box::new(FaultyFile { medium: self.clone(), file, how }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.enter(Call::List)?;
        Ok(state.machine.cache.names().map(str::to_owned).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.enter(Call::Rename)?;
        check_name(to)?;
        let file = state.file(from)?;
        state.perform(Step::Change(Change::Rename { from: from.into(), to: to.into(), file }));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.enter(Call::Remove)?;
        let file = state.file(name)?;
        state.perform(Step::Change(Change::Remove { name: name.into(), file }));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.lock_state().sync(Call::SyncNames, None)
    }

    fn lock(&self) -> io::Result<LockGuard> {
        let mut state = self.enter(Call::Lock)?;
        if state.is_locked {
            let problem = format!("{} is in use", self.describe());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, problem));
        }
        state.is_locked = true;
        drop(state);
        Ok(LockGuard::new(Held(self.clone())))
    }

    fn poison(&self, reason: &str) {
        self.lock_state().poisoned.get_or_insert_with(|| reason.to_owned());
    }

    fn poisoned(&self) -> Option<String> {
        self.lock_state().poisoned.clone()
    }

    fn describe(&self) -> String {
        "a faulty medium".to_owned()
    }
}

impl fmt::Debug for FaultyMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock_state();
        f.debug_struct("FaultyMedium")
            .field("files", &state.machine.cache)
            .field("boundaries", &state.boundaries)
            .field("ended", &state.ended)
            .finish_non_exhaustive()
    }
}
