//! The next segment's file, made ready while the one before is still written.
//!
//! Writing into blocks that a file has needs no commit of the file system's journal. Filling a file
//! takes long, so the thread that reads does it ahead, a piece at a time so that nobody waits for
//! all of it; or it takes the file of a segment that nothing refers to any more, which is as good.
//! Where neither is done in time, the next segment's file grows as it is written.
//!
//! Two threads have to do with such files: one makes them, the other writes a segment into one and
//! gives that the segment's name. So each file has a name that no other ever gets while the store is
//! open, and name and file are [one value](Unnamed), which one thread owns at a time: whoever has it
//! may rename or remove it, whatever others do meanwhile. None of these names is durable by itself,
//! and opening a store removes what a crash left of them.

use std::{
    io, mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::commit::UNNAMED;
use crate::medium::{Medium, MediumFile, Open};

/// What the names of spare files begin with.
const PREFIX: &str = "spare";

/// How much is written and synced at once, in bytes.
const PIECE: u64 = 1 << 20;

/// A file that is to become a segment, under a name that is its own until then.
#[derive(Debug)]
pub(super) struct Unnamed {
    pub(super) name: String,
    pub(super) file: Box<dyn MediumFile>,
}

impl Unnamed {
    /// A new, empty one. What has `name` goes: a process before this one left it.
    pub(super) fn create(medium: &dyn Medium, name: String) -> io::Result<Self> {
        match medium.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = medium.open(&name, Open::CreateNew)?;
        Ok(Self { name, file })
    }

    /// Removes it. Where that fails it is removed when the store is opened again.
    fn discard(self, medium: &dyn Medium) {
        let _ = medium.remove(&self.name);
    }
}

/// The file that the next segment is going to be in.
#[derive(Debug, Default)]
pub(super) struct Spare {
    state: Mutex<State>,
    /// How many names were given.
    names: AtomicU64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    /// The thread that reads was asked to make one. If it cannot, it is asked again for the segment
    /// after: a disk without space for a spare file is not to be filled up by each commit anew.
    Wanted,
    Ready(Unnamed),
}

impl Spare {
    /// Whether there is none, and nobody was asked to make one for this segment.
    pub(super) fn is_missing(&self) -> bool {
        matches!(*self.lock(), State::None)
    }

    /// Somebody is being asked to make one.
    pub(super) fn want(&self) {
        let mut state = self.lock();
        if matches!(*state, State::None) {
            *state = State::Wanted;
        }
    }

    /// Gives it to the caller, if it is ready. What is not ready in time is ready for the segment
    /// after.
    pub(super) fn take(&self) -> Option<Unnamed> {
        match mem::take(&mut *self.lock()) {
            State::Ready(spare) => Some(spare),
            State::None | State::Wanted => None,
        }
    }

    /// Makes it the next segment's, or gives it back where there is one already.
    fn offer(&self, spare: Unnamed) -> Result<(), Unnamed> {
        let mut state = self.lock();
        if matches!(*state, State::Ready(_)) {
            return Err(spare);
        }
        *state = State::Ready(spare);
        Ok(())
    }

    /// Begins to make one of `length` bytes, unless there is one. Where it cannot be begun there is
    /// none.
    pub(super) fn begin(&self, medium: &dyn Medium, length: u64) -> Option<Filling> {
        if matches!(*self.lock(), State::Ready(_)) {
            return None;
        }
        let spare = Unnamed::create(medium, self.next_name()).ok()?;
        Some(Filling { spare, length, done: 0 })
    }

    /// Goes on making one. Returns what is left to do.
    pub(super) fn go_on(&self, medium: &dyn Medium, mut filling: Filling) -> Option<Filling> {
        if matches!(*self.lock(), State::Ready(_)) {
            // Another file came up.
            filling.spare.discard(medium);
            return None;
        }
        match filling.step() {
            Ok(true) => return Some(filling),
            Ok(false) => {
                if let Err(unused) = self.offer(filling.spare) {
                    unused.discard(medium);
                }
            }
            // Where there is no space for one there is none.
            Err(error) => {
                if !is_full(&error) {
                    medium.poison(&format!("the making of a spare file: {error}"));
                }
                filling.spare.discard(medium);
            }
        }
        None
    }

    /// Makes one of a segment's file, to which nothing refers any more, on the disk or in memory.
    /// Returns whether the segment is gone by that: it is not where there is a spare file, or the
    /// file is too short or far too long.
    pub(super) fn recycle(&self, medium: &dyn Medium, segment: &str, length: u64) -> bool {
        if length == 0 || matches!(*self.lock(), State::Ready(_)) {
            return false;
        }
        let Ok(file) = medium.open(segment, Open::Existing) else {
            return false;
        };
        let fits = file.len().is_ok_and(|found| (length..=length * 2).contains(&found));
        let name = self.next_name();
        if !fits || medium.rename(segment, &name).is_err() {
            return false;
        }
        if let Err(unused) = self.offer(Unnamed { name, file }) {
            unused.discard(medium);
        }
        true
    }

    fn next_name(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{PREFIX}-{number}{UNNAMED}")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file of this name was to become a segment: whatever it holds, nothing refers to it.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(UNNAMED)
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// A file that is being given space. Zeros are written, since a length without blocks would need
/// the journal for each block it gets.
#[derive(Debug)]
pub(super) struct Filling {
    spare: Unnamed,
    length: u64,
    done: u64,
}

impl Filling {
    /// Writes and syncs a piece. Returns whether anything is left.
    fn step(&mut self) -> io::Result<bool> {
        let piece = PIECE.min(self.length - self.done);
        self.spare.file.write_zeros(self.done, usize::try_from(piece).unwrap_or(0))?;
        self.spare.file.sync_data()?;
        self.done += piece;
        Ok(self.done < self.length)
    }
}

/// Gives a file space at once.
pub(super) fn fill(spare: Unnamed, length: u64) -> io::Result<Unnamed> {
    let mut filling = Filling { spare, length, done: 0 };
    while filling.done < length && filling.step()? {}
    Ok(filling.spare)
}
