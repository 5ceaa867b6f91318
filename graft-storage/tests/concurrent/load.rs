//! Everything at once: one appends, replaces and purges, others read, another scrubs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use graft_core::{Entries, Index, Loaded, LogId, LogStore, StoreError, Write, stable_hash};
use graft_storage::{
    RedbStore,
    medium::{Disk, FaultyMedium, Medium},
    redb::{Pace, verify},
};

use crate::{
    common::{
        directory::Directory,
        is_long, sizes,
        spares::{Counted, Spares},
    },
    support::{born, entry, read_all, snapshot, wait},
};

/// How many threads read.
const READERS: u64 = 3;

/// How many entries stay behind when a part of the log is purged: those of a few segments.
const KEPT: u64 = 1500;

/// The size of the payload of each entry.
const SIZE: usize = 128;

/// Numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = stable_hash(&self.0.to_le_bytes());
        self.0 % bound
    }
}

/// The log as it was acknowledged.
#[derive(Clone)]
struct Model {
    /// The term of each entry, index 0 included.
    terms: Vec<u64>,
    compacted: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.terms.len() as u64 - 1
    }

    fn term(&self, index: u64) -> u64 {
        self.terms[usize::try_from(index).unwrap()]
    }

    fn entries(&self, first: u64) -> Entries {
        (first..=self.last()).map(|index| entry(self.term(index), index, SIZE)).collect()
    }

    /// Appends at the end, or in place of the last few entries.
    fn append(&mut self, numbers: &mut Numbers) -> Write {
        let replaced = if numbers.below(8) == 0 { numbers.below(10).min(self.last()) } else { 0 };
        let first = self.last() - replaced + 1;
        let term = self.term(self.last()) + u64::from(replaced > 0);
        self.terms.truncate(usize::try_from(first).unwrap());
        // More than were replaced: the log never becomes shorter for those who read.
        self.terms.extend(std::iter::repeat_n(term, 20));
        Write::Append(self.entries(first))
    }
}

/// What readers may count on.
#[derive(Default)]
struct Bounds {
    compacted: AtomicU64,
    last: AtomicU64,
    is_over: AtomicBool,
}

/// Reads at random until all is over. An error ends it.
fn read_on(store: &RedbStore, bounds: &Bounds, seed: u64) -> Result<u64, StoreError> {
    let mut numbers = Numbers(seed);
    let mut reads = 0;
    while !bounds.is_over.load(Ordering::Relaxed) {
        let last = bounds.last.load(Ordering::SeqCst);
        let compacted = bounds.compacted.load(Ordering::SeqCst);
        if compacted >= last {
            thread::yield_now();
            continue;
        }
        let first = compacted + 1 + numbers.below(last - compacted);
        let end = first + 1 + numbers.below(500);
        let max_bytes = 1 << numbers.below(17);
        match wait(store.read(Index(first)..Index(end), max_bytes))? {
            Loaded::Compacted(upto) => assert!(upto.index.0 >= first, "{upto} and not {first}"),
            Loaded::Entries(entries) => {
                assert!(!entries.is_empty());
                for (index, found) in (first..end).zip(entries.iter()) {
                    assert_eq!(found.to_entry(), entry(found.log_id.term.0, index, SIZE));
                }
            }
        }
        reads += 1;
    }
    Ok(reads)
}

/// Writes `batches` batches and purges behind them. Returns the log as it was acknowledged, and as it
/// was to be after a write that failed.
fn write_on(store: &RedbStore, bounds: &Bounds, seed: u64, batches: u64) -> (Model, Option<Model>) {
    let mut numbers = Numbers(seed);
    let mut model = Model { terms: vec![0], compacted: 0 };
    let mut next = model.clone();
    for _ in 0..batches {
        let mut writes = Vec::new();
        let mut chunk = None;
        if numbers.below(20) == 0 && model.last() > model.compacted + KEPT + 500 {
            next.compacted = model.last() - KEPT;
            let upto = LogId::new(model.term(next.compacted), next.compacted);
            let piece = snapshot(upto, 10);
            writes = vec![Write::InstallSnapshot(piece.meta.clone()), Write::Compact(upto)];
            chunk = Some(piece);
        }
        writes.push(next.append(&mut numbers));
        let done = wait(async {
            if let Some(chunk) = chunk {
                store.stage(chunk).await?;
            }
            store.write(writes).await
        });
        if done.is_err() {
            return (model, Some(next));
        }
        model = next.clone();
        bounds.last.store(model.last(), Ordering::SeqCst);
        bounds.compacted.store(model.compacted, Ordering::SeqCst);
    }
    (model, None)
}

