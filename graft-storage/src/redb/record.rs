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
//! that stands in another's place does not match. Payloads of single entries begin at multiples of 16, and so do
//! chunks in memory: a payload that was aligned when it came is aligned when it is read, without a copy. Those of a
//! chain are put together when they are read, and are aligned as well.

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use graft_core::{
    Entries, Entry, EntryKind, EntryRef, GroupId, Index, LogId, LogTime, Term,
    session::{COMMAND_HEADER, following_header},
};

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

/// A command of more bytes is no part of a chain: its header is little of it, and it is best left as it is.
const MAX_CHAINED: usize = 128;

/// How many bytes an entry takes in a record of its own.
fn size(entry: EntryRef<'_>) -> usize {
    HEADER + entry.payload.len().next_multiple_of(ALIGNMENT)
}

/// How entries are put into chunks.
#[derive(Default)]
pub(super) struct Layout {
    chunks: Vec<Planned>,
}

/// A chunk that is to be written.
struct Planned {
    entries: u32,
    bytes: usize,
    pieces: Vec<Piece>,
}

/// Records of a chunk that is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    /// So many entries, each in a record of its own.
    Single(u32),
    /// So many entries in one record, with bodies of so many bytes.
    Chain(u32, usize),
}

/// The size of the record of a chain.
const fn chain_size(count: u32, bodies: usize) -> usize {
    HEADER + (COMMAND_HEADER + count as usize + bodies).next_multiple_of(ALIGNMENT)
}

/// What may be the first command of a chain, and how many have followed it.
#[derive(Clone, Copy)]
struct Head<'a> {
    entry: EntryRef<'a>,
    header: &'a [u8; COMMAND_HEADER],
    length: u32,
}

impl<'a> Head<'a> {
    fn of(entry: EntryRef<'a>) -> Option<Self> {
        let is_small = entry.payload.len() <= MAX_CHAINED;
        let is_command = is_small && entry.kind == EntryKind::SessionCommand;
        let header = entry.payload.first_chunk().filter(|_| is_command)?;
        Some(Self { entry, header, length: 1 })
    }

    /// Whether `next` goes on with the chain.
    fn is_followed_by(&self, next: &Self) -> bool {
        (self.entry.log_id.term, self.entry.time) == (next.entry.log_id.term, next.entry.time)
            && *next.header == following_header(self.header, self.length.into())
    }

    fn body(&self) -> usize {
        self.entry.payload.len() - COMMAND_HEADER
    }
}

impl Layout {
    /// How these entries are put into chunks in this version of the format.
    pub(super) fn of(entries: &Entries, version: u32) -> Self {
        let mut layout = Self::default();
        let mut head: Option<Head<'_>> = None;
        for entry in entries.iter() {
            let next = Head::of(entry).filter(|_| version >= VERSION_3);
            if let (Some(open), Some(next)) = (&mut head, &next)
                && open.is_followed_by(next)
                && layout.link(open, next.body())
            {
                open.length += 1;
            } else {
                layout.add(size(entry));
                head = next;
            }
        }
        layout
    }

    /// Puts an entry that needs so many bytes behind the others.
    fn add(&mut self, size: usize) {
        let fits = |last: &&mut Planned| last.bytes + size <= CHUNK && last.entries < MAX_ENTRIES;
        let Some(last) = self.chunks.last_mut().filter(fits) else {
            let pieces = vec![Piece::Single(1)];
            return self.chunks.push(Planned { entries: 1, bytes: HEADER + size, pieces });
        };
        last.entries += 1;
        last.bytes += size;
        match last.pieces.last_mut() {
            Some(Piece::Single(count)) => *count += 1,
            _ => last.pieces.push(Piece::Single(1)),
        }
    }

