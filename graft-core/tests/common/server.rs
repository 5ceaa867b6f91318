//! One `Raft` with its clock, its disk and its machine, each of which moves only when told.

use std::time::Duration;

use graft_core::{
    Entry, EntryKind, GroupId, Incarnation, Index, LinkId, LogId, Message, NodeId, PeerEnvelope,
    Raft, Term, Token,
    raft::{
        Answer, Apply, Config, Effects, Fatal, Input, Load, Proposal, Refusal, RoleName, Status,
        WriteBatch,
    },
};

use super::{Disk, messages};

/// A server under test. Every input is a turn of its own: step, check the invariants, drain.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) disk: Disk,
    raft: Option<Raft>,
    now: Duration,
    next_request: u64,
    /// The wall clock, which stands still unless a test moves it.
    pub(crate) unix_millis: u64,
    /// How many turns it has had.
    pub(crate) turns: u64,

    /// The write that is under way.
    pub(crate) write: Option<WriteBatch>,
    /// The batch the machine has been given and has not finished.
    pub(crate) apply: Option<Apply>,
    /// The reads that are under way.
    pub(crate) loads: Vec<Load>,
    /// What was sent and not yet taken by the test.
    pub(crate) outbox: Vec<PeerEnvelope>,
    /// What the machine has applied since the last start.
    pub(crate) applied: Vec<Entry>,
    /// Whose proposals were applied here.
    pub(crate) replies: Vec<Token>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) fatal: Option<Fatal>,
}

impl Server {
    /// A server with this configuration that starts from this disk.
    pub(crate) fn start(config: Config, disk: Disk) -> Self {
        let mut server = Self {
            config,
            disk,
            raft: None,
            now: Duration::ZERO,
            next_request: 0,
            unix_millis: 1_700_000_000_000,
            turns: 0,
            write: None,
            apply: None,
            loads: Vec::new(),
            outbox: Vec::new(),
            applied: Vec::new(),
            replies: Vec::new(),
            answers: Vec::new(),
            fatal: None,
        };
        server.restart();
        server
    }

    /// A founder of a cluster of `voters` with nothing but the founding in its log.
    pub(crate) fn founded(node: NodeId, voters: &[NodeId]) -> Self {
        Self::start(Config::new(node), Disk::founded(node, voters))
    }

    /// A founder whose log has exactly these terms.
    pub(crate) fn with_terms(node: NodeId, voters: &[NodeId], terms: &[u64]) -> Self {
        Self::start(Config::new(node), Disk::founded(node, voters).with_terms(terms))
    }

    /// A leader with a log of these terms and a blank entry behind them, in the term after the last
    /// one. All of it is durable here and nothing is heard from the others yet; what was sent so
    /// far is forgotten.
    pub(crate) fn leader(node: NodeId, voters: &[NodeId], terms: &[u64]) -> Self {
        Self::leader_with(Config::new(node), voters, terms)
    }

    pub(crate) fn leader_with(config: Config, voters: &[NodeId], terms: &[u64]) -> Self {
        let node = config.node;
        let mut server = Self::start(config, Disk::founded(node, voters).with_terms(terms));
        server.step(Input::Campaign);
        server.settle();
        let term = server.term().0;
        for voter in voters.iter().filter(|voter| **voter != node) {
            server.receive(*voter, messages::vote(term, true));
        }
        server.settle();
        assert!(server.raft().is_leader());
        server.take_sent();
        server
    }

    /// Like [`Server::leader`], and every other voter has acknowledged all of the log.
    pub(crate) fn settled_leader(config: Config, voters: &[NodeId], terms: &[u64]) -> Self {
        let mut server = Self::leader_with(config, voters, terms);
        let (term, last) = (server.term().0, server.last().index.0);
        let me = server.config.node;
        for voter in voters.iter().filter(|voter| **voter != me) {
            server.receive(*voter, messages::matched(term, last));
        }
        server.settle();
        server.take_sent();
        server
    }

    pub(crate) fn is_up(&self) -> bool {
        self.raft.is_some()
    }