/// Does everything at once on a new store, and closes it in the midst of what it does by the way.
/// Readers may meet errors where the disk is going to end. Returns what [`write_on`] does.
fn live(medium: Arc<dyn Medium>, seed: u64, batches: u64, ends: bool) -> (Model, Option<Model>) {
    let store = born(medium, &sizes::options(sizes::SPARES));
    let bounds = Bounds::default();
    thread::scope(|scope| {
        let readers = (0..READERS).map(|reader| {
            let (store, bounds) = (&store, &bounds);
            scope.spawn(move || read_on(store, bounds, seed * READERS + reader))
        });
        let readers: Vec<_> = readers.collect();
        // Every other time, since no file is used again beside a scrub.
        let scrubber = (seed % 2 == 1).then(|| {
            scope.spawn(|| {
                let pace = Pace { bytes_per_step: 1 << 16, pause: Duration::ZERO };
                while !bounds.is_over.load(Ordering::Relaxed) {
                    let _: graft_storage::redb::Report = wait(store.scrub(pace))?;
                }
                Ok::<(), StoreError>(())
            })
        });
        let written = write_on(&store, &bounds, seed, batches);
        bounds.is_over.store(true, Ordering::Relaxed);
        for reader in readers {
            let outcome = reader.join().unwrap();
            assert!(ends || outcome.as_ref().is_ok_and(|reads| *reads > 0), "{outcome:?}");
        }
        let scrubbed = scrubber.map_or(Ok(()), |scrubber| scrubber.join().unwrap());
        assert!(ends || scrubbed.is_ok(), "{scrubbed:?}");
        written
    })
}

/// Opens what is on `medium`, and finds it in one of these states.
fn check(medium: Arc<dyn Medium>, seed: u64, (acknowledged, next): &(Model, Option<Model>)) {
    let store = RedbStore::open_on(medium, &sizes::options(sizes::SPARES));
    let store = store.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let found = wait(store.recover()).unwrap().unwrap();
    let first = found.compacted.index.0 + 1;
    let entries = read_all(&store, first, found.last.index.0 + 1).unwrap();
    let fits = |model: &Model| model.compacted + 1 == first && model.entries(first) == entries;
    let (last, compacted) = (acknowledged.last(), acknowledged.compacted);
    assert!(
        fits(acknowledged) || next.as_ref().is_some_and(fits),
        "seed {seed}: {}..{} was found, {compacted}..{last} was acknowledged",
        found.compacted,
        found.last
    );
}

/// For how long each test goes on, about. At least a round is made whatever the time.
fn enough() -> Duration {
    if is_long() { Duration::from_secs(60) } else { Duration::from_secs(4) }
}

#[test]
fn what_is_written_read_purged_and_scrubbed_at_the_same_time_is_what_was_acknowledged() {
    let (begin, spares) = (Instant::now(), Arc::<Spares>::default());
    let mut rounds = 0;
    while rounds < 2 || begin.elapsed() < enough() {
        let directory = Directory::new("concurrent");
        let disk = || {
            let disk = Arc::new(Disk::create(directory.path()).unwrap());
            Arc::new(Counted::new(disk, &spares))
        };
        let written = live(disk(), rounds, 500, false);
        assert!(written.1.is_none(), "a write failed on a healthy disk");
        verify(directory.path()).unwrap();
        check(disk(), rounds, &written);
        rounds += 1;
    }
    println!("rounds={rounds} {spares}");
    spares.check_all_ways();
}

#[test]
fn what_is_acknowledged_beside_reads_and_purges_is_there_when_the_power_goes() {
    let (begin, spares) = (Instant::now(), Arc::<Spares>::default());
    let mut rounds = 0;
    while rounds < 10 || begin.elapsed() < enough() {
        let medium = FaultyMedium::new(rounds);
        medium.stop_at(2000 + Numbers(rounds).below(20_000));
        let counted = Counted::new(Arc::new(medium.clone()), &spares);
        // Until the power goes.
        let written = live(Arc::new(counted), rounds, u64::MAX, true);
        check(Arc::new(medium.crash(rounds)), rounds, &written);
        rounds += 1;
    }
    println!("rounds={rounds} {spares}");
    spares.check_all_ways();
}
