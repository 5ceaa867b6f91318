//! A cluster in time: random delays of messages and disks, links that are cut.

use std::collections::{BTreeMap, BTreeSet};

use graft_core::{Index, NodeId, PeerEnvelope, Term, raft::Config};

use crate::common::*;

/// One election timeout: the longest.
pub(crate) const TIMEOUT: u64 = 60;
/// How long the election of a leader may take, and how long it is watched then.
pub(crate) const LIMIT: u64 = 4 * TIMEOUT;
/// Each leader gets a command every so many ticks.
const EVERY: u64 = 8;

/// A cluster in time: everything sent arrives a random moment later, where the link still stands by
/// then.
pub(crate) struct Sim {
    pub(crate) servers: BTreeMap<NodeId, Server>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) tick: u64,
    /// Directions in which nothing passes.
    pub(crate) cuts: BTreeSet<(NodeId, NodeId)>,
    /// On their way: due, number, message.
    wires: BTreeMap<(u64, u64), PeerEnvelope>,
    sent: u64,
    /// When each disk is done.
    disks: BTreeMap<NodeId, u64>,
    pub(crate) audit: Audit,
}

impl Sim {
    pub(crate) fn new(nodes: &[NodeId], seed: u64) -> Self {
        let servers = nodes.iter().map(|node| {
            let config = Config { seed: seed * 100 + node.0, ..Config::new(*node) };
            (*node, Server::start(config, Disk::founded(*node, nodes)))
        });
        Self {
            servers: servers.collect(),
            rng: fastrand::Rng::with_seed(seed),
            tick: 0,
            cuts: BTreeSet::new(),
            wires: BTreeMap::new(),
            sent: 0,
            disks: BTreeMap::new(),
            audit: Audit::default(),
        }
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.servers.keys().copied().collect()
    }

    pub(crate) fn shuffled(&mut self) -> Vec<NodeId> {
        let mut nodes = self.nodes();
        self.rng.shuffle(&mut nodes);
        nodes
    }

    fn act(&mut self, node: NodeId, action: impl FnOnce(&mut Server)) {
        let server = self.servers.get_mut(&node).expect("a server of the cluster");
        let turns = server.turns;
        action(server);
        if server.turns == turns {
            return;
        }
        while server.finish_load() || server.finish_apply() {}
        for envelope in std::mem::take(&mut server.outbox) {
            self.sent += 1;
            self.wires.insert((self.tick + self.rng.u64(0..=2), self.sent), envelope);
        }
        if server.write.is_some() {
            let done = self.tick + self.rng.u64(0..=1);
            self.disks.entry(node).or_insert(done);
        }
        self.audit.check(&self.servers, node);
    }

    /// One tick: the clocks, then whatever is due, then a command for each leader.
    pub(crate) fn tick(&mut self) {
        self.tick += 1;
        for node in self.nodes() {
            self.act(node, Server::pass_tick);
        }
        loop {
            let disk = self.disks.iter().find(|(_, due)| **due <= self.tick).map(|(node, _)| *node);
            if let Some(node) = disk {
                self.disks.remove(&node);
                self.act(node, |server| {
                    server.persist();
                });
                continue;
            }
            let Some(first) = self.wires.first_entry().filter(|entry| entry.key().0 <= self.tick)
            else {
                break;
            };
            let envelope = first.remove();
            if !self.cuts.contains(&(envelope.from, envelope.to)) {
                let (from, to) = (envelope.from, envelope.to);
                self.act(to, |server| server.receive(from, envelope.message));
            }
        }
        if self.tick.is_multiple_of(8) {
            for leader in self.leaders() {
                self.act(leader, |server| {
                    server.propose("x");
                });
            }
        }
    }

