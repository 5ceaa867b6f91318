//! The peers that are connected, and what waits for each.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use graft_core::{Class, NodeId, PeerEnvelope};
use quinn::{Connection, VarInt};
use tokio::sync::{Notify, watch};

use super::{
    config::Bounds,
    queue::{Queue, Refused},
    stats::Counters,
    stream,
    tls::CertifiedPeer,
};
use crate::wire::v1::{Hello, Refusal, RefusalCode};

/// The classes that travel between peers, each in a stream of its own, in the order in which these are
/// opened.
pub(super) const CLASSES: [Class; 3] = [Class::Control, Class::Append, Class::Snapshot];

/// One connection with a peer, from the agreement of both sides to its end.
#[derive(Debug)]
pub(super) struct PeerLine {
    pub(super) connection: Connection,
    pub(super) certified: CertifiedPeer,
    pub(super) hello: Hello,
    pub(super) queues: [Queue<PeerEnvelope>; CLASSES.len()],
    /// Told once it is to end in order.
    pub(super) leaving: Notify,
}

impl PeerLine {
    pub(super) fn new(
        connection: Connection,
        certified: CertifiedPeer,
        hello: Hello,
        bounds: &Bounds,
    ) -> Self {
        let limits = [bounds.control_bytes, bounds.append_bytes, bounds.snapshot_bytes];
        let queues = limits.map(Queue::new);
        Self { connection, certified, hello, queues, leaving: Notify::new() }
    }

    /// Lets nothing more in; what waits is still sent.
    fn leave(&self) {
        self.queues.iter().for_each(Queue::finish);
        self.leaving.notify_one();
    }

    fn close(&self, refusal: &Refusal) {
        self.queues.iter().for_each(Queue::close);
        stream::close(&self.connection, refusal);
    }
}

/// All peers that are connected: one line each.
#[derive(Debug)]
pub(super) struct Peers {
    lines: RwLock<Lines>,
    /// How often somebody came or went.
    pub(super) changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    by_node: BTreeMap<NodeId, Arc<PeerLine>>,
    closed: bool,
}

impl Default for Peers {
    fn default() -> Self {
        Self { lines: RwLock::default(), changes: watch::Sender::new(0) }
    }
}

impl Peers {
    /// Puts a message into the queue of its receiver and class, or drops and counts it.
    pub(super) fn send(&self, envelope: PeerEnvelope, counters: &Counters) {
        let class = envelope.message.class();
        let size = envelope.message.size();
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let line = lines.by_node.get(&envelope.to);
        let outcome = line
            .zip(CLASSES.iter().position(|known| *known == class))
            .map_or(Err(Refused::Closed), |(line, at)| line.queues[at].push(envelope, size));
        drop(lines);
        match outcome {
            Ok(()) => {}
            Err(Refused::Full) => counters.dropped[class as usize].add(1),
            Err(Refused::Closed) => counters.unreachable.add(1),
        }
    }

    /// Takes in a new line. It takes the place of an earlier one with the same peer: who connects again has
    /// lost the earlier one, even where this side has not noticed yet.
    pub(super) fn join(&self, line: &Arc<PeerLine>, bound: usize) -> Result<(), Refusal> {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if lines.closed {
            let text = "this server is stopping".to_owned();
            return Err(Refusal { code: RefusalCode::Closing, text });
        }
        let node = line.hello.node;
        if lines.by_node.len() >= bound && !lines.by_node.contains_key(&node) {
            let text = format!("{bound} peers are connected here, which is the limit");
            return Err(Refusal { code: RefusalCode::TooMany, text });
        }
        let earlier = lines.by_node.insert(node, Arc::clone(line));
        drop(lines);
        if let Some(earlier) = earlier {
            let text = "a newer connection took its place".to_owned();
            earlier.close(&Refusal { code: RefusalCode::Replaced, text });
        }
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Forgets a line that has ended. Another one of the same peer stays.
    pub(super) fn leave(&self, line: &Arc<PeerLine>) {
        let node = line.hello.node;
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        let is_present = lines.by_node.get(&node).is_some_and(|found| Arc::ptr_eq(found, line));
        let gone = is_present.then(|| lines.by_node.remove(&node));
        drop(lines);
        drop(gone);
        line.queues.iter().for_each(Queue::close);
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.by_node.contains_key(&node)
    }

    /// The lines of this moment.
    pub(super) fn all(&self) -> Vec<Arc<PeerLine>> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.by_node.values().map(Arc::clone).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).by_node.len()
    }

    /// Lets nobody in any more, and those who are here leave in order.
    pub(super) fn close(&self) {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.closed = true;
        lines.by_node.values().for_each(|line| line.leave());
    }

    /// Ends at once, and without a word for what waits, the lines whose certificates are not valid any more.
    pub(super) fn close_where(&self, is_over: impl Fn(&CertifiedPeer) -> Option<String>) {
        for line in self.all() {
            if let Some(text) = is_over(&line.certified) {
                line.close(&Refusal { code: RefusalCode::Revoked, text });
            }
        }
    }
}

/// The end of a connection that both sides wanted.
pub(super) const DONE: VarInt = VarInt::from_u32(0);