    /// Puts an entry with a body of so many bytes into a chain with the last one, where the chunk has room.
    fn link(&mut self, head: &Head<'_>, body: usize) -> bool {
        let Some(last) = self.chunks.last_mut().filter(|last| last.entries < MAX_ENTRIES) else {
            return false;
        };
        let Some(piece) = last.pieces.last_mut() else {
            return false;
        };
        let (before, count, bodies) = match *piece {
            Piece::Single(_) => (size(head.entry), 1, head.body()),
            Piece::Chain(count, bodies) => (chain_size(count, bodies), count, bodies),
        };
        let (count, bodies) = (count + 1, bodies + body);
        let bytes = last.bytes - before + chain_size(count, bodies);
        if bytes > CHUNK {
            return false;
        }
        last.bytes = bytes;
        last.entries += 1;
        match piece {
            Piece::Single(2..) => {
                if let Piece::Single(singles) = piece {
                    *singles -= 1;
                }
                last.pieces.push(Piece::Chain(count, bodies));
            }
            piece => *piece = Piece::Chain(count, bodies),
        }
        true
    }

    /// How much of a file the entries will take, in bytes: whole pages, and for what shares a page with others half
    /// as much again, since pages that rows were added to are not full.
    pub(super) fn footprint(&self) -> u64 {
        let of_part = |part: Range<usize>| match part.len() + PAGE_OVERHEAD {
            needed if needed <= PAGE / 2 => needed / 2 * 3,
            needed => needed.next_power_of_two(),
        };
        let parts = self.chunks.iter().flat_map(|chunk| parts(chunk.bytes));
        parts.map(of_part).sum::<usize>() as u64
    }

    /// Shows `put` the bytes of each chunk of `entries`, which are those it is the layout of, with its first index.
    pub(super) fn write<E>(
        &self,
        group: GroupId,
        entries: &Entries,
        buffer: &mut Vec<u8>,
        mut put: impl FnMut(Index, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = entries.iter();
        let mut first = entries.first_index().unwrap_or_default();
        for chunk in &self.chunks {
            chunk.encode(group, first, &mut rest, buffer);
            put(first, buffer)?;
            first = Index(first.0 + u64::from(chunk.entries));
        }
        debug_assert!(rest.next().is_none(), "the layout is of all entries");
        Ok(())
    }
}

impl Planned {
    /// Puts the chunk into `out`, which is emptied first.
    fn encode<'a>(
        &self,
        group: GroupId,
        first: Index,
        entries: &mut impl Iterator<Item = EntryRef<'a>>,
        out: &mut Vec<u8>,
    ) {
        out.clear();
        out.reserve(self.bytes);
        out.extend_from_slice(&first.0.to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&count(self.bytes).to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&group.0.to_le_bytes()), out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.resize(HEADER, 0);
        for piece in &self.pieces {
            match *piece {
                Piece::Single(singles) => {
                    for entry in entries.by_ref().take(singles as usize) {
                        let (length, kind) = (entry.payload.len(), entry.kind as u8);
                        let begin = begin_record(out, entry, length, kind, 0);
                        out.extend_from_slice(entry.payload);
                        end_record(out, begin, group, entry.log_id.index);
                    }
                }
                Piece::Chain(count, bodies) => {
                    encode_chain(group, entries, (count, bodies), out);
                }
            }
        }
        debug_assert_eq!(out.len(), self.bytes, "a chunk is as long as it was planned");
    }
}

fn encode_chain<'a>(
    group: GroupId,
    entries: &mut impl Iterator<Item = EntryRef<'a>>,
    (count, bodies): (u32, usize),
    out: &mut Vec<u8>,
) {
    let mut chain = entries.take(count as usize);
    let Some(first) = chain.next() else {
        return;
    };
    let length = COMMAND_HEADER + count as usize + bodies;
    let begin = begin_record(out, first, length, CHAIN, count);
    let (header, body) = first.payload.split_at(COMMAND_HEADER);
    out.extend_from_slice(header);
    let mut at = out.len();
    out.resize(at + count as usize, 0);
    // A chain has small commands alone.
    let stated = |body: &[u8]| u8::try_from(body.len()).unwrap_or(u8::MAX);
    out[at] = stated(body);
    out.extend_from_slice(body);
    for entry in chain {
        at += 1;
        let body = &entry.payload[COMMAND_HEADER..];
        out[at] = stated(body);
        out.extend_from_slice(body);
    }
    end_record(out, begin, group, first.log_id.index);
}

