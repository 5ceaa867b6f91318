//! The log as far as it is in memory: a tail of entries, and the term of every entry there is.

use std::{collections::VecDeque, ops::Range};

use crate::{Entries, Index, LogId, LogTime, Recovered, Term};

/// The log of one server (Raft §5.3): all of its shape, and the end of its contents.
///
/// Invariants: `compacted.index <= last.index`; the tail is a gapless run that ends at `last`; `terms`
/// covers exactly the entries after `compacted`.
#[derive(Debug)]
pub(super) struct Log {
    compacted: LogId,
    last: LogId,
    last_time: LogTime,
    terms: TermRuns,
    tail: VecDeque<Part>,
    /// All bytes ever appended to the tail, with what each part costs beside its entries; positions in
    /// it tell sizes of ranges without a scan.
    appended_bytes: u64,
    /// Up to where entries have left memory, and the positions of some of the boundaries before: so that
    /// what is not applied is counted although it is not held. Never empty; the last one is where the tail
    /// begins.
    gone: VecDeque<(Index, u64)>,
}

/// A piece of the tail: what one append brought.
#[derive(Debug)]
struct Part {
    entries: Entries,
    first: Index,
    last: Index,
    /// The value of `appended_bytes` before and after this part.
    bytes: Range<u64>,
}

/// The term of every entry after the compacted ones, as runs: a log has few terms and many entries.
#[derive(Debug, Default)]
struct TermRuns(Vec<(Index, Term)>);

impl TermRuns {
    fn at(&self, index: Index) -> Option<Term> {
        // Nearly every question is about the last term.
        if let Some((first, term)) = self.0.last().filter(|(first, _)| index >= *first) {
            debug_assert!(index >= *first);
            return Some(*term);
        }
        let after = self.0.partition_point(|(first, _)| *first <= index);
        Some(self.0.get(after.checked_sub(1)?)?.1)
    }

    fn push(&mut self, log_id: LogId) {
        if self.0.last().is_none_or(|(_, term)| *term != log_id.term) {
            self.0.push((log_id.index, log_id.term));
        }
    }

    fn truncate_from(&mut self, index: Index) {
        let keep = self.0.partition_point(|(first, _)| *first < index);
        self.0.truncate(keep);
    }

    /// The first index of the run that holds `index`.
    fn run_start(&self, index: Index) -> Option<Index> {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        Some(self.0.get(after.checked_sub(1)?)?.0)
    }
}

impl Part {
    /// About what a part takes beside its entries: counted, because many small parts take more than
    /// what is in them.
    const OVERHEAD: u64 = 192;

    fn len(&self) -> usize {
        usize::try_from(self.last.0 - self.first.0 + 1).unwrap_or(usize::MAX)
    }

    /// The size of its entries.
    fn size(&self) -> usize {
        let size = self.bytes.end - self.bytes.start - Self::OVERHEAD;
        usize::try_from(size).unwrap_or(usize::MAX)
    }
}

impl Log {
    pub(super) fn recover(durable: &Recovered) -> Self {
        Self {
            compacted: durable.compacted,
            last: durable.last,
            last_time: durable.last_time,
            terms: TermRuns(durable.terms.clone()),
            tail: VecDeque::new(),
            appended_bytes: 0,
            gone: VecDeque::from([(durable.last.index, 0)]),
        }
    }

    pub(super) const fn compacted(&self) -> LogId {
        self.compacted
    }

    pub(super) const fn last(&self) -> LogId {
        self.last
    }

    pub(super) const fn last_time(&self) -> LogTime {
        self.last_time
    }

