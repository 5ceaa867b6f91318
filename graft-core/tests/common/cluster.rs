//! Several servers and the wires between them. Nothing happens unless a test makes it happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use graft_core::{
    Message, NodeId, PeerEnvelope, Token,
    raft::{Config, Input},
};

use super::{
    Audit, Disk, Server, message_words, name_of,
    trace::{Moment, status_words},
    words::{entries_words, write_words},
};

/// A cluster of servers that keeps a record of all that happens, in the words of the paper.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    servers: BTreeMap<NodeId, Server>,
    /// Sent and not yet delivered, in the order of sending.
    wires: VecDeque<PeerEnvelope>,
    /// Directions in which nothing passes.
    cuts: BTreeSet<(NodeId, NodeId)>,
    held_disks: BTreeSet<NodeId>,
    held_wires: BTreeSet<(NodeId, NodeId)>,
    commands: BTreeMap<Token, String>,
    audit: Audit,
    trace: Vec<String>,
}

impl Cluster {
    /// Founders of one cluster.
    pub(crate) fn of(nodes: &[NodeId]) -> Self {
        Self::with(nodes, |node| (Config::new(node), Disk::founded(node, nodes)))
    }

    /// Servers that start from what `make` gives each.
    pub(crate) fn with(nodes: &[NodeId], make: impl Fn(NodeId) -> (Config, Disk)) -> Self {
        let mut cluster = Self::default();
        for node in nodes {
            let (config, disk) = make(*node);
            cluster.servers.insert(*node, Server::start(config, disk));
        }
        cluster
    }

    /// Founders, the first of whom has been elected and has replicated its blank entry to all.
    pub(crate) fn led(nodes: &[NodeId]) -> Self {
        let mut cluster = Self::of(nodes);
        cluster.elect(nodes[0]);
        cluster
    }

    /// The server's election timer runs out, and everything takes its course.
    pub(crate) fn elect(&mut self, node: NodeId) {
        self.campaign(node);
        self.settle();
        assert!(self[node].is_leader(), "{} was not elected", name_of(node));
        self.heartbeat(node);
    }

    /// A leader's heartbeat goes round, which tells all how far it has committed.
    pub(crate) fn heartbeat(&mut self, leader: NodeId) {
        let ticks = self[leader].config.heartbeat_ticks;
        self.jump(leader, ticks);
        self.settle();
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.servers.keys().copied().collect()
    }

    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let up = self.servers.values().filter(|server| server.is_up());
        up.filter(|server| server.is_leader()).map(Server::node).collect()
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    pub(crate) fn note(&mut self, line: impl Into<String>) {
        self.trace.push(line.into());
    }

    /// What happened since the last call, a line an event.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }

    // What a test makes happen.

    /// The clock of one server moves on, in one turn.
    pub(crate) fn jump(&mut self, node: NodeId, ticks: u64) {
        self.act(node, |server| server.jump(ticks));
    }

    /// The clocks of all servers move on, tick after tick, and everything takes its course in
    /// between.
    pub(crate) fn elapse(&mut self, ticks: u64) {
        for _ in 0..ticks {
            for node in self.nodes() {
                self.jump(node, 1);
            }
            self.settle();
        }
    }

    pub(crate) fn campaign(&mut self, node: NodeId) {
        self.act(node, |server| server.step(Input::Campaign));
    }

    pub(crate) fn propose(&mut self, node: NodeId, commands: &[&str]) -> Vec<Token> {
        // The names must be known before the turn is told.
        let tokens = self[node].next_tokens(commands.len());
        self.commands.extend(tokens.iter().copied().zip(commands.iter().map(|one| (*one).into())));
        self.act(node, |server| {
            server.propose_all(commands);
        });
        tokens
    }

    pub(crate) fn transfer(&mut self, from: NodeId, to: NodeId) -> Token {
        let token = Token { request_id: self.commands.len() as u64 + 1, ..Token::default() };
        self.commands.insert(token, format!("the transfer to {}", name_of(to)));
        self.act(from, |server| server.step(Input::Transfer { to, token }));
        token
    }

