//! `Entries`: a cheap, shared view of a run of entries, and how they are put together.

mod builder;

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

pub use self::builder::{Disordered, EntriesBuilder, Misfit};
use crate::{Entry, EntryKind, EntryRef, Index, LogId, LogTime, Term};

/// A run of entries with consecutive indexes, shared with every other view of them.
///
/// One batch of proposals is one list and one buffer: log, store, peers and machine all hold clones of
/// the same segments, so a clone costs a reference count for each segment and nothing for an entry, and an
/// entry takes 16 bytes beside its payload.
///
/// Invariants: no segment is empty; a segment is of one term; indexes are consecutive within and
/// across segments; terms never fall.
#[derive(Clone, Default)]
pub struct Entries {
    segments: SmallVec<[Segment; 1]>,
}

/// What was put together at once, in one term.
struct Batch {
    first: Index,
    term: Term,
    heads: SmallVec<[Head; 1]>,
    /// The payloads in their order, each at a multiple of [`Entries::ALIGNMENT`].
    payloads: Bytes,
}

/// What an entry has beside its index, its term and its payload.
#[derive(Clone, Copy)]
struct Head {
    time: LogTime,
    /// Where its payload ends, in 48 bits: more than any memory holds.
    end_low: u32,
    end_high: u16,
    kind: EntryKind,
}

impl Head {
    #[expect(clippy::cast_possible_truncation, reason = "the number is cut into its parts")]
    const fn new(time: LogTime, kind: EntryKind, end: usize) -> Self {
        let end = end as u64;
        Self { time, end_low: end as u32, end_high: (end >> 32) as u16, kind }
    }

    #[expect(clippy::cast_possible_truncation, reason = "it was the length of something in memory")]
    const fn end(&self) -> usize {
        (self.end_low as u64 | (self.end_high as u64) << 32) as usize
    }
}

impl Batch {
    /// Where the payload at `at` begins.
    fn begin(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| padded(self.heads[before].end()))
    }

    fn entry(&self, at: usize) -> EntryRef<'_> {
        let head = &self.heads[at];
        EntryRef {
            log_id: LogId { term: self.term, index: Index(self.first.0 + at as u64) },
            time: head.time,
            kind: head.kind,
            payload: &self.payloads[self.begin(at)..head.end()],
            buffer: &self.payloads,
        }
    }

    fn size(&self, range: &Range<usize>) -> usize {
        let mut begin = self.begin(range.start);
        let mut payloads = 0;
        for head in &self.heads[range.clone()] {
            payloads += head.end() - begin;
            begin = padded(head.end());
        }
        payloads + range.len() * Entry::OVERHEAD
    }
}

#[derive(Clone)]
struct Segment {
    batch: Arc<Batch>,
    range: Range<usize>,
    /// The sum of the sizes in `range`: asked for far more often than it changes.
    size: usize,
}

impl Segment {
    /// A part of this segment; all of it costs no scan.
    fn part(&self, range: Range<usize>) -> Self {
        if range == self.range {
            return self.clone();
        }
        let size = self.batch.size(&range);
        Self { batch: Arc::clone(&self.batch), range, size }
    }

    fn first(&self) -> Index {
        Index(self.batch.first.0 + self.range.start as u64)
    }

    fn last(&self) -> Index {
        Index(self.batch.first.0 + (self.range.end - 1) as u64)
    }
}

/// Entries of one term that lie beside each other; never none.
#[derive(Clone, Copy)]
pub struct Run<'a>(&'a Segment);

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[expect(clippy::len_without_is_empty, reason = "it is never empty")]
impl<'a> Run<'a> {
    /// The term of all of them.
    #[must_use]
    pub fn term(self) -> Term {
        self.0.batch.term
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.range.len()
    }

    /// The first.
    #[must_use]
    pub fn first(self) -> EntryRef<'a> {
        self.0.batch.entry(self.0.range.start)
    }

    /// The last.
    #[must_use]
    pub fn last(self) -> EntryRef<'a> {
        self.0.batch.entry(self.0.range.end - 1)
    }

    /// All of them in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = EntryRef<'a>> + ExactSizeIterator + Clone {
        let Segment { batch, range, .. } = self.0;
        range.clone().map(|at| batch.entry(at))
    }

    /// All payloads as they lie: each begins at the next multiple of [`Entries::ALIGNMENT`] behind the
    /// one before it, and the last is not filled up. Shares memory.
    #[must_use]
    pub fn payloads(self) -> Bytes {
        let Segment { batch, range, .. } = self.0;
        batch.payloads.slice(batch.begin(range.start)..batch.heads[range.end - 1].end())
    }
}

