//! The snapshots of a memory store: the installed one, and those that are still coming in.

use bytes::Bytes;
use graft_core::{Index, SnapshotChunk, SnapshotMeta, StoreError};

use crate::plan;

/// The installed snapshot, and those that are still coming in, least recently touched first.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    installed: Option<Snapshot>,
    staged: Vec<Snapshot>,
}

/// A snapshot in the pieces in which it came.
///
/// Invariants: `pieces` is sorted by offset, without gaps, and no piece is empty.
#[derive(Debug)]
struct Snapshot {
    meta: SnapshotMeta,
    pieces: Vec<(u64, Bytes)>,
    size: u64,
}

impl Snapshots {
    pub(super) fn installed(&self) -> Option<&SnapshotMeta> {
        self.installed.as_ref().map(|snapshot| &snapshot.meta)
    }

    /// Keeps `chunk`. One that begins at 0 begins its snapshot anew.
    pub(super) fn stage(&mut self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        let at = self.staged.iter().position(|staged| staged.meta == chunk.meta);
        let size = plan::check_chunk(&chunk, at.map_or(0, |at| self.staged[at].size))?;
        let SnapshotChunk { meta, offset, bytes } = chunk;
        let mut snapshot = match at.map(|at| self.staged.remove(at)) {
            Some(staged) if offset != 0 => staged,
            _ => Snapshot { meta, pieces: Vec::new(), size: 0 },
        };
        snapshot.size = size;
        if !bytes.is_empty() {
            snapshot.pieces.push((offset, bytes));
        }
        if self.staged.len() == plan::MAX_STAGED {
            self.staged.remove(0);
        }
        self.staged.push(snapshot);
        Ok(())
    }

    /// Makes a complete staged snapshot the installed one. What was staged of older ones goes with it.
    pub(super) fn install(&mut self, meta: SnapshotMeta) {
        let at = self.staged.iter().position(|staged| staged.meta == meta);
        let last = meta.last.index;
        self.installed = Some(match at {
            Some(at) => self.staged.remove(at),
            // An empty snapshot is complete without a chunk.
            None => Snapshot { meta, pieces: Vec::new(), size: 0 },
        });
        self.staged.retain(|staged| staged.meta.last.index > last);
    }

    pub(super) fn forget_staged(&mut self) {
        self.staged.clear();
    }

    /// At most `max_bytes` of the installed snapshot from `offset`: the rest of one piece, uncopied.
    pub(super) fn read(&self, id: u64, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        let installed = self.installed.as_ref();
        let snapshot = installed
            .filter(|snapshot| snapshot.meta.id == id)
            .ok_or(StoreError::NoSnapshot { id })?;
        if offset >= snapshot.size {
            return Ok(Bytes::new());
        }
        let after = snapshot.pieces.partition_point(|(at, _)| *at <= offset);
        let (at, piece) = &snapshot.pieces[after - 1];
        let begin = usize::try_from(offset - at).unwrap_or(usize::MAX);
        let end = begin.saturating_add(max_bytes).min(piece.len());
        Ok(piece.slice(begin..end))
    }
}

impl plan::Snapshots for Snapshots {
    fn covered(&self) -> Index {
        self.installed().map_or(Index(0), |meta| meta.last.index)
    }

    fn is_complete(&self, meta: &SnapshotMeta) -> bool {
        let staged = self.staged.iter().find(|staged| staged.meta == *meta);
        staged.map_or(0, |staged| staged.size) == meta.size
    }
}
