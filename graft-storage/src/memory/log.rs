//! The log of a memory store, with everything `recover` returns kept up to date on the way.

use std::ops::Range;

use graft_core::{Entries, EntryKind, Index, LogId, LogTime, Membership, MembershipError, Term};

/// A log and what is known of it without looking.
///
/// Invariants: `entries` begins right after `compacted`; `terms` has one element for each run of
/// equal terms in `entries`, and `memberships` one for each membership entry.
#[derive(Debug, Default)]
pub(super) struct Log {
    compacted: LogId,
    /// The time of the last entry, also where that is compacted.
    last_time: LogTime,
    entries: Entries,
    terms: Vec<(Index, Term)>,
    memberships: Vec<(LogId, Result<Membership, MembershipError>)>,
}

impl Log {
    pub(super) fn compacted(&self) -> LogId {
        self.compacted
    }

    pub(super) fn last(&self) -> LogId {
        self.entries.last_log_id().unwrap_or(self.compacted)
    }

    pub(super) fn last_time(&self) -> LogTime {
        self.last_time
    }

    pub(super) fn terms(&self) -> &[(Index, Term)] {
        &self.terms
    }

    pub(super) fn memberships(&self) -> &[(LogId, Result<Membership, MembershipError>)] {
        &self.memberships
    }

    /// The term of the entry at `index`; that of the compacted entry is still known.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.compacted.index {
            return Some(self.compacted.term);
        }
        (index <= self.last().index).then(|| term_in(&self.terms, index)).flatten()
    }

    /// Replaces everything at and above the first index of `entries`, which must not leave a gap.
    ///
    /// Costs a look at each new entry's kind and nothing per entry that is there already.
    pub(super) fn append(&mut self, entries: Entries) {
        let (Some(first), Some(last)) = (entries.first_index(), entries.last()) else {
            return;
        };
        self.last_time = last.time;
        if first <= self.last().index {
            self.truncate_from(first);
        }
        push_runs(&mut self.terms, &entries);
        let found = entries.slices().flatten();
        let found = found.filter(|entry| entry.kind == EntryKind::Membership);
        self.memberships
            .extend(found.map(|entry| (entry.log_id, Membership::decode(&entry.payload))));
        self.entries.append(entries);
    }

    fn truncate_from(&mut self, index: Index) {
        self.entries.truncate_from(index);
        let keep = self.terms.partition_point(|(begin, _)| *begin < index);
        self.terms.truncate(keep);
        let keep = self.memberships.partition_point(|(at, _)| at.index < index);
        self.memberships.truncate(keep);
    }

    /// Drops everything up to and including `upto`, an entry of this log.
    pub(super) fn compact(&mut self, upto: LogId) {
        let first = upto.index.next();
        self.entries.drop_below(first);
        self.compacted = upto;
        // The run that goes on beyond `upto` now begins right after it.
        let gone = self.terms.partition_point(|(begin, _)| *begin <= first);
        self.terms.drain(..gone.saturating_sub(1));
        if let Some(run) = self.terms.first_mut() {
            run.0 = run.0.max(first);
        }
        if self.entries.is_empty() {
            self.terms.clear();
        }
        let gone = self.memberships.partition_point(|(at, _)| at.index < first);
        self.memberships.drain(..gone);
    }

    /// Forgets the whole log: it goes on after `compacted`, an entry of `last_time`.
    pub(super) fn restart_after(&mut self, compacted: LogId, last_time: LogTime) {
        *self = Self { compacted, last_time, ..Self::default() };
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

/// The term at `index` by the runs of terms around it.
pub(super) fn term_in(runs: &[(Index, Term)], index: Index) -> Option<Term> {
    let after = runs.partition_point(|(begin, _)| *begin <= index);
    runs[..after].last().map(|(_, term)| *term)
}

/// Adds the runs of `entries` to those of the entries before them. A segment of one term, which is
/// nearly every one, costs a comparison.
pub(super) fn push_runs(runs: &mut Vec<(Index, Term)>, entries: &Entries) {
    for mut rest in entries.slices() {
        while let (Some(first), Some(last)) = (rest.first(), rest.last()) {
            let LogId { term, index } = first.log_id;
            if runs.last().is_none_or(|(_, before)| *before != term) {
                runs.push((index, term));
            }
            if last.log_id.term == term {
                break;
            }
            let length = rest.partition_point(|entry| entry.log_id.term == term);
            rest = &rest[length..];
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use graft_core::Entry;

    use super::*;

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
                push_runs(&mut expected, &log.entries.iter().cloned().collect::<Entries>());
                assert_eq!(log.terms, expected, "truncated at {cut}, compacted to {keep}");
                assert_eq!(log.last(), LogId::new(9, cut));
                assert_eq!(log.term_at(Index(keep)), Some(upto.term));
                assert_eq!(log.term_at(Index(cut)), Some(Term(9)));
                assert_eq!(log.term_at(Index(cut + 1)), None);
            }
        }
    }

    #[test]
    fn a_segment_of_several_terms_gives_a_run_each() {
        assert_eq!(three_terms().terms, runs(&[(1, 1), (4, 2), (7, 5)]));
        let mut log = three_terms();
        log.compact(LogId::new(2, 5));
        assert_eq!(log.terms, runs(&[(6, 2), (7, 5)]));
        log.compact(LogId::new(5, 8));
        assert_eq!(log.terms, []);
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
