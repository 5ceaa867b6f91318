//! The store on a disk, beside a loop around redb.
//!
//! `versus disk` measures the same in turns, which is what to compare by; this is to see changes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use futures::executor::block_on;
use graft_benches::disk::{self, Appender, Batch, Kind, group_commits};
use graft_core::{LogId, LogStore as _, Write};

pub(crate) fn bench(criterion: &mut Criterion) {
    append(criterion);
    group_commit(criterion);
    read_and_open(criterion);
    purge(criterion);
}

/// One caller who waits for each append.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("redb_append");
    group.sample_size(10);
    for kind in [Kind::Store, Kind::Bare] {
        for size in [128, 1024] {
            for entries in [1, 10, 100, 1000] {
                let batch = Batch { entries, size };
                group.throughput(Throughput::Elements(entries as u64));
                let id = BenchmarkId::new(kind.name(), format!("{entries}x{size}"));
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|count| appends(kind, batch, count));
                });
            }
        }
    }
    group.finish();
}

/// The time of `count` appends, on new logs as often as one is full.
fn appends(kind: Kind, batch: Batch, count: u64) -> Duration {
    let (mut left, mut total) = (count, Duration::ZERO);
    while left > 0 {
        let mut appender = Appender::new(kind, batch).expect("a log can be made");
        let turn = left.min(batch.per_file() as u64);
        for _ in 0..turn {
            total += appender.append().expect("the disk works");
        }
        left -= turn;
    }
    total
}

/// Writers who append an entry each at the same time, and share commits.
fn group_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("redb_group_commit");
    group.sample_size(10);
    for writers in [1, 64, 1024] {
        group.throughput(Throughput::Elements(writers));
        group.bench_with_input(
            BenchmarkId::from_parameter(writers),
            &writers,
            |bencher, &writers| {
                let directory = disk::scratch().expect("a directory can be made");
                let store = disk::newborn(&directory.path().join("log")).expect("it is new");
                let mut next = 1;
                bencher.iter_custom(|rounds| {
                    let count = usize::try_from(rounds).unwrap_or(usize::MAX);
                    let writers_now = usize::try_from(writers).unwrap_or(usize::MAX);
                    let took = group_commits(&store, next, writers_now, 128, count);
                    next += writers * rounds;
                    took.expect("the disk works")
                });
            },
        );
    }
    group.finish();
}

/// 64 MiB in entries of 1 KiB.
const ENTRIES: u64 = 64 << 10;

/// Both on a store that was just opened: nothing is in its caches, everything in the system's.
fn read_and_open(criterion: &mut Criterion) {
    let directory = disk::scratch().expect("a directory can be made");
    let path = directory.path().join("log");
    let store = disk::newborn(&path).expect("it is new");
    disk::fill(&store, 0, ENTRIES, 1024).expect("the disk works");
    drop(store);
    let mut group = criterion.benchmark_group("redb_store_64_MiB");
    group.sample_size(10);
    group.bench_function("open after a crash", |bencher| {
        // No opening relies on how the store was closed: each does what it does after a crash.
        bencher.iter_custom(|count| (0..count).map(|_| open(&path)).sum());
    });
    group.throughput(Throughput::Bytes(16 << 20));
    group.bench_function("read a cold range of 16 MiB", |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| read(&path)).sum());
    });
    group.finish();
}

fn open(path: &Path) -> Duration {
    disk::open(path).expect("it was closed").2
}

fn read(path: &Path) -> Duration {
    let (store, _, _) = disk::open(path).expect("it was closed");
    let begin = Instant::now();
    let read = disk::read_all(&store, 1, ENTRIES / 4).expect("all of it is there");
    assert_eq!(read, ENTRIES / 4, "a part of the range is missing");
    begin.elapsed()
}

/// All of 100,000 entries of 128 bytes at once.
fn purge(criterion: &mut Criterion) {
    const PURGED: u64 = 100_000;
    let mut group = criterion.benchmark_group("redb_purge");
    group.sample_size(10).throughput(Throughput::Elements(PURGED));
    group.bench_function("100000 entries", |bencher| {
        bencher.iter_custom(|count| {
            let purge = |_| {
                let directory = disk::scratch().expect("a directory can be made");
                let store = disk::newborn(&directory.path().join("log")).expect("it is new");
                let last = disk::fill(&store, 0, PURGED, 128).expect("the disk works");
                disk::cover(&store, last).expect("the disk works");
                let begin = Instant::now();
                let compact = vec![Write::Compact(LogId::new(1, last))];
                block_on(store.write(compact)).expect("the disk works");
                begin.elapsed()
            };
            (0..count).map(purge).sum()
        });
    });
    group.finish();
}
