//! The end of every seed: all faults end, and then the cluster must do what it is there for. A
//! deadlock that no safety property notices shows here.

use super::{
    coverage::Corner,
    disk::place,
    network::Weather,
    world::{World, transfer_to},
};
use crate::Index;

impl World {
    /// So many events without rest are a livelock.
    const MOST_EVENTS: u64 = 200_000;

    /// Ends all faults but the cuts, which are drawn anew, and asserts that a leader stands where one can
    /// (PROTOCOL "Elections"): some server reaches a quorum, in both directions, whose logs are no
    /// better than its own.
    pub(super) fn live_half_cut(&mut self) {
        self.calm();
        let size = self.servers.len();
        match self.rng.u32(..8) {
            0 => {
                let center = self.rng.usize(..size);
                self.network.cut_all_around(center);
            }
            parts => self.network.cut_at_random(parts.min(5), &mut self.rng),
        }
        self.trace.note(|| format!("half cut: {:?}", self.network));
        let could_lead = (0..size).any(|at| self.can_lead(at));
        self.coverage.note_if(!could_lead, Corner::HalfCutDark);
        if could_lead {
            let timeout = self.swarm.election_timeout();
            self.await_within(4 * timeout, "a leader that reaches a quorum", |world| {
                world.leaders().into_iter().any(|at| world.reaches_quorum(at, |_| true))
            });
            self.coverage.note(Corner::HalfCutLed);
        }
    }

    /// Whether a quorum of this kind hears this server and is heard by it.
    fn reaches_quorum(&self, at: usize, kind: impl Fn(usize) -> bool) -> bool {
        self.facts.is_quorum(|node| {
            let other = place(Index(node.0));
            self.network.connects(at, other) && kind(other)
        })
    }

    fn can_lead(&self, at: usize) -> bool {
        let last = |at: usize| self.servers[at].raft.as_ref().map(|raft| raft.last());
        let is_voter = self.swarm.membership().is_voter(self.servers[at].node);
        is_voter && self.reaches_quorum(at, |other| last(other) <= last(at))
    }

    /// Ends all faults.
    fn calm(&mut self) {
        self.network.mend();
        self.network.weather = Weather { loss: 0, duplication: 0, reordering: 0 };
        self.swarm.batching = 0;
        for at in 0..self.servers.len() {
            self.servers[at].disk_sticks = false;
            if self.servers[at].raft.is_none() {
                self.start(at);
            }
        }
        self.settle();
    }

    /// A moment without faults, in the middle of a life: long enough for a leader to stand.
    pub(super) fn rest(&mut self) {
        let (weather, batching) = (self.network.weather, self.swarm.batching);
        self.calm();
        for _ in 0..2 * self.swarm.election_timeout() {
            if self.undisputed_leader().is_some() {
                break;
            }
            for at in 0..self.servers.len() {
                self.pass_time(at, 1);
                self.settle();
            }
        }
        (self.network.weather, self.swarm.batching) = (weather, batching);
    }

    /// Heals everything, and asserts that the cluster elects, converges, commits and hands over.
    pub(super) fn heal(&mut self) {
        self.trace.note(|| "everything heals".into());
        self.calm();
        let timeout = self.swarm.election_timeout();
        self.await_within(4 * timeout, "a leader that all follow", |world| {
            world.undisputed_leader().is_some()
        });
        self.await_within(4 * timeout, "equal logs, applied everywhere", |world| {
            world.has_converged() && world.undisputed_leader().is_some()
        });

        let leader = self.undisputed_leader().expect("awaited above");
        let before = self.facts.committed();
        self.propose_at(leader, 1);
        assert!(self.servers[leader].log.len() as u64 > before.0, "a leader at rest refuses");
        (0..4).for_each(|_| self.propose_at(leader, 5));
        self.settle();
        let last = Index(self.servers[leader].log.len() as u64);
        let applied = self.servers[leader].machine.applied;
        assert!(applied == last, "{last} waits for the next heartbeat behind {applied}");
        self.await_within(timeout, "new commands applied everywhere", Self::has_converged);
        let lives: Vec<_> = self.servers.iter().map(super::server::Server::self_now).collect();
        let open = self.facts.open_requests(&lives);
        assert!(open == 0, "{open} requests were forgotten");
        self.hand_over();
        if self.rng.bool() {
            self.stall_leader();
        }
        if self.rng.bool() {
            self.diverge();
        }
    }

