//! Many requests and replies in a frame, and who owns their memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use graft_core::{
    AppendEntries, ClientRequest, Entries, EntriesBuilder, Entry, EntryKind, Index, LeaderHint,
    LinkId, LogId, LogTime, Membership, Message, RejectReason, Reply, Term,
};
use graft_transport::wire::v1::{
    Header, Kind, Limits, Outgoing, WireError, decode_peer, decode_replies, decode_requests,
    encode_peer, encode_replies, encode_requests,
};

use crate::targets;

use crate::samples::{CLUSTER, all, entry, frame, frames, membership, peer, replies, requests};

pub(crate) const NOW: Duration = Duration::from_secs(1000);

pub(crate) fn request(request_id: u64, payload: impl Into<Bytes>) -> ClientRequest {
    let (deadline, kind) = (NOW + Duration::from_secs(5), EntryKind::Plain);
    ClientRequest { request_id, deadline, kind, payload: payload.into() }
}

pub(crate) fn append(entries: Vec<Entry>) -> AppendEntries {
    let (term, entries) = (Term(u64::MAX), Entries::from(entries));
    AppendEntries { term, prev: LogId::ZERO, commit: Index(0), round: 0, entries }
}

pub(crate) fn send(requests: &[ClientRequest], out: &mut Outgoing) -> Vec<u64> {
    encode_requests(requests, NOW, CLUSTER, &Limits::default(), out)
}

#[test]
fn requests_are_cut_into_frames_of_a_bounded_size() {
    let mut out = Outgoing::new();
    let many: Vec<_> = (0..3000).map(|id| request(id, vec![1; 40])).collect();
    assert!(send(&many, &mut out).is_empty());
    let counts = frames(&all(&mut out)).iter().map(count).collect::<Vec<_>>();
    assert_eq!(counts, [1024, 1024, 952]);

    let large: Vec<_> = (0..5).map(|id| request(id, vec![1; 100 << 10])).collect();
    assert!(send(&large, &mut out).is_empty());
    let counts = frames(&all(&mut out)).iter().map(count).collect::<Vec<_>>();
    assert_eq!(counts, [2, 2, 1]);

    assert!(send(&[], &mut out).is_empty());
    assert!(out.is_empty(), "no requests are no frame");
}

fn count(frame: &graft_transport::wire::v1::Frame) -> usize {
    decode_requests(frame, LinkId(1), NOW).unwrap().len()
}

#[test]
fn what_neighbours_have_in_common_is_written_once() {
    /// The header, and what a body has beside its lists.
    const BESIDE: usize = 256;
    let mut out = Outgoing::new();
    let requests: Vec<_> = (0..1000).map(|id| request(id, vec![1; 32])).collect();
    assert!(send(&requests, &mut out).is_empty());
    assert!(all(&mut out).len() < 1000 * (12 + 32) + BESIDE);

    let reply = Reply::Applied(Bytes::new());
    let replies = (0..1000).map(|id| (id, &reply));
    assert!(encode_replies(replies, CLUSTER, &Limits::default(), &mut out).is_empty());
    assert!(all(&mut out).len() < 1000 * 12 + BESIDE);

    let time = LogTime(7);
    let entries =
        (1..=1000).map(|index| Entry { time, ..entry(1, index, EntryKind::Plain, vec![1; 32]) });
    let message = Message::AppendEntries(append(entries.collect()));
    encode_peer(&peer(message), CLUSTER, &Limits::default(), &mut out).unwrap();
    assert!(all(&mut out).len() < 1000 * (4 + 32) + BESIDE);
}

#[test]
fn full_batches_whose_items_have_nothing_in_common_are_within_the_limits() {
    let limits = Limits::default();
    let mut out = Outgoing::new();
    // As many as a batch of so many bytes can have, each in a term of its own.
    let most = u64::try_from((1 << 20) / Entry::OVERHEAD).unwrap();
    let entries: Vec<_> =
        (1..=most).map(|index| entry(index, index, EntryKind::Plain, vec![])).collect();
    let envelope = peer(Message::AppendEntries(append(entries)));
    encode_peer(&envelope, CLUSTER, &limits, &mut out).unwrap();
    assert!(decode_peer(&frame(&all(&mut out))).unwrap() == envelope);

    let requests: Vec<_> = (0..1024)
        .map(|id| ClientRequest { deadline: NOW + Duration::from_secs(id), ..request(id, vec![1]) })
        .collect();
    assert!(send(&requests, &mut out).is_empty());
    assert_eq!(count(&frame(&all(&mut out))), 1024);

    let replies: Vec<_> =
        (0..1024).map(|id| (id, Reply::SessionOpened(graft_core::SessionId(id)))).collect();
    let each = replies.iter().map(|(id, reply)| (*id, reply));
    assert!(encode_replies(each, CLUSTER, &limits, &mut out).is_empty());
    assert_eq!(decode_replies(&frame(&all(&mut out))).unwrap(), replies);
}

