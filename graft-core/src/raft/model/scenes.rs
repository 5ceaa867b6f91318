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

    /// Votes are on their way to a candidate that hears nothing, and meanwhile others
    /// campaign in a higher term.
    pub(super) fn delay_votes(&mut self) {
        let size = self.servers.len();
        let (one, other) = (self.rng.usize(..size), self.rng.usize(..size));
        self.trace.note(|| format!("votes for n{} will be late", one + 1));
        self.network.mend();
        self.turn(one, Some(Input::Campaign));
        self.bustle();
        self.network.freeze_all_to(one);
        self.bustle();
        self.turn(other, Some(Input::Campaign));
        self.bustle();
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

    /// Leader after leader is heard by nobody but one server whose disk stands still, and
    /// then by nobody at all, so that the others elect the next one. What that server holds in memory
    /// is cut off again and again while one old write is under way.
    pub(super) fn usurp(&mut self) {
        let size = self.servers.len();
        let Some(slow) = self.one_that(|server| !server.leads()).filter(|_| size > 4) else {
            return;
        };
        self.servers[slow].disk_sticks = true;
        self.trace.note(|| format!("n{} hears leader after leader", slow + 1));
        for _ in 0..3 {
            let latest = self.leaders().into_iter().max_by_key(|at| self.servers[*at].log.last());
            let Some(leader) = latest else { break };
            self.network.mend();
            self.network.cut_off(leader, slow);
            let count = self.rng.usize(1..=3);
            self.propose_at(leader, count);
            self.bustle();
            self.network.mend();
            self.network.cut_off(leader, leader);
            for at in (0..size).filter(|at| ![leader, slow].contains(at)) {
                self.pass_time(at, self.swarm.election_timeout());
                self.bustle();
            }
        }
        self.network.mend();
    }

    /// A good deal of messages and writes get through.
    fn bustle(&mut self) {
        let size = self.servers.len();
        for _ in 0..3 * size {
            self.deliver_next();
            let at = self.rng.usize(..size);
            if !self.servers[at].disk_sticks {
                self.complete_write(at);
            }
        }
    }
}
