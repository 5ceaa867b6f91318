//! The redb store across power cuts at every boundary of its work, failing calls and a full disk.
//!
//! With `GRAFT_LONG=1` on a thousand workloads instead of fifty.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(feature = "redb")]

mod common;

use common::{is_long, redb_suite, sizes};

/// Segments so small that the log goes on in new ones while it is written, truncated and compacted.
#[test]
fn a_store_of_small_segments_keeps_what_it_acknowledged_at_every_crash_point() {
    let seeds = if is_long() { 0..700 } else { 0..35 };
    let tally = redb_suite(sizes::SMALL).crash_points(seeds.clone()).unwrap();
    println!("{tally}");
    assert_eq!(tally.workloads, seeds.end);
    assert!(tally.repeated >= tally.crashes / 4, "{tally}");
}

/// One segment takes all: what is truncated and compacted frees pages that later writes take again.
#[test]
fn a_store_of_one_segment_keeps_what_it_acknowledged_at_every_crash_point() {
    let seeds = if is_long() { 1000..1300 } else { 1000..1015 };
    let tally = redb_suite(sizes::ONE).crash_points(seeds.clone()).unwrap();
    println!("{tally}");
    assert_eq!(tally.workloads, seeds.end - seeds.start);
}

#[test]
fn a_call_that_fails_costs_nothing_that_was_acknowledged() {
    let seeds = if is_long() { 0..2000 } else { 0..50 };
    let tally = redb_suite(sizes::SMALL).failing_calls(seeds).unwrap();
    println!("{tally}");
    assert!(tally.failed_calls >= tally.workloads * 10, "{tally}");
}

#[test]
fn a_full_disk_costs_nothing_that_was_acknowledged() {
    let seeds = if is_long() { 0..3000 } else { 0..100 };
    let tally = redb_suite(sizes::SMALL).full_disk(seeds).unwrap();
    println!("{tally}");
    assert!(tally.failed_calls >= tally.workloads, "{tally}");
}