    pub(crate) fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.tick();
        }
    }

    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let leaders = self.servers.values().filter(|server| server.is_leader());
        leaders.map(Server::node).collect()
    }

    /// The leader of the latest term, if any.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leaders().into_iter().max_by_key(|node| self.servers[node].term())
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn cut_both(&mut self, one: NodeId, other: NodeId) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Cuts all links but those between these pairs.
    pub(crate) fn keep_only(&mut self, pairs: &[(NodeId, NodeId)]) {
        for one in self.nodes() {
            for other in self.nodes() {
                if one != other && !pairs.contains(&(one, other)) && !pairs.contains(&(other, one))
                {
                    self.cut(one, other);
                }
            }
        }
    }

    /// Links come and go at random.
    pub(crate) fn chaos(&mut self) {
        for _ in 0..self.rng.u64(4..12) {
            self.cuts.clear();
            let nodes = self.nodes();
            for one in &nodes {
                for other in &nodes {
                    if one != other && self.rng.u8(0..10) < 5 {
                        self.cut(*one, *other);
                    }
                }
            }
            let ticks = self.rng.u64(5..100);
            self.run(ticks);
        }
        self.cuts.clear();
    }

    /// Whether some server reaches a quorum in both directions whose logs are all no better than
    /// its own.
    pub(crate) fn can_be_led(&self) -> bool {
        let quorum = self.servers.len() / 2 + 1;
        self.servers.values().any(|candidate| {
            let votes = self.servers.values().filter(|voter| {
                let (one, other) = (candidate.node(), voter.node());
                let reaches = one == other
                    || (!self.cuts.contains(&(one, other)) && !self.cuts.contains(&(other, one)));
                reaches && voter.last() <= candidate.last()
            });
            votes.count() >= quorum
        })
    }

    /// Where each server stands, to tell later what it commits that is new.
    fn marks(&self) -> BTreeMap<NodeId, (Term, Index)> {
        let marks = self.servers.values().map(|server| {
            let term = if server.is_leader() { server.term() } else { Term(0) };
            (server.node(), (term, server.last().index))
        });
        marks.collect()
    }

    /// The leader that has committed an entry of its own term that it made after `marks` were
    /// taken.
    fn commits_since(&self, marks: &BTreeMap<NodeId, (Term, Index)>) -> Option<NodeId> {
        let leader = self.leader()?;
        let server = &self.servers[&leader];
        let commit = Index(server.commit());
        let (term, last) = marks[&leader];
        let own = server.raft().term_at(commit) == Some(server.term());
        let new = term != server.term() || commit > last;
        (own && new).then_some(leader)
    }

    /// Runs until a leader stands that commits, and stays, and says how many ticks it took from
    /// when it could be elected. Nothing where no server can be elected in the end.
    pub(crate) fn settles(&mut self, what: &str) -> Option<u64> {
        let start = self.tick;
        let mut since = start;
        loop {
            let marks = self.marks();
            let leader = loop {
                self.tick();
                // A leader that was cut off from its quorum appends to its log until it steps down,
                // and may bring what nobody acknowledges to some, but not to all.
                if !self.can_be_led() {
                    since = self.tick;
                }
                if let Some(leader) = self.commits_since(&marks) {
                    break leader;
                }
                if self.tick - start > 2 * LIMIT && since == self.tick {
                    return None;
                }
                self.assert_in_time(what, since);
            };
            let waited = self.tick.saturating_sub(since);
            if self.stays(leader) {
                return Some(waited);
            }
            // Somebody had been promised pre-votes before this leader was heard of.
            self.assert_in_time(what, since);
        }
    }

    fn assert_in_time(&self, what: &str, since: u64) {
        let waited = self.tick.saturating_sub(since);
        assert!(waited <= LIMIT, "{what}: no leader after {waited} ticks: {}", self.picture());
    }

    /// Whether this leader leads for as long again, and commits what it is given.
    fn stays(&mut self, leader: NodeId) -> bool {
        let (term, commit) = (self.servers[&leader].term(), self.servers[&leader].commit());
        for _ in 0..LIMIT {
            self.tick();
            if self.leader() != Some(leader) || self.servers[&leader].term() != term {
                return false;
            }
        }
        let more = self.servers[&leader].commit() - commit;
        assert!(more >= LIMIT / EVERY - 5, "{leader} commits little: {more} entries");
        true
    }

    pub(crate) fn picture(&self) -> String {
        let servers = self.servers.values().map(|server| {
            format!(
                "\n  {:?} {:?} {} {}",
                server.node(),
                server.role(),
                server.term(),
                server.last()
            )
        });
        format!("cuts {:?}{}", self.cuts, servers.collect::<String>())
    }
}
