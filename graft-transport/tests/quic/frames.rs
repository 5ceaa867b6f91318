//! Bytes that are no frames, and frames where they do not belong: the connection ends with a refusal that says which
//! of the two it was, each is counted, the same is said once, and nobody else is disturbed.

use std::time::Duration;

use graft_core::{ClientRequest, ClusterId, EntryKind, GroupId, NodeId, PeerEnvelope};
use graft_transport::wire::v1::{Header, Kind, Limits, RefusalCode, encode_peer, encode_requests};
use quinn::SendStream;

use crate::{
    common::{Server, append, config, heartbeat, until},
    log::Log,
    raw::{Raw, client_hello, frames, server_hello},
    security::serves,
};

pub(crate) fn header(kind: Kind) -> Header {
    let cluster = config("a").cluster;
    Header { kind, cluster, group: GroupId(0), body_bytes: 16, payload_bytes: 0 }
}

fn from_peer(envelope: &PeerEnvelope) -> Vec<u8> {
    let cluster = config("a").cluster;
    frames(|outgoing| encode_peer(envelope, cluster, &Limits::default(), outgoing).unwrap())
}

fn request(kind: EntryKind) -> Vec<u8> {
    let request = ClientRequest {
        request_id: 1,
        deadline: Duration::from_secs(1),
        kind,
        payload: b"mine".as_slice().into(),
    };
    let cluster = config("a").cluster;
    frames(|outgoing| {
        encode_requests([&request], Duration::ZERO, cluster, &Limits::default(), outgoing);
    })
}

type Case = (&'static str, Vec<u8>, RefusalCode);

/// What is no frame of this kind, although it looks like one at first.
fn no_frames(kind: Kind) -> Vec<Case> {
    let good = header(kind).encode();
    let mut flipped = good;
    flipped[24] ^= 1;
    let mut version = good;
    version[4] = 9;
    // The checksum is right, the kind is none.
    let mut unknown = good;
    unknown[5] = 200;
    let checksum = crc32c::crc32c(&unknown[..44]);
    unknown[44..].copy_from_slice(&checksum.to_le_bytes());
    let huge = Header { body_bytes: u32::MAX, ..header(kind) }.encode();
    let payload = Header { payload_bytes: 1 << 31, ..header(kind) }.encode();
    let stranger = Header { cluster: ClusterId(5), ..header(kind) }.encode();
    let empty = [&good[..], &[0xff; 16]].concat();
    vec![
        ("garbage", vec![0x5a; 4096], RefusalCode::Malformed),
        ("a bad checksum", flipped.to_vec(), RefusalCode::Malformed),
        ("an unknown version", version.to_vec(), RefusalCode::UnknownVersion),
        ("an unknown kind", unknown.to_vec(), RefusalCode::UnknownKind),
        ("an oversized body", huge.to_vec(), RefusalCode::TooLarge),
        ("an oversized payload", payload.to_vec(), RefusalCode::TooLarge),
        ("another cluster's frame", stranger.to_vec(), RefusalCode::WrongCluster),
        ("a body that is no archive", empty, RefusalCode::Malformed),
    ]
}

/// The causes of these refusals, and how often each is among them.
fn causes(cases: &[Case]) -> Vec<(String, u64)> {
    let mut counted = std::collections::BTreeMap::new();
    for (_, _, code) in cases {
        *counted.entry(code.to_string()).or_default() += 1;
    }
    counted.into_iter().collect()
}

/// Each is counted, and said once for all.
async fn are_counted_and_said_once(server: &Server, log: &Log, cases: &[Case], who: &str) {
    let stats = until(&server.network, "all are counted", |stats| {
        stats.refused.values().sum::<u64>() == cases.len() as u64
    });
    let refused = stats.await.refused;
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), causes(cases));
    for (cause, _) in causes(cases) {
        let lines = log.lines_with(&[who, &cause]);
        assert_eq!(lines.len(), 1, "{cause} is said once: {lines:?}");
        assert!(lines[0].contains("127.0.0.1"), "it says from where: {lines:?}");
    }
}