/// Puts the header of a record into `out`, without its checksum, and says where it begins.
fn begin_record(
    out: &mut Vec<u8>,
    entry: EntryRef<'_>,
    length: usize,
    kind: u8,
    chained: u32,
) -> usize {
    let begin = out.len();
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&count(length).to_le_bytes());
    header[8..16].copy_from_slice(&entry.log_id.term.0.to_le_bytes());
    header[16..24].copy_from_slice(&entry.time.0.to_le_bytes());
    header[24] = kind;
    header[28..32].copy_from_slice(&chained.to_le_bytes());
    out.extend_from_slice(&header);
    begin
}

/// Puts the checksum into the record that begins at `begin`, and fills it up.
fn end_record(out: &mut Vec<u8>, begin: usize, group: GroupId, index: Index) {
    let checksum = record_checksum(group, index, &out[begin + 4..]);
    out[begin..begin + 4].copy_from_slice(&checksum.to_le_bytes());
    let padding = out.len().next_multiple_of(ALIGNMENT) - out.len();
    out.extend_from_slice(&[0; ALIGNMENT][..padding]);
}

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
        let Some(chained) = record.chained() else {
            let number = record.header[24];
            let kind = EntryKind::from_u8(number);
            let kind = kind.ok_or_else(|| format!("it is of a kind {number} not known"))?;
            let payload = self.chunk.bytes.slice(record.payload);
            return Ok(Entry { log_id, time, kind, payload });
        };
        let left = self.chunk.end().0 - index.0;
        let mut links = (u64::from(chained) <= left)
            .then(|| Links::of(term, time, chained, self.chunk.bytes.slice(record.payload)))
            .flatten()
            .ok_or("its chain is none")?;
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
        let sizes = lengths.iter().map(|length| padded(COMMAND_HEADER + usize::from(*length)));
        let (mut whole, begin) = aligned(sizes.sum());
        let mut bodies = &stored[..];
        for (by, length) in (0..).zip(&lengths) {
            let (body, behind) = bodies.split_at_checked(usize::from(*length))?;
            bodies = behind;
            whole.extend_from_slice(&following_header(&header, by));
            whole.extend_from_slice(body);
            whole.resize(begin + padded(whole.len() - begin), 0);
        }
        let whole = Bytes::from(whole).slice(begin..);
        bodies.is_empty().then_some(Self { term, time, lengths, whole, at: 0 })
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
mod tests {
    use graft_core::{
        SessionId,
        session::{CommandHeader, encode_command},
    };

    use super::*;
    use crate::{medium::random::Random, redb::facts::VERSION};

    fn entry(index: u64, size: usize) -> Entry {
        Entry {
            log_id: LogId::new(3, index),
            time: LogTime(index * 10),
            kind: EntryKind::Plain,
            payload: vec![index.to_le_bytes()[0]; size].into(),
        }
    }

    fn to_size(index: u64) -> usize {
        usize::try_from(index).unwrap()
    }

    /// All chunks of these entries, each with its first index.
    fn chunks(entries: &[Entry], version: u32) -> Vec<(Index, Vec<u8>)> {
        let entries = Entries::from(entries.to_vec());
        let mut chunks = Vec::new();
        let layout = Layout::of(&entries, version);
        let put = |first, chunk: &[u8]| {
            chunks.push((first, chunk.to_vec()));
            Ok::<_, ()>(())
        };
        layout.write(GroupId(0), &entries, &mut Vec::new(), put).unwrap();
        chunks
    }

    /// The only chunk of these entries.
    fn chunk_of(entries: &[Entry]) -> (Vec<u8>, Chunk) {
        let [(first, bytes)] = <[_; 1]>::try_from(chunks(entries, VERSION)).unwrap();
        let header = ChunkHeader::decode(GroupId(0), first, &bytes).unwrap();
        let parts: Vec<_> = parts(bytes.len()).map(|part| bytes[part].to_vec()).collect();
        let chunk = Chunk::assemble(GroupId(0), first, header, &parts).unwrap();
        (bytes, chunk)
    }