    /// The oldest message on this wire arrives. Says whether there was one.
    pub(crate) fn deliver_one(&mut self, from: NodeId, to: NodeId) -> bool {
        let on_wire = |envelope: &PeerEnvelope| (envelope.from, envelope.to) == (from, to);
        let Some(at) = self.wires.iter().position(on_wire) else { return false };
        let envelope = self.wires.remove(at).expect("it was just found");
        self.arrive(envelope);
        true
    }

    /// Everything that is on this wire now arrives; what is sent in answer does not.
    pub(crate) fn deliver(&mut self, from: NodeId, to: NodeId) {
        for _ in 0..self.on_wire(from, to).len() {
            self.deliver_one(from, to);
        }
    }

    /// Everything that is on any wire now arrives; what is sent in answer does not.
    pub(crate) fn deliver_all(&mut self) {
        for envelope in std::mem::take(&mut self.wires) {
            if self.held_wires.contains(&(envelope.from, envelope.to)) {
                self.wires.push_back(envelope);
            } else {
                self.arrive(envelope);
            }
        }
    }

    fn arrive(&mut self, envelope: PeerEnvelope) {
        let (from, to) = (envelope.from, envelope.to);
        let words = message_words(&envelope.message);
        if !self[to].is_up() {
            self.note(format!("  {} is down: {words} from {} is lost", name_of(to), name_of(from)));
            return;
        }
        self.note(format!("  {} <- {}  {words}", name_of(to), name_of(from)));
        self.act(to, |server| server.step(Input::Message(envelope)));
    }

    /// Arrives a second time, later, as networks do.
    pub(crate) fn duplicate(&mut self, from: NodeId, to: NodeId) {
        let on_wire: Vec<PeerEnvelope> = self.on_wire(from, to);
        self.wires.extend(on_wire);
    }

    /// No more than this many messages are under way; the latest are lost.
    pub(crate) fn keep_at_most(&mut self, count: usize) {
        self.wires.truncate(count);
    }

    /// What is on this wire now.
    pub(crate) fn on_wire(&self, from: NodeId, to: NodeId) -> Vec<PeerEnvelope> {
        let here = self.wires.iter().filter(|one| (one.from, one.to) == (from, to));
        here.cloned().collect()
    }

    /// What is on this wire is lost.
    pub(crate) fn drop_wire(&mut self, from: NodeId, to: NodeId) {
        for envelope in self.on_wire(from, to) {
            let words = message_words(&envelope.message);
            self.note(format!("  {} -> {}  lost: {words}", name_of(from), name_of(to)));
        }
        self.wires.retain(|envelope| (envelope.from, envelope.to) != (from, to));
    }

    /// Messages of this kind that are under way are lost.
    pub(crate) fn drop_matching(&mut self, lost: impl Fn(&Message) -> bool) {
        self.wires.retain(|envelope| !lost(&envelope.message));
    }