#[tokio::test]
async fn a_client_that_sends_what_no_client_may_is_refused() {
    let log = Log::begin();
    let mut server = Server::start("a");
    let mut cases = no_frames(Kind::Requests);
    let peers = from_peer(&heartbeat(NodeId::of_name("b"), server.node(), 1));
    cases.push(("a peer's frame", peers, RefusalCode::UnknownKind));
    let appends = from_peer(&append(NodeId::of_name("b"), server.node(), b"x".as_slice().into()));
    cases.push(("a peer's entries", appends, RefusalCode::UnknownKind));
    let membership = request(EntryKind::Membership);
    cases.push(("an entry that is not a client's", membership, RefusalCode::Malformed));
    for (number, (what, bytes, code)) in cases.iter().enumerate() {
        println!("{what}");
        let mut raw = Raw::client(server.network.local_addr()).await;
        let mut hello = client_hello();
        // Whatever it calls itself, it has one certificate.
        hello.name = format!("mallory {number}");
        raw.hello(&hello).await;
        raw.write(bytes).await;
        raw.ends_with(*code).await;
    }
    are_counted_and_said_once(&server, &log, &cases, "a client is refused").await;
    let arrivals = server.take();
    assert!(arrivals.is_empty(), "nothing of it arrives: {arrivals:?}");
    serves(&mut server).await;
}

/// A peer's streams in the order in which they are opened, with the kind that each is for.
const STREAMS: [(usize, Kind); 3] = [(0, Kind::Message), (1, Kind::Append), (2, Kind::Snapshot)];

/// A peer that was taken in, with all its streams open.
async fn taken_in(server: &Server) -> (Raw, Vec<SendStream>) {
    let mut raw = Raw::server("b", server.network.local_addr()).await;
    raw.hello(&server_hello("b")).await;
    until(&server.network, "it is taken in", |stats| stats.peers == 1).await;
    let mut others = Vec::new();
    for _ in 1..STREAMS.len() {
        others.push(raw.connection.open_uni().await.unwrap());
    }
    (raw, others)
}

/// Sends each of these on stream number `at` of a peer of its own.
async fn send_each(server: &Server, at: usize, cases: &[Case]) {
    for (what, bytes, code) in cases {
        println!("{what} on stream {at}");
        let (mut raw, mut others) = taken_in(server).await;
        // A stream is there for the other side once something is written to it, in the order of opening.
        let good = from_peer(&append(NodeId::of_name("b"), server.node(), b"x".as_slice().into()));
        if at == 2 {
            others[0].write_all(&good).await.unwrap();
        }
        let stream = if at == 0 { &mut raw.send } else { &mut others[at - 1] };
        stream.write_all(bytes).await.unwrap();
        raw.ends_with(*code).await;
        until(&server.network, "it is gone", |stats| stats.peers == 0).await;
    }
}

#[tokio::test]
async fn a_peer_that_sends_what_no_peer_may_is_refused_on_each_of_its_streams() {
    let (from, a) = (NodeId::of_name("b"), NodeId::of_name("a"));
    for (at, kind) in STREAMS {
        let log = Log::begin();
        let mut server = Server::start("a");
        let mut cases = no_frames(kind);
        cases.push(("a request", request(EntryKind::Plain), RefusalCode::UnknownKind));
        if at != 1 {
            let entries = from_peer(&append(from, a, b"x".as_slice().into()));
            cases.push(("entries", entries, RefusalCode::UnknownKind));
        }
        if at == 2 {
            let heartbeat = from_peer(&heartbeat(from, a, 1));
            cases.push(("a heartbeat", heartbeat, RefusalCode::UnknownKind));
        }
        send_each(&server, at, &cases).await;
        are_counted_and_said_once(&server, &log, &cases, "a peer is refused").await;
        // What came before it on another stream may have arrived; of what was wrong nothing has.
        let arrived = server.take();
        assert!(arrived.requests.is_empty(), "{arrived:?}");
        assert!(at == 2 || arrived.peers.is_empty(), "{arrived:?}");
        serves(&mut server).await;
    }
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_is_refused() {
    let server = Server::start("a");
    let bytes = from_peer(&heartbeat(NodeId::of_name("b"), server.node(), 1));
    let (mut raw, _others) = taken_in(&server).await;
    raw.write(&bytes[..bytes.len() - 1]).await;
    raw.send.finish().unwrap();
    raw.ends_with(RefusalCode::Malformed).await;
}
