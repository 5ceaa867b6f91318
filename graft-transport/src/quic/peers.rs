//! The peers that are connected, and what waits for each.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use graft_core::{Class, Incarnation, NodeId, PeerEnvelope};
use quinn::{Connection, VarInt};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    config::{Bounds, NetworkConfig},
    queue::{Queue, Refused},
    stats::Counters,
    stream::{self, End},
    tls::CertifiedPeer,
};
use crate::wire::v1::{Hello, Refusal, RefusalCode};

/// The classes that travel between peers, each in a stream of its own, in the order in which these are
/// opened.
pub(super) const CLASSES: [Class; 3] = [Class::Control, Class::Append, Class::Snapshot];

/// How many births of one peer may be connected at a time: its own, and that of another process which uses its name.
const BIRTHS: usize = 2;

/// One connection with a peer, from the agreement of both sides to its end.
#[derive(Debug)]
pub(super) struct PeerLine {
    pub(super) connection: Connection,
    pub(super) certified: CertifiedPeer,
    pub(super) hello: Hello,
    pub(super) queues: [Queue<PeerEnvelope>; CLASSES.len()],
    /// Told once it is to end in order.
    pub(super) leaving: Notify,
    /// Whether that one of the two called which has the lower number.
    called_by_lower: bool,
    since: Instant,
}

impl PeerLine {
    pub(super) fn new(
        connection: Connection,
        certified: CertifiedPeer,
        hello: Hello,
        called_by_lower: bool,
        bounds: &Bounds,
    ) -> Self {
        let limits = [bounds.control_bytes, bounds.append_bytes, bounds.snapshot_bytes];
        let queues = limits.map(Queue::new);
        let (leaving, since) = (Notify::new(), Instant::now());
        Self { connection, certified, hello, queues, leaving, called_by_lower, since }
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

/// All peers that are connected: one line each, and one for each of two births where two processes use one name. What is
/// meant for a birth goes to that one, so neither is in the other's way.
#[derive(Debug)]
pub(super) struct Peers {
    lines: RwLock<Lines>,
    /// How often somebody came or went.
    pub(super) changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    /// Never empty, at most [`BIRTHS`], the latest last.
    by_node: BTreeMap<NodeId, Vec<Arc<PeerLine>>>,
    closed: bool,
}

impl Lines {
    /// The line to this birth of a peer; the latest where none is of it.
    fn to(&self, node: NodeId, birth: Incarnation) -> Option<&Arc<PeerLine>> {
        let lines = self.by_node.get(&node)?;
        let said = |wanted| lines.iter().find(|line| line.hello.incarnation == wanted);
        let unsaid = Incarnation(0);
        if birth == unsaid {
            // What is meant for any is for the latest: that one has not been heard yet.
            return lines.last();
        }
        // Whoever connected before its store was born could not say which birth it is.
        said(birth).or_else(|| said(unsaid)).or_else(|| lines.last())
    }

    /// Whether one who says this of itself may have a line.
    fn admit(
        &self,
        hello: &Hello,
        called_by_lower: bool,
        config: &NetworkConfig,
    ) -> Result<(), End> {
        if self.closed {
            return Err(End::Refuse(stream::closing()));
        }
        let bound = config.bounds.peers;
        let Some(of_node) = self.by_node.get(&hello.node) else {
            if self.by_node.len() < bound {
                return Ok(());
            }
            let text = format!("{bound} peers are connected here, which is the limit");
            return Err(stream::refuse(RefusalCode::TooMany, text));
        };
        let same = of_node.iter().find(|known| known.hello.incarnation == hello.incarnation);
        match same {
            Some(known) if known.called_by_lower && !called_by_lower => {
                crossed(known, hello, config)
            }
            _ => Ok(()),
        }
    }
}

/// How a line was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Joined {
    /// It is the only one of its peer.
    Alone,
    /// One with another birth is there, too.
    Beside(Incarnation),
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
        let line = lines.to(envelope.to, envelope.to_incarnation);
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

    /// The line of another process with the same birth, where both say which process they are.
    pub(super) fn other_process(&self, hello: &Hello) -> Option<Arc<PeerLine>> {
        let is_other = |known: &&Arc<PeerLine>| {
            let (own, theirs) = (known.hello.client, hello.client);
            known.hello.incarnation == hello.incarnation && own != theirs && own != 0 && theirs != 0
        };
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.by_node.get(&hello.node)?.iter().find(is_other).map(Arc::clone)
    }

    /// Whether one who says this of itself would be taken in now.
    pub(super) fn admit(
        &self,
        hello: &Hello,
        called_by_lower: bool,
        config: &NetworkConfig,
    ) -> Result<(), End> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.admit(hello, called_by_lower, config)
    }

