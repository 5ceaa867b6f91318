//! Entries as bytes: chunks of records.
//!
//! A chunk is a run of entries with consecutive indexes: a header, then records.
//!
//! ```text
//! chunk   first index u64 | entries u32 | bytes of the whole chunk u32 | crc32c u32 | zeros to 32
//! record  crc32c u32 | bytes of the payload u32 | term u64 | time u64 | kind u8 | zeros to 28 | count u32
//!         payload | zeros to a multiple of 16
//! ```
//!
//! A record is one entry, and its count is zero, or a *chain* (from version 3 of the format on): commands of one
//! session, term, time, floor and version, whose sequences count up by one. Then its kind is that of a command with
//! the highest bit set, its count how many they are, and what stands in place of a payload is the header of the
//! first command, for each command one byte that says how long its body is, and the bodies behind each other.
//!
//! A record's checksum covers group, index (the first of a chain), the rest of its header and the payload: a record
//! that stands in another's place does not match. What is wrong in a chain is told of its first entry. Payloads of
//! single entries begin at multiples of 16, and so do chunks in memory: a payload that was aligned when it came is
//! aligned when it is read, and a large one is not copied. Those of a chain are put together when they are read.

mod layout;

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use graft_core::{
    Entry, EntryKind, GroupId, Index, LogId, LogTime, Term,
    session::{COMMAND_HEADER, following_header},
};

pub(in crate::redb) use self::layout::Layout;
use super::{codec::Malformed, facts::VERSION_3};

const HEADER: usize = 32;
const ALIGNMENT: usize = 16;

/// How many bytes a chunk of more than one record may have: with what redb puts beside it, it fills
/// a page of 64 KiB. A read of one entry reads a chunk, so it should not be larger; a batch of many
/// entries becomes few values, so it should not be smaller.
pub(super) const CHUNK: usize = PAGE_OF_PARTS - PAGE_OVERHEAD;

/// How many entries a chunk has at most, for the same reason: as many as it would have without chains.
const MAX_ENTRIES: u32 = 2048;

const PAGE_OF_PARTS: usize = 64 * 1024;

/// The size of redb's pages. Values that need more take a power of two of them.
const PAGE: usize = 4096;

/// At most this is what redb stores beside one value in a page of its own: header, key and offsets.
const PAGE_OVERHEAD: usize = 64;

/// The kind of a record that is a chain.
const CHAIN: u8 = 0x80 | EntryKind::SessionCommand as u8;

/// A command with a body of more bytes is no part of a chain: its header is little of it, and it is best left as it is.
const MAX_BODY: usize = 96;

/// Where to cut `length` bytes so that redb's pages, which come in powers of two, are at least
/// three quarters full: the ends of the parts.
pub(super) fn parts(length: usize) -> impl Iterator<Item = Range<usize>> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let rest = length - begin;
        if rest == 0 {
            return None;
        }
        let needed = rest + PAGE_OVERHEAD;
        let page = needed.next_power_of_two().max(PAGE);
        let taken = if needed > PAGE_OF_PARTS {
            CHUNK
        } else if page == PAGE || needed >= page / 4 * 3 {
            rest
        } else {
            page / 2 - PAGE_OVERHEAD
        };
        begin += taken;
        Some(begin - taken..begin)
    })
}

/// Whether a value of `length` bytes may need a page of its own.
pub(super) const fn is_large(length: usize) -> bool {
    length > PAGE / 2
}

/// Entries are bounded far below 4 GiB, and a chunk is one entry or less than 64 KiB.
fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The checksum of a record at this place, of all that comes behind the checksum itself.
fn record_checksum(group: GroupId, index: Index, record: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&group.0.to_le_bytes());
    place[8..].copy_from_slice(&index.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), record)
}

/// The header of a chunk that was found under the index `first`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkHeader {
    pub(super) count: u32,
    pub(super) length: usize,
}

