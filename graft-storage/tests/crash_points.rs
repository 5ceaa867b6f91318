//! The redb store across power cuts at every boundary of its work, failing calls and a full disk.
//!
//! With `GRAFT_LONG=1` on a thousand workloads instead of fifty; with `GRAFT_SEEDS=3..4` on one, to see
//! again what it showed.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(feature = "redb")]

mod common;

use common::{redb_suite, seeds, sizes};

/// Segments so small that the log goes on in new ones while it is written, truncated and compacted.
#[test]
fn a_store_of_small_segments_keeps_what_it_acknowledged_at_every_crash_point() {
    let seeds = seeds(0, 35, 700);
    let tally = redb_suite(sizes::SMALL).crash_points(seeds.clone()).unwrap();
    println!("{tally}");
    assert_eq!(tally.workloads, seeds.end - seeds.start);
    assert!(tally.repeated >= tally.crashes / 4, "{tally}");
}

/// One segment takes all: what is truncated and compacted frees pages that later writes take again.
#[test]
fn a_store_of_one_segment_keeps_what_it_acknowledged_at_every_crash_point() {
    let seeds = seeds(700, 15, 300);
    let tally = redb_suite(sizes::ONE).crash_points(seeds.clone()).unwrap();
    println!("{tally}");
    assert_eq!(tally.workloads, seeds.end - seeds.start);
}

#[test]
fn a_call_that_fails_costs_nothing_that_was_acknowledged() {
    let tally = redb_suite(sizes::SMALL).failing_calls(seeds(0, 50, 2000)).unwrap();
    println!("{tally}");
    assert!(tally.failed_calls >= tally.workloads * 10, "{tally}");
}

#[test]
fn a_full_disk_costs_nothing_that_was_acknowledged() {
    let tally = redb_suite(sizes::SMALL).full_disk(seeds(0, 100, 3000)).unwrap();
    println!("{tally}");
    assert!(tally.failed_calls >= tally.workloads, "{tally}");
}