    /// A leader whose disk stands still is replaced within the limit and two election timeouts, where
    /// others can (PROTOCOL "Stalls"); meanwhile, and afterwards, nothing is lost.
    fn stall_leader(&mut self) {
        let leader = self.undisputed_leader().expect("the cluster is at rest");
        let node = self.servers[leader].node;
        if !self.facts.is_quorum(|other| other != node) {
            return;
        }
        self.trace.note(|| format!("the disk of {node} stands still"));
        self.servers[leader].disk_sticks = true;
        self.propose_at(leader, 1);
        let timeout = self.swarm.election_timeout();
        self.await_within(self.swarm.stall_limit() + 2 * timeout, "another leader", |world| {
            world.undisputed_leader().is_some_and(|latest| latest != leader)
        });
        self.coverage.note(Corner::StallOvercome);
        self.servers[leader].disk_sticks = false;
        self.await_within(2 * timeout, "equal logs after a stall", |world| {
            world.has_converged() && world.undisputed_leader().is_some()
        });
    }

    /// A machine that was tampered with is found, and its server stops (PROTOCOL "The machine").
    fn diverge(&mut self) {
        let leader = self.undisputed_leader().expect("the cluster is at rest");
        let victim = self.rng.usize(..self.servers.len());
        if victim == leader || !self.servers[victim].drained {
            return;
        }
        self.trace.note(|| format!("n{} is tampered with", victim + 1));
        self.corrupt = Some(victim);
        self.servers[victim].machine.sum ^= 1;
        let enough = Index(self.facts.committed().0 + self.swarm.checkpoint_every);
        for _ in 0..4 * self.swarm.election_timeout() {
            if self.servers[victim].raft.is_none() {
                return;
            }
            if self.facts.committed() < enough {
                self.propose_at(leader, 5);
            }
            for at in 0..self.servers.len() {
                self.pass_time(at, 1);
                self.settle();
            }
        }
        panic!("a machine that differs from the leader's was not found");
    }

    /// In a cluster at rest a transfer succeeds.
    fn hand_over(&mut self) {
        let Some(leader) = self.undisputed_leader() else {
            panic!("a cluster at rest changed its leader");
        };
        let target = self.rng.usize(..self.servers.len());
        if target == leader || !self.swarm.membership().is_voter(self.servers[target].node) {
            return;
        }
        let order = transfer_to(self.servers[target].node, self.step);
        self.turn(leader, Some(order));
        self.settle();
        let timeout = self.swarm.election_timeout();
        self.await_within(timeout, "the leader that was asked for", |world| {
            world.undisputed_leader() == Some(target) && world.has_converged()
        });
    }

    /// Lets time pass, tick by tick, until this holds. No two servers tick at the same instant, and what
    /// one begins is done before the next one ticks: nothing but luck bounds how often votes are split.
    fn await_within(&mut self, ticks: u64, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..=ticks {
            if holds(self) {
                return;
            }
            let start = self.rng.usize(..self.servers.len());
            let order = (start..self.servers.len()).chain(0..start);
            for at in order {
                self.pass_time(at, 1);
                self.settle();
            }
        }
        panic!("no {what} within {ticks} ticks after everything healed");
    }

    /// Carries out everything that is under way, in any order, until nothing is.
    fn settle(&mut self) {
        let begun = self.step;
        loop {
            assert!(self.step < begun + Self::MOST_EVENTS, "the cluster does not come to rest");
            let at = self.rng.usize(..self.servers.len());
            match self.rng.u32(..5) {
                0 if self.servers[at].disk_sticks => {}
                0 => self.complete_write(at),
                1 => self.complete_apply(at),
                2 => self.complete_load(at),
                // A driver may look for work where there is none.
                3 => self.drain(at),
                _ => self.deliver_next(),
            }
            if !self.servers[at].drained {
                self.drain(at);
            }
            let idle = self.servers.iter().all(super::server::Server::is_idle);
            if idle && self.network.is_empty() {
                return;
            }
        }
    }

    /// The one server that leads and that all others follow.
    fn undisputed_leader(&self) -> Option<usize> {
        let [leader] = self.leaders()[..] else { return None };
        let node = self.servers[leader].node;
        let follows = |raft: &super::super::Raft| raft.leader() == Some(node);
        let all = self.servers.iter().all(|one| one.raft.as_deref().is_some_and(follows));
        all.then_some(leader)
    }

    /// Whether all logs are one, and all of it is committed, durable and applied everywhere.
    fn has_converged(&self) -> bool {
        let first = &self.servers[0];
        let last = Index(first.log.len() as u64);
        self.facts.committed() == last
            && self.servers.iter().all(|one| {
                one.log == first.log
                    && one.seen.commit == last
                    && one.disk.last() == last
                    && one.machine == first.machine
                    && one.machine.applied == last
                    && one.raft.as_ref().is_some_and(|raft| raft.status().transfer.is_none())
            })
    }
}