/// A few bytes must not stand for a million items, nor items be left without what they have in common.
#[test]
fn runs_are_of_as_many_as_there_are_items() {
    let mut out = Outgoing::new();
    let reply = Reply::Applied(Bytes::new());
    let time = LogTime(7);
    let entries = (1..=3).map(|index| Entry { time, ..entry(1, index, EntryKind::Plain, vec![]) });
    let message = Message::AppendEntries(append(entries.collect()));
    encode_peer(&peer(message), CLUSTER, &Limits::default(), &mut out).unwrap();
    let appended = all(&mut out);
    assert!(
        send(&[request(1, vec![]), request(2, vec![]), request(3, vec![])], &mut out).is_empty()
    );
    let requested = all(&mut out);
    let replies = (0..3).map(|id| (id, &reply));
    assert!(encode_replies(replies, CLUSTER, &Limits::default(), &mut out).is_empty());
    let replied = all(&mut out);
    // Where the count of the only run is: behind the lists of numbers and lengths, and what else it says.
    for (bytes, at) in [(appended, 16 + 16), (requested, 24 + 12), (replied, 24 + 12 + 4 + 16)] {
        let at = Header::BYTES + at;
        assert_eq!(bytes[at..at + 4], 3_u32.to_le_bytes());
        for count in [0, 1, 2, 4, u32::MAX] {
            let mut forged = bytes.clone();
            forged[at..at + 4].copy_from_slice(&count.to_le_bytes());
            let refused = targets::Value::decode(&frame(&forged));
            assert!(
                matches!(refused, Err(WireError::Malformed { what, .. }) if what.contains("runs")),
                "{count}: {refused:?}"
            );
        }
    }
}

