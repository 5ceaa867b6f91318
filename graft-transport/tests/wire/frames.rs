//! Cutting a stream into frames.

use bytes::Bytes;
use graft_core::{ClusterId, Message, Term};
use graft_transport::wire::v1::{
    FrameReader, Header, Kind, Kinds, Limits, Outgoing, Role, WireError, archive_format,
    encode_hello, encode_peer,
};

use crate::{
    samples::{CLUSTER, all, fixed, frames, hello, peer, reader, written},
    targets::Value,
};

#[test]
fn frames_are_the_same_however_the_stream_is_cut() {
    let values: Vec<Value> = fixed().into_iter().map(|(_, value)| value).collect();
    let mut out = Outgoing::new();
    for value in &values {
        value.encode(CLUSTER, &mut out);
    }
    let bytes = all(&mut out);
    let whole = frames(&bytes);
    assert_eq!(whole.len(), values.len());
    for size in [1, 2, 15, 16, 47, 48, 49, 64, 1000, 1200, 5000, bytes.len()] {
        let mut reader = reader();
        let mut cut = Vec::new();
        for chunk in bytes.chunks(size) {
            reader.feed(Bytes::copy_from_slice(chunk));
            cut.extend(std::iter::from_fn(|| reader.next().unwrap()));
        }
        reader.finish().unwrap();
        assert!(cut == whole, "chunks of {size} bytes give other frames");
    }
    // Chunks may also be fed before the first frame is asked for.
    let mut reader = reader();
    bytes.chunks(100).for_each(|chunk| reader.feed(Bytes::copy_from_slice(chunk)));
    assert!(
        whole.iter().eq(std::iter::from_fn(|| reader.next().unwrap()).collect::<Vec<_>>().iter())
    );
}

#[test]
fn frames_and_their_parts_lie_at_multiples_of_16() {
    for (name, value) in fixed() {
        assert!(written(&value).len().is_multiple_of(16), "{name}");
    }
}

#[test]
fn a_stream_may_end_between_frames_and_nowhere_else() {
    for (name, value) in fixed() {
        let bytes = written(&value);
        for length in 0..=bytes.len() {
            let mut reader = reader();
            reader.feed(Bytes::copy_from_slice(&bytes[..length]));
            let frame = reader.next().unwrap();
            assert_eq!(frame.is_some(), length == bytes.len(), "{name} cut at {length}");
            let ended = match length {
                0 => Ok(()),
                _ if length == bytes.len() => Ok(()),
                // The rest of a frame is known once its header is.
                _ if length < Header::BYTES => {
                    Err(WireError::Truncated { missing: Header::BYTES - length })
                }
                _ => Err(WireError::Truncated { missing: bytes.len() - length }),
            };
            assert_eq!(reader.finish(), ended, "{name} cut at {length}");
        }
    }
}

#[test]
fn a_header_with_any_bit_turned_around_is_refused() {
    for (name, value) in fixed() {
        let header = written(&value)[..Header::BYTES].to_vec();
        for bit in 0..Header::BYTES * 8 {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut reader = reader();
            reader.feed(flipped.into());
            let error = reader.next().expect_err(&name);
            assert_eq!(reader.next(), Err(error), "no frame comes after an error");
        }
    }
}

/// A header that was written to say this, with a checksum that is right.
fn forged(change: impl FnOnce(&mut [u8; Header::BYTES])) -> Result<(), WireError> {
    let (kind, group) = (Kind::Requests, graft_core::GroupId(0));
    let header = Header { kind, cluster: CLUSTER, group, body_bytes: 64, payload_bytes: 32 };
    let mut bytes = header.encode();
    change(&mut bytes);
    let checksum = crc32c::crc32c(&bytes[..44]);
    bytes[44..].copy_from_slice(&checksum.to_le_bytes());
    let mut reader = reader();
    reader.feed(bytes.to_vec().into());
    reader.next().map(|frame| assert_eq!(frame, None))
}