    #[test]
    fn entries_survive_and_their_payloads_are_aligned() {
        let entries: Vec<_> = (7..47).map(|at| entry(at, to_size(at) * 5)).collect();
        let (_, chunk) = chunk_of(&entries);
        let found: Vec<_> = chunk.entries().map(Result::unwrap).collect();
        assert_eq!(found, entries);
        for entry in found.iter().filter(|entry| !entry.payload.is_empty()) {
            assert_eq!(entry.payload.as_ptr().align_offset(ALIGNMENT), 0);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_chunk_is_an_error_or_changes_nothing() {
        let entries: Vec<_> = (1..5).map(|at| entry(at, to_size(at) * 7)).collect();
        let (bytes, _) = chunk_of(&entries);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(header) = ChunkHeader::decode(GroupId(0), Index(1), &bytes) else {
                continue;
            };
            let chunk = Chunk::assemble(GroupId(0), Index(1), header, &[bytes]).unwrap();
            let found: Result<Vec<_>, _> = chunk.entries().collect();
            assert!(found.is_err() || found.unwrap() == entries, "bit {bit}");
        }
    }

    #[test]
    fn a_record_in_another_place_does_not_match() {
        let (bytes, _) = chunk_of(&[entry(1, 20)]);
        assert!(ChunkHeader::decode(GroupId(0), Index(2), &bytes).is_err());
        assert!(ChunkHeader::decode(GroupId(1), Index(1), &bytes).is_err());
    }

    #[test]
    fn pages_are_at_least_three_quarters_full() {
        for length in (1..3_000_000).step_by(997) {
            let mut end = 0;
            for part in parts(length) {
                assert_eq!(part.start, end);
                end = part.end;
                let needed = part.len() + PAGE_OVERHEAD;
                let page = needed.next_power_of_two();
                assert!(page <= PAGE_OF_PARTS);
                assert!(page <= PAGE || needed >= page / 4 * 3, "{} of {page}", part.len());
            }
            assert_eq!(end, length);
        }
    }

    #[test]
    fn a_chunk_is_a_page_of_entries_or_one_large_one() {
        let sizes = [10, 70_000, 20_000, 20_000, 20_000, 20_000, 5, 1 << 20, 1];
        let entries: Vec<_> = (1..).zip(sizes).map(|(at, size)| entry(at, size)).collect();
        let bytes: usize = entries.iter().map(|entry| size(entry.into())).sum();
        let layout = Layout::of(&Entries::from(entries), VERSION);
        let footprint = usize::try_from(layout.footprint()).unwrap();
        assert!(footprint > bytes && footprint < bytes / 3 * 4, "{footprint} for {bytes}");
        let counts: Vec<_> = layout.chunks.iter().map(|chunk| chunk.entries).collect();
        assert_eq!(counts, [1, 1, 3, 2, 1, 1]);
    }

    /// A command of session 7 in term 3.
    fn command(index: u64, sequence: u64, body: usize) -> Entry {
        let (session, floor) = (SessionId(7), 5);
        let header = CommandHeader { session, sequence, floor, version: 1 };
        let payload = encode_command(&header, &vec![sequence.to_le_bytes()[0]; body]);
        let kind = EntryKind::SessionCommand;
        Entry { kind, payload, time: LogTime(10), ..entry(index, 0) }
    }

    fn read(chunks: &[(Index, Vec<u8>)]) -> Vec<Entry> {
        let entries = chunks.iter().flat_map(|(first, bytes)| {
            let header = ChunkHeader::decode(GroupId(0), *first, bytes).unwrap();
            let chunk = Chunk::assemble(GroupId(0), *first, header, &[bytes]).unwrap();
            chunk.entries().collect::<Vec<_>>()
        });
        entries.map(Result::unwrap).collect()
    }

    #[test]
    fn commands_that_count_up_are_a_chain_and_read_as_they_were() {
        for body in [0, 1, 16, 96] {
            let entries: Vec<_> = (1..=1000).map(|at| command(at, 70 + at, body)).collect();
            let chunks = chunks(&entries, VERSION);
            let bytes: usize = chunks.iter().map(|(_, chunk)| chunk.len()).sum();
            assert!(bytes < 1000 * (1 + body) + 200 * chunks.len(), "{bytes} with {body} each");
            assert!(chunks.iter().all(|(_, chunk)| chunk.len() <= CHUNK));
            let found = read(&chunks);
            assert_eq!(found, entries);
            for entry in found {
                assert_eq!(entry.payload.as_ptr().align_offset(ALIGNMENT), 0);
            }
        }
    }

    #[test]
    fn a_format_that_knows_no_chains_has_none() {
        let entries: Vec<_> = (1..=10).map(|at| command(at, at, 0)).collect();
        let chunks = chunks(&entries, VERSION_3 - 1);
        assert_eq!(chunks[0].1.len(), HEADER + 10 * (HEADER + COMMAND_HEADER));
        assert_eq!(read(&chunks), entries);
    }

    #[test]
    fn a_chunk_of_chains_has_no_more_entries_than_one_without() {
        let entries: Vec<_> = (1..=5000).map(|at| command(at, at, 0)).collect();
        let chunks = chunks(&entries, VERSION);
        let firsts: Vec<_> = chunks.iter().map(|(first, _)| first.0).collect();
        let most = u64::from(MAX_ENTRIES);
        assert_eq!(firsts, [1, 1 + most, 1 + 2 * most]);
        assert_eq!(read(&chunks), entries);
    }

    /// What differs in anything but its sequence is no part of a chain, and whatever comes is read as it was.
    #[test]
    fn only_what_differs_by_its_sequence_alone_is_chained() {
        let first = command(1, 10, 4);
        let changed = |change: &dyn Fn(&mut [u8])| {
            let mut payload = command(2, 11, 4).payload.to_vec();
            change(&mut payload);
            Entry { payload: payload.into(), ..command(2, 11, 4) }
        };
        let is_chain = |second: Entry| {
            let entries = vec![first.clone(), second];
            let layout = Layout::of(&Entries::from(entries.clone()), VERSION);
            assert_eq!(read(&chunks(&entries, VERSION)), entries);
            layout.chunks[0].pieces != [Piece::Single(2)]
        };
        assert!(is_chain(command(2, 11, 0)) && is_chain(command(2, 11, 96)));
        assert!(!is_chain(command(2, 11, 97)));
        assert!(!is_chain(command(2, 10, 4)) && !is_chain(command(2, 12, 4)));
        for byte in (0..8).chain(16..COMMAND_HEADER) {
            assert!(!is_chain(changed(&|payload| payload[byte] ^= 1)), "byte {byte}");
        }
        assert!(!is_chain(Entry { time: LogTime(11), ..command(2, 11, 4) }));
        assert!(!is_chain(Entry { log_id: LogId::new(4, 2), ..command(2, 11, 4) }));
        assert!(!is_chain(Entry { kind: EntryKind::Plain, ..command(2, 11, 4) }));
        let short = command(2, 11, 4).payload.slice(..31);
        assert!(!is_chain(Entry { payload: short, ..command(2, 11, 4) }));
    }

    #[test]
    fn chains_and_other_entries_in_any_order_are_read_as_they_were() {
        let mut random = Random::new(5);
        for _ in 0..300 {
            let mut sequence = 0;
            let count = 1 + random.below(40);
            let entries: Vec<_> = (1..=count)
                .map(|index| match random.below(8) {
                    0 => entry(index, to_size(random.below(9000))),
                    1 => command(index, random.below(9), to_size(random.below(120))),
                    _ => {
                        sequence += 1;
                        command(index, sequence, to_size(random.below(100)))
                    }
                })
                .map(|entry| Entry { time: LogTime(10), ..entry })
                .collect();
            assert_eq!(read(&chunks(&entries, VERSION)), entries);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_chain_is_an_error_or_changes_nothing() {
        let entries: Vec<_> = (1..6).map(|at| command(at, at, to_size(at) * 3)).collect();
        let (bytes, _) = chunk_of(&entries);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(header) = ChunkHeader::decode(GroupId(0), Index(1), &bytes) else {
                continue;
            };
            let chunk = Chunk::assemble(GroupId(0), Index(1), header, &[bytes]).unwrap();
            let found: Result<Vec<_>, _> = chunk.entries().collect();
            assert!(found.is_err() || found.unwrap() == entries, "bit {bit}");
        }
    }
}
