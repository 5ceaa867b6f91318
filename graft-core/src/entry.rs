//! Entries of the log, and `Entries`: a cheap, shared view of a run of them.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use crate::{Index, LogId};

/// Milliseconds of cluster life: the time of the last entry when a leader was elected plus that
/// leader's monotonic time since. No wall clock, never backwards; sessions age by it alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogTime(pub u64);

/// What an entry is for. The numbers are part of the formats and never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum EntryKind {
    /// Opens a term (Raft §8). The payload is the leader's wall clock as it was elected, in
    /// milliseconds since the Unix epoch (8 bytes, little endian).
    Blank = 0,
    /// A [`Membership`](crate::Membership), in force from the moment it is in the log.
    Membership = 1,
    /// A command without a session: the caller promised that applying it twice does no harm.
    Plain = 2,
    /// Opens a session (thesis §6.3).
    SessionOpen = 3,
    /// Keeps a session from expiring.
    SessionKeepAlive = 4,
    /// Ends a session.
    SessionClose = 5,
    /// A command under a session: applied at most once.
    SessionCommand = 6,
}

impl EntryKind {
    /// The kind with this number, or `None`: an unknown kind is refused at the door.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Blank,
            1 => Self::Membership,
            2 => Self::Plain,
            3 => Self::SessionOpen,
            4 => Self::SessionKeepAlive,
            5 => Self::SessionClose,
            6 => Self::SessionCommand,
            _ => return None,
        })
    }

    /// Whether a client may propose this kind. Blank and membership entries are the leader's own.
    #[must_use]
    pub const fn is_clients(self) -> bool {
        !matches!(self, Self::Blank | Self::Membership)
    }
}

/// One entry of the log (Raft §5.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The term that created it and its position.
    pub log_id: LogId,
    /// When the leader took it in, in the cluster's own time.
    pub time: LogTime,
    /// What it is for.
    pub kind: EntryKind,
    /// What it carries, in the form its kind defines. Shared, never copied, never parsed by `Raft`.
    pub payload: Bytes,
}

impl Entry {
    /// What an entry costs in windows and bounds beside its payload, in bytes.
    pub const OVERHEAD: usize = 32;

    /// The size by which windows, batches and bounds count this entry, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.len() + Self::OVERHEAD
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}B", self.log_id, self.kind, self.payload.len())
    }
}

/// A run of entries with consecutive indexes, shared with every other view of them.
///
/// One batch of proposals is one allocation: log, store, peers and machine all hold clones of the
/// same segments, so a clone costs a reference count per segment and nothing per entry.
///
/// Invariants: no segment is empty; indexes are consecutive within and across segments; terms never fall.
#[derive(Clone, Default)]
pub struct Entries {
    segments: SmallVec<[Segment; 1]>,
}

#[derive(Clone)]
struct Segment {
    shared: Arc<Vec<Entry>>,
    range: Range<usize>,
    /// The sum of the sizes in `range`: asked for far more often than it changes.
    size: usize,
}

impl Segment {
    fn new(shared: Arc<Vec<Entry>>, range: Range<usize>) -> Self {
        let size = shared[range.clone()].iter().map(Entry::size).sum();
        Self { shared, range, size }
    }

    /// A part of this segment; all of it costs no scan.
    fn part(&self, range: Range<usize>) -> Self {
        if range == self.range { self.clone() } else { Self::new(Arc::clone(&self.shared), range) }
    }

    fn entries(&self) -> &[Entry] {
        &self.shared[self.range.clone()]
    }

    fn first(&self) -> Index {
        self.entries()[0].log_id.index
    }

    fn last(&self) -> &Entry {
        &self.shared[self.range.end - 1]
    }
}

impl Entries {
    /// No entries.
    #[must_use]
    pub fn new() -> Self {
        Self { segments: SmallVec::new() }
    }

    /// The entries of `list` as one shared segment, or `None` where indexes are not consecutive or
    /// terms fall: what a peer or a disk hands in is input, not trusted.
    #[must_use]
    pub fn checked(list: Vec<Entry>) -> Option<Self> {
        let ordered = list.windows(2).all(|pair| {
            pair[1].log_id.index.0 == pair[0].log_id.index.0.wrapping_add(1)
                && pair[1].log_id.term >= pair[0].log_id.term
        });
        ordered.then(|| Self::from_ordered(list))
    }

    fn from_ordered(list: Vec<Entry>) -> Self {
        if list.is_empty() {
            return Self::new();
        }
        let range = 0..list.len();
        Self { segments: smallvec![Segment::new(Arc::new(list), range)] }
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
    pub fn first(&self) -> Option<&Entry> {
        self.segments.first().map(|segment| &segment.entries()[0])
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<&Entry> {
        self.segments.last().map(Segment::last)
    }

    /// The first index.
    #[must_use]
    pub fn first_index(&self) -> Option<Index> {
        self.first().map(|entry| entry.log_id.index)
    }

    /// The identity of the last entry.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        self.last().map(|entry| entry.log_id)
    }

    /// The entry at `index`, in time logarithmic in the number of segments.
    #[must_use]
    pub fn get(&self, index: Index) -> Option<&Entry> {
        let at = self.segments.partition_point(|segment| segment.last().log_id.index < index);
        let segment = self.segments.get(at)?;
        let offset = index.0.checked_sub(segment.first().0)?;
        segment.entries().get(usize::try_from(offset).ok()?)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> + Clone {
        self.segments.iter().flat_map(Segment::entries)
    }

    /// The entries in order as contiguous slices, one per segment: the fast way through many.
    pub fn slices(&self) -> impl Iterator<Item = &[Entry]> + Clone {
        self.segments.iter().map(Segment::entries)
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
        let from =
            self.segments.partition_point(|segment| segment.last().log_id.index < range.start);
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
            if segment.last().log_id.index < index {
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
        let gone = self.segments.partition_point(|segment| segment.last().log_id.index < index);
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
        if let (Some(last), Some(next)) = (self.last_log_id(), more.first()) {
            assert!(next.log_id.index == last.index.next(), "entries must follow each other");
            assert!(next.log_id.term >= last.term, "terms must not fall");
        }
        self.segments.extend(more.segments);
    }
}

/// Takes the entries over without a copy.
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

/// Distances between indexes of entries held in memory fit a `usize`.
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
        let mut list: Vec<Entry> = run(1..4).iter().cloned().collect();
        list[2].log_id.index = Index(9);
        assert!(Entries::checked(list.clone()).is_none());
        list[2].log_id = LogId::new(0, 3);
        assert!(Entries::checked(list).is_none());
    }
}
