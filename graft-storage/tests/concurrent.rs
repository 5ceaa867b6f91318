//! What the threads of a redb store do to each other: appends, purges, reads and a scrub at the same
//! time. First the moments that matter, one by one, with the disk held up so that they come; then
//! everything at once, for some seconds, or a minute with `GRAFT_LONG=1`.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(feature = "redb")]

mod common;
#[path = "concurrent/gates.rs"]
mod gates;
#[path = "concurrent/load.rs"]
mod load;
#[path = "redb/support.rs"]
#[allow(dead_code, unused_imports, reason = "other tests use the rest")]
mod support;

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Waker},
    thread,
    time::Duration,
};

use graft_core::{Entries, Index, Loaded, LogId, LogStore, StoreError, Write};
use graft_storage::{
    RedbStore,
    conformance::block_on,
    medium::{Call, Fault, FaultyMedium, Medium},
    redb::{Options, Pace, Report},
};

use self::{
    gates::{Gated, Pass},
    support::{append, born, entry, read_all, settle, snapshot, wait, write},
};

/// Begins `work`, which must not be done at once.
fn begin<F: Future>(mut work: Pin<&mut F>) {
    let polled = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it is done already");
}

/// The name of a segment's file.
fn segment(number: usize) -> String {
    format!("log-{number:020}.redb")
}

/// A store of small segments with spare files, and what was written to it.
struct Log {
    disk: FaultyMedium,
    medium: Gated,
    store: RedbStore,
    next: u64,
    /// The first index of each segment, by its number.
    firsts: Vec<u64>,
}

impl Log {
    const BATCH: u64 = 20;
    const SIZE: usize = 128;

    fn options() -> Options {
        Options::default().segment_bytes(256 << 10).preallocated_bytes(u64::MAX)
    }

    fn new() -> Self {
        let disk = FaultyMedium::new(1);
        let medium = Gated::new(disk.clone());
        let store = born(Arc::new(medium.clone()), &Self::options());
        Self { disk, medium, store, next: 1, firsts: vec![0, 1] }
    }

    /// One with this many segments, a snapshot of all but the last of them, and nothing purged.
    fn of_segments(count: usize) -> Self {
        let mut log = Self::new();
        while log.newest() < count {
            log.append();
            settle(&log.store);
        }
        let chunk = snapshot(LogId::new(1, log.firsts[count] - 1), 10);
        let meta = chunk.meta.clone();
        wait(log.store.stage(chunk)).unwrap();
        write(&log.store, vec![Write::InstallSnapshot(meta)]);
        log
    }

    /// The number of the segment that is written.
    fn newest(&self) -> usize {
        let names = self.medium.list().unwrap();
        let segments = names.iter().filter_map(|name| name.strip_prefix("log-"));
        segments.filter_map(|name| name.strip_suffix(".redb")?.parse().ok()).max().unwrap()
    }

    fn batch(&self) -> Vec<Write> {
        vec![append(1, self.next..self.next + Self::BATCH, Self::SIZE)]
    }

    fn append(&mut self) {
        write(&self.store, self.batch());
        self.appended();
    }

    fn appended(&mut self) {
        if self.newest() == self.firsts.len() {
            self.firsts.push(self.next);
        }
        self.next += Self::BATCH;
    }

    /// Appends until there is another segment.
    fn rotate(&mut self) {
        let newest = self.newest();
        while self.newest() == newest {
            self.append();
        }
    }

    fn entries(&self, first: u64) -> Entries {
        (first..self.next).map(|index| entry(1, index, Self::SIZE)).collect()
    }

    fn spare_files(&self) -> Vec<String> {
        let names = self.medium.list().unwrap().into_iter();
        names.filter(|name| name.starts_with("spare")).collect()
    }

    /// Appends until a spare file is ready. Returns its name.
    fn wait_for_a_spare_file(&mut self) -> String {
        loop {
            // The thread that reads is done with the file it has synced when it answers again.
            settle(&self.store);
            let synced = self.spare_files().into_iter().find(|name| self.medium.was_synced(name));
            if let Some(ready) = synced {
                settle(&self.store);
                return ready;
            }
            self.append();
        }
    }

    /// Drops the segments before this one.
    fn purge_before(&self, segment: usize) {
        write(&self.store, vec![Write::Compact(LogId::new(1, self.firsts[segment] - 1))]);
    }

