//! How entries are put together: one by one, or over a buffer that holds their payloads already.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Batch, Entries, Head, Segment, padded};
use crate::{Entry, EntryKind, Index, LogId, LogTime, Term};

/// Puts entries together one by one.
///
/// Small payloads are copied beside each other, so whatever they lay in before is free again, and a batch
/// is one piece of memory. A payload of [`SHARED_BYTES`](Self::SHARED_BYTES) or more is taken over.
#[derive(Default)]
pub struct EntriesBuilder {
    /// The batches that are complete. What follows is the one that is open.
    entries: Entries,
    /// The entry that was added last.
    last: Option<LogId>,
    first: Index,
    heads: SmallVec<[Head; 1]>,
    payloads: Vec<u8>,
    /// Where the payloads begin, so that they are aligned.
    begin: usize,
    size: usize,
    /// How much room the next buffer has at least.
    room: usize,
    /// How many heads the next list has room for.
    count: usize,
}

impl fmt::Debug for EntriesBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntriesBuilder")
            .field("len", &self.len())
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// An entry does not follow the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("entry {found} cannot follow entry {last}")]
pub struct Disordered {
    /// The entry.
    pub found: LogId,
    /// The one before it.
    pub last: LogId,
}

/// A buffer does not hold what it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// The payloads need more.
    #[error("the payloads are longer than their buffer")]
    TooShort,
    /// The payloads need less.
    #[error("the payloads are shorter than their buffer")]
    TooLong,
    /// A term is lower than the one before it.
    #[error("the terms fall")]
    TermFell,
    /// An index would be too large a number.
    #[error("an index overflows")]
    IndexOverflow,
}

impl EntriesBuilder {
    /// A payload of so many bytes is not copied.
    pub const SHARED_BYTES: usize = 4096;

    /// The room of a buffer whose size nobody said.
    const FIRST_ROOM: usize = 4096;
    const MOST_ROOM: usize = 1 << 20;

    /// No entries yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No entries yet, and room for those whose payloads have these lengths.
    #[must_use]
    pub fn for_payloads(lengths: impl ExactSizeIterator<Item = usize>) -> Self {
        let count = lengths.len();
        let small = lengths.filter(|length| *length < Self::SHARED_BYTES);
        Self { room: small.map(padded).sum(), count, ..Self::default() }
    }

    /// Adds one entry.
    ///
    /// # Errors
    ///
    /// Its index is not the one after the last, or its term is lower. It is not added.
    #[inline]
    pub fn push(&mut self, entry: Entry) -> Result<(), Disordered> {
        let Entry { log_id, time, kind, payload } = entry;
        self.follow(log_id)?;
        let length = payload.len();
        if length >= Self::SHARED_BYTES {
            self.push_alone(log_id, Head::new(time, kind, length), payload);
        } else {
            self.push_beside(log_id, time, kind, [&payload, &[]]);
        }
        self.last = Some(log_id);
        Ok(())
    }

    /// Adds one entry whose payload is put together of two parts.
    ///
    /// # Errors
    ///
    /// Those of [`push`](Self::push).
    #[inline]
    pub fn push_copied(
        &mut self,
        log_id: LogId,
        time: LogTime,
        kind: EntryKind,
        payload: [&[u8]; 2],
    ) -> Result<(), Disordered> {
        self.follow(log_id)?;
        self.push_beside(log_id, time, kind, payload);
        self.last = Some(log_id);
        Ok(())
    }

    /// Checks that an entry may come next.
    #[inline]
    fn follow(&mut self, log_id: LogId) -> Result<(), Disordered> {
        if let Some(last) = self.last {
            if log_id.index.0 != last.index.0.wrapping_add(1) || log_id.term < last.term {
                return Err(Disordered { found: log_id, last });
            }
            if log_id.term != last.term {
                self.close();
            }
        }
        Ok(())
    }

    fn push_alone(&mut self, log_id: LogId, head: Head, payloads: Bytes) {
        self.close();
        let size = payloads.len() + Entry::OVERHEAD;
        let heads = SmallVec::from_buf([head]);
        let batch = Batch { first: log_id.index, term: log_id.term, heads, payloads };
        self.entries.segments.push(Segment { batch: Arc::new(batch), range: 0..1, size });
    }