impl ChunkHeader {
    pub(super) fn decode(group: GroupId, first: Index, bytes: &[u8]) -> Result<Self, Malformed> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(format!("{} bytes are too few for a chunk", bytes.len()));
        };
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&group.0.to_le_bytes()), &header[..16]);
        if u32_at(header, 16) != checksum || u64_at(header, 0) != first.0 {
            return Err("the header of its chunk does not match its checksum".into());
        }
        Ok(Self { count: u32_at(header, 8), length: u32_at(header, 12) as usize })
    }

    /// The first index of a chunk by its header, where that is what was written.
    pub(super) fn first(group: GroupId, bytes: &[u8]) -> Option<Index> {
        let first = Index(u64_at(bytes.first_chunk()?, 0));
        Self::decode(group, first, bytes).ok().map(|_| first)
    }
}

/// A whole chunk in memory, aligned.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) first: Index,
    group: GroupId,
    count: u32,
    bytes: Bytes,
}

/// A record that is not what was written.
#[derive(Debug)]
pub(super) struct BadRecord {
    pub(super) index: Index,
    pub(super) reason: Malformed,
}

impl Chunk {
    /// A chunk of the parts that were found under `first`, in their order.
    pub(super) fn assemble(
        group: GroupId,
        first: Index,
        header: ChunkHeader,
        parts: &[impl AsRef<[u8]>],
    ) -> Result<Self, Malformed> {
        let found: usize = parts.iter().map(|part| part.as_ref().len()).sum();
        if found != header.length {
            return Err(format!("its chunk has {found} bytes of {}", header.length));
        }
        let (mut bytes, begin) = aligned(found);
        for part in parts {
            bytes.extend_from_slice(part.as_ref());
        }
        Ok(Self { first, group, count: header.count, bytes: Bytes::from(bytes).slice(begin..) })
    }

    /// One behind the last index.
    pub(super) fn end(&self) -> Index {
        Index(self.first.0.saturating_add(u64::from(self.count)))
    }

    /// The entries of the chunk in order, each checked when its turn comes.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Entry, BadRecord>> {
        let mut records = Records { chunk: self, index: self.first, at: HEADER, links: None };
        std::iter::from_fn(move || records.next())
    }

    /// The record of the entry at `index`, which begins at byte `at`.
    fn record_at(&self, index: Index, at: usize) -> Result<Record<'_>, Malformed> {
        let cut = || "its record is cut short".to_owned();
        let rest = self.bytes.get(at..).ok_or_else(cut)?;
        let header = rest.first_chunk::<HEADER>().ok_or_else(cut)?;
        let begin = at + HEADER;
        let end = begin.saturating_add(u32_at(header, 4) as usize);
        if end > self.bytes.len() {
            return Err(cut());
        }
        let found = record_checksum(self.group, index, &self.bytes[at + 4..end]);
        let stored = u32_at(header, 0);
        if stored != found {
            return Err(format!("its checksum is {found:08x}, {stored:08x} was written"));
        }
        Ok(Record { header, payload: begin..end })
    }
}

/// A record whose checksum is right.
struct Record<'a> {
    header: &'a [u8; HEADER],
    payload: Range<usize>,
}

impl Record<'_> {
    fn term(&self) -> Term {
        Term(u64_at(self.header, 8))
    }

    fn time(&self) -> LogTime {
        LogTime(u64_at(self.header, 16))
    }

    /// How many entries it is, where it is a chain.
    fn chained(&self) -> Option<u32> {
        (self.header[24] == CHAIN).then(|| u32_at(self.header, 28))
    }
}

/// The way through the records of a chunk.
struct Records<'a> {
    chunk: &'a Chunk,
    /// The entry that comes next.
    index: Index,
    /// Where the next record begins.
    at: usize,
    /// What is left of a chain.
    links: Option<Links>,
}

