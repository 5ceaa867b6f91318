//! What the fuzz targets do with their input. An ordinary test of `graft-transport` does the same with
//! every file of the saved corpus.

use std::time::Duration;

use bytes::Bytes;
use graft_core::{ClientRequest, ClusterId, GroupId, LinkId, PeerEnvelope, Reply};
use graft_transport::wire::v1::{
    Frame, FrameReader, Header, Hello, Kind, Limits, Members, Outgoing, Refusal, WireError,
    decode_hello, decode_members, decode_peer, decode_refusal, decode_replies, decode_requests,
    encode_hello, encode_members, encode_peer, encode_refusal, encode_replies, encode_requests,
};

/// What a frame can carry.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Hello(Hello),
    Refusal(Refusal),
    Peer(PeerEnvelope),
    Requests(Vec<ClientRequest>),
    Replies(Vec<(u64, Reply)>),
    Members(Members),
}

impl Value {
    /// Writes the value. Requests are written at time zero: their deadlines are what remains.
    pub fn encode(&self, cluster: ClusterId, out: &mut Outgoing) {
        let limits = Limits::default();
        match self {
            Self::Hello(hello) => encode_hello(hello, out).unwrap(),
            Self::Refusal(refusal) => encode_refusal(refusal, cluster, out).unwrap(),
            Self::Peer(envelope) => encode_peer(envelope, cluster, &limits, out).unwrap(),
            Self::Members(members) => encode_members(members, cluster, out).unwrap(),
            Self::Requests(requests) => {
                let refused = encode_requests(requests, Duration::ZERO, cluster, &limits, out);
                assert!(refused.is_empty());
            }
            Self::Replies(replies) => {
                let replies = replies.iter().map(|(request_id, reply)| (*request_id, reply));
                assert!(encode_replies(replies, cluster, &limits, out).is_empty());
            }
        }
    }

    /// Reads the value in a frame of whatever kind.
    pub fn decode(frame: &Frame) -> Result<Self, WireError> {
        Ok(match frame.kind() {
            Kind::Hello => Self::Hello(decode_hello(frame)?),
            Kind::Refusal => Self::Refusal(decode_refusal(frame)?),
            Kind::Members => Self::Members(decode_members(frame)?),
            Kind::Replies => Self::Replies(decode_replies(frame)?),
            Kind::Requests => {
                let requests = decode_requests(frame, LinkId(7), Duration::ZERO)?;
                let sent = requests.into_iter().map(|request| ClientRequest {
                    request_id: request.request_id,
                    deadline: request.deadline,
                    kind: request.kind,
                    payload: request.payload,
                });
                Self::Requests(sent.collect())
            }
            _ => Self::Peer(decode_peer(frame)?),
        })
    }
}

/// A stream that brings these bytes: the first says into how large chunks the rest is cut. Each frame of
/// it is read, and whatever has a meaning is written and read again, to the same meaning.
pub fn stream(input: &[u8]) {
    let Some((chunk, rest)) = input.split_first() else { return };
    let mut reader = FrameReader::new(Limits::default(), None);
    for chunk in rest.chunks(usize::from(*chunk) + 1) {
        reader.feed(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next() {
                Ok(Some(frame)) => check(&frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next(), Err(error), "an error must stay");
                    return;
                }
            }
        }
    }
}

/// A frame of `kind` with a right header: the first two bytes are the length of the body, which follows;
/// all the rest are payloads.
pub fn body(kind: Kind, input: &[u8]) {
    let Some((length, rest)) = input.split_first_chunk() else { return };
    let body = rest.len().min(u16::from_le_bytes(*length).into());
    let (body, payload) = rest.split_at(body);
    let header = Header {
        kind,
        cluster: ClusterId(1),
        group: GroupId(0),
        body_bytes: u32::try_from(body.len()).unwrap(),
        payload_bytes: u32::try_from(payload.len().next_multiple_of(16)).unwrap(),
    };
    let mut bytes = header.encode().to_vec();
    for part in [body, payload] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
    }
    let mut reader = FrameReader::new(Limits::default(), None);
    reader.feed(bytes.into());
    if let Ok(Some(frame)) = reader.next() {
        check(&frame);
    }
}

/// What a frame means is the same after it was written and read again.
fn check(frame: &Frame) {
    let Ok(value) = Value::decode(frame) else { return };
    let mut out = Outgoing::new();
    value.encode(frame.header().cluster, &mut out);
    let mut reader = FrameReader::new(Limits::default(), Some(frame.header().cluster));
    reader.feed(out.chunks().concat().into());
    let mut again = Vec::new();
    while let Some(frame) = reader.next().unwrap() {
        again.push(Value::decode(&frame).unwrap());
    }
    reader.finish().unwrap();
    match value {
        // A frame of another sender's may hold more or fewer than this build puts into one.
        Value::Requests(requests) => {
            let parts = again.into_iter().flat_map(|part| match part {
                Value::Requests(part) => part,
                other => panic!("{other:?} instead of requests"),
            });
            assert_eq!(parts.collect::<Vec<_>>(), requests);
        }
        Value::Replies(replies) => {
            let parts = again.into_iter().flat_map(|part| match part {
                Value::Replies(part) => part,
                other => panic!("{other:?} instead of replies"),
            });
            assert_eq!(parts.collect::<Vec<_>>(), replies);
        }
        value => assert_eq!(again, [value]),
    }
}