    /// Ends the process, and reads everything that was acknowledged in the next one.
    fn check_reopened(self) {
        let (entries, next) = (|first| self.entries(first), self.next);
        let store = RedbStore::open_on(Arc::new(self.disk.exit()), &Self::options()).unwrap();
        let found = wait(store.recover()).unwrap().unwrap();
        assert_eq!(found.last.index.0, next - 1, "what was acknowledged is there");
        let first = found.compacted.index.0 + 1;
        assert!(read_all(&store, first, next).unwrap() == entries(first));
    }
}

impl Drop for Log {
    /// A test that fails holds nothing up any more.
    fn drop(&mut self) {
        self.medium.open_all();
    }
}

fn witness() -> Pass {
    Pass::Write("witness".into())
}

#[test]
fn a_read_does_not_wait_for_what_a_write_adds() {
    let mut log = Log::new();
    log.append();
    log.medium.close(&witness());
    let mut held = pin!(log.store.write(log.batch()));
    begin(held.as_mut());
    log.medium.reached(&witness());
    // The commit is in the file, and acknowledged to nobody.
    let loaded = wait(log.store.read(Index(1)..Index(1000), usize::MAX)).unwrap();
    assert_eq!(loaded, Loaded::Entries(log.entries(1)), "what was acknowledged is what is read");
    log.medium.open(&witness());
    wait(held).unwrap();
}

/// A correct store would wait for good; a wrong one may give up within this.
const A_WHILE: Duration = Duration::from_millis(300);

/// Lets a write replace a part of the log, holds it up just before it is acknowledged, and reads what
/// it takes away. Returns what the write and the read end in when the witness is written, which may
/// fail.
fn read_what_is_being_replaced(
    fails: bool,
) -> (Result<Vec<Write>, StoreError>, Result<Loaded, StoreError>) {
    let log = Log::new();
    write(&log.store, vec![append(1, 1..11, 10)]);
    log.medium.close(&witness());
    let mut held = pin!(log.store.write(vec![append(2, 5..7, 10)]));
    begin(held.as_mut());
    log.medium.reached(&witness());
    let mut read = pin!(log.store.read(Index(1)..Index(11), usize::MAX));
    assert!(block_on(A_WHILE, read.as_mut()).is_none(), "there is nothing to be read yet");
    if fails {
        log.disk.fail(Fault { call: Some(Call::Write), after: 0, times: 1 });
    }
    log.medium.open(&witness());
    (wait(held), wait(read))
}

#[test]
fn a_read_of_what_a_write_takes_away_waits_for_that_write_however_long_it_takes() {
    let (written, read) = read_what_is_being_replaced(false);
    assert!(written.is_ok(), "{written:?}");
    let mut expected: Entries = (1..5).map(|index| entry(1, index, 10)).collect();
    expected.append((5..7).map(|index| entry(2, index, 10)).collect());
    assert_eq!(read.unwrap(), Loaded::Entries(expected));
}

#[test]
fn a_read_that_waits_for_a_write_ends_when_that_write_fails() {
    let (written, read) = read_what_is_being_replaced(true);
    assert!(matches!(written, Err(StoreError::Io { .. })), "{written:?}");
    assert!(matches!(read, Err(StoreError::Poisoned { .. })), "{read:?}");
}

/// Commits that take away nothing of what is read are no reason to look again: where they never end, whoever
/// waits for a damaged file, and whoever waits behind them, would wait for ever.
#[test]
fn a_file_that_cannot_be_read_is_an_error_also_where_something_was_committed_meanwhile() {
    let mut log = Log::of_segments(3);
    let (medium, reader, lost) = (log.medium.clone(), log.store.clone(), segment(1));
    let opened = medium.opened(&lost);
    medium.close(&Pass::Open(lost.clone()));
    let mut read = pin!(reader.read(Index(1)..Index(2), usize::MAX));
    begin(read.as_mut());
    medium.reached(&Pass::Open(lost.clone()));
    medium.remove(&lost).unwrap();
    log.append();
    medium.open(&Pass::Open(lost.clone()));
    let error = wait(read).unwrap_err();
    assert!(error.to_string().contains(&lost), "{error}");
    assert_eq!(medium.opened(&lost), opened + 1, "it was looked for again");
    // What is still there is still read.
    let last = log.next - 1;
    let loaded = wait(reader.read(Index(last)..Index(last + 1), usize::MAX)).unwrap();
    assert_eq!(loaded, Loaded::Entries(log.entries(last)));
}

