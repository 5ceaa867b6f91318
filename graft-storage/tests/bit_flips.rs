//! Bits of a redb store turn around: what it returns is what was written, or it says where it is damaged.
//!
//! With `GRAFT_LONG=1` every bit of a store of a megabyte, and 100,000 of one of 64 MiB. That takes hours.
//! With `GRAFT_FLIPS=N` beside it, N random bits of each; with `GRAFT_FLIPS=K/N`, of the megabyte every
//! Nth bit from K on, so that the N parts from 0 on are every bit; with `GRAFT_FLIPS==NUMBER`, the one bit
//! that a failure names.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(feature = "redb")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{is_long, names_a_place, names_no_record, redb_suite, seeds, sizes};
use graft_core::{LogStore, StoreError, stable_hash};
use graft_storage::{
    RedbStore,
    conformance::{
        block_on,
        faults::{Bits, Workload},
    },
    medium::{FaultyMedium, Image, Medium, Open},
    redb::{Pace, verify_on},
};

/// A store hangs where one bit takes longer. Long, since whoever runs this for hours may pause it.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn a_sample_of_the_bits_of_small_stores() {
    let usual = Bits::Sample(if is_long() { 20_000 } else { 500 });
    let bits = flips().unwrap_or(usual);
    // The store of workload 10 is given its last two batches at once.
    let tally = redb_suite(sizes::SMALL).limit(LIMIT).bit_flips(seeds(0, 12, 40), bits).unwrap();
    println!("{tally}");
    let is_sample = matches!(bits, Bits::Sample(_));
    assert!(!is_sample || tally.reported > 0 && tally.reported < tally.flips, "{tally}");
}

#[test]
fn every_bit_of_a_store_of_a_megabyte() {
    let every = if is_long() { Bits::Every } else { Bits::Sample(2000) };
    let bits = flips().unwrap_or(every);
    let workload = Workload::of_size(1, 1 << 20);
    let tally = redb_suite(sizes::HALF).limit(LIMIT).bit_flips_in(&workload, bits, 1).unwrap();
    println!("{tally}");
    assert!(bits != Bits::Every || tally.flips >= 8 << 20, "the store is smaller: {tally}");
}

#[test]
fn a_hundred_thousand_bits_of_a_store_of_64_mib() {
    let (bytes, bits) = if is_long() { (64 << 20, 100_000) } else { (4 << 20, 100) };
    let workload = Workload::of_size(1, bytes);
    let suite = redb_suite(sizes::USUAL).limit(LIMIT);
    let bits = flips().unwrap_or(Bits::Sample(bits));
    let tally = suite.bit_flips_in(&workload, bits, 1).unwrap();
    println!("{tally}");
    let is_sample = matches!(bits, Bits::Sample(_));
    assert!(!is_sample || tally.reported > tally.flips / 4, "{tally}");
}

/// Which bits to turn around, where the environment says so.
fn flips() -> Option<Bits> {
    let wanted = std::env::var("GRAFT_FLIPS").ok()?;
    let number = |text: &str| {
        text.parse().unwrap_or_else(|_| panic!("GRAFT_FLIPS is `{wanted}`: not N, K/N or =NUMBER"))
    };
    Some(match (wanted.split_once('/'), wanted.strip_prefix('=')) {
        (Some((part, of)), _) => Bits::Part { part: number(part), of: number(of) },
        (None, Some(only)) => Bits::Only(number(only)),
        (None, None) => Bits::Sample(number(&wanted)),
    })
}

/// What a closed store leaves on its disk.
fn closed_store(workload: &Workload) -> Image {
    let medium = FaultyMedium::new(1);
    let options = sizes::options(sizes::SMALL);
    let store = RedbStore::open_on(Arc::new(medium.clone()), &options).unwrap();
    let work = async {
        store.recover().await?;
        for number in 0..workload.batches() {
            workload.perform(&store, number).await?;
        }
        Ok::<(), StoreError>(())
    };
    block_on(LIMIT, work).expect("the store hangs").unwrap();
    drop(store);
    medium.image()
}

/// Whether opening, recovering and reading everything finds nothing wrong.
fn is_sound(workload: &Workload, medium: &FaultyMedium) -> bool {
    let options = sizes::options(sizes::SMALL);
    let Ok(store) = RedbStore::open_on(Arc::new(medium.clone()), &options) else {
        assert_eq!(medium.boundaries(), 0, "a store that is not opened is left as it was");
        return false;
    };
    let end = workload.batches();
    let found = block_on(LIMIT, workload.find(&store, end..=end)).expect("the store hangs");
    found.is_ok_and(|found| found.is_ok())
}

