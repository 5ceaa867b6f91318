//! Scenes that chance alone rarely sets. Each is a run of events that might have happened anyway; what
//! comes of it is left to chance again.

use super::{
    server::{Server, incarnation, log_id},
    trace,
    world::World,
};
use crate::{
    AppendEntries, GroupId, Heartbeat, Index, LogId, Message, PeerEnvelope,
    raft::{Input, Role},
};

impl World {
    /// A leader goes on with few of the others, one of which has
    /// a slow disk, while the many may elect another one.
    pub(super) fn divide(&mut self) {
        let Some(leader) = self.one_that(Server::leads) else { return };
        let size = self.servers.len();
        let mut side = vec![false; size];
        side[leader] = true;
        for _ in 1..(size - 1) / 2 {
            side[self.rng.usize(..size)] |= side.iter().filter(|one| **one).count() * 2 < size - 1;
        }
        let slow = self.rng.usize(..size);
        self.servers[slow].disk_sticks |= side[slow] && slow != leader;
        self.trace
            .note(|| format!("n{} leads a few: {side:?}, n{} may be slow", leader + 1, slow + 1));
        self.network.mend();
        let count = self.rng.usize(1..=5);
        self.propose_at(leader, count);
        self.bustle();
        self.network.divide(&side, self.rng.bool());
        let count = self.rng.usize(1..=5);
        self.propose_at(leader, count);
    }

    /// The leader is gone. Votes are on their way to a candidate that hears nothing, and meanwhile
    /// another one is elected in a higher term.
    pub(super) fn delay_votes(&mut self) {
        self.rest();
        let Some(leader) = self.latest_leader() else { return };
        let size = self.servers.len();
        let (one, other) = (self.rng.usize(..size), self.rng.usize(..size));
        self.trace.note(|| format!("votes for n{} will be late", one + 1));
        let batching = std::mem::replace(&mut self.swarm.batching, 0);
        self.network.cut_off(leader, leader);
        let (shortest, _) = self.swarm.election_timeouts();
        (0..size).for_each(|at| self.pass_time(at, shortest));
        self.network.freeze_all_to(one);
        self.turn(one, Some(Input::Campaign));
        self.bustle();
        self.turn(other, Some(Input::Campaign));
        self.bustle();
        self.swarm.batching = batching;
        if self.rng.bool() {
            self.network.mend();
        }
    }

    /// A leader says something that it may say, though this implementation would not just now: any slice
    /// of its log, or how far it has committed. Followers must stand the leaders of other builds.
    pub(super) fn speak_out(&mut self) {
        let size = self.servers.len();
        let (Some(at), to) = (self.one_that(Server::leads), self.rng.usize(..size)) else { return };
        let server = &self.servers[at];
        let Some(raft) = server.raft.as_ref().filter(|_| at != to) else { return };
        let Role::Leader(leader) = &raft.role else { return };
        let (term, commit, round) = (raft.hard_state.term, raft.commit_index, leader.round);
        let message = if self.rng.u32(..4) == 0 {
            Message::Heartbeat(Heartbeat { commit, ..Heartbeat::new(term, round) })
        } else {
            let from = Index(self.rng.u64(1..=server.log.len() as u64));
            let end = Index(from.0 + self.rng.u64(0..4));
            let entries = raft.log.entries(from..end, usize::MAX, usize::MAX).unwrap_or_default();
            let before = from.previous();
            let prev = if before == Index(0) { LogId::ZERO } else { log_id(&server.log, before) };
            Message::AppendEntries(AppendEntries { term, prev, commit, round, entries })
        };
        let from_incarnation = incarnation(server.node);
        let (from, to_node) = (server.node, self.servers[to].node);
        let envelope = PeerEnvelope {
            group: GroupId(0),
            from,
            to: to_node,
            from_incarnation,
            to_incarnation: incarnation(to_node),
            message,
        };
        self.trace.note(|| trace::envelope("says", &envelope));
        self.post((at, to), envelope);
    }

    /// A server gets much at once, of which its leader shared only the beginning with the others, and
    /// begins to write it as its disk comes to a stand. Then leader after leader is elected behind its
    /// back, is heard by it alone, and is lost: what it holds in memory is cut off again and again
    /// under one old write.
    pub(super) fn usurp(&mut self) {
        if self.servers.len() < 5 {
            return;
        }
        self.rest();
        let batching = std::mem::replace(&mut self.swarm.batching, 0);
        self.usurp_over_and_over();
        self.swarm.batching = batching;
        self.network.mend();
    }

    fn usurp_over_and_over(&mut self) {
        let Some(slow) = self.one_that(|server| !server.leads()) else { return };
        let Some(mut leader) = self.latest_leader() else { return };
        self.trace.note(|| format!("n{} will hear leader after leader", slow + 1));
        self.network.freeze_all_to(slow);
        let count = self.rng.usize(1..=3);
        self.propose_at(leader, count);
        self.bustle();
        self.network.cut_off(leader, slow);
        self.propose_at(leader, count);
        self.network.thaw();
        self.flood(slow);
        self.servers[slow].disk_sticks = true;
        for _ in 0..3 {
            self.network.mend();
            self.network.cut_off(leader, leader);
            self.replace(leader, slow);
            let Some(latest) = self.latest_leader().filter(|latest| *latest != leader) else {
                break;
            };
            leader = latest;
            // Not even the entry that opens its term reaches anybody else.
            self.network.cut_off(leader, slow);
            self.network.lose_cut();
            self.bustle();
        }
    }

    fn latest_leader(&self) -> Option<usize> {
        let term = |at: &usize| self.servers[*at].seen.hard_state.term;
        self.leaders().into_iter().max_by_key(term)
    }

    /// Everything on its way to one server is stepped in before it drains.
    fn flood(&mut self, to: usize) {
        let batching = std::mem::replace(&mut self.swarm.batching, 1024);
        for _ in 0..8 {
            if let Some(parcel) = self.network.next_for(to) {
                self.deliver(to, parcel);
            }
        }
        self.swarm.batching = batching;
        self.drain(to);
    }

    /// The others miss their leader; one of them, neither that nor `slow`, campaigns first.
    fn replace(&mut self, leader: usize, slow: usize) {
        let size = self.servers.len();
        let others: Vec<usize> = (0..size).filter(|at| ![leader, slow].contains(at)).collect();
        let next = others[self.rng.usize(..others.len())];
        let (shortest, longest) = self.swarm.election_timeouts();
        for at in others {
            self.pass_time(at, if at == next { longest } else { shortest });
        }
        for _ in 0..20 * size {
            if self.latest_leader().is_some_and(|latest| latest != leader) {
                break;
            }
            self.jostle();
        }
    }

    /// A good deal of messages and writes get through.
    fn bustle(&mut self) {
        let size = self.servers.len();
        (0..6 * size).for_each(|_| self.jostle());
    }

    /// A message and perhaps a write get through.
    fn jostle(&mut self) {
        self.deliver_next();
        let at = self.rng.usize(..self.servers.len());
        if !self.servers[at].disk_sticks {
            self.complete_write(at);
        }
    }
}
