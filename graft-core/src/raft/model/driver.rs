//! What a driver does with a server, and what is checked on the way: turns, the lanes of effects,
//! and their completions.

use super::{
    coverage::Corner,
    disk::place,
    facts::{self, Facts},
    promises,
    server::{PendingLoad, Server, entries_of, log_id},
    trace,
    world::World,
};
use crate::{
    Entries, EntryKind, Index, LogId, Membership, Message, NodeId, PeerEnvelope,
    raft::{Answer, Apply, Effects, Fatal, Input, Load, LoadFor, Raft, Refusal, WriteBatch},
};

impl World {
    /// What a driver does when it wakes: the time, what happened, and, mostly at once, the drain.
    pub(super) fn turn(&mut self, at: usize, input: Option<Input>) {
        let now = self.now(at);
        let Some(raft) = &self.servers[at].raft else { return };
        if raft.tick != self.servers[at].clock {
            self.step_in(at, Input::Time { now, unix_millis: self.step });
        }
        if let Some(input) = input {
            self.trace.note(|| trace::input(&self.servers[at], &input));
            self.step_in(at, input);
        }
        self.servers[at].drained = false;
        if self.rng.u32(..1024) >= self.swarm.batching {
            self.drain(at);
        }
    }

    fn step_in(&mut self, at: usize, input: Input) {
        self.step += 1;
        let server = &mut self.servers[at];
        if let Some(raft) = &mut server.raft {
            let prospect = server.timers.look(raft, &input, &mut self.coverage);
            raft.step(input);
            server.timers.check(raft, &prospect);
        }
        self.watch(at);
    }

    /// Looks at a server after its step or drain.
    pub(super) fn watch(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let before = server.seen;
        let commits = server.watch(&mut self.facts, &mut self.coverage);
        let Some(raft) = &server.raft else { return };
        promises::count_arrived(&mut server.windows, raft);
        self.trace.note(|| trace::change(&before, server));
        if commits {
            let entry = log_id(&server.log, server.seen.commit);
            assert!(self.is_on_quorum(entry), "{entry} is committed and not on a quorum of disks");
        }
    }

    pub(super) fn drain(&mut self, at: usize) {
        let Some(raft) = &mut self.servers[at].raft else { return };
        let mut effects = std::mem::take(&mut self.effects);
        raft.drain(&mut effects);
        self.servers[at].drained = true;
        self.watch(at);
        if let Some(fatal) = effects.fatal.take() {
            self.stop(at, &fatal);
            effects = Effects::default();
        }
        for envelope in effects.messages.drain(..) {
            self.send(at, envelope);
        }
        for answer in effects.answers.drain(..) {
            self.on_answer(at, answer);
        }
        if let Some(apply) = effects.apply.take() {
            self.begin_apply(at, apply);
        }
        for load in effects.loads.drain(..) {
            self.begin_load(at, load);
        }
        if let Some(batch) = effects.write.take() {
            let node = self.servers[at].node;
            self.trace.note(|| format!("{node} writes {}", trace::batch(&batch)));
            self.servers[at].begin_write(batch, &mut self.coverage);
        }
        let server = &mut self.servers[at];
        server.loaded = false;
        self.coverage.note_if(server.seen.owes_acknowledgement, Corner::AcknowledgementHeld);
        if let Some(raft) = server.raft.as_ref().filter(|raft| raft.tick == server.clock) {
            let wakes = raft.config.tick_at(raft.next_deadline());
            assert!(wakes > server.clock, "{} wants to be woken in the past", server.node);
        }
        self.effects = effects;
    }

    /// A server stops for good. Nothing the model does may bring that about, except on purpose.
    fn stop(&mut self, at: usize, fatal: &Fatal) {
        let node = self.servers[at].node;
        let on_purpose = self.corrupt == Some(at) && matches!(fatal, Fatal::Diverged { .. });
        assert!(on_purpose, "{node} stopped: {fatal}");
        self.trace.note(|| format!("{node} stops: {fatal}"));
        self.coverage.note(Corner::Diverged);
        self.crash(at);
    }

    /// Whether enough disks hold this entry.
    fn is_on_quorum(&self, entry: LogId) -> bool {
        let holds = |node: NodeId| self.servers[place(Index(node.0))].disk.holds(entry);
        self.facts.is_quorum(holds)
    }

