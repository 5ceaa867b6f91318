//! Commands of one session behind each other, of which the first alone has a header.

use bytes::Bytes;
use graft_core::{
    ClientRequest, Entries, EntriesBuilder, Entry, EntryKind, LinkId, LogTime, Message,
};
use graft_transport::wire::v1::{
    Header, Limits, Outgoing, WireError, decode_peer, decode_requests, encode_peer,
};

use crate::{
    batches::{NOW, append, place, request, send},
    samples::{CLUSTER, all, command, entry, frame, peer},
    targets,
};

/// What a frame of requests and one of entries take with these commands.
fn sizes(commands: &[Bytes]) -> (usize, usize) {
    let mut out = Outgoing::new();
    let kind = EntryKind::SessionCommand;
    let each = (1..).zip(commands);
    let requests: Vec<_> = each
        .clone()
        .map(|(id, payload)| ClientRequest { kind, ..request(id, payload.clone()) })
        .collect();
    assert!(send(&requests, &mut out).is_empty());
    let requested = all(&mut out);
    let read = decode_requests(&frame(&requested), LinkId(1), NOW).unwrap();
    for (sent, read) in requests.iter().zip(&read) {
        assert_eq!((&sent.payload, sent.request_id), (&read.payload, read.request_id));
        assert!(place(&read.payload).start.is_multiple_of(16));
    }
    assert_eq!(read.len(), requests.len());

    let time = LogTime(7);
    let entries =
        each.map(|(index, payload)| Entry { time, ..entry(1, index, kind, payload.clone()) });
    let envelope = peer(Message::AppendEntries(append(entries.collect())));
    encode_peer(&envelope, CLUSTER, &Limits::default(), &mut out).unwrap();
    let appended = all(&mut out);
    let read = decode_peer(&frame(&appended)).unwrap();
    assert_eq!(read, envelope);
    let Message::AppendEntries(read) = read.message else { panic!("an append was sent") };
    assert!(read.entries.iter().all(|entry| place(entry.payload).start.is_multiple_of(16)));
    (requested.len(), appended.len())
}

#[test]
fn commands_of_a_session_behind_each_other_have_one_header() {
    /// The header, and what a body has beside its lists, a command included.
    const BESIDE: usize = 256;
    for body in [0, 1, 16, 96] {
        let each = |sequence| command(9, sequence, 5, &vec![1; body]);
        let (requests, entries) = sizes(&(10..1010).map(each).collect::<Vec<_>>());
        let rest = body.next_multiple_of(16);
        assert!(requests < 1000 * (12 + rest) + BESIDE, "{requests} bytes with {body} each");
        assert!(entries < 1000 * (4 + rest) + BESIDE, "{entries} bytes with {body} each");
    }
}

#[test]
fn only_commands_whose_sequences_alone_differ_and_count_up_share_a_header() {
    let first = command(9, 10, 5, b"body");
    let is_shared = |second: Bytes| {
        let (alone, two) = (sizes(&[first.clone(); 1]), sizes(&[first.clone(), second.clone()]));
        // A number, a length and perhaps a run; a body of up to 16 bytes with or without its header.
        let whole = second.len().next_multiple_of(16);
        let (requests, entries) = (two.0 - alone.0, two.1 - alone.1);
        assert_eq!(requests >= whole, entries >= whole, "{requests} and {entries} bytes more");
        requests < whole
    };
    assert!(is_shared(command(9, 11, 5, b"other")));
    assert!(is_shared(command(9, 11, 5, &[1; 96])));
    let mut other_version = command(9, 11, 5, b"").to_vec();
    other_version[24] += 1;
    let mut reserved = command(9, 11, 5, b"").to_vec();
    reserved[31] = 1;
    for other in [
        command(8, 11, 5, b""),
        command(9, 10, 5, b""),
        command(9, 9, 5, b""),
        command(9, 12, 5, b""),
        command(9, 11, 6, b""),
        command(9, 11, 5, &[1; 97]),
        other_version.into(),
        reserved.into(),
        first.slice(..31),
    ] {
        assert!(!is_shared(other.clone()), "{other:?}");
    }
}

/// What is not there must not be more than what may be.
#[test]
fn a_chain_is_of_small_commands_that_fit_their_frame() {
    let mut out = Outgoing::new();
    let kind = EntryKind::SessionCommand;
    let payload = |sequence| command(9, sequence, 5, b"");
    let requests = [1, 2, 3].map(|id| ClientRequest { kind, ..request(id, payload(id)) });
    assert!(send(&requests, &mut out).is_empty());
    let requested = all(&mut out);
    let time = LogTime(7);
    let entries = (1..=3).map(|at| Entry { time, ..entry(1, at, kind, payload(at)) });
    let message = Message::AppendEntries(append(entries.collect()));
    encode_peer(&peer(message), CLUSTER, &Limits::default(), &mut out).unwrap();
    let appended = all(&mut out);
    // Where the three lengths are: behind the numbers of the requests, or first.
    for (bytes, at) in [(requested, 3 * 8), (appended, 0)] {
        let at = Header::BYTES + at;
        for which in 0..3 {
            let at = at + 4 * which;
            assert_eq!(bytes[at..at + 4], 32_u32.to_le_bytes());
            for length in [0, 31, 48, 129, 1 << 20, u32::MAX] {
                let mut forged = bytes.clone();
                forged[at..at + 4].copy_from_slice(&u32::to_le_bytes(length));
                let refused = targets::Value::decode(&frame(&forged));
                let is_told = matches!(refused, Err(WireError::Malformed { .. }));
                assert!(is_told, "{length} of {which}: {refused:?}");
            }
        }
    }
}

/// Else one large entry keeps the whole frame beside what was put together of its chains.
#[test]
fn a_large_entry_beside_chains_has_memory_of_its_own_unless_it_is_most_of_the_frame() {
    let is_shared = |size: usize| {
        let kind = EntryKind::SessionCommand;
        let mut entries: Vec<_> =
            (1..=200).map(|at| entry(1, at, kind, command(9, at, 5, &[1; 96]))).collect();
        entries.iter_mut().for_each(|entry| entry.time = LogTime(7));
        entries.push(entry(1, 201, EntryKind::Plain, vec![2; size]));
        let mut out = Outgoing::new();
        let envelope = peer(Message::AppendEntries(append(entries)));
        encode_peer(&envelope, CLUSTER, &Limits::default(), &mut out).unwrap();
        let frame = frame(&all(&mut out));
        // Whoever shares memory with the frame shares it with whoever read the frame before.
        let read = || match decode_peer(&frame).unwrap().message {
            Message::AppendEntries(append) => append.entries,
            other => panic!("{other:?}"),
        };
        let (first, second) = (read(), read());
        let large = |entries: &Entries| place(entries.last().unwrap().payload);
        assert!(large(&first).start.is_multiple_of(16));
        large(&first) == large(&second)
    };
    assert!(!is_shared(EntriesBuilder::SHARED_BYTES - 1));
    assert!(!is_shared(EntriesBuilder::SHARED_BYTES));
    assert!(is_shared(100_000));
}
