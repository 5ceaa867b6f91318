//! A machine's state as bytes.

use std::{fmt, io};

use graft_core::{RestoreError, SnapshotSource, SnapshotStream};

use crate::wire::{self, Wire};

/// A picture of a machine's state that still has to be written out.
pub struct Snapshot(SnapshotSource);

impl Snapshot {
    /// A snapshot of `state`, usually a clone of the machine's. [`SnapshotReader::read`] reads it.
    pub fn of<T: Wire>(state: T) -> Self {
        Self::write_with(move |out| {
            let archive = wire::encode(&state).map_err(io::Error::other)?;
            out.write_all(&archive)
        })
    }

    /// A snapshot that `write` writes. It runs later, away from the server's task, so it should own
    /// a cheap copy of the state, and it must write the same bytes for the same state.
    pub fn write_with(
        write: impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send + 'static,
    ) -> Self {
        Self(Box::new(write))
    }

    pub(crate) fn into_source(self) -> SnapshotSource {
        self.0
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

/// A snapshot to be read in: the bytes that a [`Snapshot`] wrote.
pub struct SnapshotReader(SnapshotStream);

impl SnapshotReader {
    pub(crate) fn new(stream: SnapshotStream) -> Self {
        Self(stream)
    }

    /// Reads the state that [`Snapshot::of`] wrote.
    ///
    /// # Errors
    ///
    /// [`RestoreError::Io`] where reading fails, [`RestoreError::Invalid`] where the bytes are no archive of `T`.
    pub fn read<T: Wire>(mut self) -> Result<T, RestoreError> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut self.0, &mut bytes)?;
        wire::decode(&bytes)
            .map_err(|error| RestoreError::Invalid { reason: crate::entry::one_line(&error) })
    }
}

impl io::Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(snapshot: Snapshot) -> Vec<u8> {
        let mut bytes = Vec::new();
        snapshot.into_source()(&mut bytes).unwrap();
        bytes
    }

    fn reader(bytes: Vec<u8>) -> SnapshotReader {
        SnapshotReader::new(Box::new(io::Cursor::new(bytes)))
    }

    #[test]
    fn a_state_survives_its_snapshot() {
        let state = vec!["first".to_owned(), "second, out of line".to_owned()];
        let bytes = written(Snapshot::of(state.clone()));
        assert_eq!(reader(bytes).read::<Vec<String>>().unwrap(), state);
    }

    #[test]
    fn a_snapshot_cut_short_is_invalid() {
        let bytes = written(Snapshot::of((1_u64, "a string out of line".to_owned())));
        let cut = reader(bytes[..bytes.len() - 20].to_vec());
        let error = cut.read::<(u64, String)>().unwrap_err();
        assert!(matches!(error, RestoreError::Invalid { .. }), "{error}");
    }
}
