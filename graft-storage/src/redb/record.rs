//! Entries as bytes: chunks of records.
//!
//! A chunk is a run of entries with consecutive indexes: a header, then a record for each.
//!
//! ```text
//! chunk   first index u64 | records u32 | bytes of the whole chunk u32 | crc32c u32 | zeros to 32
//! record  crc32c u32 | bytes of the payload u32 | term u64 | time u64 | kind u8 | zeros to 32
//!         payload | zeros to a multiple of 16
//! ```
//!
//! A record's checksum covers group, index, the rest of its header and the payload: a record that
//! stands in another's place does not match. Payloads begin at multiples of 16, and so do chunks in
//! memory: a payload that was aligned when it came is aligned when it is read, without a copy.

use std::ops::Range;

use bytes::Bytes;
use graft_core::{Entry, EntryKind, EntryRef, GroupId, Index, LogId, LogTime, Term};

use super::codec::Malformed;

const HEADER: usize = 32;
const ALIGNMENT: usize = 16;

/// How many bytes a chunk of more than one record may have: with what redb puts beside it, it fills
/// a page of 64 KiB. A read of one entry reads a chunk, so it should not be larger; a batch of many
/// entries becomes few values, so it should not be smaller.
pub(super) const CHUNK: usize = PAGE_OF_PARTS - PAGE_OVERHEAD;

const PAGE_OF_PARTS: usize = 64 * 1024;

/// The size of redb's pages. Values that need more take a power of two of them.
const PAGE: usize = 4096;

/// At most this is what redb stores beside one value in a page of its own: header, key and offsets.
const PAGE_OVERHEAD: usize = 64;

/// How many bytes an entry takes in a chunk.
pub(super) fn size(entry: EntryRef<'_>) -> usize {
    HEADER + entry.payload.len().next_multiple_of(ALIGNMENT)
}