#[test]
fn a_request_that_is_too_large_is_named_and_those_around_it_are_sent() {
    let mut out = Outgoing::new();
    let limit = Limits::default().max_entry_bytes();
    let three =
        [request(1, vec![1; 10]), request(2, vec![0; limit + 1]), request(3, vec![3; limit])];
    assert_eq!(send(&three, &mut out), [2]);
    let frames = frames(&all(&mut out));
    let ids = frames.iter().flat_map(|frame| decode_requests(frame, LinkId(1), NOW).unwrap());
    assert_eq!(ids.map(|request| request.request_id).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(send(&three[1..2], &mut out), [2]);
    assert!(out.is_empty());
}

#[test]
fn a_deadline_travels_as_what_remains_of_it() {
    let there = Duration::from_secs(77);
    let remaining = |deadline: Duration| {
        let mut out = Outgoing::new();
        send(&[ClientRequest { deadline, ..request(1, vec![]) }], &mut out);
        let requests = decode_requests(&frame(&all(&mut out)), LinkId(1), there).unwrap();
        requests[0].deadline - there
    };
    let millis = Duration::from_millis;
    assert_eq!(remaining(NOW + millis(1500)), millis(1500));
    assert_eq!(remaining(NOW + Duration::from_nanos(1)), millis(1), "it has not passed yet");
    assert_eq!(remaining(NOW), millis(0));
    assert_eq!(remaining(Duration::ZERO), millis(0), "long past is past");
    assert_eq!(remaining(Duration::MAX), millis(u32::MAX.into()), "what never ends ends late");
}

#[test]
fn requests_come_by_the_link_they_are_read_for() {
    let mut out = Outgoing::new();
    assert!(
        encode_requests(&requests(), Duration::ZERO, CLUSTER, &Limits::default(), &mut out)
            .is_empty()
    );
    for request in decode_requests(&frame(&all(&mut out)), LinkId(42), NOW).unwrap() {
        assert_eq!(request.link, LinkId(42));
    }
}

#[test]
fn a_client_cannot_propose_what_is_the_leaders_own() {
    for kind in [EntryKind::Blank, EntryKind::Membership] {
        let mut out = Outgoing::new();
        send(&[request(1, vec![1; 8]), ClientRequest { kind, ..request(2, vec![2; 8]) }], &mut out);
        let refused = decode_requests(&frame(&all(&mut out)), LinkId(1), NOW);
        assert!(
            matches!(refused, Err(WireError::Malformed { kind: Kind::Requests, .. })),
            "{kind:?}"
        );
    }
}

/// Where the bytes of a slice lie.
pub(crate) fn place(bytes: &[u8]) -> std::ops::Range<usize> {
    let start = bytes.as_ptr().addr();
    start..start + bytes.len()
}

#[test]
fn large_payloads_are_written_without_a_copy_and_small_ones_in_one_piece() {
    let mut out = Outgoing::new();
    let large = Bytes::from(vec![7; Outgoing::SHARED_BYTES + 3]);
    let small: Vec<_> = (0..100).map(|id| request(id, vec![1; 100])).collect();
    send(&small, &mut out);
    assert_eq!(out.chunks().len(), 1);
    out.clear();
    send(&[request(1, vec![1; 9]), request(2, large.clone()), request(3, vec![3; 9])], &mut out);
    send(&[request(4, vec![1; 9])], &mut out);
    let chunks = out.chunks();
    assert_eq!(chunks.len(), 3, "what is before, the payload, what is behind");
    assert_eq!(place(&chunks[1]), place(&large));
    assert_eq!(frames(&all(&mut out)).len(), 2);
}

#[test]
fn payloads_of_appends_share_the_frame_and_are_aligned() {
    let list: Vec<_> = (1..50)
        .map(|index| {
            entry(1, index, EntryKind::Plain, vec![1; 7 * usize::try_from(index).unwrap()])
        })
        .collect();
    let append = AppendEntries {
        term: Term(1),
        prev: LogId::ZERO,
        commit: Index(0),
        round: 0,
        entries: Entries::from(list),
    };
    let mut out = Outgoing::new();
    let envelope = peer(Message::AppendEntries(append));
    encode_peer(&envelope, CLUSTER, &Limits::default(), &mut out).unwrap();
    let read = decode_peer(&frame(&all(&mut out))).unwrap();
    let Message::AppendEntries(append) = read.message else { panic!("an append was sent") };
    let mut end = None;
    for entry in append.entries.iter() {
        let place = place(entry.payload);
        assert!(place.start.is_multiple_of(16));
        assert!(end.is_none_or(|end| place.start - end < 16), "payloads lie one behind the other");
        end = Some(place.end);
    }
}

/// Else one request that is kept keeps the memory of a thousand that were refused. Small ones are copied when
/// they are proposed.
#[test]
fn large_payloads_of_requests_have_memory_of_their_own_unless_they_are_most_of_the_frame() {
    // Whoever shares memory with the frame shares it with whoever read the frame before.
    let shared = |sent: &[ClientRequest]| {
        let mut out = Outgoing::new();
        send(sent, &mut out);
        let frame = frame(&all(&mut out));
        let read = || decode_requests(&frame, LinkId(1), NOW).unwrap();
        let (first, second) = (read(), read());
        for (sent, read) in sent.iter().zip(&first) {
            assert_eq!(sent.payload, read.payload);
            assert!(place(&read.payload).start.is_multiple_of(16));
        }
        let pairs = first.iter().zip(&second);
        pairs.map(|(a, b)| place(&a.payload) == place(&b.payload)).collect::<Vec<_>>()
    };
    for size in [1, 16, 545, EntriesBuilder::SHARED_BYTES - 1, EntriesBuilder::SHARED_BYTES, 9000] {
        let sent: Vec<_> = (0..4_u8).map(|id| request(id.into(), vec![id; size])).collect();
        assert_eq!(shared(&sent), [size < EntriesBuilder::SHARED_BYTES; 4], "{size} bytes");
    }
    assert_eq!(shared(&[request(1, vec![1; 100_000]), request(2, vec![2; 5000])]), [true, false]);
}

#[test]
fn hints_of_a_frame_share_one_membership() {
    let members = Some(Arc::new(membership()));
    let hint = || LeaderHint { leader: None, members: members.clone() };
    let list: Vec<_> =
        (0..500_u64).map(|id| (id, Reply::Rejected(RejectReason::NotLeader(hint())))).collect();
    let mut out = Outgoing::new();
    let each = list.iter().map(|(id, reply)| (*id, reply));
    assert!(encode_replies(each, CLUSTER, &Limits::default(), &mut out).is_empty());
    let bytes = all(&mut out);
    assert!(bytes.len() < 500 * 40, "{} bytes", bytes.len());
    let read = decode_replies(&frame(&bytes)).unwrap();
    assert_eq!(read, list);
    let membership_of = |at: usize| match &read[at].1 {
        Reply::Rejected(RejectReason::NotLeader(hint)) => hint.members.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&membership_of(0), &membership_of(499)));
}