    // Effects.

    fn send(&mut self, at: usize, envelope: PeerEnvelope) {
        let to = place(Index(envelope.to.0));
        self.trace.note(|| trace::envelope("sends", &envelope));
        let (sender, receiver) = (&self.servers[at], &self.servers[to]);
        promises::check(sender, receiver, &envelope, &self.facts, &mut self.coverage);
        if let Message::AppendEntries(append) = &envelope.message {
            if self.servers[at].loaded {
                // What was loaded may have left in another state than the one the server is in now.
                self.servers[at].windows[to].clear();
            } else {
                let peer = (to, envelope.to);
                promises::count_sent(&mut self.servers[at], peer, append, &mut self.coverage);
            }
        }
        self.post((at, to), envelope);
    }

    fn on_answer(&mut self, at: usize, answer: Answer) {
        let Answer { token, refusal } = answer;
        self.trace.note(|| format!("{} answers {token:?} {refusal:?}", self.servers[at].node));
        let corner = match refusal {
            Refusal::BadTransferTarget => Corner::TransferRefused,
            Refusal::LeadershipLost { .. } => Corner::LeadershipLost,
            Refusal::Transferring => Corner::ProposedInTransfer,
            Refusal::NotLeader { .. } => Corner::ProposedToFollower,
            Refusal::Overloaded => {
                let raft = self.servers[at].raft.as_ref();
                let unapplied = raft
                    .is_some_and(|raft| raft.unapplied_bytes() > raft.config.max_unapplied_bytes);
                if unapplied { Corner::Unapplied } else { Corner::Overloaded }
            }
        };
        self.coverage.note(corner);
        if token.link == facts::CLIENTS {
            let lost = matches!(refusal, Refusal::LeadershipLost { .. });
            self.facts.refuse(token, self.servers[at].self_now(), lost);
        } else {
            self.facts.refuse_transfer(token);
        }
    }

    fn begin_apply(&mut self, at: usize, apply: Apply) {
        let server = &mut self.servers[at];
        assert!(server.apply.is_none(), "two applies at once");
        let mut before = server.machine.applied;
        assert!(!apply.entries.is_empty(), "an empty apply");
        for entry in apply.entries.iter() {
            let id = entry.log_id;
            assert!(id.index == before.next(), "{} skips or repeats an entry", server.node);
            assert!(self.facts.is_committed(id), "{} applies {id}, not committed", server.node);
            assert!(server.disk.holds(id), "{} applies {id}, not durable", server.node);
            let previous = server.disk.term_at(before).unwrap_or_default();
            self.facts.learn(previous, entry, None);
            before = id.index;
        }
        let range = server.machine.applied.next()..before.next();
        for (index, token) in &apply.waiting {
            assert!(range.contains(index), "a token does not travel with its entry");
            let entry = log_id(&server.log, *index);
            self.facts.serve(*token, entry, server.self_now());
            self.coverage.note(Corner::ProposalApplied);
        }
        self.trace.note(|| format!("{} applies {}..{}", server.node, range.start, range.end));
        server.apply = Some(apply);
    }

    fn begin_load(&mut self, at: usize, load: Load) {
        let server = &mut self.servers[at];
        let first = load.range.start;
        let held = server.disk.holds(log_id(&server.log, first));
        assert!(held, "{} loads {first}, which is not on its disk", server.node);
        self.trace.note(|| format!("{} loads {:?}", server.node, load));
        let at_once = self.rng.bool().then(|| server.disk.read(&load.range, load.max_bytes));
        server.loads.push(PendingLoad { load, read: at_once });
    }

