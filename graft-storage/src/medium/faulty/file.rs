//! What is held of a faulty medium: its files, and its lock.

use std::{fmt, io};

use super::{Call, FaultyMedium};
use crate::medium::{
    MediumFile, Open,
    image::{Content, FileId},
    platter::{Change, Step},
};

/// Gives the lock back when it is dropped.
pub(super) struct Held(pub(super) FaultyMedium);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock_state().is_locked = false;
    }
}

/// A file that is open.
pub(super) struct FaultyFile {
    pub(super) medium: FaultyMedium,
    pub(super) file: FileId,
    pub(super) how: Open,
}

impl FaultyFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.how.is_writable() {
            return Ok(());
        }
        let problem = "the file was opened for reading alone";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
    }
}

impl MediumFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.medium.enter(Call::Len)?;
        Ok(state.machine.cache.files.get(&self.file).map_or(0, Content::len))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.medium.enter(Call::Read)?;
        let content = state.machine.cache.files.get(&self.file).cloned().unwrap_or_default();
        drop(state);
        content.read(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.medium.lock_state();
        if let Err(error) = state.enter(Call::Write) {
            if state.ended.is_none() {
                state.leave_behind(self.file, offset, bytes);
            }
            return Err(error);
        }
        let room = state.room_for(self.file, offset, bytes.len());
        if room > 0 {
            state.write(self.file, offset, &bytes[..room]);
        }
        if room < bytes.len() { Err(state.full(Call::Write)) } else { Ok(()) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.medium.enter(Call::SetLen)?;
        state.perform(Step::Change(Change::SetLen { file: self.file, length }));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.medium.lock_state().sync(Call::Sync, Some(self.file))
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let mut state = self.medium.lock_state();
        if let Some(count) = state.open.get_mut(&self.file) {
            *count -= 1;
            if *count == 0 {
                state.open.remove(&self.file);
            }
        }
    }
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyFile({})", self.file)
    }
}