#[test]
fn a_membership_that_nobody_can_read_is_no_reason_to_lose_the_reply() {
    let hint = LeaderHint { leader: None, members: Some(Arc::new(Membership::default())) };
    let reply = Reply::Rejected(RejectReason::NotLeader(hint));
    let mut out = Outgoing::new();
    assert!(encode_replies([(1, &reply)], CLUSTER, &Limits::default(), &mut out).is_empty());
    let expected = Reply::Rejected(RejectReason::NotLeader(LeaderHint::default()));
    assert_eq!(decode_replies(&frame(&all(&mut out))).unwrap(), [(1, expected)]);
}

#[test]
fn replies_are_cut_into_frames_and_keep_their_hints_and_their_order() {
    let mut list = Vec::new();
    for round in 0..200 {
        list.extend(replies().into_iter().map(|(id, reply)| (id + round * 1000, reply)));
    }
    let mut out = Outgoing::new();
    let each = list.iter().map(|(id, reply)| (*id, reply));
    assert!(encode_replies(each, CLUSTER, &Limits::default(), &mut out).is_empty());
    let frames = frames(&all(&mut out));
    assert!(frames.len() > 3);
    let read: Vec<_> = frames.iter().flat_map(|frame| decode_replies(frame).unwrap()).collect();
    // Each round has a membership of its own, of which a frame names four at most.
    let told = |reply: &Reply| match reply {
        Reply::Rejected(RejectReason::NotLeader(hint)) => {
            Reply::Rejected(RejectReason::NotLeader(LeaderHint {
                leader: hint.leader,
                members: None,
            }))
        }
        other => other.clone(),
    };
    let told_of = |list: &[(u64, Reply)]| {
        list.iter().map(|(id, reply)| (*id, told(reply))).collect::<Vec<_>>()
    };
    assert_eq!(told_of(&read), told_of(&list));
}

#[test]
fn a_reply_that_is_too_large_is_named_and_those_around_it_are_sent() {
    let limit = Limits::default().max_reply_bytes();
    let list = [
        (1, Reply::SessionDone),
        (2, Reply::Applied(vec![0; limit + 1].into())),
        (3, Reply::Applied(vec![0; limit].into())),
    ];
    let mut out = Outgoing::new();
    let each = list.iter().map(|(id, reply)| (*id, reply));
    assert_eq!(encode_replies(each, CLUSTER, &Limits::default(), &mut out), [2]);
    let ids = frames(&all(&mut out))
        .iter()
        .flat_map(|frame| decode_replies(frame).unwrap())
        .map(|(id, _)| id)
        .collect::<Vec<_>>();
    assert_eq!(ids, [1, 3]);
}

#[test]
fn an_append_beyond_the_limits_is_an_error_and_leaves_nothing_behind() {
    let append = |bytes: usize| AppendEntries {
        term: Term(1),
        prev: LogId::ZERO,
        commit: Index(0),
        round: 0,
        entries: Entries::from(vec![entry(1, 1, EntryKind::Plain, vec![0; bytes])]),
    };
    let limits = Limits::default();
    let mut out = Outgoing::new();
    let mut send = |bytes| {
        encode_peer(&peer(Message::AppendEntries(append(bytes))), CLUSTER, &limits, &mut out)
    };
    assert_eq!(send(limits.max_entry_bytes()), Ok(()));
    assert!(matches!(
        send(2 << 20),
        Err(WireError::TooLarge { kind: Kind::Append, part: "payload", .. })
    ));
    assert_eq!(send(5), Ok(()));
    assert_eq!(frames(&all(&mut out)).len(), 2);
}
