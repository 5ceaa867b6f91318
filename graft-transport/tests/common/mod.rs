//! Servers and clients at a hub, as its tests hold them.

// Each test file uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use graft_core::{
    AppendEntries, Arrivals, ClientRequest, Entries, EntryKind, Envelope, GroupId, Heartbeat,
    Inbox, InboxLimits, InboxReceiver, Incarnation, Index, Link, LogId, Message, NodeId,
    PeerEnvelope, Replies, Reply, ReplyEnvelope, Request, Runtime, Term, TokioRuntime, Transport,
};
use graft_transport::{Hub, HubLink, HubTransport};

pub const A: NodeId = NodeId(1);
pub const B: NodeId = NodeId(2);
pub const C: NodeId = NodeId(3);

pub fn runtime() -> Arc<dyn Runtime> {
    Arc::new(TokioRuntime::current().expect("the test runs on tokio"))
}

pub fn hub() -> Hub {
    Hub::new(runtime(), 42)
}

pub struct Server {
    pub transport: HubTransport,
    pub receiver: InboxReceiver,
}

impl Server {
    pub fn start(hub: &Hub, node: NodeId) -> Self {
        Self::start_with(hub, node, InboxLimits::default())
    }

    pub fn start_with(hub: &Hub, node: NodeId, limits: InboxLimits) -> Self {
        let transport = hub.transport(node);
        let (inbox, receiver) = Inbox::new(limits);
        transport.attach(inbox);
        Self { transport, receiver }
    }

    pub fn send(&self, to: NodeId, number: u64) {
        self.send_message(to, heartbeat(number));
    }

    pub fn send_message(&self, to: NodeId, message: Message) {
        self.transport.send(Envelope::Peer(PeerEnvelope {
            group: GroupId(0),
            from: self.transport.node(),
            to,
            from_incarnation: Incarnation(1),
            to_incarnation: Incarnation(2),
            message,
        }));
    }

    pub fn answer(&self, request: &Request, reply: Reply) {
        let Request { link, request_id, .. } = *request;
        self.transport.send(Envelope::Reply(ReplyEnvelope { link, request_id, reply }));
    }

    pub fn take(&mut self) -> Arrivals {
        let mut arrivals = Arrivals::default();
        self.receiver.take_now(&mut arrivals);
        arrivals
    }

    /// The numbers of the messages that arrived, in order.
    pub fn numbers(&mut self) -> Vec<u64> {
        self.take().peers.iter().map(|envelope| envelope.message.term().0).collect()
    }
}

pub fn heartbeat(number: u64) -> Message {
    let (term, commit, round) = (Term(number), Index(0), 0);
    Message::Heartbeat(Heartbeat { term, commit, round, checksum: None })
}

pub fn append(number: u64) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(number),
        prev: LogId::ZERO,
        commit: Index(0),
        round: 0,
        entries: Entries::new(),
    })
}

pub fn request(request_id: u64) -> ClientRequest {
    let (deadline, kind) = (Duration::from_secs(9), EntryKind::Plain);
    ClientRequest { request_id, deadline, kind, payload: Bytes::from_static(b"payload") }
}

#[derive(Default)]
pub struct Heard {
    pub replies: Mutex<Vec<(NodeId, u64, Reply)>>,
    pub gone: Mutex<Vec<NodeId>>,
}

impl Replies for Heard {
    fn on_reply(&self, from: NodeId, request_id: u64, reply: Reply) {
        self.replies.lock().unwrap().push((from, request_id, reply));
    }

    fn on_server_gone(&self, server: NodeId) {
        self.gone.lock().unwrap().push(server);
    }
}

pub fn client(hub: &Hub) -> (HubLink, Arc<Heard>) {
    let link = hub.link();
    let heard = Arc::new(Heard::default());
    link.attach(Arc::clone(&heard) as Arc<dyn Replies>);
    (link, heard)
}
