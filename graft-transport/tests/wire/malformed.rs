//! Frames whose header is right and whose rest is not.

use bytes::Bytes;
use graft_transport::wire::v1::{Frame, FrameReader, Header, Kind, Limits, WireError};

use crate::{
    samples::{CLUSTER, fixed, frame, written},
    targets::{self, Value},
};

/// The frame with its payloads made this much longer or shorter, and a header that says so.
fn resized(bytes: &[u8], by: i32) -> Option<Frame> {
    let header = Header::decode(bytes[..Header::BYTES].try_into().unwrap()).unwrap();
    let payload_bytes = header.payload_bytes.checked_add_signed(by)?;
    let header = Header { payload_bytes, ..header };
    header.check(&Limits::default()).ok()?;
    let mut changed = header.encode().to_vec();
    changed.extend_from_slice(&bytes[Header::BYTES..]);
    changed.resize(Header::BYTES + header.rest(), 0);
    Some(frame(&changed))
}

#[test]
fn payloads_must_be_as_long_as_the_body_says_to_the_byte() {
    let mut tried = 0;
    for (name, value) in fixed() {
        let bytes = written(&value);
        for by in [-16, 16, 32] {
            if let Some(frame) = resized(&bytes, by) {
                let refused = Value::decode(&frame);
                assert!(
                    matches!(refused, Err(WireError::Malformed { what, .. }) if what.contains("payloads")),
                    "{name} resized by {by}: {refused:?}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 10, "frames with payloads must be among the samples");
}

/// The same frame with other bytes behind the header.
fn with_rest(header: &[u8], rest: &[u8]) -> Frame {
    let mut reader = FrameReader::new(Limits::default(), Some(CLUSTER));
    reader.feed(Bytes::copy_from_slice(header));
    reader.feed(Bytes::copy_from_slice(rest));
    reader.next().unwrap().unwrap()
}

#[test]
fn a_body_with_any_byte_changed_is_refused_or_a_value_and_never_a_panic() {
    let (mut refused, mut values) = (0_u32, 0_u32);
    for (_, value) in fixed() {
        let bytes = written(&value);
        let (head, rest) = bytes.split_at(Header::BYTES);
        let body = Header::decode(head.try_into().unwrap()).unwrap().body_bytes as usize;
        for at in 0..body {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = rest.to_vec();
                changed[at] ^= change;
                match Value::decode(&with_rest(head, &changed)) {
                    Ok(_) => values += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 1000 && values > 1000, "{refused} refused, {values} values");
}

#[test]
fn a_body_of_any_length_is_refused_or_a_value_and_never_a_panic() {
    for (_, value) in fixed() {
        let bytes = written(&value);
        let header = Header::decode(bytes[..Header::BYTES].try_into().unwrap()).unwrap();
        let body = &bytes[Header::BYTES..Header::BYTES + header.body_bytes as usize];
        for length in 0..body.len() {
            for part in [&body[..length], &body[body.len() - length..]] {
                let mut input = u16::try_from(length).unwrap().to_le_bytes().to_vec();
                input.extend_from_slice(part);
                targets::body(header.kind, &input);
            }
        }
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..20_000 {
        let length = random.usize(0..300);
        let mut input = vec![0; length];
        random.fill(&mut input);
        let kind = Kind::ALL[round % Kind::ALL.len()];
        targets::body(kind, &input);
        targets::stream(&input);
    }
}

#[test]
fn a_frame_is_read_as_what_its_kind_says_and_nothing_else() {
    use graft_core::LinkId;
    use graft_transport::wire::v1::{
        decode_hello, decode_members, decode_peer, decode_refusal, decode_replies, decode_requests,
    };
    for (name, value) in fixed() {
        let frame = frame(&written(&value));
        let read_as = [
            decode_hello(&frame).is_ok(),
            decode_refusal(&frame).is_ok(),
            decode_peer(&frame).is_ok(),
            decode_requests(&frame, LinkId(1), std::time::Duration::ZERO).is_ok(),
            decode_replies(&frame).is_ok(),
            decode_members(&frame).is_ok(),
        ];
        assert_eq!(read_as.iter().filter(|read| **read).count(), 1, "{name}: {read_as:?}");
    }
}