#[test]
fn verification_finds_whatever_a_store_would_trip_over_and_changes_nothing() {
    let workload = Workload::generate(1, 40);
    let image = closed_store(&workload);
    let files: Vec<String> = image.names().map(str::to_owned).collect();
    let (mut found, mut tripped, mut unnamed) = (0, 0, 0);
    for number in 0..if is_long() { 50_000_u64 } else { 1500 } {
        let choice = stable_hash(&number.to_le_bytes());
        let name = &files[usize::try_from(choice % files.len() as u64).unwrap()];
        let mut flipped = image.clone();
        let bit = (choice >> 8) % (image.len(name).unwrap() * 8);
        flipped.flip(name, bit);
        let medium: Arc<dyn Medium> = Arc::new(FaultyMedium::holding(flipped.clone(), 1));
        let verified = verify_on(&medium);
        let is_sound = is_sound(&workload, &FaultyMedium::holding(flipped, 1));
        assert!(is_sound || verified.is_err(), "bit {bit} of {name}: verification missed it");
        if let Err(error) = &verified {
            let error = error.to_string();
            assert!(error.contains(name), "bit {bit} of {name}: {error}");
            assert!(names_a_place(&error), "bit {bit} of {name}: {error}");
            unnamed += u64::from(names_no_record(&error));
        }
        found += u64::from(verified.is_err());
        tripped += u64::from(!is_sound);
    }
    println!("found={found} tripped={tripped} unnamed={unnamed}");
    assert!(tripped > 100 && found >= tripped);
    // A few bytes of a page say how many records it has and where they are.
    assert!(unnamed * 20 < found, "{unnamed} of {found} name no record");
}

/// The disk rots below a store at work, which has much of it in its memory.
#[test]
fn a_scrub_finds_whatever_the_next_opening_would_trip_over() {
    let workload = Workload::generate(1, 40);
    let medium = FaultyMedium::holding(closed_store(&workload), 1);
    let options = sizes::options(sizes::SMALL);
    let store = RedbStore::open_on(Arc::new(medium.clone()), &options).unwrap();
    let wait = |work| block_on(LIMIT, work).expect("the store hangs");
    block_on(LIMIT, store.recover()).expect("the store hangs").unwrap();
    let pace = Pace { bytes_per_step: 1 << 20, pause: Duration::ZERO };
    wait(store.scrub(pace)).unwrap();
    let image = medium.image();
    let files: Vec<String> = image.names().map(str::to_owned).collect();
    let (mut found, mut tripped) = (0, 0);
    for number in 0..if is_long() { 20_000_u64 } else { 800 } {
        let choice = stable_hash(&number.to_le_bytes());
        let name = &files[usize::try_from(choice % files.len() as u64).unwrap()];
        let bit = (choice >> 8) % (image.len(name).unwrap() * 8);
        let mut flipped = image.clone();
        flipped.flip(name, bit);
        let file = medium.open(name, Open::Existing).unwrap();
        let put = |image: &Image| {
            let at = usize::try_from(bit / 8).unwrap();
            file.write_at(bit / 8, &image.read(name).unwrap()[at..=at]).unwrap();
        };
        put(&flipped);
        let scrubbed = wait(store.scrub(pace));
        put(&image);
        let is_sound = is_sound(&workload, &FaultyMedium::holding(flipped, 1));
        assert!(is_sound || scrubbed.is_err(), "bit {bit} of {name}: the scrub missed it");
        if let Err(error) = &scrubbed {
            let error = error.to_string();
            assert!(error.contains(name), "bit {bit} of {name}: {error}");
            assert!(names_a_place(&error), "bit {bit} of {name}: {error}");
        }
        found += u64::from(scrubbed.is_err());
        tripped += u64::from(!is_sound);
    }
    println!("found={found} tripped={tripped}");
    assert!(tripped > 50 && found >= tripped);
    wait(store.scrub(pace)).unwrap();
}

#[test]
fn verification_writes_nothing() {
    let workload = Workload::of_size(1, 1 << 20);
    let medium = FaultyMedium::holding(closed_store(&workload), 1);
    let shared: Arc<dyn Medium> = Arc::new(medium.clone());
    let report = verify_on(&shared).unwrap();
    assert!(report.entries > 0, "{report:?}");
    assert_eq!(medium.boundaries(), 0);
}
