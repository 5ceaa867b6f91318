//! How much of the disk a store takes.

use std::sync::Arc;

use graft_core::LogId;
use graft_storage::{medium::Disk, redb::Options};

use crate::support::{Directory, append, born, compact, is_long, settle, write};

/// Ten times what is live is written and purged, in batches of about 256 KiB. A segment is a sixteenth of
/// a round, and an empty log keeps two files, the one that is written and a spare one: each is as long as
/// its segment and what one batch may put beyond it, so that half of a round, kept back, shows at once.
#[test]
fn space_that_is_purged_is_used_again_or_given_back() {
    let round = if is_long() { 256 << 20 } else { 8 << 20 };
    let segment = round / 16;
    let directory = Directory::new("redb");
    let options = Options::default().segment_bytes(segment).preallocated_bytes(segment);
    let store = born(Arc::new(Disk::create(directory.path()).unwrap()), &options);
    let (size, count) = (1000, 256);
    let batches = round / (size as u64 * count);
    let mut next = 1;
    let mut most = 0;
    for _ in 0..10 {
        for _ in 0..batches {
            write(&store, vec![append(1, next..next + count, size)]);
            next += count;
        }
        settle(&store);
        let live = batches * count * (size as u64 + 32);
        assert!(directory.size() <= 2 * live, "{} for {live}", directory.size());
        compact(&store, LogId::new(1, next - 1), 1000).unwrap();
        settle(&store);
        most = most.max(directory.size());
        let size = directory.size();
        assert!(size <= 3 * segment, "{size} bytes for an empty log, in segments of {segment}");
    }
    println!("round={round} most_after_purge={most}");
}

/// The same without waiting for an empty log: the tail of what was written stays.
#[test]
fn a_log_that_is_purged_behind_its_head_takes_little_more_than_it_holds() {
    let directory = Directory::new("redb");
    let options = Options::default().segment_bytes(1 << 20).preallocated_bytes(1 << 20);
    let store = born(Arc::new(Disk::create(directory.path()).unwrap()), &options);
    let live = 2 << 20;
    for batch in 0..200 {
        let next = batch * 100 + 1;
        write(&store, vec![append(1, next..next + 100, 1000)]);
        let kept = live / 1000;
        if next > kept && batch % 5 == 0 {
            compact(&store, LogId::new(1, next - kept), 10).unwrap();
            settle(&store);
            let size = directory.size();
            assert!(size <= 2 * live + (4 << 20), "{size} bytes for {live}");
        }
    }
}

/// What is filled ahead is what is used, whatever the sizes of entries and batches are. Large
/// commits have nothing filled ahead after the first file: theirs grow, and not beyond the plan.
#[test]
fn files_of_the_log_are_as_long_as_was_planned() {
    let small = [(20, 100), (100, 128)].map(|batch| (batch, true));
    let large = [(1000, 128), (3, 20_000), (1, 1 << 20)].map(|batch| (batch, false));
    for ((count, size), is_filled) in small.into_iter().chain(large) {
        let directory = Directory::new("redb");
        let options = Options::default().segment_bytes(4 << 20);
        let store = born(Arc::new(Disk::create(directory.path()).unwrap()), &options);
        let logs = || {
            let files = directory.content().into_iter();
            let logs = files.filter(|(name, _)| name.starts_with("log-"));
            logs.map(|(_, bytes)| bytes.len()).collect::<Vec<_>>()
        };
        let planned = logs()[0];
        let (mut next, mut bytes) = (1, 0);
        while bytes < 20 << 20 {
            write(&store, vec![append(1, next..next + count, size)]);
            (next, bytes) = (next + count, bytes + usize::try_from(count).unwrap() * (size + 32));
        }
        settle(&store);
        drop(store);
        let total: usize = logs().iter().sum();
        println!("{count} x {size}: {:?}, {total} for {bytes}", logs());
        let fits = |length: usize| length == planned || (!is_filled && length < planned);
        assert!(logs().into_iter().all(fits), "{planned} were planned");
        // A row of more than half a page has the page for itself.
        assert!(total - planned < bytes / 2 * 5, "{total} bytes for {bytes}");
    }
}
