//! Bits of a redb store turn around: what it returns is what was written, or it says where it is damaged.
//!
//! With `GRAFT_LONG=1` every bit of a store of a megabyte, and 100,000 of one of 64 MiB.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(feature = "redb")]

mod common;

use std::time::Duration;

use common::{is_long, redb_suite, seeds, sizes};
use graft_storage::conformance::faults::{Bits, Workload};

#[test]
fn a_sample_of_the_bits_of_small_stores() {
    let bits = if is_long() { 20_000 } else { 1500 };
    let tally = redb_suite(sizes::SMALL).bit_flips(seeds(0, 4, 40), Bits::Sample(bits)).unwrap();
    println!("{tally}");
    assert!(tally.reported > 0 && tally.reported < tally.flips, "{tally}");
}

#[test]
fn every_bit_of_a_store_of_a_megabyte() {
    if !is_long() {
        return;
    }
    let workload = Workload::generate(1, 40);
    let tally = redb_suite(sizes::SMALL).bit_flips_in(&workload, Bits::Every, 1).unwrap();
    println!("{tally}");
    assert!(tally.flips >= 8 << 20, "the store is smaller than a megabyte: {tally}");
}

#[test]
fn a_hundred_thousand_bits_of_a_store_of_64_mib() {
    let (bytes, bits) = if is_long() { (64 << 20, 100_000) } else { (4 << 20, 100) };
    let workload = Workload::of_size(1, bytes);
    let suite = redb_suite(sizes::USUAL).limit(Duration::from_secs(600));
    let tally = suite.bit_flips_in(&workload, Bits::Sample(bits), 1).unwrap();
    println!("{tally}");
    assert!(tally.reported > tally.flips / 4, "{tally}");
}