    /// Nothing passes in this direction any more; what is under way is lost.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.drop_wire(from, to);
        self.cuts.insert((from, to));
    }

    /// Nothing passes between this server and any other.
    pub(crate) fn isolate(&mut self, node: NodeId) {
        for other in self.nodes().into_iter().filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// What is sent this way waits for [`Cluster::deliver`].
    pub(crate) fn hold_wire(&mut self, from: NodeId, to: NodeId) {
        self.held_wires.insert((from, to));
    }

    pub(crate) fn release_wire(&mut self, from: NodeId, to: NodeId) {
        self.held_wires.remove(&(from, to));
    }

    pub(crate) fn release_wires(&mut self) {
        self.held_wires.clear();
    }

    /// The disk of this server completes nothing until it is released.
    pub(crate) fn hold_disk(&mut self, node: NodeId) {
        self.held_disks.insert(node);
    }

    pub(crate) fn release_disk(&mut self, node: NodeId) {
        self.held_disks.remove(&node);
    }

    /// The write of this server becomes durable. Says whether there was one.
    pub(crate) fn persist(&mut self, node: NodeId) -> bool {
        let Some(batch) = &self[node].write else { return false };
        let words = write_words(batch);
        self.note(format!("  {} has made durable: {words}", name_of(node)));
        self.act(node, |server| {
            server.persist();
        });
        true
    }

    /// The disk of this server answers its oldest read. Says whether there was one.
    pub(crate) fn load(&mut self, node: NodeId) -> bool {
        let Some(load) = self[node].loads.first() else { return false };
        let words = entries_words(&self[node].disk.read(load));
        self.note(format!("  {} has read from disk: {words}", name_of(node)));
        self.act(node, |server| {
            server.finish_load();
        });
        true
    }

    pub(crate) fn crash(&mut self, node: NodeId) {
        self.server(node).crash();
    }

    pub(crate) fn restart(&mut self, node: NodeId) {
        self.server(node).restart();
        self.audit.restarted(node);
        let line = format!("  {}", status_words(&self[node].status()));
        self.note(line);
    }

    /// Disks, machines and wires do all they can until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if !self.advance() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// One thing happens that waits to happen: disks first, then the oldest message.
    fn advance(&mut self) -> bool {
        for node in self.nodes() {
            if !self.held_disks.contains(&node) && (self.persist(node) || self.load(node)) {
                return true;
            }
        }
        let free = |one: &PeerEnvelope| !self.held_wires.contains(&(one.from, one.to));
        let oldest = self.wires.iter().position(free).and_then(|at| self.wires.remove(at));
        let moved = oldest.is_some();
        if let Some(envelope) = oldest {
            self.arrive(envelope);
        }
        moved
    }

    /// A status of every server.
    pub(crate) fn note_status(&mut self) {
        for node in self.nodes() {
            let server = &self[node];
            let mut lines = Vec::new();
            if server.is_up() {
                let status = server.status();
                lines.push(format!("  {}", status_words(&status)));
                lines.extend(status.peers.iter().map(|peer| {
                    let mode = if peer.probing { "probe" } else { "replicate" };
                    let stalled = if peer.stalled { ", disk stalled" } else { "" };
                    format!(
                        "     {}: {mode}, next {}, match {}, in flight {}{stalled}",
                        name_of(peer.node),
                        peer.next_index,
                        peer.match_index,
                        peer.in_flight
                    )
                }));
            } else {
                lines.push(format!("  {}: down", name_of(node)));
            }
            self.trace.extend(lines);
        }
    }

    /// The terms in every log, as the figures of the paper draw them; what is committed is in
    /// brackets.
    pub(crate) fn note_logs(&mut self) {
        for node in self.nodes().into_iter().filter(|node| self[*node].is_up()).collect::<Vec<_>>()
        {
            let commit = self[node].commit();
            let terms = (1..).zip(self[node].terms()).map(|(index, term)| {
                if index <= commit { format!("[{term}]") } else { term.to_string() }
            });
            let line = format!("  {}: {}", name_of(node), terms.collect::<Vec<_>>().join(" "));
            self.note(line);
        }
    }

    fn server(&mut self, node: NodeId) -> &mut Server {
        self.servers.get_mut(&node).expect("a server of the cluster")
    }

    /// Something happens to one server. The machine finishes at once whatever it is given.
    fn act(&mut self, node: NodeId, action: impl FnOnce(&mut Server)) {
        if !self[node].is_up() {
            return;
        }
        self.watched(node, action);
        while self[node].apply.is_some() {
            self.watched(node, |server| {
                server.finish_apply();
            });
        }
    }

    /// Records what a turn brought about, and audits it.
    fn watched(&mut self, node: NodeId, action: impl FnOnce(&mut Server)) {
        let before = Moment::of(&self[node]);
        action(self.server(node));
        let after = Moment::of(&self[node]);
        let lines = before.difference(&after, &self[node], &self.commands);
        self.trace.extend(lines);
        let sent = std::mem::take(&mut self.server(node).outbox);
        for envelope in sent {
            let (from, to) = (envelope.from, envelope.to);
            let cut = self.cuts.contains(&(from, to));
            let lost = if cut { "lost: " } else { "" };
            let words = message_words(&envelope.message);
            self.note(format!("  {} -> {}  {lost}{words}", name_of(from), name_of(to)));
            if !cut {
                self.wires.push_back(envelope);
            }
        }
        self.audit.check(&self.servers, node);
    }
}

impl std::ops::Index<NodeId> for Cluster {
    type Output = Server;

    fn index(&self, node: NodeId) -> &Server {
        &self.servers[&node]
    }
}
