//! Reading every record: offline in one go, or beside a store at work, slowly.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use graft_core::{Index, Loaded, StoreError};
use tokio::sync::oneshot;

use super::{
    active,
    error::OpenError,
    opening::{self, look, not_a_directory},
    options::Options,
    reader::Reader,
    shared::Shared,
    snapshot::Snapshot,
};
use crate::medium::{Disk, Medium, Open};

/// What was read and found to be what was written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Entries of the log.
    pub entries: u64,
    /// Their size, in bytes.
    pub entry_bytes: u64,
    /// Bytes of the installed snapshot.
    pub snapshot_bytes: u64,
    /// The length of the file that is written, in bytes, all of which was read from the disk and checked. Zero
    /// where a scrub could not, since the log went on in new files faster than it reads one.
    pub active_bytes: u64,
}

/// How fast a scrub reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// How much is read in one step, in bytes. A step reads at least a record.
    pub bytes_per_step: usize,
    /// How long it rests between two steps.
    pub pause: Duration,
}

impl Default for Pace {
    /// 1 MiB every 50 ms: 20 MB/s at most, a few percent of what a disk does.
    fn default() -> Self {
        Self { bytes_per_step: 1 << 20, pause: Duration::from_millis(50) }
    }
}

/// Reads every record of the store in the directory at `path`, of which nobody may be using it, and
/// changes nothing: it needs no right to write. Others may verify it at the same time.
///
/// # Errors
///
/// [`OpenError::NoStore`] where none was ever born there, or all of it is gone. The first thing that is wrong,
/// as [`RedbStore::open`](super::RedbStore::open) would report it; records are [`OpenError::Corrupt`] with
/// file, table and index.
pub fn verify(path: impl AsRef<Path>) -> Result<Report, OpenError> {
    let path = path.as_ref();
    let disk = Disk::open(path).map_err(|source| not_a_directory(path, source))?;
    let disk: Arc<dyn Medium> = Arc::new(disk);
    verify_on(&disk)
}

/// The same on a medium that need not be a real disk.
///
/// # Errors
///
/// Those of [`verify`].
pub fn verify_on(medium: &Arc<dyn Medium>) -> Result<Report, OpenError> {
    let lock = opening::lock_to_read(&**medium)?;
    let options = Options::default();
    let found = look(medium, Open::Read, &options)?;
    let Some(born) = &found.born else {
        return Err(OpenError::NoStore { path: medium.describe() });
    };
    let failed = |error| OpenError::of(&medium.describe(), error);
    let _: graft_core::Recovered = born.state.recovered().map_err(failed)?;
    let shared = Arc::new(Shared::reading(Arc::clone(medium), options, lock, born));
    let mut check = Check::new(Reader::new(Arc::clone(&shared)));
    // It was read and checked as it was opened.
    check.report.active_bytes = born.active.length();
    while check.step(usize::MAX).map_err(failed)? {}
    Ok(check.report)
}

/// One reading of a whole store, in steps.
struct Check {
    reader: Reader,
    /// What of the log is next.
    next: Index,
    /// What of the snapshot is next: which snapshot, and which of its blocks.
    blocks: Option<(Arc<Snapshot>, Range<u64>)>,
    buffer: Vec<u8>,
    report: Report,
}

impl Check {
    fn new(reader: Reader) -> Self {
        let (buffer, report) = (Vec::new(), Report::default());
        Self { reader, next: Index(1), blocks: None, buffer, report }
    }

