//! Formats, pages that were cut off, and how full pages are.

use std::ops::ControlFlow;

use bytes::Bytes;
use graft_core::{Entry, EntryKind, LogId, LogTime};
use redb::ReadableTableMetadata as _;

use super::*;
use crate::{conformance::samples::identity, medium::FaultyMedium};

fn state() -> State {
    let mut state = State::newborn(identity());
    state.active = 1;
    state.advance(&Fact::STAMPED);
    state
}

/// A medium with a segment that says it is in `format`.
fn segment_in(format: Format) -> Arc<dyn Medium> {
    let medium: Arc<dyn Medium> = Arc::new(FaultyMedium::new(1));
    let name = file_name(1);
    let file = medium.open(&name, Open::CreateNew).unwrap();
    let changes = Changes { facts: Fact::ALL.to_vec(), ..Changes::default() };
    let segment =
        Segment::create(&medium, &name, file, (1 << 20, 4000), &changes, &state()).unwrap();
    let transaction = segment.database().unwrap().begin_write().unwrap();
    {
        let mut facts = transaction.open_table(FACTS).unwrap();
        facts.insert(&Fact::Format.key(GROUP), format.encode(GROUP).as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    medium
}

fn opened(format: Format) -> Result<Segment, OpenError> {
    Segment::open(&segment_in(format), 1, Open::Read, 1 << 20, None)
}

#[test]
fn a_segment_in_this_builds_format_is_opened() {
    let segment = opened(Format::own()).unwrap();
    assert_eq!(segment.view().unwrap().head().unwrap(), state().head());
}

#[test]
fn a_newer_format_is_told_from_another_of_the_same_version() {
    let newer = Format { version: VERSION + 1, fingerprint: 5 };
    let error = opened(newer).map(drop).unwrap_err();
    let known = VERSION;
    assert!(
        matches!(&error, OpenError::NewerFormat { found, known: k, .. }
            if *found == known + 1 && *k == known),
        "{error:?}"
    );
    assert!(error.to_string().contains("upgrade this server first"), "{error}");
    let other = Format { version: VERSION, fingerprint: 5 };
    let error = opened(other).map(drop).unwrap_err();
    assert!(matches!(&error, OpenError::OtherFormat { found: 5, .. }), "{error:?}");
}

/// Opens again what `commits` commits left, once the unused end of the last page that was written
/// is cut off, as a crash does with a file that grew.
fn cut_and_opened(commits: u64) -> (State, Result<Segment, OpenError>) {
    let medium: Arc<dyn Medium> = Arc::new(FaultyMedium::new(1));
    let name = file_name(1);
    let file = medium.open(&name, Open::CreateNew).unwrap();
    let (changes, mut state) =
        (Changes { facts: Fact::ALL.to_vec(), ..Changes::default() }, state());
    let segment = Segment::create(&medium, &name, file, (1 << 20, 4000), &changes, &state).unwrap();
    for index in 1..=commits {
        state.advance(&[]);
        let mut changes = Changes { entries: entries(index * 100, 100), ..Changes::default() };
        changes.lay_out(VERSION);
        segment.commit(&changes, &state, &mut Vec::new()).unwrap();
    }
    drop(segment);
    let file = medium.open(&name, Open::Existing).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    file.set_len((last + 1).next_multiple_of(PAGE) - 1).unwrap();
    drop(file);
    (state, Segment::open(&medium, 1, Open::Read, 1 << 20, None))
}

#[test]
fn a_page_that_lacks_only_what_nobody_uses_is_whole() {
    for commits in 1..=24 {
        let (state, opened) = cut_and_opened(commits);
        let opened = opened.unwrap_or_else(|error| panic!("{commits} commits: {error}"));
        assert_eq!(opened.view().unwrap().head().unwrap(), state.head(), "{commits} commits");
    }
}

/// So many small entries from this index on.
fn entries(from: u64, count: u64) -> Entries {
    let entry = |index| Entry {
        log_id: LogId::new(1, index),
        time: LogTime(0),
        kind: EntryKind::Plain,
        payload: Bytes::from_static(&[7; 32]),
    };
    (from..from + count).map(entry).collect()
}

/// Bytes of values and keys of the log, and bytes of its pages that hold nothing, after `rounds`
/// commits of as many small entries as `sizes` says, one after the other.
fn stored_and_wasted(rounds: u64, sizes: &[u64]) -> (u64, u64) {
    let medium: Arc<dyn Medium> = Arc::new(FaultyMedium::new(1));
    let name = file_name(1);
    let file = medium.open(&name, Open::CreateNew).unwrap();
    let (changes, mut state) =
        (Changes { facts: Fact::ALL.to_vec(), ..Changes::default() }, state());
    let sizes_of_file = (16 << 20, 4000);
    let segment = Segment::create(&medium, &name, file, sizes_of_file, &changes, &state).unwrap();
    let mut index = 0;
    for size in (0..rounds).flat_map(|_| sizes) {
        let mut changes = Changes { entries: entries(index + 1, *size), ..Changes::default() };
        changes.lay_out(VERSION);
        index += size;
        state.advance(&[]);
        segment.commit(&changes, &state, &mut Vec::new()).unwrap();
    }
    let view = segment.view().unwrap();
    assert_eq!(view.head().unwrap(), state.head());
    let mut next = 1;
    let end = view.entries(Index(1)..Index(index + 1), &mut |entry| {
        assert_eq!(entry.log_id.index, Index(next));
        next += 1;
        ControlFlow::Continue(())
    });
    assert!(end.unwrap().is_continue() && next == index + 1, "{next} of {index}");
    let reading = segment.database().unwrap().begin_read().unwrap();
    let stats = reading.open_table(LOG).unwrap().stats().unwrap();
    (stats.stored_bytes(), stats.fragmented_bytes())
}

#[test]
fn large_commits_fill_the_pages_that_they_take() {
    // 1,024 of these entries are a chunk that fills its page and a small one; 300 are two parts; and
    // a small commit before a large one leaves a small row where the large one comes.
    for sizes in [&[1024][..], &[500], &[300], &[3, 1024], &[20, 300], &[1, 60, 500]] {
        let (stored, wasted) = stored_and_wasted(10, sizes);
        assert!(wasted < stored / 4, "{sizes:?}: {wasted} bytes beside {stored}");
    }
}

#[test]
fn names_of_segments_are_those_that_were_given() {
    assert_eq!(number_of(&file_name(7)), Some(7));
    assert_eq!(number_of(&file_name(u64::MAX)), Some(u64::MAX));
    for name in ["log-7.redb", "log-00000000000000000007.redb.tmp", "log-.redb", "witness"] {
        assert_eq!(number_of(name), None, "{name}");
    }
}
