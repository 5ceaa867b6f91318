//! How entries are put into chunks, and chunks into bytes.

use std::ops::Range;

use graft_core::{
    Entries, EntryKind, EntryRef, GroupId, Index,
    session::{COMMAND_HEADER, following_header},
};

use super::{
    ALIGNMENT, CHAIN, CHUNK, HEADER, MAX_BODY, MAX_ENTRIES, PAGE, PAGE_OVERHEAD, VERSION_3, count,
    parts, record_checksum,
};

/// How many bytes an entry takes in a record of its own.
pub(super) fn size(entry: EntryRef<'_>) -> usize {
    HEADER + entry.payload.len().next_multiple_of(ALIGNMENT)
}

/// How entries are put into chunks.
#[derive(Default)]
pub(in crate::redb) struct Layout {
    pub(super) chunks: Vec<Planned>,
}

/// A chunk that is to be written.
pub(super) struct Planned {
    pub(super) entries: u32,
    bytes: usize,
    pub(super) pieces: Vec<Piece>,
}

/// Records of a chunk that is to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece {
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
        let is_small = entry.payload.len() <= COMMAND_HEADER + MAX_BODY;
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
    pub(in crate::redb) fn of(entries: &Entries, version: u32) -> Self {
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
            Piece::Single(singles) if *singles > 1 => {
                *singles -= 1;
                last.pieces.push(Piece::Chain(count, bodies));
            }
            piece => *piece = Piece::Chain(count, bodies),
        }
        true
    }

    /// How much of a file the entries will take, in bytes: whole pages, and for what shares a page with others half
    /// as much again, since pages that rows were added to are not full.
    pub(in crate::redb) fn footprint(&self) -> u64 {
        let of_part = |part: Range<usize>| match part.len() + PAGE_OVERHEAD {
            needed if needed <= PAGE / 2 => needed / 2 * 3,
            needed => needed.next_power_of_two(),
        };
        let parts = self.chunks.iter().flat_map(|chunk| parts(chunk.bytes));
        parts.map(of_part).sum::<usize>() as u64
    }

    /// Shows `put` the bytes of each chunk of `entries`, which are those it is the layout of, with its first index.
    pub(in crate::redb) fn write<E>(
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