    pub(crate) fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("the server is up")
    }

    pub(crate) fn node(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn status(&self) -> Status {
        self.raft().status()
    }

    pub(crate) fn role(&self) -> RoleName {
        self.raft().role_name()
    }

    pub(crate) fn term(&self) -> Term {
        self.raft().term()
    }

    pub(crate) fn last(&self) -> LogId {
        self.raft().last()
    }

    pub(crate) fn commit(&self) -> u64 {
        self.status().commit_index.0
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft().is_leader()
    }

    /// The terms of the log as the server knows it, durable or not.
    pub(crate) fn terms(&self) -> Vec<u64> {
        let indexes = 1..=self.last().index.0;
        indexes.map(|index| self.raft().term_at(Index(index)).expect("in the log").0).collect()
    }

    /// The clock of this server.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// One turn: all inputs, then one drain.
    pub(crate) fn turn(&mut self, inputs: Vec<Input>) {
        let Some(raft) = &mut self.raft else { return };
        self.turns += 1;
        for input in inputs {
            raft.step(input);
            raft.check_invariants();
        }
        let mut effects = Effects::default();
        raft.drain(&mut effects);
        raft.check_invariants();
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        if let Some(write) = effects.write {
            assert!(self.write.is_none(), "one write at a time");
            self.write = Some(write);
        }
        if let Some(apply) = effects.apply {
            assert!(self.apply.is_none(), "one apply at a time");
            assert!(!apply.entries.is_empty(), "an apply is never empty");
            self.apply = Some(apply);
        }
        for envelope in &effects.messages {
            self.assert_durable_term(&envelope.message);
        }
        self.outbox.extend(effects.messages);
        self.loads.extend(effects.loads);
        self.answers.extend(effects.answers);
        self.fatal = effects.fatal.or(self.fatal.take());
    }

    /// PROTOCOL 1: no message states a term that is not durable, except that a pre-vote speaks of a
    /// campaign that has not begun.
    fn assert_durable_term(&self, message: &Message) {
        let hypothetical = match message {
            Message::PreVote(_) => true,
            Message::PreVoteResponse(response) => response.granted,
            _ => false,
        };
        let durable = self.disk.hard_state.term;
        assert!(
            hypothetical || message.term() == durable,
            "{message:?} with term {durable} on disk"
        );
    }

    pub(crate) fn step(&mut self, input: Input) {
        self.turn(vec![input]);
    }

    /// The time `ticks` later, as a turn that comes late.
    pub(crate) fn jump(&mut self, ticks: u64) {
        self.now += self.config.tick * u32::try_from(ticks).expect("few ticks");
        self.step(self.time());
    }

    /// A tick passes. The server is only woken where it has asked for it, or where there is
    /// something to do.
    pub(crate) fn pass_tick(&mut self) {
        self.now += self.config.tick;
        if self.raft().next_deadline() <= self.now {
            self.step(self.time());
        }
    }

    /// The input that begins every turn.
    pub(crate) fn time(&self) -> Input {
        Input::Time { now: self.now, unix_millis: self.unix_millis }
    }

    /// Tick after tick.
    pub(crate) fn elapse(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.jump(1);
        }
    }

    /// A message from `from`, as the transport hands it in.
    pub(crate) fn receive(&mut self, from: NodeId, message: Message) {
        let envelope = self.envelope_from(from, message);
        self.turn(vec![self.time(), Input::Message(envelope)]);
    }

    pub(crate) fn envelope_from(&self, from: NodeId, message: Message) -> PeerEnvelope {
        PeerEnvelope {
            group: GroupId(0),
            from,
            to: self.config.node,
            from_incarnation: Incarnation(100 + from.0),
            to_incarnation: Incarnation(0),
            message,
        }
    }

    /// Hands in a message, lets the disk and the machine do all they can, and says what was sent.
    pub(crate) fn answers_to(&mut self, from: NodeId, message: Message) -> Vec<(NodeId, Message)> {
        self.take_sent();
        self.receive(from, message);
        self.settle();
        self.take_sent()
    }

    /// Proposes a command; the token tells it apart.
    pub(crate) fn propose(&mut self, command: &str) -> Token {
        self.propose_all(&[command])[0]
    }

    /// Proposes several commands in one batch.
    pub(crate) fn propose_all(&mut self, commands: &[&str]) -> Vec<Token> {
        let tokens = self.next_tokens(commands.len());
        self.next_request += commands.len() as u64;
        let proposals = tokens.iter().zip(commands).map(|(token, command)| {
            let payload = command.as_bytes().to_vec().into();
            Proposal { token: *token, kind: EntryKind::Plain, payload }
        });
        self.turn(vec![self.time(), Input::Propose(proposals.collect())]);
        tokens
    }

    /// The tokens that the next proposals will have.
    pub(crate) fn next_tokens(&self, count: usize) -> Vec<Token> {
        let link = LinkId(self.config.node.0);
        let numbers = self.next_request + 1..=self.next_request + count as u64;
        numbers.map(|request_id| Token { link, request_id }).collect()
    }

    /// The write under way becomes durable. Says whether there was one.
    pub(crate) fn persist(&mut self) -> bool {
        let Some(batch) = self.write.take() else { return false };
        self.disk.write(&batch);
        self.turn(vec![self.time(), Input::Persisted(batch.id)]);
        true
    }

    /// The machine applies what it was given. Says whether there was something.
    pub(crate) fn finish_apply(&mut self) -> bool {
        let Some(apply) = self.apply.take() else { return false };
        for entry in apply.entries.iter() {
            let next = self.applied.len() as u64 + 1;
            assert_eq!(entry.log_id.index.0, next, "applied in order, without skip or repeat");
            self.applied.push(entry.to_entry());
        }
        self.replies.extend(apply.waiting.iter().map(|(_, token)| *token));
        let index = apply.entries.last_log_id().expect("not empty").index;
        self.step(Input::Applied { index, checkpoints: Vec::new() });
        true
    }

    /// The disk answers the oldest read. Says whether there was one.
    pub(crate) fn finish_load(&mut self) -> bool {
        if self.loads.is_empty() {
            return false;
        }
        let load = self.loads.remove(0);
        let entries = self.disk.read(&load);
        self.step(Input::Loaded { id: load.id, entries });
        true
    }

    /// Disk and machine do all they can.
    pub(crate) fn settle(&mut self) {
        while self.is_up() && (self.persist() || self.finish_load() || self.finish_apply()) {}
    }

    /// What was sent since the last call.
    pub(crate) fn take_sent(&mut self) -> Vec<(NodeId, Message)> {
        let sent = std::mem::take(&mut self.outbox);
        sent.into_iter().map(|envelope| (envelope.to, envelope.message)).collect()
    }

    /// What was sent to one server since the last call; what went to the others is forgotten.
    pub(crate) fn take_sent_to(&mut self, to: NodeId) -> Vec<Message> {
        let sent = self.take_sent().into_iter().filter(|(receiver, _)| *receiver == to);
        sent.map(|(_, message)| message).collect()
    }

    /// Why the proposal of this token was refused, if it was.
    pub(crate) fn refusal(&self, token: Token) -> Option<Refusal> {
        let answer = self.answers.iter().find(|answer| answer.token == token);
        answer.map(|answer| answer.refusal)
    }

    /// The power goes: all is lost but what is on the disk. A write under way never happened.
    pub(crate) fn crash(&mut self) {
        self.raft = None;
        self.write = None;
        self.apply = None;
        self.loads.clear();
        self.outbox.clear();
        self.applied.clear();
        self.replies.clear();
        self.answers.clear();
    }

    /// Starts from the disk; crashes first where the server runs.
    pub(crate) fn restart(&mut self) {
        self.crash();
        self.now = Duration::ZERO;
        self.raft = Some(Raft::recover(self.config.clone(), self.disk.recover()));
    }

    /// What the server knows of a peer, if it leads.
    pub(crate) fn peer(&self, node: NodeId) -> graft_core::raft::PeerStatus {
        let peers = self.status().peers;
        *peers.iter().find(|peer| peer.node == node).expect("a leader knows every member")
    }

    /// The payloads of the plain commands that were applied here.
    pub(crate) fn applied_commands(&self) -> Vec<String> {
        let commands = self.applied.iter().filter(|entry| entry.kind == EntryKind::Plain);
        commands.map(|entry| String::from_utf8_lossy(&entry.payload).into_owned()).collect()
    }
}
