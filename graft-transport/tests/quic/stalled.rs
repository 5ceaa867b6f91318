//! A peer that takes nothing any more holds a bounded amount of memory, and no vote behind it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use graft_core::{Class, Envelope, NodeId, Transport};
use graft_transport::wire::v1::{FrameReader, Kind, Limits, decode_peer};
use tokio::time::timeout;

use crate::{
    common::{PATIENCE, Server, append, config, until},
    raw::{Raw, server_hello},
};

/// Bytes that know how many of their kind are still held.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl Counted {
    fn bytes(length: usize, alive: &Arc<AtomicUsize>) -> Bytes {
        alive.fetch_add(length, Ordering::Relaxed);
        Bytes::from_owner(Self(vec![0; length], Arc::clone(alive)))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_peer_that_reads_no_appends_still_gets_its_heartbeats() {
    const PIECE: usize = 256 << 10;
    let server = Server::start("a");
    let node = NodeId::of_name("b");
    let mut raw = Raw::server("b", server.network.local_addr()).await;
    raw.hello(&server_hello("b")).await;
    until(&server.network, "it is taken in", |stats| stats.peers == 1).await;
    let mut control = raw.connection.accept_uni().await.unwrap();

    let alive = Arc::new(AtomicUsize::new(0));
    for _ in 0..200 {
        let append = append(server.node(), node, Counted::bytes(PIECE, &alive));
        server.transport.send(Envelope::Peer(append));
    }
    let dropped = server.network.stats().dropped[Class::Append as usize];
    assert!(dropped > 100, "what does not fit is dropped: {dropped} of 200");
    // Its queue, and a stream's window.
    let bound = (8 << 20) + (4 << 20) + PIECE;
    let held = alive.load(Ordering::Relaxed);
    assert!(held <= bound, "{held} bytes are held");

    // The first stream is read, the others are not: a hello, then the heartbeats.
    let mut frames = FrameReader::new(Limits::default(), Some(config("a").cluster));
    for number in 1..=20 {
        server.send(node, number);
        while last_heartbeat(&mut frames) != Some(number) {
            let chunk = timeout(PATIENCE, control.read_chunk(usize::MAX, true)).await;
            frames.feed(chunk.expect("heartbeats go on").unwrap().unwrap().bytes);
        }
    }
    let held = alive.load(Ordering::Relaxed);
    assert!(held > 0 && held <= bound, "{held} bytes are held");
    drop((raw, control));
    until(&server.network, "it is gone", |stats| stats.peers == 0).await;
    let freed = || (alive.load(Ordering::Relaxed) == 0).then_some(());
    crate::common::eventually("all is let go", freed).await;
}

fn last_heartbeat(frames: &mut FrameReader) -> Option<u64> {
    let mut last = None;
    while let Some(frame) = frames.next().unwrap() {
        if frame.kind() == Kind::Message {
            last = Some(decode_peer(&frame).unwrap().message.term().0);
        }
    }
    last
}
