//! Runs of entries: what a peer, a store and a machine each get is a slice of the same memory.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use graft_benches::samples;
use graft_core::{Entries, Index};

/// How many entries a segment has, and how many segments there are.
const SEGMENT: u64 = 64;
const SEGMENTS: u64 = 256;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("entries");
    let log = segmented();
    let middle = SEGMENT * SEGMENTS / 2;
    group.bench_function("slice_of_one_segment", |bencher| {
        bencher.iter(|| log.slice(black_box(Index(middle + 3)..Index(middle + 20))));
    });
    group.bench_function("slice_of_sixteen_segments", |bencher| {
        let range = Index(middle + 3)..Index(middle + 3 + 16 * SEGMENT);
        bencher.iter(|| log.slice(black_box(range.clone())));
    });
    group.bench_function("slice_cut_by_its_size", |bencher| {
        let range = Index(middle)..Index(middle + 16 * SEGMENT);
        bencher.iter(|| log.slice_bounded(black_box(range.clone()), 512, 1 << 20));
    });
    group.bench_function("get", |bencher| {
        bencher.iter(|| log.get(black_box(Index(middle + 7))).is_some());
    });
    group.bench_function("append_and_drop_a_segment", |bencher| {
        // A tail that grows in front and is cut behind, as a server's log in memory does.
        let mut tail = segmented();
        let mut next = SEGMENT * SEGMENTS + 1;
        let segment = |next: &mut u64| {
            let first = *next;
            *next += SEGMENT;
            samples::entries(first, SEGMENT)
        };
        bencher.iter_batched(
            || segment(&mut next),
            |segment| {
                tail.append(segment);
                if let Some(first) = tail.first_index() {
                    tail.drop_below(Index(first.0 + SEGMENT));
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn segmented() -> Entries {
    let mut log = Entries::new();
    for segment in 0..SEGMENTS {
        log.append(samples::entries(1 + segment * SEGMENT, SEGMENT));
    }
    log
}