/// Cuts a run of entries into chunks: each as many entries as fit, at least one.
pub(super) fn chunks<'a, 'e>(
    mut entries: &'a [EntryRef<'e>],
) -> impl Iterator<Item = &'a [EntryRef<'e>]> {
    std::iter::from_fn(move || {
        let mut bytes = HEADER;
        let fits = entries.iter().take_while(|entry| {
            bytes += size(**entry);
            bytes <= CHUNK
        });
        let count = fits.count().max(1).min(entries.len());
        let (chunk, rest) = entries.split_at(count);
        entries = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
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

/// How much of a file these entries will take, in bytes: whole pages, and for what shares a page
/// with others half as much again, since pages that rows were added to are not full.
pub(super) fn footprint<'a>(entries: impl Iterator<Item = EntryRef<'a>>) -> u64 {
    let of_chunk = |length: usize| -> u64 {
        let of_part = |part: Range<usize>| match part.len() + PAGE_OVERHEAD {
            needed if needed <= PAGE / 2 => needed / 2 * 3,
            needed => needed.next_power_of_two(),
        };
        parts(length).map(of_part).sum::<usize>() as u64
    };
    let (mut footprint, mut chunk) = (0, HEADER);
    for entry in entries {
        let size = size(entry);
        if chunk > HEADER && chunk + size > CHUNK {
            footprint += of_chunk(chunk);
            chunk = HEADER;
        }
        chunk += size;
    }
    if chunk > HEADER { footprint + of_chunk(chunk) } else { footprint }
}

/// Puts one chunk into `out`, which is emptied first.
pub(super) fn encode(group: GroupId, entries: &[EntryRef<'_>], out: &mut Vec<u8>) {
    out.clear();
    let Some(first) = entries.first() else {
        return;
    };
    let length = HEADER + entries.iter().map(|entry| size(*entry)).sum::<usize>();
    out.reserve(length);
    out.extend_from_slice(&first.log_id.index.0.to_le_bytes());
    out.extend_from_slice(&count(entries.len()).to_le_bytes());
    out.extend_from_slice(&count(length).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&group.0.to_le_bytes()), out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.resize(HEADER, 0);
    for entry in entries {
        let begin = out.len();
        let mut header = [0; HEADER];
        header[4..8].copy_from_slice(&count(entry.payload.len()).to_le_bytes());
        header[8..16].copy_from_slice(&entry.log_id.term.0.to_le_bytes());
        header[16..24].copy_from_slice(&entry.time.0.to_le_bytes());
        header[24] = entry.kind as u8;
        out.extend_from_slice(&header);
        out.extend_from_slice(entry.payload);
        let checksum = record_checksum(group, entry.log_id.index, &out[begin + 4..]);
        out[begin..begin + 4].copy_from_slice(&checksum.to_le_bytes());
        let padding = out.len().next_multiple_of(ALIGNMENT) - out.len();
        out.extend_from_slice(&[0; ALIGNMENT][..padding]);
    }
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
        let mut bytes: Vec<u8> = Vec::with_capacity(found + ALIGNMENT);
        bytes.resize(bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT), 0);
        let begin = bytes.len();
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
        let mut at = HEADER;
        let indexes = self.first.0..self.end().0;
        indexes.map(move |index| {
            let index = Index(index);
            let (entry, end) =
                self.entry_at(index, at).map_err(|reason| BadRecord { index, reason })?;
            at = end;
            Ok(entry)
        })
    }

    /// The entry whose record begins at byte `at`, and where it ends.
    fn entry_at(&self, index: Index, at: usize) -> Result<(Entry, usize), Malformed> {
        let cut = || "its record is cut short".to_owned();
        let rest = self.bytes.get(at..).ok_or_else(cut)?;
        let header = rest.first_chunk::<HEADER>().ok_or_else(cut)?;
        let begin = at + HEADER;
        let end = begin.saturating_add(u32_at(header, 4) as usize);
        if end > self.bytes.len() {
            return Err(cut());
        }
        let payload = self.bytes.slice(begin..end);
        let found = record_checksum(self.group, index, &self.bytes[at + 4..end]);
        let stored = u32_at(header, 0);
        if stored != found {
            return Err(format!("its checksum is {found:08x}, {stored:08x} was written"));
        }
        let kind = EntryKind::from_u8(header[24]);
        let kind = kind.ok_or_else(|| format!("it is of a kind {} not known", header[24]))?;
        let log_id = LogId { term: Term(u64_at(header, 8)), index };
        let time = LogTime(u64_at(header, 16));
        Ok((Entry { log_id, time, kind, payload }, end.next_multiple_of(ALIGNMENT)))
    }
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |found| u32::from_le_bytes(*found))
}

fn u64_at(bytes: &[u8; HEADER], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |found| u64::from_le_bytes(*found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, size: usize) -> Entry {
        Entry {
            log_id: LogId::new(3, index),
            time: LogTime(index * 10),
            kind: EntryKind::Plain,
            payload: vec![index.to_le_bytes()[0]; size].into(),
        }
    }

    fn refs(entries: &[Entry]) -> Vec<EntryRef<'_>> {
        entries.iter().map(EntryRef::from).collect()
    }

    fn to_size(index: u64) -> usize {
        usize::try_from(index).unwrap()
    }

    fn chunk_of(entries: &[Entry]) -> (Vec<u8>, Chunk) {
        let mut bytes = Vec::new();
        encode(GroupId(0), &refs(entries), &mut bytes);
        let first = entries[0].log_id.index;
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
        let entries = refs(&entries);
        let bytes: usize = entries.iter().copied().map(size).sum();
        let footprint = usize::try_from(footprint(entries.iter().copied())).unwrap();
        assert!(footprint > bytes && footprint < bytes / 3 * 4, "{footprint} for {bytes}");
        let counts: Vec<_> = chunks(&entries).map(<[_]>::len).collect();
        assert_eq!(counts, [1, 1, 3, 2, 1, 1]);
    }
}
