//! The next segment's file, made ready while the one before is still written.
//!
//! Writing into blocks that a file has needs no commit of the file system's journal. Filling a file
//! takes long, so the thread that reads does it ahead, a piece at a time so that nobody waits for
//! all of it; or it takes the file of a segment that nothing refers to any more, which is as good.
//! Where neither is done in time, the next segment's file grows as it is written.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use crate::medium::{Medium, MediumFile, Open};

/// The name of the file until it is a segment.
pub(super) const NAME: &str = "spare.tmp";

/// How much is written and synced at once, in bytes.
const PIECE: u64 = 1 << 20;

/// The file that the next segment is going to be in.
#[derive(Default)]
pub(super) struct Spare(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    None,
    /// The thread that reads was asked to make one.
    Wanted,
    Ready(Box<dyn MediumFile>),
}

impl Spare {
    /// Whether there is none, and nobody was asked to make one.
    pub(super) fn is_missing(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), State::None)
    }

    /// Somebody was asked to make one.
    pub(super) fn want(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::None) {
            *state = State::Wanted;
        }
    }

    /// Takes it if it is ready. What is not ready in time is ready for the one after.
    pub(super) fn take(&self) -> Option<Box<dyn MediumFile>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut *state) {
            State::Ready(file) => Some(file),
            other => {
                *state = other;
                None
            }
        }
    }

    fn is_ready(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Ready(_))
    }

    fn put(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Begins to make one of `length` bytes, unless there is one.
    pub(super) fn begin(&self, medium: &dyn Medium, length: u64) -> Option<Filling> {
        if self.is_ready() {
            return None;
        }
        let begun = remove(medium).and_then(|()| medium.open(NAME, Open::CreateNew));
        match begun {
            Ok(file) => Some(Filling { file, length, done: 0 }),
            Err(error) => {
                self.give_up(medium, &error);
                None
            }
        }
    }

    /// Goes on making one. Returns what is left to do.
    pub(super) fn go_on(&self, medium: &dyn Medium, mut filling: Filling) -> Option<Filling> {
        if self.is_ready() {
            // Another file came up.
            return None;
        }
        match filling.step() {
            Ok(true) => Some(filling),
            Ok(false) => {
                self.put(State::Ready(filling.file));
                None
            }
            Err(error) => {
                self.give_up(medium, &error);
                None
            }
        }
    }

    /// Where there is no space for one there is none.
    fn give_up(&self, medium: &dyn Medium, error: &io::Error) {
        if !is_full(error) {
            medium.poison(&format!("the making of a spare file: {error}"));
        }
        let _ = remove(medium);
        self.put(State::None);
    }

    /// Makes one of a file that nothing refers to. Returns whether it did: not where there is one,
    /// or the file is too short or far too long.
    pub(super) fn recycle(&self, medium: &dyn Medium, name: &str, length: u64) -> bool {
        if length == 0 || self.is_ready() {
            return false;
        }
        let Ok(file) = medium.open(name, Open::Existing) else {
            return false;
        };
        let fits = file.len().is_ok_and(|found| (length..=length * 2).contains(&found));
        if !fits || medium.rename(name, NAME).is_err() {
            return false;
        }
        self.put(State::Ready(file));
        true
    }
}

/// Whether a file of this name was to become a segment: whatever it holds, nothing refers to it.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with("spare") && name.ends_with(".tmp")
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn remove(medium: &dyn Medium) -> io::Result<()> {
    match medium.remove(NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file that is being given space. Zeros are written, since a length without blocks would need
/// the journal for each block it gets.
pub(super) struct Filling {
    file: Box<dyn MediumFile>,
    length: u64,
    done: u64,
}

impl Filling {
    /// Writes and syncs a piece. Returns whether anything is left.
    fn step(&mut self) -> io::Result<bool> {
        let piece = PIECE.min(self.length - self.done);
        self.file.write_zeros(self.done, usize::try_from(piece).unwrap_or(0))?;
        self.file.sync_data()?;
        self.done += piece;
        Ok(self.done < self.length)
    }
}

/// Gives `file` space at once.
pub(super) fn fill(file: Box<dyn MediumFile>, length: u64) -> io::Result<Box<dyn MediumFile>> {
    let mut filling = Filling { file, length, done: 0 };
    while filling.done < length && filling.step()? {}
    Ok(filling.file)
}