/// A segment is begun in a spare file, and just before it gets its name the file of a purged one
/// becomes a spare file as well. That must not get the name: what is written would be in a file
/// without one.
#[test]
fn a_file_that_is_purged_while_a_segment_is_begun_does_not_take_its_place() {
    let mut log = Log::of_segments(6);
    let (medium, reader) = (log.medium.clone(), log.store.clone());
    let spare = log.wait_for_a_spare_file();
    assert_eq!(log.newest(), 6, "the spare file is there before it is needed");
    // The thread that reads is busy; behind that it is to remove two files.
    let (cold, name) = (Pass::Open(segment(4)), Pass::Name(segment(7)));
    medium.close(&cold);
    let mut read = pin!(reader.read(Index(log.firsts[4])..Index(log.firsts[4] + 1), 1));
    begin(read.as_mut());
    medium.reached(&cold);
    log.purge_before(3);
    medium.close(&name);
    thread::scope(|scope| {
        let writing = scope.spawn(|| log.rotate());
        // The next segment is written, and has no name yet.
        medium.reached(&name);
        medium.open(&cold);
        wait(read).unwrap();
        settle(&reader);
        assert!(medium.renamed(&segment(1)).is_some(), "the purged file is used again");
        medium.open(&name);
        writing.join().unwrap();
    });
    assert_eq!(medium.renamed(&spare), Some(segment(7)));
    for _ in 0..3 {
        log.rotate();
    }
    log.check_reopened();
}

/// A spare file is being filled when the file of a purged segment comes up and is taken. The first one
/// is then ready for the segment after that, and still has its name.
#[test]
fn a_spare_file_that_was_overtaken_is_the_one_after() {
    let mut log = Log::of_segments(6);
    let (medium, reader) = (log.medium.clone(), log.store.clone());
    // The thread that reads has to do with two reads, one after the other.
    let cold = [4, 5].map(|number| Pass::Open(segment(number)));
    let ranges = [4, 5].map(|number| Index(log.firsts[number])..Index(log.firsts[number] + 1));
    let [one, two] = ranges.map(|range| reader.read(range, 1));
    let (mut one, mut two) = (pin!(one), pin!(two));
    for pass in &cold {
        medium.close(pass);
    }
    begin(one.as_mut());
    medium.reached(&cold[0]);
    // Between the two it is asked for a spare file, and to remove two files.
    log.rotate();
    while log.next < log.firsts[7] + 50 * Log::BATCH {
        log.append();
    }
    assert_eq!(log.newest(), 7, "this is behind the middle of a segment");
    log.purge_before(3);
    begin(two.as_mut());
    let before = log.spare_files();
    medium.open(&cold[0]);
    medium.reached(&cold[1]);
    let purged = medium.renamed(&segment(1)).expect("the purged file is used again");
    let found = log.spare_files().into_iter().filter(|name| !before.contains(name));
    let begun: Vec<_> = found.filter(|name| *name != purged).collect();
    log.rotate();
    assert_eq!(medium.renamed(&purged), Some(segment(8)), "that was ready first");
    medium.open(&cold[1]);
    wait(one).unwrap();
    wait(two).unwrap();
    let spare = log.wait_for_a_spare_file();
    assert_eq!(begun, std::slice::from_ref(&spare), "what was begun has been finished");
    log.rotate();
    assert_eq!(medium.renamed(&spare), Some(segment(9)));
    for _ in 0..3 {
        log.rotate();
    }
    log.check_reopened();
}

/// Whoever reads a file while it is removed reads on; if it were used again the reader would find
/// another segment in it.
#[test]
fn a_file_that_a_scrub_is_reading_is_not_used_again() {
    let mut log = Log::of_segments(6);
    let (medium, scrubbed) = (log.medium.clone(), log.store.clone());
    let reading = Pass::Read(segment(1));
    medium.close(&reading);
    let mut scrub =
        pin!(scrubbed.scrub(Pace { bytes_per_step: usize::MAX, pause: Duration::ZERO }));
    begin(scrub.as_mut());
    medium.reached(&reading);
    // A file would be welcome: the spare file has just been used.
    log.wait_for_a_spare_file();
    log.rotate();
    log.purge_before(4);
    settle(&log.store);
    for number in 1..4 {
        assert_eq!(medium.renamed(&segment(number)), None);
        assert!(medium.was_removed(&segment(number)), "segment {number}");
    }
    log.rotate();
    medium.open(&reading);
    let report: Report = wait(scrub).unwrap();
    let left = log.next - log.firsts[4];
    assert!(report.entries >= left, "{report:?}, {left} entries are left");
    log.check_reopened();
}
