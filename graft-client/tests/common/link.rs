//! A link whose other end is the test: it sees what was sent and answers by hand.

use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use graft_core::{
    ClientRequest, EntryKind, LeaderHint, Link, LinkError, NodeId, RejectReason, Replies, Reply,
    SessionId,
    session::{CommandHeader, Payload},
};

/// The session that scripts open first.
pub const SESSION: SessionId = SessionId(10);

pub struct FakeLink {
    replies: OnceLock<Arc<dyn Replies>>,
    state: Mutex<State>,
}

struct State {
    servers: Vec<NodeId>,
    errors: Vec<LinkError>,
    sent: Vec<Sent>,
}

/// A request that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub to: NodeId,
    pub request: ClientRequest,
}

impl Sent {
    pub fn kind(&self) -> EntryKind {
        self.request.kind
    }

    pub fn header(&self) -> CommandHeader {
        match Payload::parse(self.request.kind, &self.request.payload) {
            Ok(Payload::SessionCommand { header, .. }) => header,
            other => panic!("a command was expected, not {other:?}"),
        }
    }

    pub fn body(&self) -> &str {
        let payload = Payload::parse(self.request.kind, &self.request.payload).unwrap();
        let (_, body) = payload.command().expect("a command was expected");
        std::str::from_utf8(body).unwrap()
    }
}

impl FakeLink {
    pub fn new(servers: &[NodeId]) -> Arc<Self> {
        Arc::new(Self {
            replies: OnceLock::new(),
            state: Mutex::new(State {
                servers: servers.to_vec(),
                errors: Vec::new(),
                sent: Vec::new(),
            }),
        })
    }

    pub fn set_servers(&self, servers: &[NodeId]) {
        self.state.lock().unwrap().servers = servers.to_vec();
    }

    /// From now on sending to the servers that these errors name fails.
    pub fn set_errors(&self, errors: &[LinkError]) {
        self.state.lock().unwrap().errors = errors.to_vec();
    }

    /// All that was sent since the last call.
    pub fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.state.lock().unwrap().sent)
    }

    /// The only thing that was sent since the last call.
    pub fn take_one(&self) -> Sent {
        let mut sent = self.take();
        assert_eq!(sent.len(), 1, "one request was expected: {sent:?}");
        sent.remove(0)
    }

    /// Whether anything was sent since the last take.
    pub fn has_sent(&self) -> bool {
        !self.state.lock().unwrap().sent.is_empty()
    }

    pub fn replies(&self) -> &Arc<dyn Replies> {
        self.replies.get().expect("the client attaches itself")
    }

    pub fn reply(&self, to: &Sent, reply: Reply) {
        self.replies().on_reply(to.to, to.request.request_id, reply);
    }

    pub fn reject(&self, to: &Sent, reason: RejectReason) {
        self.reply(to, Reply::Rejected(reason));
    }

    pub fn not_leader(&self, to: &Sent, leader: Option<NodeId>) {
        self.reject(to, RejectReason::NotLeader(hint(leader)));
    }

    pub fn apply(&self, to: &Sent, response: &'static [u8]) {
        self.reply(to, Reply::Applied(Bytes::from_static(response)));
    }

    pub fn open_session(&self, to: &Sent, id: SessionId) {
        assert_eq!(to.kind(), EntryKind::SessionOpen);
        self.reply(to, Reply::SessionOpened(id));
    }
}

pub fn hint(leader: Option<NodeId>) -> LeaderHint {
    LeaderHint { leader, members: None }
}

impl Link for FakeLink {
    fn attach(&self, replies: Arc<dyn Replies>) {
        assert!(self.replies.set(replies).is_ok(), "attached twice");
    }

    fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError> {
        let mut state = self.state.lock().unwrap();
        let error = state.errors.iter().find(|error| server_of(error) == to);
        if let Some(error) = error {
            return Err(*error);
        }
        state.sent.push(Sent { to, request });
        Ok(())
    }

    fn servers(&self) -> Vec<NodeId> {
        self.state.lock().unwrap().servers.clone()
    }
}

fn server_of(error: &LinkError) -> NodeId {
    match error {
        LinkError::Unreachable(server) | LinkError::Full(server) => *server,
        other => panic!("an error that these tests do not know: {other:?}"),
    }
}
