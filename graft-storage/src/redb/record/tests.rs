//! Chunks as they are written and read.

use graft_core::{
    Entries, SessionId,
    session::{CommandHeader, encode_command},
};

use super::{
    layout::{Piece, size},
    *,
};
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
    let singles: Vec<_> = (1..5).map(|at| entry(at, to_size(at) * 7)).collect();
    let chain: Vec<_> = (1..6).map(|at| command(at, at, to_size(at) * 3)).collect();
    for entries in [singles, chain] {
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

/// The chunk with these bytes in the place of those of its first record, and a checksum that is right.
fn forged(chunk: &[u8], at: usize, bytes: &[u8]) -> Vec<Result<Entry, BadRecord>> {
    let mut chunk = chunk.to_vec();
    let record = HEADER;
    chunk[record + at..record + at + bytes.len()].copy_from_slice(bytes);
    let length = u32::from_le_bytes(*chunk[record + 4..].first_chunk().unwrap());
    let end = record + HEADER + to_size(length.into());
    let checksum = record_checksum(GroupId(0), Index(1), &chunk[record + 4..end]);
    chunk[record..record + 4].copy_from_slice(&checksum.to_le_bytes());
    let header = ChunkHeader::decode(GroupId(0), Index(1), &chunk).unwrap();
    let chunk = Chunk::assemble(GroupId(0), Index(1), header, &[chunk]).unwrap();
    chunk.entries().collect()
}

#[test]
fn a_record_that_means_nothing_is_refused_though_its_checksum_is_right() {
    let single = chunk_of(&[entry(1, 20)]).0;
    let chain = chunk_of(&[1, 2, 3].map(|at| command(at, at, 5))).0;
    for chunk in [&single, &chain] {
        assert!(forged(chunk, 8, &3_u64.to_le_bytes()).iter().all(Result::is_ok));
        for reserved in 25..28 {
            assert!(forged(chunk, reserved, &[1])[0].is_err(), "byte {reserved}");
        }
    }
    assert!(forged(&single, 28, &9_u32.to_le_bytes())[0].is_err(), "a count");
    assert!(forged(&single, 24, &[CHAIN])[0].is_err(), "a chain that is none");
    for count in [0, 4, 35, u32::MAX] {
        assert!(forged(&chain, 28, &count.to_le_bytes())[0].is_err(), "{count} in a chain of 3");
    }
    // Fewer commands than there are lengths, and lengths that are not those of the bodies.
    assert!(forged(&chain, 28, &2_u32.to_le_bytes())[0].is_err());
    let lengths = HEADER + COMMAND_HEADER;
    for length in [0, 4, 6, 97, 255] {
        assert!(forged(&chain, lengths, &[length])[0].is_err(), "a body of {length}");
    }
    assert!(
        forged(&chain, lengths, &[4, 6, 5]).iter().all(Result::is_ok),
        "that it adds up is all that shows"
    );
}