    /// Takes in a new line. It takes the place of an earlier one with the same birth of the same peer: who connects
    /// again has lost the earlier one, even where this side has not noticed yet; copies were refused before. Only where
    /// two calls cross, that of the lower number stays, whichever came first: so both sides keep the same one.
    pub(super) fn join(&self, line: &Arc<PeerLine>, config: &NetworkConfig) -> Result<Joined, End> {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.admit(&line.hello, line.called_by_lower, config)?;
        let (node, birth) = (line.hello.node, line.hello.incarnation);
        let of_node = lines.by_node.entry(node).or_default();
        let same = of_node.iter().position(|known| known.hello.incarnation == birth);
        let earlier = match same {
            Some(at) => Some(of_node.remove(at)),
            None if of_node.len() == BIRTHS => of_node.pop(),
            None => None,
        };
        let beside = of_node.first().map(|other| other.hello.incarnation);
        of_node.push(Arc::clone(line));
        drop(lines);
        if let Some(earlier) = earlier {
            let text = "a newer connection took its place".to_owned();
            earlier.close(&Refusal { code: RefusalCode::Replaced, text });
        }
        self.changes.send_modify(|changes| *changes += 1);
        Ok(beside.map_or(Joined::Alone, Joined::Beside))
    }

    /// Forgets a line that has ended. Others of the same peer stay.
    pub(super) fn leave(&self, line: &Arc<PeerLine>) {
        let node = line.hello.node;
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_node) = lines.by_node.get_mut(&node) {
            of_node.retain(|found| !Arc::ptr_eq(found, line));
            if of_node.is_empty() {
                lines.by_node.remove(&node);
            }
        }
        drop(lines);
        line.queues.iter().for_each(Queue::close);
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.by_node.contains_key(&node)
    }

    /// The lines of this moment, the latest of each peer last.
    pub(super) fn all(&self) -> Vec<Arc<PeerLine>> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.by_node.values().flatten().map(Arc::clone).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).by_node.len()
    }

    /// Lets nobody in any more, and those who are here leave in order.
    pub(super) fn close(&self) {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.closed = true;
        lines.by_node.values().flatten().for_each(|line| line.leave());
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

/// What becomes of a call while the other side's own is connected. Where that happened in one moment it is as it should be,
/// and one is enough. Later, the caller does not have that connection any more.
fn crossed(known: &PeerLine, hello: &Hello, config: &NetworkConfig) -> Result<(), End> {
    let (lasted, timing) = (known.since.elapsed(), &config.timing);
    let is_same = known.hello.client == hello.client;
    let says_which = known.hello.client != 0 && hello.client != 0;
    if says_which && !is_same {
        // Another process, beside which nobody answers any more: see `copies`.
        return Ok(());
    }
    if lasted <= timing.dial + timing.handshake + timing.agreement {
        return Err(End::Stopped);
    }
    if says_which {
        return Ok(());
    }
    let text = format!(
        "{:?} of this very birth is connected here for {lasted:.0?} already: another process runs with a copy of its store, \
         if it was not just started again",
        known.hello.name
    );
    Err(stream::refuse(RefusalCode::WrongServer, text))
}

/// The end of a connection that both sides wanted.
pub(super) const DONE: VarInt = VarInt::from_u32(0);