#[test]
fn each_field_of_a_header_is_checked() {
    assert_eq!(forged(|_| ()), Ok(()));
    let found = *b"HTTP";
    assert_eq!(
        forged(|bytes| bytes[..4].copy_from_slice(b"HTTP")),
        Err(WireError::NotGraft { found })
    );
    let version = WireError::UnknownVersion { found: 2, known: 1 };
    assert_eq!(forged(|bytes| bytes[4] = 2), Err(version));
    for found in [0, 10, 255] {
        assert_eq!(forged(|bytes| bytes[5] = found), Err(WireError::UnknownKind { found }));
    }
    for reserved in [6, 7, 36, 43] {
        assert_eq!(forged(|bytes| bytes[reserved] = 1), Err(WireError::Reserved));
    }
    let expected = CLUSTER;
    let found = ClusterId(CLUSTER.0 ^ 1);
    assert_eq!(forged(|bytes| bytes[8] ^= 1), Err(WireError::WrongCluster { found, expected }));
    let own = archive_format();
    let other = WireError::OtherFormat { found: own ^ 1, own };
    assert_eq!(forged(|bytes| bytes[32] ^= 1), Err(other));
    let kind = Kind::Requests;
    let what = "it has no body";
    assert_eq!(forged(|bytes| bytes[24] = 0), Err(WireError::Malformed { kind, what }));
    let what = "its payloads are not padded";
    assert_eq!(forged(|bytes| bytes[28] = 33), Err(WireError::Malformed { kind, what }));
    for (at, part) in [(24, "body"), (28, "payload")] {
        let refused = forged(|bytes| bytes[at..at + 4].fill(0xff));
        assert!(
            matches!(refused, Err(WireError::TooLarge { part: found, bytes: 0xffff_ffff, .. }) if found == part),
            "{refused:?}"
        );
    }
}

#[test]
fn every_kind_is_refused_beyond_its_own_limits_and_taken_in_within_them() {
    let limits = Limits::default();
    for kind in Kind::ALL {
        let group = graft_core::GroupId(0);
        let (body_bytes, payload_bytes) = (limits.body(kind), limits.payload(kind));
        let largest = Header { kind, cluster: CLUSTER, group, body_bytes, payload_bytes };
        assert_eq!(largest.check(&limits), Ok(()));
        assert!(Header::BYTES + largest.rest() <= limits.max_frame_bytes());
        let body = Header { body_bytes: body_bytes + 1, ..largest };
        assert!(matches!(body.check(&limits), Err(WireError::TooLarge { part: "body", .. })));
        let payload = Header { payload_bytes: payload_bytes + 16, ..largest };
        assert!(matches!(payload.check(&limits), Err(WireError::TooLarge { part: "payload", .. })));
    }
    // What carries no data has no room for any.
    for kind in [Kind::Hello, Kind::Refusal, Kind::Message, Kind::Birth, Kind::Members] {
        assert_eq!(limits.payload(kind), 0);
    }
}

#[test]
fn kinds_that_do_not_belong_on_a_stream_are_refused_by_their_header() {
    for (name, value) in fixed() {
        let bytes = Bytes::from(written(&value));
        let kind = Kind::from_u8(bytes[5]).unwrap();
        for kinds in [Kinds::HANDSHAKE, Kinds::PEER, Kinds::FROM_CLIENT, Kinds::TO_CLIENT] {
            let mut reader = reader();
            reader.expect(kinds);
            reader.feed(bytes.slice(..Header::BYTES));
            let expected =
                if kinds.contains(kind) { Ok(None) } else { Err(WireError::Unexpected { kind }) };
            assert_eq!(reader.next(), expected, "{name} where {kinds:?} are expected");
        }
    }
    assert!(!Kinds::FROM_CLIENT.contains(Kind::Append), "a client is no peer");
}

#[test]
fn what_is_expected_changes_between_two_frames_of_one_chunk() {
    let mut out = Outgoing::new();
    encode_hello(&hello(Role::Server), &mut out).unwrap();
    let message = peer(Message::TimeoutNow { term: Term(1) });
    encode_peer(&message, ClusterId(99), &Limits::default(), &mut out).unwrap();
    let mut reader = FrameReader::new(Limits::default(), None);
    reader.expect(Kinds::HANDSHAKE);
    reader.feed(all(&mut out).into());
    assert_eq!(reader.next().unwrap().unwrap().kind(), Kind::Hello);
    reader.expect(Kinds::PEER);
    reader.set_cluster(CLUSTER);
    let (found, expected) = (ClusterId(99), CLUSTER);
    assert_eq!(reader.next(), Err(WireError::WrongCluster { found, expected }));
}

#[test]
fn a_stranger_is_heard_out_and_told_why() {
    let mut reader = FrameReader::new(Limits::default(), Some(ClusterId(99)));
    for (name, value) in fixed() {
        if matches!(value, Value::Hello(_) | Value::Refusal(_)) {
            reader.feed(written(&value).into());
            let frame = reader.next().unwrap().unwrap();
            assert_eq!(frame.header().cluster, CLUSTER, "{name}");
        }
    }
}
