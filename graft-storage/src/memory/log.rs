//! The log of a memory store.

use std::ops::Range;

use graft_core::{Entries, Index, LogId, LogTime};

use crate::outline::Outline;

/// A log and what is known of it without looking.
///
/// Invariant: `entries` are those that `outline` describes.
#[derive(Debug, Default)]
pub(super) struct Log {
    outline: Outline,
    entries: Entries,
}

impl Log {
    pub(super) fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Replaces everything at and above the first index of `entries`, which must not leave a gap.
    pub(super) fn append(&mut self, entries: Entries) {
        let Some(first) = entries.first_index() else {
            return;
        };
        if first <= self.outline.last.index {
            self.entries.truncate_from(first);
        }
        self.outline.append(&entries);
        self.entries.append(entries);
    }

    /// Drops everything up to and including `upto`, an entry of this log.
    pub(super) fn compact(&mut self, upto: LogId) {
        self.entries.drop_below(upto.index.next());
        self.outline.compact(upto);
    }

    /// Forgets the whole log: it goes on after `compacted`, an entry of `last_time`.
    pub(super) fn restart_after(&mut self, compacted: LogId, last_time: LogTime) {
        self.entries = Entries::new();
        self.outline.restart_after(compacted, last_time);
    }

    /// Entries from the start of `range`, which the log holds: as many as fit, at least one.
    pub(super) fn read(&self, range: Range<Index>, max_bytes: usize) -> Entries {
        // The piece looked at grows by a factor, so the work is that of what is returned and not
        // that of what was asked for.
        let mut width = 64;
        loop {
            let end = Index(range.start.0.saturating_add(width)).min(range.end);
            let piece = range.start..end;
            let taken = self.entries.slice_bounded(piece, usize::MAX, max_bytes);
            let whole = taken.last_log_id().is_some_and(|last| last.index.next() == end);
            if !whole || end == range.end {
                return taken;
            }
            width = width.saturating_mul(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use graft_core::{Entry, EntryKind, EntryRef, Term};

    use super::*;
    use crate::outline::push_runs;

    fn run(term: u64, indexes: Range<u64>) -> Entries {
        indexes
            .map(|index| Entry {
                log_id: LogId::new(term, index),
                time: LogTime(0),
                kind: EntryKind::Plain,
                payload: Bytes::new(),
            })
            .collect()
    }

    fn runs(pairs: &[(u64, u64)]) -> Vec<(Index, Term)> {
        pairs.iter().map(|(i, t)| (Index(*i), Term(*t))).collect()
    }

    fn three_terms() -> Log {
        let mut log = Log::default();
        let mut mixed = run(1, 1..4);
        mixed.append(run(2, 4..5));
        log.append(mixed);
        log.append(run(2, 5..7));
        log.append(run(5, 7..9));
        log
    }

    #[test]
    fn the_runs_of_terms_are_those_of_the_entries_for_every_truncation_and_compaction() {
        for cut in 1..10 {
            for keep in 0..cut {
                let mut log = three_terms();
                log.append(run(9, cut..cut + 1));
                let term_of = |index: u64| log.entries.get(Index(index)).map(|e| e.log_id.term);
                let upto = LogId { term: term_of(keep).unwrap_or_default(), index: Index(keep) };
                log.compact(upto);
                let mut expected = Vec::new();
                push_runs(
                    &mut expected,
                    &log.entries.iter().map(EntryRef::to_entry).collect::<Entries>(),
                );
                assert_eq!(log.outline.terms, expected, "truncated at {cut}, compacted to {keep}");
                assert_eq!(log.outline.last, LogId::new(9, cut));
                assert_eq!(log.outline.term_at(Index(keep)), Some(upto.term));
                assert_eq!(log.outline.term_at(Index(cut)), Some(Term(9)));
                assert_eq!(log.outline.term_at(Index(cut + 1)), None);
            }
        }
    }

    #[test]
    fn a_segment_of_several_terms_gives_a_run_each() {
        assert_eq!(three_terms().outline.terms, runs(&[(1, 1), (4, 2), (7, 5)]));
        let mut log = three_terms();
        log.compact(LogId::new(2, 5));
        assert_eq!(log.outline.terms, runs(&[(6, 2), (7, 5)]));
        log.compact(LogId::new(5, 8));
        assert_eq!(log.outline.terms, []);
    }

    #[test]
    fn a_read_looks_at_little_more_than_it_returns_and_cuts_where_the_bytes_end() {
        let mut log = Log::default();
        for index in 1..1000 {
            log.append(run(1, index..index + 1));
        }
        for (limit, expected) in [(0, 1), (64, 2), (32 * 64, 64), (32 * 65, 65), (32 * 500, 500)] {
            let taken = log.read(Index(3)..Index(900), limit);
            assert_eq!(taken.len(), expected);
            assert_eq!(taken.first_index(), Some(Index(3)));
        }
        assert_eq!(log.read(Index(3)..Index(900), usize::MAX).len(), 897);
    }
}