    /// Reads about `max_bytes`. Returns whether anything is left.
    fn step(&mut self, max_bytes: usize) -> Result<bool, StoreError> {
        if self.blocks.is_some() {
            return self.step_of_snapshot(max_bytes);
        }
        match self.reader.read(&(self.next..Index(u64::MAX)), max_bytes.min(MAX_STEP)) {
            Ok(Loaded::Compacted(upto)) => self.next = upto.index.next(),
            Ok(Loaded::Entries(entries)) => {
                self.report.entries += entries.len() as u64;
                self.report.entry_bytes += entries.size() as u64;
                self.next = entries.last().map_or(self.next, |last| last.log_id.index.next());
            }
            // The end of the log.
            Err(StoreError::OutOfRange { .. }) => {
                let snapshot = self.reader.published()?.snapshot.clone();
                let Some(snapshot) = snapshot else {
                    return Ok(false);
                };
                let blocks = 0..snapshot.blocks();
                self.blocks = Some((snapshot, blocks));
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Reads about `max_bytes` of the entries `range` once more: they were counted. Returns what is left of it, and how
    /// many bytes were read.
    fn step_again(
        &mut self,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<(Range<Index>, usize), StoreError> {
        let (next, bytes) = match self.reader.read(&range, max_bytes.min(MAX_STEP)) {
            Ok(Loaded::Compacted(upto)) => (upto.index.next(), 0),
            Ok(Loaded::Entries(entries)) => {
                let next = entries.last().map_or(range.end, |last| last.log_id.index.next());
                (next, entries.size())
            }
            // They were truncated meanwhile.
            Err(StoreError::OutOfRange { .. }) => (range.end, 0),
            Err(error) => return Err(error),
        };
        Ok((next..range.end, bytes))
    }

    fn step_of_snapshot(&mut self, max_bytes: usize) -> Result<bool, StoreError> {
        let Some((snapshot, blocks)) = &mut self.blocks else {
            return Ok(false);
        };
        let mut bytes = 0;
        while bytes < max_bytes as u64 {
            let Some(block) = blocks.next() else {
                break;
            };
            bytes += snapshot.verify_block(block, &mut self.buffer)?;
        }
        self.report.snapshot_bytes += bytes;
        Ok(!blocks.is_empty())
    }
}

/// What a step holds in memory at most, beside one entry.
const MAX_STEP: usize = 4 << 20;

/// Makes a thread rest after each so many bytes that it has read, wherever it reads them.
#[derive(Debug)]
pub(super) struct Pacer {
    pace: Pace,
    read: AtomicU64,
}

impl Pacer {
    /// Bytes were read. Rests where a step is done, unless the store is about to close.
    pub(super) fn rest_after(&self, bytes: usize, is_closing: impl Fn() -> bool) {
        let read = self.read.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if read < self.pace.bytes_per_step as u64 {
            return;
        }
        self.read.store(0, Ordering::Relaxed);
        rest(self.pace.pause, is_closing);
    }
}

/// Rests for so long, unless the store is about to close.
fn rest(pause: Duration, is_closing: impl Fn() -> bool) {
    let start = Instant::now();
    while let Some(left) = pause.checked_sub(start.elapsed()) {
        if left.is_zero() || is_closing() {
            return;
        }
        // Closing unparks.
        thread::park_timeout(left);
    }
}

/// Reads the store at work at `pace`, once, and answers `reply`. Ends early where nobody waits for
/// the answer any more.
pub(super) fn scrub(
    shared: &Arc<Shared>,
    pace: Pace,
    reply: oneshot::Sender<Result<Report, StoreError>>,
) {
    if let Some(outcome) = scrub_once(shared, pace, || !reply.is_closed()) {
        let _ = reply.send(outcome);
    }
}

/// Reads the store at work at `pace`, and again so long after that was done, until the store is closed. What it
/// finds is logged.
pub(super) fn scrub_again_and_again(shared: &Arc<Shared>, pace: Pace, interval: Duration) {
    loop {
        rest(interval, || shared.is_closing());
        if shared.is_closing() {
            return;
        }
        // Before its birth there is nothing to read.
        if shared.published().is_some() {
            let _ = scrub_once(shared, pace, || true);
        }
    }
}

/// What reading everything once leads to, or `None` where it `is_wanted` no more or the store is about to close.
fn scrub_once(
    shared: &Arc<Shared>,
    pace: Pace,
    is_wanted: impl Fn() -> bool,
) -> Option<Result<Report, StoreError>> {
    let pacer = Arc::new(Pacer { pace, read: AtomicU64::new(0) });
    let mut check = Check::new(Reader::paced(Arc::clone(shared), Arc::clone(&pacer)));
    let mut rest_after = |bytes| {
        pacer.rest_after(bytes, || shared.is_closing());
        is_wanted() && !shared.is_closing()
    };
    // redb may have answered from its memory what it was asked of the file that is written.
    let number = check.reader.published().map(|published| published.active.number);
    let outcome = number.and_then(|number| {
        let mut before = 0;
        while check.step(pace.bytes_per_step)? {
            let read = check.report.bytes();
            if !rest_after(usize::try_from(read - before).unwrap_or(usize::MAX)) {
                return Ok(None);
            }
            before = read;
        }
        let Some(active) = active::check(shared, &mut rest_after)? else {
            return Ok(None);
        };
        // Where the log went on in another file meanwhile, that one is sealed now.
        let published = active.published;
        let sealed = published.sealed.iter().filter(|sealed| sealed.segment >= number);
        let first = sealed.map(|sealed| sealed.first).min();
        let mut left = first.unwrap_or(published.begin)..published.begin;
        while !left.is_empty() {
            let (rest, read) = check.step_again(left, pace.bytes_per_step)?;
            if !rest_after(read) {
                return Ok(None);
            }
            left = rest;
        }
        Ok(Some(Report { active_bytes: active.bytes, ..check.report }))
    });
    let outcome = outcome.transpose()?;
    let store = shared.medium.describe();
    match &outcome {
        Ok(report) => tracing::debug!(store, ?report, "scrubbed"),
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(store, %error, "the scrub found the store damaged");
        }
        Err(error) => tracing::warn!(store, %error, "the scrub could not read the store"),
    }
    Some(outcome)
}

impl Report {
    fn bytes(&self) -> u64 {
        self.entry_bytes + self.snapshot_bytes
    }
}
