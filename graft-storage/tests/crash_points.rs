//! The redb store across power cuts at every boundary of its work, failing calls and a full disk.
//!
//! With `GRAFT_LONG=1` on a thousand workloads instead of fifty; with `GRAFT_SEEDS=3..4` on one, to see
//! again what it showed.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(feature = "redb")]

mod common;

use std::sync::Arc;

use common::{redb_suite, redb_suite_with_spares, seeds, sizes, spares::Spares};
use graft_storage::{conformance::faults::Tally, medium::Call};

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

/// Files change their names twice on the way from one segment to another, and are written over.
#[test]
fn a_store_that_makes_files_ahead_keeps_what_it_acknowledged_at_every_crash_point() {
    let (seeds, spares) = (seeds(1000, 20, 400), Arc::<Spares>::default());
    let suite = redb_suite_with_spares(sizes::SPARES, &spares);
    let tally = suite.crash_points(seeds.clone()).unwrap();
    println!("{tally} {spares}");
    assert_eq!(tally.workloads, seeds.end - seeds.start);
    assert!(tally.repeated >= tally.crashes / 4, "{tally}");
    spares.check_all_ways();
}

#[test]
fn a_call_that_fails_costs_nothing_that_was_acknowledged() {
    let tally = redb_suite(sizes::SMALL).failing_calls(seeds(0, 50, 2000)).unwrap();
    println!("{tally}");
    check_that_each_call_failed(&tally);
}

#[test]
fn a_call_that_fails_costs_nothing_where_files_are_made_ahead() {
    let spares = Arc::<Spares>::default();
    let suite = redb_suite_with_spares(sizes::TINY, &spares);
    let tally = suite.failing_calls(seeds(2000, 50, 2000)).unwrap();
    println!("{tally} {spares}");
    check_that_each_call_failed(&tally);
    spares.check_all_ways();
}

fn check_that_each_call_failed(tally: &Tally) {
    assert!(tally.failed_calls >= tally.workloads * 10, "{tally}");
    for call in Call::ALL {
        assert!(tally.failed(call) > 0, "no call of the kind {call:?} failed: {tally}");
    }
}

#[test]
fn a_full_disk_costs_nothing_that_was_acknowledged() {
    let tally = redb_suite(sizes::SMALL).full_disk(seeds(0, 100, 3000)).unwrap();
    println!("{tally}");
    assert!(tally.failed_calls >= tally.workloads, "{tally}");
}

#[test]
fn a_full_disk_costs_nothing_where_files_are_made_ahead() {
    let spares = Arc::<Spares>::default();
    let suite = redb_suite_with_spares(sizes::TINY, &spares);
    let tally = suite.full_disk(seeds(4000, 100, 3000)).unwrap();
    println!("{tally} {spares}");
    assert!(tally.failed_calls >= tally.workloads, "{tally}");
    spares.check_all_ways();
}