impl Records<'_> {
    fn next(&mut self) -> Option<Result<Entry, BadRecord>> {
        let index = self.index;
        if index >= self.chunk.end() {
            return None;
        }
        self.index = index.next();
        let found = match self.links.as_mut().and_then(Links::next) {
            Some((term, time, payload)) => {
                let kind = EntryKind::SessionCommand;
                Ok(Entry { log_id: LogId { term, index }, time, kind, payload })
            }
            None => self.begin_record(index),
        };
        Some(found.map_err(|reason| BadRecord { index, reason }))
    }

    /// The first entry of the next record.
    fn begin_record(&mut self, index: Index) -> Result<Entry, Malformed> {
        let record = self.chunk.record_at(index, self.at)?;
        self.at = record.payload.end.next_multiple_of(ALIGNMENT);
        let (term, time) = (record.term(), record.time());
        let log_id = LogId { term, index };
        if record.header[25..28] != [0; 3] {
            return Err("its header uses bytes that mean nothing".into());
        }
        let Some(chained) = record.chained() else {
            let number = record.header[24];
            if u32_at(record.header, 28) != 0 {
                return Err("it is no chain and has a count".into());
            }
            let kind = EntryKind::from_u8(number);
            let kind = kind.ok_or_else(|| format!("it is of a kind {number} not known"))?;
            let payload = self.chunk.bytes.slice(record.payload);
            return Ok(Entry { log_id, time, kind, payload });
        };
        let left = self.chunk.end().0 - index.0;
        let mut links = (u64::from(chained) <= left)
            .then(|| Links::of(term, time, chained, self.chunk.bytes.slice(record.payload)))
            .flatten()
            .ok_or("its chain does not hold what its header says")?;
        let (_, _, payload) = links.next().ok_or("its chain is empty")?;
        self.links = Some(links);
        Ok(Entry { log_id, time, kind: EntryKind::SessionCommand, payload })
    }
}

/// The commands of a chain that have not had their turn.
struct Links {
    term: Term,
    time: LogTime,
    /// How long their bodies are, a byte each.
    lengths: Bytes,
    /// The payloads, whole again, each at a multiple of 16.
    whole: Bytes,
    at: usize,
}

impl Links {
    /// Those of a chain of `count` commands, by what its record has in place of a payload.
    fn of(term: Term, time: LogTime, count: u32, mut stored: Bytes) -> Option<Self> {
        let header = *stored.first_chunk::<COMMAND_HEADER>()?;
        stored.advance(COMMAND_HEADER);
        let count = usize::try_from(count).ok().filter(|count| *count <= stored.len())?;
        let lengths = stored.split_to(count);
        let each = lengths.iter().map(|length| usize::from(*length));
        if each.clone().any(|length| length > MAX_BODY)
            || each.clone().sum::<usize>() != stored.len()
        {
            return None;
        }
        let sizes = each.clone().map(|length| padded(COMMAND_HEADER + length));
        let (mut whole, begin) = aligned(sizes.sum());
        let mut bodies = &stored[..];
        for (by, length) in (0..).zip(each) {
            let body;
            (body, bodies) = bodies.split_at_checked(length)?;
            whole.extend_from_slice(&following_header(&header, by));
            whole.extend_from_slice(body);
            whole.resize(begin + padded(whole.len() - begin), 0);
        }
        let whole = Bytes::from(whole).slice(begin..);
        Some(Self { term, time, lengths, whole, at: 0 })
    }

    fn next(&mut self) -> Option<(Term, LogTime, Bytes)> {
        let length = usize::from(*self.lengths.first()?);
        self.lengths.advance(1);
        let end = self.at + COMMAND_HEADER + length;
        let payload = self.whole.slice(self.at..end);
        self.at = padded(end);
        Some((self.term, self.time, payload))
    }
}

const fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// An empty buffer that `size` bytes fit into from an aligned place on, and that place.
fn aligned(size: usize) -> (Vec<u8>, usize) {
    let mut bytes: Vec<u8> = Vec::with_capacity(size + ALIGNMENT);
    bytes.resize(bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT), 0);
    let begin = bytes.len();
    (bytes, begin)
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |found| u32::from_le_bytes(*found))
}

fn u64_at(bytes: &[u8; HEADER], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |found| u64::from_le_bytes(*found))
}

#[cfg(test)]
mod tests;