    #[inline]
    fn push_beside(&mut self, log_id: LogId, time: LogTime, kind: EntryKind, payload: [&[u8]; 2]) {
        let length = payload[0].len() + payload[1].len();
        let begin = self.begin + padded(self.payloads.len() - self.begin);
        // A buffer that grew might lie elsewhere, and its payloads would not be aligned any more.
        if begin + length > self.payloads.capacity() || self.heads.is_empty() {
            self.open(log_id.index, length);
        } else {
            self.payloads.resize(begin, 0);
        }
        self.payloads.extend_from_slice(payload[0]);
        self.payloads.extend_from_slice(payload[1]);
        self.heads.push(Head::new(time, kind, self.payloads.len() - self.begin));
        self.size += length + Entry::OVERHEAD;
    }

    /// Begins a batch whose first payload has `length` bytes.
    #[cold]
    fn open(&mut self, first: Index, length: usize) {
        // What fills its buffer is likely followed by as much again; of what a term or a large payload cut short
        // nobody knows, and many may be cut short.
        let is_full = !self.heads.is_empty();
        self.close();
        self.first = first;
        let room = self.room.max(length);
        self.room = if is_full { 2 * room } else { 0 }.clamp(Self::FIRST_ROOM, Self::MOST_ROOM);
        if room > 0 {
            self.payloads = Vec::with_capacity(room + Entries::ALIGNMENT);
            self.begin = align(&mut self.payloads);
        }
        self.heads.reserve_exact(std::mem::take(&mut self.count).max(1));
    }

    /// Ends a batch.
    fn close(&mut self) {
        let Some(last) = self.last.filter(|_| !self.heads.is_empty()) else {
            return;
        };
        let begin = std::mem::take(&mut self.begin);
        let mut payloads = std::mem::take(&mut self.payloads);
        let length = payloads.len() - begin;
        let begin = if payloads.capacity() > 2 * (length + Entries::ALIGNMENT) {
            // Entries stay for long, and most of this buffer would never be used.
            let whole = std::mem::take(&mut payloads);
            payloads = Vec::with_capacity(length + Entries::ALIGNMENT);
            let moved = align(&mut payloads);
            payloads.extend_from_slice(&whole[begin..]);
            moved
        } else {
            begin
        };
        let payloads = Bytes::from(payloads).slice(begin..);
        let size = std::mem::take(&mut self.size);
        let heads = std::mem::take(&mut self.heads);
        let range = 0..heads.len();
        let batch = Batch { first: self.first, term: last.term, heads, payloads };
        self.entries.segments.push(Segment { batch: Arc::new(batch), range, size });
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() + self.heads.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// The entries.
    #[must_use]
    pub fn finish(mut self) -> Entries {
        self.close();
        self.entries
    }
}

/// Puts as many bytes into an empty buffer as it takes to the next aligned place, and says how many.
fn align(buffer: &mut Vec<u8>) -> usize {
    let offset = buffer.as_ptr().align_offset(Entries::ALIGNMENT).min(Entries::ALIGNMENT);
    buffer.resize(offset, 0);
    offset
}

impl Entries {
    /// The entries from `first` on whose payloads lie in `buffer` behind each other, each at a multiple of
    /// [`ALIGNMENT`](Self::ALIGNMENT), and the last one filled up too: nothing is copied. Each of `items` is
    /// an entry's term, time and kind, and how long its payload is.
    ///
    /// # Errors
    ///
    /// [`Misfit`]: the buffer is input, not trusted.
    pub fn over(
        buffer: &Bytes,
        first: Index,
        items: impl ExactSizeIterator<Item = (Term, LogTime, EntryKind, u32)>,
    ) -> Result<Self, Misfit> {
        let mut over = Over { buffer, entries: Self::new(), first, from: 0 };
        let mut index = first.0;
        let mut heads = SmallVec::with_capacity(items.len());
        let mut term = Term(0);
        // Where the last payload ends, counted from `over.from`, and how much is left behind it.
        let mut end = 0;
        let mut left = buffer.len();
        for (of, time, kind, length) in items {
            if of != term {
                if of < term {
                    return Err(Misfit::TermFell);
                }
                over.close(term, std::mem::take(&mut heads), end);
                (over.first, term, end) = (Index(index), of, 0);
            }
            let whole = padded(length as usize);
            left = left.checked_sub(whole).ok_or(Misfit::TooShort)?;
            end = padded(end) + length as usize;
            heads.push(Head::new(time, kind, end));
            index = index.checked_add(1).ok_or(Misfit::IndexOverflow)?;
        }
        over.close(term, heads, end);
        if left == 0 { Ok(over.entries) } else { Err(Misfit::TooLong) }
    }
}

/// Entries that are put together over a buffer.
struct Over<'a> {
    buffer: &'a Bytes,
    entries: Entries,
    first: Index,
    /// Where what is open begins.
    from: usize,
}