impl Entries {
    /// Payloads begin at multiples of this in their buffer, which begins at one in memory where it was
    /// [built](EntriesBuilder) here: what reads archives in place needs it.
    pub const ALIGNMENT: usize = 16;

    /// No entries.
    #[must_use]
    pub fn new() -> Self {
        Self { segments: SmallVec::new() }
    }

    /// The entries of `list` together, or `None` where indexes are not consecutive or terms fall: what a
    /// peer or a disk hands in is input, not trusted.
    #[must_use]
    pub fn checked(list: Vec<Entry>) -> Option<Self> {
        let payloads = list.iter().map(|entry| entry.payload.len());
        let mut entries = EntriesBuilder::for_payloads(payloads);
        for entry in list {
            entries.push(entry).ok()?;
        }
        Some(entries.finish())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.range.len()).sum()
    }

    /// The first entry.
    #[must_use]
    pub fn first(&self) -> Option<EntryRef<'_>> {
        self.runs().next().map(Run::first)
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<EntryRef<'_>> {
        self.runs().next_back().map(Run::last)
    }

    /// The first index.
    #[must_use]
    pub fn first_index(&self) -> Option<Index> {
        self.segments.first().map(Segment::first)
    }

    /// The identity of the last entry.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        self.segments.last().map(|last| LogId { term: last.batch.term, index: last.last() })
    }

    /// The entry at `index`, in time logarithmic in the number of segments.
    #[must_use]
    pub fn get(&self, index: Index) -> Option<EntryRef<'_>> {
        let at = self.segments.partition_point(|segment| segment.last() < index);
        let segment = self.segments.get(at)?;
        let offset = index.0.checked_sub(segment.first().0)?;
        Some(segment.batch.entry(segment.range.start + to_usize(offset)))
    }

    /// All entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = EntryRef<'_>> + Clone {
        self.runs().flat_map(Run::iter)
    }

    /// The entries in order, by what lies beside each other and is of one term: the fast way through many.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = Run<'_>> + Clone {
        self.segments.iter().map(Run)
    }

    /// The sum of [`Entry::size`].
    #[must_use]
    pub fn size(&self) -> usize {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// The entries with indexes in `range`, sharing memory with these.
    #[must_use]
    pub fn slice(&self, range: Range<Index>) -> Self {
        let mut segments = SmallVec::new();
        let from = self.segments.partition_point(|segment| segment.last() < range.start);
        for segment in &self.segments[from..] {
            let first = segment.first();
            if first >= range.end {
                break;
            }
            let skip = range.start.0.saturating_sub(first.0);
            let keep = range.end.0 - first.0;
            let begin = segment.range.start + to_usize(skip);
            let end = segment.range.end.min(segment.range.start.saturating_add(to_usize(keep)));
            if begin < end {
                segments.push(segment.part(begin..end));
            }
        }
        Self { segments }
    }

    /// As many entries of `range` as fit `max_size` bytes by [`Entry::size`] and `max_count`, at
    /// least one if there is one.
    #[must_use]
    pub fn slice_bounded(&self, range: Range<Index>, max_count: usize, max_size: usize) -> Self {
        let mut taken = self.slice(range);
        if taken.size() <= max_size && taken.len() <= max_count {
            return taken;
        }
        let mut size = 0;
        let mut count = 0;
        let cut = taken.iter().find(|entry| {
            size += entry.size();
            count += 1;
            count > 1 && (size > max_size || count > max_count)
        });
        if let Some(end) = cut.map(|entry| entry.log_id.index) {
            taken.truncate_from(end);
        }
        taken
    }

    /// Drops the entries at `index` and above.
    pub fn truncate_from(&mut self, index: Index) {
        while let Some(segment) = self.segments.last_mut() {
            let first = segment.first();
            if segment.last() < index {
                break;
            }
            if first >= index {
                self.segments.pop();
            } else {
                let end = segment.range.start + to_usize(index.0 - first.0);
                *segment = segment.part(segment.range.start..end);
                break;
            }
        }
    }

    /// Drops the entries below `index`.
    pub fn drop_below(&mut self, index: Index) {
        let gone = self.segments.partition_point(|segment| segment.last() < index);
        self.segments.drain(..gone);
        if let Some(segment) = self.segments.first_mut() {
            let skip = to_usize(index.0.saturating_sub(segment.first().0));
            *segment = segment.part(segment.range.start + skip..segment.range.end);
        }
    }

    /// Appends `more` behind these.
    ///
    /// # Panics
    ///
    /// Where `more` does not begin right after the last entry, or begins with a lower term.
    pub fn append(&mut self, more: Self) {
        if let (Some(last), Some(next)) = (self.last_log_id(), more.segments.first()) {
            assert!(next.first() == last.index.next(), "entries must follow each other");
            assert!(next.batch.term >= last.term, "terms must not fall");
        }
        self.segments.extend(more.segments);
    }
}

