//! The next segment's file, made ready while the one before is still written.
//!
//! Writing into blocks that a file has needs no commit of the file system's journal. Filling a file takes
//! long, so the thread that reads does it ahead, a piece at a time so that no commit waits for all of
//! it; or it takes the file of a segment that nothing refers to any more, which is as good. Where
//! neither is done in time, the next segment's file grows as it is written.

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
    /// Whether somebody should be asked to make one; true once, until it is taken.
    pub(super) fn want(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_missing = matches!(*state, State::None);
        if is_missing {
            *state = State::Wanted;
        }
        is_missing
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

    /// Makes one of `length` bytes, unless there is one. Where there is no space for it there is none.
    pub(super) fn make(&self, medium: &dyn Medium, length: u64) {
        if self.is_ready() {
            return;
        }
        let made = remove(medium).and_then(|()| {
            let file = medium.open(NAME, Open::CreateNew)?;
            fill(&*file, length)?;
            Ok(file)
        });
        self.put(match made {
            Ok(file) => State::Ready(file),
            Err(error) => {
                if !is_full(&error) {
                    medium.poison(&format!("the making of a spare file: {error}"));
                }
                let _ = remove(medium);
                State::None
            }
        });
    }

    /// Makes one of a file that nothing refers to. Returns whether it did: not where there is one, or
    /// the file is too short or far too long.
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

/// Gives a file space. Zeros are written, since a length without blocks would need the journal for each
/// block it gets.
pub(super) fn fill(file: &dyn MediumFile, length: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(PIECE.min(length)).unwrap_or(0)];
    let mut at = 0;
    while at < length {
        let piece = usize::try_from(length - at).unwrap_or(zeros.len()).min(zeros.len());
        file.write_at(at, &zeros[..piece])?;
        file.sync_data()?;
        at += piece as u64;
    }
    Ok(())
}
