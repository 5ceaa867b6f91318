//! Appends by a caller who waits for each, and by many who share commits.

use std::{
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use futures::{executor::block_on, future::join_all, poll};
use graft_core::{LogStore as _, Write};
use graft_storage::RedbStore;
use tempfile::TempDir;

use super::{BareRedb, BareThread, Error, commands, newborn_in_one_file, payloads, scratch};

/// What one append is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Batch {
    /// How many entries it has.
    pub entries: usize,
    /// How many bytes each has.
    pub size: usize,
}

impl Batch {
    /// How large the file is into which they go: a segment of graft's store, or what many of them
    /// need, so that what is measured is not a beginning.
    #[must_use]
    pub fn file_bytes(self) -> usize {
        (256 * self.bytes()).max(16 << 20)
    }

    /// How many of them fit into such a file with room to spare; at most as many as are measured at
    /// once. Beginning another file is measured apart.
    #[must_use]
    pub fn per_file(self) -> usize {
        // A commit of few bytes takes pages of its own until the next one frees them.
        (self.file_bytes() / 2 / self.bytes().max(4096)).clamp(4, 1000)
    }

    const fn bytes(self) -> usize {
        self.entries * (32 + self.size.next_multiple_of(16))
    }
}

/// Who appends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// graft's store.
    Store,
    /// The loop around redb, at the same layout.
    Bare,
    /// The same, asked from another thread.
    BareThread,
    /// The loop on a file that redb lets grow.
    BareGrowing,
}

impl Kind {
    /// Everyone, graft first.
    pub const ALL: [Self; 4] = [Self::Store, Self::Bare, Self::BareThread, Self::BareGrowing];

    /// What it is called in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Store => "graft RedbStore",
            Self::Bare => "bare redb loop",
            Self::BareThread => "bare redb on a thread",
            Self::BareGrowing => "bare redb, growing file",
        }
    }
}

/// A new log, ready for appends of one size.
#[derive(Debug)]
pub struct Appender {
    batch: Batch,
    log: Log,
    /// Goes last.
    _directory: TempDir,
}

#[derive(Debug)]
enum Log {
    Store { store: RedbStore, next: u64, buffer: Vec<Write> },
    Bare(BareRedb),
    BareThread(BareThread),
}

impl Appender {
    /// A new log in a directory of its own.
    ///
    /// # Errors
    ///
    /// Whatever kept it from being made.
    pub fn new(kind: Kind, batch: Batch) -> Result<Self, Error> {
        let directory = scratch()?;
        let path = directory.path().join("log");
        let log = match kind {
            Kind::Store => {
                let store = newborn_in_one_file(&path, batch.file_bytes() as u64)?;
                Log::Store { store, next: 1, buffer: Vec::with_capacity(1) }
            }
            Kind::Bare => Log::Bare(BareRedb::filled(&path, batch.file_bytes())?),
            Kind::BareThread => {
                Log::BareThread(BareThread::new(BareRedb::filled(&path, batch.file_bytes())?)?)
            }
            Kind::BareGrowing => Log::Bare(BareRedb::growing(&path)?),
        };
        Ok(Self { batch, log, _directory: directory })
    }

    /// Appends a batch, which is made anew as one of clients would be, and waits until it is durable. Returns how
    /// long the append took.
    ///
    /// # Errors
    ///
    /// Those of the log.
    pub fn append(&mut self) -> Result<Duration, Error> {
        match &mut self.log {
            Log::Store { store, next, buffer } => {
                let entries = commands(*next, self.batch.entries, self.batch.size);
                *next += self.batch.entries as u64;
                buffer.clear();
                buffer.push(Write::Append(entries));
                let begin = Instant::now();
                *buffer = block_on(store.write(std::mem::take(buffer)))?;
                Ok(begin.elapsed())
            }
            Log::Bare(bare) => {
                let payloads = payloads(self.batch.entries, self.batch.size);
                let begin = Instant::now();
                bare.append(&payloads)?;
                Ok(begin.elapsed())
            }
            Log::BareThread(bare) => {
                let payloads = payloads(self.batch.entries, self.batch.size);
                let begin = Instant::now();
                bare.append(payloads)?;
                Ok(begin.elapsed())
            }
        }
    }
}

/// How long each of many appends took.
#[derive(Clone, Default, Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one.
    pub fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Each, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Duration> {
        self.0.iter().copied()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// The latency that so many of a thousand stayed below; zero where there is none.
    #[must_use]
    pub fn per_mille(&self, share: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * share / 1000).min(sorted.len().saturating_sub(1));
        sorted.get(place).copied().unwrap_or_default()
    }
}

/// Makes `rounds` rounds in which `writers` writers append an entry of `size` bytes each at the same
/// time, and all wait. Returns how long the rounds took.
///
/// # Errors
///
/// Those of the store.
pub fn group_commits(
    store: &RedbStore,
    first: u64,
    writers: usize,
    size: usize,
    rounds: usize,
) -> Result<Duration, Error> {
    let mut next = first;
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let appends: Vec<_> = (0..writers as u64)
            .map(|writer| vec![Write::Append(commands(next + writer, 1, size))])
            .collect();
        next += writers as u64;
        let begin = Instant::now();
        block_on(async {
            let mut waiting: Vec<Pin<Box<_>>> = Vec::with_capacity(writers);
            // Each is asked once, in order: an entry must not come before the one it follows.
            for writes in appends {
                let mut append = Box::pin(store.write(writes));
                match poll!(&mut append) {
                    Poll::Ready(done) => drop(done?),
                    Poll::Pending => waiting.push(append),
                }
            }
            for done in join_all(waiting).await {
                done?;
            }
            Ok::<(), Error>(())
        })?;
        total += begin.elapsed();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_takes_appends_of_every_size() {
        for kind in Kind::ALL {
            for batch in [Batch { entries: 1, size: 0 }, Batch { entries: 300, size: 1000 }] {
                let mut appender = Appender::new(kind, batch).unwrap();
                for _ in 0..3 {
                    assert!(appender.append().unwrap() > Duration::ZERO, "{}", kind.name());
                }
            }
        }
    }

    #[test]
    fn writers_share_commits_and_lose_nothing() {
        let directory = scratch().unwrap();
        let store = newborn_in_one_file(&directory.path().join("log"), 1 << 20).unwrap();
        group_commits(&store, 1, 50, 128, 3).unwrap();
        assert_eq!(super::super::read_all(&store, 1, 150).unwrap(), 150);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_latencies() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.per_mille(500), Duration::ZERO);
        for micros in (1..=1000).rev() {
            latencies.push(Duration::from_micros(micros));
        }
        assert_eq!(latencies.per_mille(500), Duration::from_micros(501));
        assert_eq!(latencies.per_mille(990), Duration::from_micros(991));
    }
}