    /// Compares all of a server with what was seen of it bit by bit.
    pub(super) fn scan(&self, at: usize) {
        let server = &self.servers[at];
        let Some(raft) = &server.raft else { return };
        let status = raft.status();
        if server.drained {
            let (open, known) = (raft.open_proposals().count(), [server.self_now()]);
            assert!(open == self.facts.open_requests(&known), "a request is not accounted for");
        }
        assert!(status.last_applied <= status.commit_index && status.node == server.node);
        for index in 1..=server.log.len() as u64 {
            let known = log_id(&server.log, Index(index)).term;
            assert!(raft.term_at(Index(index)) == Some(known), "a term of the log changed");
        }
        scan_tail(raft, server, &self.facts);
        let log = (1..=server.log.len() as u64).rev();
        let latest = log.map(|index| log_id(&server.log, Index(index)));
        let mut latest = latest.filter(|id| self.facts.kind(*id) == Some(EntryKind::Membership));
        let latest = latest.next().expect("the founding membership is in every log");
        let payload = self.facts.entry(latest).map(|entry| &entry.payload);
        let expected = Membership::decode(payload.expect("it is known")).expect("our own");
        assert!(**raft.membership() == expected, "the membership in force is not the latest");
    }

    pub(super) fn complete_write(&mut self, at: usize) {
        let Some(batch) = self.servers[at].write.take() else { return };
        self.land(at, &batch);
        self.servers[at].seen.fresh_truncation = false;
        self.turn(at, Some(Input::Persisted(batch.id)));
    }

    /// Puts a write on the disk, and holds what is then durable against the facts.
    pub(super) fn land(&mut self, at: usize, batch: &WriteBatch) {
        self.trace.note(|| format!("{} disk << {}", self.servers[at].node, trace::batch(batch)));
        if let Some(entries) = entries_of(batch) {
            let first = entries.first().expect("an append is not empty").log_id.index;
            if let Some(old) = self.servers[at].disk.log.get(place(first)) {
                let old = old.log_id;
                let overwritten = entries.get(first).is_none_or(|new| new.log_id != old);
                let held = overwritten && self.is_on_quorum(old);
                self.coverage.note_if(held, Corner::QuorumOverwritten);
            }
            let before = first.previous();
            let mut before = self.servers[at].disk.term_at(before).unwrap_or_default();
            for entry in entries.iter() {
                self.facts.learn(before, entry, None);
                before = entry.log_id.term;
            }
        }
        let server = &mut self.servers[at];
        server.disk.land(batch);
        let hard_state = server.disk.hard_state;
        if let Some(candidate) = hard_state.voted_for {
            self.facts.vote(hard_state.term, server.node, candidate);
        }
    }

    pub(super) fn complete_apply(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(apply) = server.apply.take() else { return };
        let checkpoints = server.machine.apply(&apply.entries, self.swarm.checkpoint_every);
        let index = server.machine.applied;
        self.turn(at, Some(Input::Applied { index, checkpoints }));
    }

    pub(super) fn complete_load(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let Some(raft) = &server.raft else { return };
        if server.loads.is_empty() {
            return;
        }
        let PendingLoad { load, read } =
            server.loads.swap_remove(self.rng.usize(..server.loads.len()));
        let mut entries = read.unwrap_or_else(|| server.disk.read(&load.range, load.max_bytes));
        let found = entries.len();
        match self.rng.u32(..16) {
            0 => entries = Entries::new(),
            1 if found > 1 => entries.truncate_from(load.range.start.next()),
            _ => {}
        }
        let coverage = &mut self.coverage;
        coverage.note_if(entries.is_empty(), Corner::LoadedNothing);
        coverage.note_if(!entries.is_empty() && entries.len() < found, Corner::LoadedLess);
        coverage.note_if(!raft.log.contains(&entries), Corner::LoadedStale);
        match raft.loads.iter().find(|(id, _)| *id == load.id) {
            Some((_, LoadFor::Apply)) => coverage.note(Corner::LoadedForApply),
            Some((_, LoadFor::Peer { term, .. })) => {
                coverage.note(Corner::LoadedForPeer);
                coverage.note_if(*term != raft.hard_state.term, Corner::LoadedLate);
            }
            None => panic!("a load is under way that nobody waits for"),
        }
        server.loaded = true;
        self.turn(at, Some(Input::Loaded { id: load.id, entries }));
    }
}

/// The entries in memory are what is known of them.
fn scan_tail(raft: &Raft, server: &Server, facts: &Facts) {
    for entry in raft.entries_tail(usize::MAX).iter() {
        let before = entry.log_id.index.previous();
        let known = facts.entry(entry.log_id).expect("every entry is known");
        let previous =
            if before == Index(0) { crate::Term(0) } else { log_id(&server.log, before).term };
        assert!(known.is(previous, entry), "an entry in memory changed");
    }
}
