//! Long logs: filling, reading, purging and opening them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::executor::block_on;
use graft_core::{
    Epoch, GroupId, Index, Loaded, LogId, LogStore as _, LogTime, Membership, SnapshotChunk,
    SnapshotMeta, Write,
};
use graft_storage::{RedbStore, redb::Options};

use super::{BareRedb, Batch, Error, Latencies, commands, payloads, scratch};
use crate::samples;

/// A store that was just born in the directory at `path`.
///
/// # Errors
///
/// Those of the store.
pub fn newborn(path: &Path) -> Result<RedbStore, Error> {
    let store = RedbStore::open(path)?;
    block_on(store.create(&samples::identity("server1")))?;
    Ok(store)
}

/// The same with files so large that the first takes `bytes` bytes, ready to be written.
pub(super) fn newborn_in_one_file(path: &Path, bytes: u64) -> Result<RedbStore, Error> {
    let options = Options::new().segment_bytes(bytes).preallocated_bytes(u64::MAX);
    let store = RedbStore::open_with(path, &options)?;
    block_on(store.create(&samples::identity("server1")))?;
    Ok(store)
}

/// Opens the store at `path` and recovers it. Returns it with the index of its last entry and how
/// long both took.
///
/// # Errors
///
/// Those of the store, and where it was never born.
pub fn open(path: &Path) -> Result<(RedbStore, u64, Duration), Error> {
    let begin = Instant::now();
    let store = RedbStore::open(path)?;
    let recovered = block_on(store.recover())?.ok_or("the store was never born")?;
    let took = begin.elapsed();
    Ok((store, recovered.last.index.0, took))
}

/// Appends `count` entries of `size` bytes, a thousand at a time, behind `last`. Returns the new last
/// index.
///
/// # Errors
///
/// Those of the store.
pub fn fill(store: &RedbStore, last: u64, count: u64, size: usize) -> Result<u64, Error> {
    let mut next = last + 1;
    let end = next + count;
    let mut buffer = Vec::new();
    while next < end {
        let batch = (end - next).min(1000);
        buffer.clear();
        buffer.push(Write::Append(commands(next, usize::try_from(batch)?, size)));
        buffer = block_on(store.write(buffer))?;
        next += batch;
    }
    Ok(end - 1)
}

/// Reads the entries from `first` to `last` in answers of at most a megabyte. Returns how many came.
///
/// # Errors
///
/// Those of the store, and where a part of the range was purged.
pub fn read_all(store: &RedbStore, first: u64, last: u64) -> Result<u64, Error> {
    let mut next = first;
    while next <= last {
        match block_on(store.read(Index(next)..Index(last + 1), 1 << 20))? {
            Loaded::Entries(entries) => next += entries.len() as u64,
            Loaded::Compacted(upto) => return Err(format!("purged up to {upto:?}").into()),
        }
    }
    Ok(next - first)
}

/// Gives the store a snapshot up to `upto`, so that everything up to there may go.
///
/// # Errors
///
/// Those of the store.
pub fn cover(store: &RedbStore, upto: u64) -> Result<(), Error> {
    let bytes = Bytes::from_static(&[0; 4096]);
    let meta = SnapshotMeta {
        id: upto,
        cluster: samples::CLUSTER,
        epoch: Epoch(0),
        group: GroupId(0),
        last: LogId::new(1, upto),
        time: LogTime(upto),
        membership: (LogId::new(1, 1), Membership::default()),
        schema: 0,
        size: bytes.len() as u64,
        digest: 0,
        format: 0,
    };
    block_on(store.stage(SnapshotChunk { meta: meta.clone(), offset: 0, bytes }))?;
    block_on(store.write(vec![Write::InstallSnapshot(meta)]))?;
    Ok(())
}

/// How much each append purges beside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purging {
    /// Nothing.
    Nothing,
    /// So many entries more than the append before, from this index on.
    Steps {
        /// The index below which everything is purged already.
        from: u64,
        /// How many more each time.
        step: u64,
    },
}

/// Appends `count` batches of a hundred entries of 128 bytes behind `last`, and purges as it is
/// told in the same writes. Returns the new last index and how long each write took.
///
/// # Errors
///
/// Those of the store.
pub fn append_while(
    store: &RedbStore,
    last: u64,
    count: u64,
    purging: Purging,
) -> Result<(u64, Latencies), Error> {
    const ENTRIES: usize = 100;
    let mut latencies = Latencies::default();
    let mut next = last + 1;
    let mut buffer = Vec::new();
    for number in 1..=count {
        buffer.clear();
        buffer.push(Write::Append(commands(next, ENTRIES, 128)));
        if let Purging::Steps { from, step } = purging {
            buffer.push(Write::Compact(LogId::new(1, from + number * step)));
        }
        next += ENTRIES as u64;
        let begin = Instant::now();
        buffer = block_on(store.write(buffer))?;
        latencies.push(begin.elapsed());
    }
    Ok((next - 1, latencies))
}

/// Appends `bytes` bytes in batches, each waited for, to a new store and to a new loop around redb on
/// one file that grows, in turns of a sixty-fourth each. Returns how long each took.
///
/// # Errors
///
/// Those of the store and of redb.
pub fn sustain(batch: Batch, bytes: u64) -> Result<[Latencies; 2], Error> {
    let directory = scratch()?;
    let store = newborn(&directory.path().join("log"))?;
    let mut bare = BareRedb::growing(&directory.path().join("bare"))?;
    let payloads = payloads(batch.entries, batch.size);
    let [mut ours, mut theirs] = [const { Latencies::new() }; 2];
    let (mut next, mut buffer) = (1, Vec::new());
    let count = bytes / (batch.entries * batch.size).max(1) as u64;
    let turn = (count / 64).max(1);
    for _ in 0..(count / turn) {
        for _ in 0..turn {
            buffer.clear();
            buffer.push(Write::Append(commands(next, batch.entries, batch.size)));
            next += batch.entries as u64;
            let begin = Instant::now();
            buffer = block_on(store.write(buffer))?;
            ours.push(begin.elapsed());
        }
        for _ in 0..turn {
            let begin = Instant::now();
            bare.append(&payloads)?;
            theirs.push(begin.elapsed());
        }
    }
    Ok([ours, theirs])
}
