//! Stores on a disk, and what they are held against.
//!
//! Everything is measured in directories of its own under `GRAFT_BENCH_DIR`, or under the system's
//! directory for temporary files: where that is in memory, the figures say nothing about a disk.

mod appends;
mod bare;
mod sustained;

use std::{env, io, path::PathBuf};

use bytes::Bytes;
use graft_core::{Entries, Entry, EntryKind, LogId, LogTime};
use tempfile::TempDir;

pub use appends::{Appender, Batch, Kind, Latencies, group_commits};
pub use bare::{BareRedb, BareThread};
use sustained::newborn_in_one_file;
pub use sustained::{Purging, append_while, cover, fill, newborn, open, read_all, sustain};

/// Whatever a store or a file said.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A directory on the disk to be measured, which goes when it is dropped.
///
/// # Errors
///
/// Where it cannot be made.
pub fn scratch() -> io::Result<TempDir> {
    let parent = env::var_os("GRAFT_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix("graft-bench-").tempdir_in(parent)
}

/// `count` payloads of `size` bytes, each in memory of its own as those of clients are.
fn payloads(count: usize, size: usize) -> Vec<Bytes> {
    std::iter::repeat_with(|| Bytes::from(vec![0xA5; size])).take(count).collect()
}

/// `count` commands of `size` bytes from `first` on, in term 1.
fn commands(first: u64, count: usize, size: usize) -> Entries {
    let payload = Bytes::from(vec![0xA5; size]);
    let entry = |index| Entry {
        log_id: LogId::new(1, index),
        time: LogTime(index),
        kind: EntryKind::Plain,
        payload: payload.clone(),
    };
    (first..first + count as u64).map(entry).collect()
}