    /// The term of the entry at `index`; `None` above the end and below what is compacted.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last.index {
            None
        } else if index == self.last.index {
            Some(self.last.term)
        } else if index <= self.compacted.index {
            (index == self.compacted.index).then_some(self.compacted.term)
        } else {
            self.terms.at(index)
        }
    }

    /// The highest index at or below `index` whose term is at most `term`, and its term: where two
    /// logs may still agree. Skips a whole term at a time.
    pub(super) fn last_at_most(&self, index: Index, term: Term) -> LogId {
        let mut at = index.min(self.last.index);
        while let Some(found) = self.term_at(at) {
            if found <= term {
                return LogId { term: found, index: at };
            }
            match self.terms.run_start(at) {
                Some(start) if start > self.compacted.index => at = start.previous(),
                _ => break,
            }
        }
        self.compacted
    }

    /// Appends entries that continue the log.
    pub(super) fn append(&mut self, entries: Entries) {
        let (Some(first), Some(last)) = (entries.first_index(), entries.last()) else {
            return;
        };
        assert!(first == self.last.index.next(), "entries must continue the log");
        self.last = last.log_id;
        self.last_time = last.time;
        for run in entries.runs() {
            self.terms.push(run.first().log_id);
        }
        let begin = self.appended_bytes;
        self.appended_bytes += entries.size() as u64 + Part::OVERHEAD;
        let bytes = begin..self.appended_bytes;
        self.tail.push_back(Part { first, last: self.last.index, bytes, entries });
    }

    /// Drops the entries at `index` and above.
    pub(super) fn truncate_from(&mut self, index: Index) {
        assert!(index > self.compacted.index, "what is compacted cannot be truncated");
        while let Some(part) = self.tail.back_mut() {
            if part.last < index {
                break;
            }
            if part.first >= index {
                self.tail.pop_back();
                continue;
            }
            part.entries.truncate_from(index);
            part.last = index.previous();
            part.bytes.end = part.bytes.start + part.entries.size() as u64 + Part::OVERHEAD;
            break;
        }
        let last = index.previous();
        if self.tail_begin().0 > last {
            self.gone.retain(|(gone, _)| *gone < last);
            self.gone.push_back((last, self.appended_bytes));
        }
        self.terms.truncate_from(index);
        let term = if last == self.compacted.index {
            self.compacted.term
        } else {
            self.terms.at(last).unwrap_or(self.compacted.term)
        };
        self.last = LogId { term, index: last };
        // The time of an entry that is only on disk is not known here; a later time is as good,
        // because log time only ever has to rise.
        if let Some(part) = self.tail.back() {
            self.last_time = part.entries.last().map_or(self.last_time, |entry| entry.time);
        }
    }

    /// The first index in memory; one past the end where nothing is.
    pub(super) fn tail_first(&self) -> Index {
        self.tail.front().map_or(self.last.index.next(), |part| part.first)
    }

    /// Entries of `range` that are in memory, bounded in number and bytes but at least one, or `None`
    /// where the first of them is not in memory.
    pub(super) fn entries(
        &self,
        range: Range<Index>,
        max_count: usize,
        max_bytes: usize,
    ) -> Option<Entries> {
        if range.start < self.tail_first() || range.start >= range.end {
            return None;
        }
        let from = self.first_ending_at(range.start);
        if let Some(taken) = self.one_part(from, &range, max_count, max_bytes) {
            return Some(taken);
        }
        let mut taken = Entries::new();
        let (mut count, mut bytes) = (0, 0_usize);
        for part in self.tail.range(from..) {
            if part.first >= range.end || (count > 0 && (count >= max_count || bytes >= max_bytes))
            {
                break;
            }
            let whole = part.first >= range.start && part.last < range.end;
            let whole_fits =
                whole && part.len() <= max_count - count && part.size() <= max_bytes - bytes;
            let piece = if whole_fits {
                part.entries.clone()
            } else {
                part.entries.slice_bounded(range.clone(), max_count - count, max_bytes - bytes)
            };
            let (length, size) = (piece.len(), piece.size());
            // A bounded slice holds at least one entry; behind others it may have to hold none.
            if count > 0 && size > max_bytes - bytes {
                break;
            }
            let cut = piece.last_log_id().is_none_or(|last| last.index < part.last);
            taken.append(piece);
            count += length;
            bytes = bytes.saturating_add(size);
            if cut {
                break;
            }
        }
        Some(taken)
    }

    /// The common case: all that is asked for is one whole part.
    fn one_part(
        &self,
        at: usize,
        range: &Range<Index>,
        max_count: usize,
        max_bytes: usize,
    ) -> Option<Entries> {
        let part = self.tail.get(at)?;
        let exact = part.first == range.start && part.last.next() == range.end;
        let fits = exact && part.len() <= max_count && part.size() <= max_bytes;
        fits.then(|| part.entries.clone())
    }

    /// The place of the first part that ends at or after `index`. Nearly all questions are about the
    /// end, so the search begins there and doubles its stride.
    fn first_ending_at(&self, index: Index) -> usize {
        let length = self.tail.len();
        let mut stride = 1;
        while stride <= length && self.tail[length - stride].last >= index {
            stride *= 2;
        }
        let begin = length.saturating_sub(stride);
        let end = length - stride / 2;
        let (mut low, mut high) = (begin, end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.tail[middle].last < index {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// About how many bytes the entries above `index` take: exact at the boundaries of appends, up to
    /// [`MARK_BYTES`](Self::MARK_BYTES) too many where they are no longer in memory, and nothing for what
    /// was there before the last restart.
    pub(super) fn bytes_above(&self, index: Index) -> usize {
        let end = self.tail.back().map_or(self.tail_begin().1, |last| last.bytes.end);
        let begin = if index < self.tail_begin().0 {
            let after = self.gone.partition_point(|(last, _)| *last <= index);
            self.gone[after.saturating_sub(1)].1
        } else {
            let from = self.first_ending_at(index.next());
            self.tail.get(from).map_or(end, |first| first.bytes.start)
        };
        // A truncated part leaves a gap in the numbers, so this may count a little too much.
        usize::try_from(end - begin).unwrap_or(usize::MAX)
    }

    /// How exactly the sizes of what is no longer in memory are known.
    const MARK_BYTES: u64 = 1 << 20;

    /// Frees memory down to `max_bytes`, but nothing above `settled`; the sizes of what is above `applied`
    /// stay known.
    pub(super) fn evict(&mut self, settled: Index, applied: Index, max_bytes: usize) {
        while let Some(front) = self.tail.front() {
            let held = self.appended_bytes - front.bytes.start;
            if held <= max_bytes as u64 || front.last > settled {
                break;
            }
            let boundary = (front.last, front.bytes.end);
            self.tail.pop_front();
            if self.gone.len() > 1
                && boundary.1 - self.gone[self.gone.len() - 2].1 <= Self::MARK_BYTES
            {
                self.gone.pop_back();
            }
            self.gone.push_back(boundary);
        }
        while self.gone.len() > 1 && self.gone[1].0 <= applied {
            self.gone.pop_front();
        }
    }

    /// The last entry before the tail, and the position where it ends.
    fn tail_begin(&self) -> (Index, u64) {
        self.gone.back().copied().unwrap_or_default()
    }
    /// Whether all of `entries` are still part of this log.
    pub(super) fn contains(&self, entries: &Entries) -> bool {
        entries.iter().all(|entry| self.term_at(entry.log_id.index) == Some(entry.log_id.term))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Entry, EntryKind, Identity};

    fn run(term: u64, range: Range<u64>) -> Entries {
        range
            .map(|index| Entry {
                log_id: LogId::new(term, index),
                time: LogTime(index),
                kind: EntryKind::Plain,
                payload: Bytes::new(),
            })
            .collect()
    }

    fn log() -> Log {
        let identity = Identity {
            cluster: crate::ClusterId(1),
            epoch: crate::Epoch(0),
            node: crate::NodeId(1),
            name: String::new(),
            incarnation: crate::Incarnation(1),
            birth: crate::Birth::Founder,
            machine: String::new(),
            format: 0,
        };
        let mut log = Log::recover(&Recovered::newborn(identity));
        log.append(run(1, 1..4));
        log.append(run(1, 4..6));
        log.append(run(3, 6..9));
        log.append(run(4, 9..10));
        log
    }

    fn terms(log: &Log) -> Vec<u64> {
        (1..=log.last().index.0).map(|i| log.term_at(Index(i)).expect("in the log").0).collect()
    }

    #[test]
    fn every_entry_has_the_term_it_was_appended_with() {
        assert_eq!(terms(&log()), [1, 1, 1, 1, 1, 3, 3, 3, 4]);
        assert_eq!(log().term_at(Index(0)), Some(Term(0)));
        assert_eq!(log().term_at(Index(10)), None);
    }

    #[test]
    fn truncating_anywhere_keeps_the_prefix() {
        for cut in 1..11 {
            let mut log = log();
            let before = terms(&log);
            log.truncate_from(Index(cut));
            let kept = before.len().min(usize::try_from(cut).unwrap() - 1);
            assert_eq!(terms(&log), before[..kept], "cut at {cut}");
            let next = log.last().index.0 + 1;
            log.append(run(7, next..next + 2));
            assert_eq!(log.last(), LogId::new(7, next + 1));
        }
    }

    #[test]
    fn a_hint_skips_whole_terms() {
        let log = log();
        assert_eq!(log.last_at_most(Index(9), Term(3)), LogId::new(3, 8));
        assert_eq!(log.last_at_most(Index(9), Term(2)), LogId::new(1, 5));
        assert_eq!(log.last_at_most(Index(4), Term(3)), LogId::new(1, 4));
        assert_eq!(log.last_at_most(Index(9), Term(0)), LogId::ZERO);
    }

    #[test]
    fn reading_is_bounded_but_gives_at_least_one() {
        let log = log();
        let count = |count, bytes| {
            log.entries(Index(2)..Index(10), count, bytes).map(|entries| entries.len())
        };
        assert_eq!(count(100, usize::MAX), Some(8));
        assert_eq!(count(3, usize::MAX), Some(3));
        assert_eq!(count(100, 0), Some(1));
        assert_eq!(count(100, 4 * Entry::OVERHEAD), Some(4));
    }

    #[test]
    fn every_index_is_found_in_its_part() {
        let mut log = log();
        for index in 10..200 {
            log.append(run(4, index..index + 1));
        }
        for index in 0..=200 {
            let expected = log.tail.partition_point(|part| part.last < Index(index));
            assert_eq!(log.first_ending_at(Index(index)), expected, "of {index}");
        }
    }

    #[test]
    fn eviction_spares_what_is_still_needed() {
        let mut log = log();
        log.evict(Index(6), Index(0), 0);
        assert_eq!(log.tail_first(), Index(6), "the part 6..9 holds entries above the limit");
        assert!(log.entries(Index(5)..Index(7), 10, 1000).is_none());
        assert_eq!(terms(&log), [1, 1, 1, 1, 1, 3, 3, 3, 4], "terms stay known");
        log.evict(Index(9), Index(9), 0);
        assert_eq!(log.tail_first(), Index(10));
        assert_eq!(log.gone.len(), 1, "what is applied needs no size");
    }

    #[test]
    fn what_is_not_in_memory_is_still_counted() {
        let mut log = log();
        let mut bytes = log.bytes_above(Index(9));
        assert_eq!(bytes, 0);
        for at in 0..400_u64 {
            let payload = Bytes::from(vec![0; 10_000]);
            let entry = Entry {
                log_id: LogId::new(4, 10 + at),
                time: LogTime(at),
                kind: EntryKind::Plain,
                payload,
            };
            bytes += entry.size() + usize::try_from(Part::OVERHEAD).unwrap();
            log.append(std::iter::once(entry).collect());
            log.evict(log.last().index, Index(9), 50_000);
        }
        let marks = usize::try_from(Log::MARK_BYTES).unwrap();
        let counted = log.bytes_above(Index(9));
        assert!((bytes..=bytes + marks).contains(&counted), "{counted} counted, there are {bytes}");
        assert!(log.tail.len() <= 5, "most of it has left memory");
        assert!(log.gone.len() <= 2 * bytes / marks + 2, "the marks are few: {}", log.gone.len());
        let half = log.bytes_above(Index(209));
        assert!((bytes / 2..=bytes / 2 + marks).contains(&half), "{half} of {bytes}");
        assert_eq!(log.bytes_above(log.last().index), 0);
        log.truncate_from(Index(100));
        assert_eq!(log.bytes_above(Index(99)), 0);
        log.append(run(5, 100..101));
        assert_eq!(log.bytes_above(Index(99)), run(5, 100..101).size() + 192);
    }
}
