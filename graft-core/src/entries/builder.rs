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
    entries: Entries,
    /// Where what is open goes on; `None`: nothing is open.
    last: Option<LogId>,
    first: Index,
    heads: SmallVec<[Head; 1]>,
    payloads: Vec<u8>,
    /// Where the payloads begin, so that they are aligned.
    begin: usize,
    size: usize,
    /// How much room the next buffer has.
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
        self.close();
        self.first = first;
        let room = self.room.max(length);
        // Where the sizes were not said, what follows is likely as long as what came.
        self.room = (2 * room).clamp(Self::FIRST_ROOM, Self::MOST_ROOM);
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
            let whole = std::mem::replace(&mut payloads, Vec::new());
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