/// Puts the entries together: large payloads are taken over, small ones copied beside each other.
///
/// # Panics
///
/// Where the indexes are not consecutive or the terms fall; [`Entries::checked`] tells instead.
impl From<Vec<Entry>> for Entries {
    fn from(list: Vec<Entry>) -> Self {
        let entries = Self::checked(list);
        assert!(entries.is_some(), "entries must be consecutive and their terms must not fall");
        entries.unwrap_or_default()
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(iter: I) -> Self {
        Self::from(iter.into_iter().collect::<Vec<_>>())
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Where the next payload begins behind one that ends at `end`.
const fn padded(end: usize) -> usize {
    end.next_multiple_of(Entries::ALIGNMENT)
}

fn to_usize(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(indexes: Range<u64>) -> Entries {
        indexes
            .map(|index| Entry {
                log_id: LogId::new(1, index),
                time: LogTime(0),
                kind: EntryKind::Plain,
                payload: Bytes::new(),
            })
            .collect()
    }

    fn indexes(entries: &Entries) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index.0).collect()
    }

    fn three_segments() -> Entries {
        let mut entries = run(1..4);
        entries.append(run(4..5));
        entries.append(run(5..9));
        entries
    }

    #[test]
    fn a_slice_is_what_the_list_says_for_every_range() {
        let entries = three_segments();
        for start in 0..11 {
            for end in start..12 {
                let expected: Vec<u64> = (1..9).filter(|i| (start..end).contains(i)).collect();
                assert_eq!(indexes(&entries.slice(Index(start)..Index(end))), expected);
            }
        }
    }

    #[test]
    fn truncating_and_dropping_keep_the_other_side() {
        for cut in 0..11 {
            let mut head = three_segments();
            head.truncate_from(Index(cut));
            assert_eq!(indexes(&head), (1..9).filter(|i| *i < cut).collect::<Vec<_>>());
            let mut tail = three_segments();
            tail.drop_below(Index(cut));
            assert_eq!(indexes(&tail), (1..9).filter(|i| *i >= cut).collect::<Vec<_>>());
            assert_eq!(tail.get(Index(cut)).is_some(), (1..9).contains(&cut));
        }
    }

    #[test]
    fn a_bounded_slice_gives_at_least_one_entry() {
        let entries = three_segments();
        let all = Index(1)..Index(9);
        assert_eq!(indexes(&entries.slice_bounded(all.clone(), 10, 0)), [1]);
        assert_eq!(indexes(&entries.slice_bounded(all.clone(), 2, usize::MAX)), [1, 2]);
        assert_eq!(indexes(&entries.slice_bounded(all, 10, 3 * Entry::OVERHEAD)), [1, 2, 3]);
    }

    #[test]
    fn a_gap_or_a_falling_term_is_refused() {
        let mut list: Vec<Entry> = run(1..4).iter().map(EntryRef::to_entry).collect();
        list[2].log_id.index = Index(9);
        assert!(Entries::checked(list.clone()).is_none());
        list[2].log_id = LogId::new(0, 3);
        assert!(Entries::checked(list).is_none());
    }
}