impl Over<'_> {
    fn close(&mut self, term: Term, heads: SmallVec<[Head; 1]>, end: usize) {
        if heads.is_empty() {
            return;
        }
        let range = 0..heads.len();
        let payloads = self.buffer.slice(self.from..self.from + end);
        self.from += padded(end);
        let batch = Batch { first: self.first, term, heads, payloads };
        let size = batch.size(&range);
        self.entries.segments.push(Segment { batch: Arc::new(batch), range, size });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(term: u64, index: u64, length: usize) -> Entry {
        let payload = (0..length).map(|at| (at as u64 ^ index).to_le_bytes()[0]).collect();
        Entry {
            log_id: LogId::new(term, index),
            time: LogTime(index / 3),
            kind: kind(index),
            payload,
        }
    }

    fn kind(index: u64) -> EntryKind {
        if index.is_multiple_of(5) { EntryKind::Plain } else { EntryKind::SessionCommand }
    }

    /// Entries of all sizes, in some terms.
    fn list() -> Vec<Entry> {
        let large = EntriesBuilder::SHARED_BYTES;
        let lengths = [0, 1, 15, 16, 17, large - 1, large, large + 1, 0, 0, 40, 2 * large, 3, 900];
        let terms = [1, 1, 1, 1, 2, 2, 2, 2, 2, 7, 7, 7, 7, 9];
        (11..).zip(terms.into_iter().zip(lengths)).map(|(i, (t, len))| entry(t, i, len)).collect()
    }

    #[test]
    fn what_was_put_together_is_what_was_put_in() {
        let list = list();
        let sized = EntriesBuilder::for_payloads(list.iter().map(|entry| entry.payload.len()));
        for mut builder in [sized, EntriesBuilder::new()] {
            for (count, entry) in (1..).zip(&list) {
                builder.push(entry.clone()).unwrap();
                assert_eq!((builder.len(), builder.is_empty()), (count, false));
            }
            let entries = builder.finish();
            assert!(entries.iter().map(crate::EntryRef::to_entry).eq(list.iter().cloned()));
            assert_eq!(entries.size(), list.iter().map(Entry::size).sum::<usize>());
            for entry in &list {
                assert_eq!(entries.get(entry.log_id.index), Some(entry.into()));
            }
            for run in entries.runs() {
                assert!(run.iter().all(|entry| entry.log_id.term == run.term()));
                assert_eq!(run.iter().len(), run.len());
            }
        }
    }

    #[test]
    fn small_payloads_are_aligned_and_large_ones_are_taken_over() {
        let list = list();
        let entries = Entries::from(list.clone());
        for (entry, given) in entries.iter().zip(&list) {
            let place = entry.payload.as_ptr();
            if given.payload.len() >= EntriesBuilder::SHARED_BYTES {
                assert_eq!(place, given.payload.as_ptr());
            } else if !given.payload.is_empty() {
                assert_ne!(place, given.payload.as_ptr());
                assert_eq!(place.align_offset(Entries::ALIGNMENT), 0, "{entry:?}");
            }
        }
    }

    #[test]
    fn a_batch_keeps_little_more_than_it_needs() {
        let mut builder = EntriesBuilder::new();
        for index in 1..=1000 {
            // A large one ends the batch before it, whose buffer was made for many.
            let length = if index % 2 == 0 { EntriesBuilder::SHARED_BYTES } else { 32 };
            builder.push(entry(1, index, length)).unwrap();
            assert!(builder.payloads.capacity() <= EntriesBuilder::MOST_ROOM + 16);
        }
        for segment in builder.finish().segments {
            let batch = Arc::into_inner(segment.batch).unwrap();
            let length = batch.payloads.len();
            // What a caller gave is as he made it.
            if length < EntriesBuilder::SHARED_BYTES {
                let capacity = Vec::from(batch.payloads).capacity();
                assert!(capacity <= 2 * (length + 16), "{capacity} bytes for {length}");
            }
        }
    }

    #[test]
    fn what_does_not_follow_is_refused_and_changes_nothing() {
        let mut builder = EntriesBuilder::new();
        builder.push(entry(3, 7, 4)).unwrap();
        for (term, index) in [(3, 7), (3, 9), (3, 6), (2, 8)] {
            let found = LogId::new(term, index);
            let refused = Err(Disordered { found, last: LogId::new(3, 7) });
            assert_eq!(builder.push(entry(term, index, 4)), refused);
            let copied = builder.push_copied(found, LogTime(0), EntryKind::Plain, [&[], &[]]);
            assert_eq!(copied, refused);
        }
        builder
            .push_copied(LogId::new(4, 8), LogTime(0), EntryKind::Plain, [b"two ", b"parts"])
            .unwrap();
        let entries = builder.finish();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries.last().unwrap().payload, b"two parts");
    }

    #[test]
    fn a_buffer_is_what_is_said_of_it_to_the_byte() {
        let buffer = Bytes::from(vec![7; 64]);
        let over = |lengths: &[(u64, u32)]| {
            let items = lengths
                .iter()
                .map(|(term, length)| (Term(*term), LogTime(5), EntryKind::Plain, *length));
            Entries::over(&buffer, Index(10), items)
        };
        let entries = over(&[(1, 0), (1, 16), (2, 17), (2, 0), (5, 3)]).unwrap();
        let lengths: Vec<_> = entries.iter().map(|entry| entry.payload.len()).collect();
        assert_eq!(lengths, [0, 16, 17, 0, 3]);
        assert_eq!(entries.last_log_id(), Some(LogId::new(5, 14)));
        let at = |index| entries.get(Index(index)).unwrap().payload.as_ptr() as usize;
        assert_eq!(at(14) - buffer.as_ptr() as usize, 48);
        assert_eq!(entries.size(), 36 + 5 * Entry::OVERHEAD);

        assert_eq!(over(&[(1, 16), (1, 33)]).unwrap(), over(&[(1, 16), (1, 33)]).unwrap());
        assert_eq!(over(&[(1, 16), (1, 49)]), Err(Misfit::TooShort));
        assert_eq!(over(&[(1, 16), (1, u32::MAX)]), Err(Misfit::TooShort));
        assert_eq!(over(&[(1, 16), (1, 32)]), Err(Misfit::TooLong));
        assert_eq!(over(&[]), Err(Misfit::TooLong));
        assert_eq!(over(&[(2, 16), (1, 48)]), Err(Misfit::TermFell));
        let last = (Term(1), LogTime(0), EntryKind::Plain, 64);
        let beyond = Entries::over(&buffer, Index(u64::MAX), [last].into_iter());
        assert_eq!(beyond, Err(Misfit::IndexOverflow));
    }

    /// A frame of a million bytes must not make somebody take thirty thousand times that.
    #[test]
    fn terms_that_change_all_the_time_take_little_room() {
        let mut builder = EntriesBuilder::for_payloads([32; 30_000].into_iter());
        let mut taken = 0;
        for index in 1..=30_000 {
            builder.push(entry(index, index, 32)).unwrap();
            taken += builder.payloads.capacity();
        }
        let first = 30_000 * 32 + 16;
        assert!(
            taken <= first + 30_000 * (EntriesBuilder::FIRST_ROOM + 16),
            "{taken} bytes in all"
        );
        assert_eq!(builder.finish().len(), 30_000);
    }
}
