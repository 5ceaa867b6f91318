//! A cluster, its disks, its network and its clocks, all moved by one seed.

use std::time::Duration;

use fastrand::Rng;

use super::{
    coverage::{Corner, Coverage},
    disk::Disk,
    facts::{self, Facts},
    network::{Network, Parcel},
    server::{Server, log_id},
    swarm::{Event, Swarm},
    trace::{self, Trace},
};
use crate::{
    Entry, EntryKind, Index, Message, NodeId, PeerEnvelope, Token,
    raft::{Effects, Input, LinkId, Mutant, Proposal, RoleName},
};

/// The tick of every server.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The whole model for one seed.
#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) swarm: Swarm,
    pub(super) servers: Vec<Server>,
    pub(super) network: Network,
    pub(super) facts: Facts,
    pub(super) coverage: Coverage,
    pub(super) trace: Trace,
    /// How many inputs were stepped in, crashes and restarts included.
    pub(super) step: u64,
    /// The server whose machine was tampered with.
    pub(super) corrupt: Option<usize>,
    pub(super) effects: Effects,
}

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>, trace: Trace) -> Self {
        let mut rng = Rng::with_seed(crate::stable_hash(&seed.to_le_bytes()));
        let swarm = Swarm::draw(seed, &mut rng, mutant);
        let nodes = (1..=swarm.size as u64).map(NodeId);
        let server = |node| Server::new(node, Disk::founded(swarm.membership()), swarm.size);
        let servers: Vec<Server> = nodes.map(server).collect();
        let facts = Facts::new(swarm.membership().clone(), (&servers[0].disk.log[0]).into());
        Self {
            network: Network::new(swarm.size, swarm.weather),
            rng,
            swarm,
            servers,
            facts,
            coverage: Coverage::default(),
            trace,
            step: 0,
            corrupt: None,
            effects: Effects::default(),
        }
    }

    /// Lives through the faults of the seed, then heals and must come to rest with everything done.
    pub(super) fn run(&mut self) {
        self.trace.note(|| format!("{:?}", self.swarm));
        (0..self.servers.len()).for_each(|at| self.start(at));
        let mut scanned = 0;
        while self.step < self.swarm.steps {
            let event = self.swarm.next_event(&mut self.rng);
            self.happen(event);
            if self.step >= scanned + 64 {
                scanned = self.step;
                let at = self.rng.usize(..self.servers.len());
                self.scan(at);
            }
        }
        if self.swarm.elects_in_any_weather() && self.rng.bool() {
            self.live_half_cut();
        }
        self.heal();
        (0..self.servers.len()).for_each(|at| self.scan(at));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver => self.deliver_next(),
            Event::Tick => self.tick(),
            Event::Write => {
                let ready = |server: &Server| server.write.is_some() && !server.disk_sticks;
                self.one_that(ready).into_iter().for_each(|at| self.complete_write(at));
            }
            Event::Apply => {
                let ready = |server: &Server| server.apply.is_some();
                self.one_that(ready).into_iter().for_each(|at| self.complete_apply(at));
            }
            Event::Load => {
                let ready = |server: &Server| !server.loads.is_empty();
                self.one_that(ready).into_iter().for_each(|at| self.complete_load(at));
            }
            Event::Drain => {
                let up = |server: &Server| server.raft.is_some();
                self.one_that(up).into_iter().for_each(|at| self.drain(at));
            }
            Event::Propose => self.propose(),
            Event::Transfer => self.transfer(),
            Event::Campaign => {
                let up = |server: &Server| server.raft.is_some();
                let found = self.one_that(up);
                found.into_iter().for_each(|at| self.turn(at, Some(Input::Campaign)));
            }
            Event::Crash => {
                let at = self.some_server();
                self.crash(at);
            }
            Event::CrashAll => (0..self.servers.len()).for_each(|at| self.crash(at)),
            Event::Restart => {
                let found = self.one_that(|server| server.raft.is_none());
                found.into_iter().for_each(|at| self.start(at));
            }
            Event::Cut => {
                let at = self.some_server();
                let change = self.network.change_cuts(at, &mut self.rng);
                self.trace.note(|| change);
            }
            Event::Stick => {
                let at = self.some_server();
                let server = &mut self.servers[at];
                server.disk_sticks = !server.disk_sticks;
                let (node, sticks) = (server.node, server.disk_sticks);
                self.trace.note(|| format!("{node} disk sticks: {sticks}"));
            }
            Event::Divide => self.divide(),
            Event::DelayVotes => self.delay_votes(),
            Event::Usurp => self.usurp(),
            Event::SpeakOut => self.speak_out(),
        }
    }

    /// Some server of this kind, if there is one; the search begins anywhere.
    pub(super) fn one_that(&mut self, wanted: impl Fn(&Server) -> bool) -> Option<usize> {
        let start = self.rng.usize(..self.servers.len());
        let mut order = (start..self.servers.len()).chain(0..start);
        order.find(|at| wanted(&self.servers[*at]))
    }

    /// Gives a message to the network.
    pub(super) fn post(&mut self, (from, to): (usize, usize), envelope: PeerEnvelope) {
        let parcel = Parcel { envelope, life: self.servers[to].life };
        self.network.send((from, to), parcel, &mut self.rng, &mut self.coverage);
    }

    /// A victim: mostly anybody, often a leader, because that hurts more.
    fn some_server(&mut self) -> usize {
        let leader = self.one_that(Server::leads).filter(|_| self.rng.u32(..3) == 0);
        leader.unwrap_or_else(|| self.rng.usize(..self.servers.len()))
    }

    // Inputs.

    pub(super) fn deliver_next(&mut self) {
        if let Some((to, parcel)) = self.network.next(&mut self.rng, &mut self.coverage) {
            self.deliver(to, parcel);
        }
    }

    pub(super) fn deliver(&mut self, to: usize, parcel: Parcel) {
        if self.servers[to].raft.is_none() {
            return;
        }
        let outlived = parcel.life != self.servers[to].life;
        self.coverage.note_if(outlived, Corner::MessageOutlived);
        let old = self.servers[to].seen.commit;
        if let Message::AppendEntries(append) = &parcel.envelope.message {
            self.coverage.note_if(append.prev.index < old, Corner::OldPrefixAppended);
        }
        self.turn(to, Some(Input::Message(parcel.envelope)));
    }

    fn tick(&mut self) {
        if self.swarm.lockstep {
            let start = self.rng.usize(..self.servers.len());
            let order = (start..self.servers.len()).chain(0..start);
            order.for_each(|at| self.pass_time(at, 1));
        } else {
            let at = self.rng.usize(..self.servers.len());
            // Now and then a server wakes from a pause.
            let long = self.rng.u32(..50) == 0;
            let most = if long { 2 * self.swarm.election_timeout() } else { 2 };
            let ticks = self.rng.u64(1..=most);
            self.pass_time(at, ticks);
        }
    }

    /// A server's clock goes on; it wakes where it asked for it.
    pub(super) fn pass_time(&mut self, at: usize, ticks: u64) {
        let server = &mut self.servers[at];
        let Some(raft) = &server.raft else { return };
        server.clock += ticks;
        if !self.swarm.sleeps || raft.next_deadline() <= self.now(at) {
            self.turn(at, None);
        }
    }

    pub(super) fn now(&self, at: usize) -> Duration {
        let clock = u32::try_from(self.servers[at].clock).expect("small");
        TICK * clock
    }

    fn propose(&mut self) {
        let leader = self.one_that(Server::leads).filter(|_| self.rng.u32(..16) > 0);
        if leader.is_none() && self.rng.u32(..8) > 0 {
            return;
        }
        let at = leader.unwrap_or_else(|| self.rng.usize(..self.servers.len()));
        if self.rng.u32(..1024) < self.swarm.memberships {
            self.change_membership(at);
        }
        let count = self.rng.usize(1..=5);
        self.propose_at(at, count);
    }

    /// A leader makes a membership entry, as its own changes will. It names the same voters: what is
    /// tried here is that the latest in the log is in force, through truncations and restarts.
    fn change_membership(&mut self, at: usize) {
        // Who hands over makes no more entries.
        if !self.servers[at].leads() || self.servers[at].hands_over() {
            return;
        }
        let Some(raft) = &mut self.servers[at].raft else { return };
        let mut membership = self.swarm.membership().clone();
        for info in membership.nodes.values_mut() {
            info.name = self.step.to_string();
        }
        self.step += 1;
        raft.append_own(vec![(EntryKind::Membership, membership.encode())]);
        self.watch(at);
        self.drain(at);
    }

    /// Proposes to one server, if it is up. The leader's bounds are checked here, where they bind.
    pub(super) fn propose_at(&mut self, at: usize, count: usize) {
        if self.servers[at].raft.is_none() {
            return;
        }
        let proposals = (0..count).map(|_| self.make_proposal(at)).collect();
        let (last, unapplied) = (self.servers[at].log.len(), self.own_bytes(at).1);
        let hands_over = self.servers[at].hands_over();
        self.turn(at, Some(Input::Propose(proposals)));
        let Some(raft) = &self.servers[at].raft else { return };
        if self.servers[at].log.len() > last {
            let refuses = hands_over && self.servers[at].hands_over();
            assert!(!refuses, "{} takes commands while it hands over", self.servers[at].node);
            let (uncommitted, _) = self.own_bytes(at);
            let most = raft.config.max_uncommitted_bytes;
            assert!(uncommitted <= most, "{uncommitted} bytes are uncommitted, {most} may be");
            // Counted by whole appends: what one brought may be counted as uncommitted.
            let most = raft.config.max_unapplied_bytes.saturating_add(Self::LARGEST_APPEND);
            assert!(unapplied <= most, "{unapplied} bytes are not applied, {most} may be");
        }
    }

    /// The largest batch of proposals.
    const LARGEST_APPEND: usize = 5 * (Entry::OVERHEAD + 8 + 40);

    fn make_proposal(&mut self, at: usize) -> Proposal {
        let token = self.facts.make_request(self.servers[at].self_now());
        let padding = self.rng.usize(..=self.swarm.padding);
        Proposal { token, kind: EntryKind::Plain, payload: facts::payload(token, padding) }
    }

    /// How much of what a leader took in is uncommitted, and how much is committed and not applied.
    fn own_bytes(&self, at: usize) -> (usize, usize) {
        let server = &self.servers[at];
        let Some(raft) = server.raft.as_ref().filter(|raft| raft.is_leader()) else {
            return (0, 0);
        };
        let start = self.facts.reign(raft.hard_state.term).map_or(Index(0), |reign| reign.start);
        let size = |index: u64| {
            let entry = self.facts.entry(log_id(&server.log, Index(index)));
            // The leader's own entries are never refused.
            entry.filter(|entry| entry.kind.is_clients()).map_or(0, |entry| entry.size)
        };
        let (applied, commit) = (raft.applied.max(start).0, raft.commit_index.max(start).0);
        let uncommitted = (commit + 1..=server.log.len() as u64).map(size).sum();
        (uncommitted, (applied + 1..=commit).map(size).sum())
    }

    fn transfer(&mut self) {
        let leader = self.one_that(Server::leads).filter(|_| self.rng.u32(..8) > 0);
        let at = leader.unwrap_or_else(|| self.rng.usize(..self.servers.len()));
        let to = NodeId(self.rng.u64(1..=self.servers.len() as u64));
        self.turn(at, Some(transfer_to(to, self.step)));
    }

    pub(super) fn start(&mut self, at: usize) {
        self.step += 1;
        self.servers[at].start(&self.swarm, &mut self.rng, &mut self.coverage);
        self.trace.note(|| trace::start(&self.servers[at]));
    }

    pub(super) fn crash(&mut self, at: usize) {
        let Some(raft) = self.servers[at].raft.take() else { return };
        self.step += 1;
        self.trace.note(|| format!("{} crashes", self.servers[at].node));
        self.coverage.note_if(raft.is_leader(), Corner::CrashedLeader);
        self.coverage.note_if(!self.servers[at].drained, Corner::CrashedUndrained);
        if let Some(batch) = self.servers[at].write.take() {
            let kept = self.rng.bool();
            if kept {
                self.land(at, &batch);
            }
            let corner = if kept { Corner::CrashedWriteKept } else { Corner::CrashedWriteLost };
            self.coverage.note(corner);
        }
        let server = &mut self.servers[at];
        server.apply = None;
        server.loads.clear();
        server.drained = true;
        server.windows.iter_mut().for_each(std::collections::VecDeque::clear);
        let all = self.servers.len() > 1 && self.servers.iter().all(|one| one.raft.is_none());
        self.coverage.note_if(all, Corner::AllCrashed);
    }

    /// The servers that lead, by their own account.
    pub(super) fn leaders(&self) -> Vec<usize> {
        let leads = |at: &usize| self.servers[*at].seen.role == Some(RoleName::Leader);
        (0..self.servers.len()).filter(leads).collect()
    }
}

/// An order to hand over.
pub(super) fn transfer_to(to: NodeId, number: u64) -> Input {
    Input::Transfer { to, token: Token { link: LinkId(8), request_id: number } }
}
