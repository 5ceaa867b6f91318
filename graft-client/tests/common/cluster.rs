//! A cluster that is as bad as the promises of Raft allow: it loses, delays and duplicates, changes its
//! leader, forgets sessions, and applies what it commits by a naive model of sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use graft_core::{
    ClientRequest, LeaderHint, Link, LinkError, NodeId, RejectReason, Replies, Reply, Runtime,
    SessionId,
    session::{CommandHeader, Payload},
};

use super::runtime::TestRuntime;

/// How bad it is, in percent of messages or events.
#[derive(Clone, Debug)]
pub struct Faults {
    pub lose: u32,
    pub duplicate_replies: u32,
    pub duplicate_requests: u32,
    pub unreachable: u32,
    pub overloaded: u32,
    pub panics: u32,
    pub max_delay: Duration,
    /// How long a leader leads on average; never changes at zero.
    pub reign: Duration,
    /// How long until a session is ended for no reason, on average; never at zero.
    pub session_life: Duration,
}

/// Time and faults; deliveries happen when the test runs them.
pub struct Cluster {
    runtime: Arc<TestRuntime>,
    replies: OnceLock<Arc<dyn Replies>>,
    state: Mutex<Model>,
}

enum Event {
    Arrive { server: NodeId, request: ClientRequest },
    Reply { server: NodeId, request_id: u64, reply: Reply },
    Gone { server: NodeId },
    Commit { term: u64 },
    ChangeLeader,
    EndSession,
}

/// An entry that is proposed and not committed.
struct Proposed {
    request: ClientRequest,
    /// Who waits for it at the leader that proposed it.
    token: Option<NodeId>,
}

#[derive(Default)]
struct Session {
    floor: u64,
    last_active: Duration,
    ttl: Duration,
    window: u64,
    replies: BTreeMap<u64, Reply>,
}

pub struct Model {
    pub faults: Faults,
    rng: fastrand::Rng,
    now: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    next_event: u64,
    servers: Vec<NodeId>,
    leader: Option<NodeId>,
    term: u64,
    log: std::collections::VecDeque<Proposed>,
    index: u64,
    sessions: BTreeMap<SessionId, Session>,
    /// How often each command, by its number, was applied, and with which answers.
    pub applied: BTreeMap<u64, Vec<Reply>>,
    /// Under which sessions and sequences each command was handed over.
    pub handed: BTreeMap<u64, BTreeSet<(SessionId, u64)>>,
    /// Commands of which a request came twice.
    pub duplicated: BTreeSet<u64>,
    /// Commands that were not applied because their own client had given them up.
    pub forgotten: BTreeSet<u64>,
    /// All that was sent, in order, as one number.
    pub trace: u64,
}

impl Cluster {
    pub fn new(runtime: Arc<TestRuntime>, seed: u64, faults: Faults) -> Arc<Self> {
        let mut model = Model {
            rng: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            events: BTreeMap::new(),
            next_event: 0,
            servers: (1..=3).map(NodeId).collect(),
            leader: None,
            term: 0,
            log: std::collections::VecDeque::new(),
            index: 0,
            sessions: BTreeMap::new(),
            applied: BTreeMap::new(),
            handed: BTreeMap::new(),
            duplicated: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            trace: 0,
            faults,
        };
        model.schedule(Duration::ZERO, Event::ChangeLeader);
        let life = model.faults.session_life;
        model.schedule_around(life, Event::EndSession);
        Arc::new(Self { runtime, replies: OnceLock::new(), state: Mutex::new(model) })
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        let mut model = self.state.lock().unwrap();
        model.now = self.runtime.now();
        model
    }

    pub fn next_event(&self) -> Option<Duration> {
        self.model().events.keys().next().map(|(at, _)| *at)
    }

    /// Runs what is due.
    pub fn run(&self) {
        loop {
            let mut model = self.model();
            let now = model.now;
            let due = model.events.keys().next().copied().filter(|(at, _)| *at <= now);
            let Some(event) = due.and_then(|key| model.events.remove(&key)) else {
                return;
            };
            // Replies go out without the lock, as from a network task.
            let replies = self.replies.get().unwrap();
            match event {
                Event::Reply { server, request_id, reply } => {
                    drop(model);
                    replies.on_reply(server, request_id, reply);
                }
                Event::Gone { server } => {
                    drop(model);
                    replies.on_server_gone(server);
                }
                event => model.on_event(event),
            }
        }
    }
}

impl Link for Cluster {
    fn attach(&self, replies: Arc<dyn Replies>) {
        assert!(self.replies.set(replies).is_ok(), "attached twice");
    }

    fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError> {
        let mut model = self.model();
        model.trace = model.trace.rotate_left(5) ^ request.request_id ^ to.0;
        let nanos = u64::try_from(model.now.as_nanos()).unwrap();
        model.trace = model.trace.wrapping_mul(0x0100_0000_01b3) ^ nanos;
        if model.chance(|faults| faults.unreachable) {
            return Err(LinkError::Unreachable(to));
        }
        if let Some(number) = number(&request) {
            let place = header(&request).map_or((SessionId(0), 0), |h| (h.session, h.sequence));
            model.handed.entry(number).or_default().insert(place);
        }
        if model.chance(|faults| faults.duplicate_requests) {
            model.duplicated.extend(number(&request));
            model.send_later(Event::Arrive { server: to, request: request.clone() });
        }
        model.send_later(Event::Arrive { server: to, request });
        Ok(())
    }

    fn servers(&self) -> Vec<NodeId> {
        self.model().servers.clone()
    }
}

/// The number that a test wrote into a command.
fn number(request: &ClientRequest) -> Option<u64> {
    let payload = Payload::parse(request.kind, &request.payload).unwrap();
    let (_, body) = payload.command()?;
    Some(std::str::from_utf8(body).unwrap().parse().unwrap())
}

fn header(request: &ClientRequest) -> Option<CommandHeader> {
    match Payload::parse(request.kind, &request.payload) {
        Ok(Payload::SessionCommand { header, .. }) => Some(header),
        _ => None,
    }
}

impl Model {
    /// From now on nothing is lost, and the leader stays.
    pub fn heal(&mut self) {
        self.faults = Faults {
            lose: 0,
            duplicate_replies: 0,
            duplicate_requests: 0,
            unreachable: 0,
            overloaded: 0,
            panics: 0,
            max_delay: Duration::from_millis(5),
            reign: Duration::ZERO,
            session_life: Duration::ZERO,
        };
        self.events.retain(|_, event| !matches!(event, Event::EndSession));
    }

    fn chance(&mut self, percent: impl Fn(&Faults) -> u32) -> bool {
        self.rng.u32(0..100) < percent(&self.faults)
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + after, self.next_event), event);
    }

    fn schedule_around(&mut self, mean: Duration, event: Event) {
        if !mean.is_zero() {
            let after = mean.mul_f64(self.rng.f64() * 2.0);
            self.schedule(after, event);
        }
    }

    fn send_later(&mut self, event: Event) {
        if !self.chance(|faults| faults.lose) {
            let delay = self.faults.max_delay.mul_f64(self.rng.f64().powi(4));
            self.schedule(delay, event);
        }
    }

    fn answer(&mut self, server: NodeId, request_id: u64, reply: Reply) {
        if self.chance(|faults| faults.duplicate_replies) {
            self.send_later(Event::Reply { server, request_id, reply: reply.clone() });
        }
        self.send_later(Event::Reply { server, request_id, reply });
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Arrive { server, request } => self.on_arrive(server, request),
            Event::Commit { term } if term == self.term => self.commit_next(),
            Event::ChangeLeader => self.change_leader(),
            Event::EndSession => {
                let at = self.rng.usize(..=self.sessions.len());
                let victim = self.sessions.keys().nth(at).copied();
                victim.map(|id| self.sessions.remove(&id));
                let life = self.faults.session_life;
                self.schedule_around(life, Event::EndSession);
            }
            Event::Commit { .. } | Event::Reply { .. } | Event::Gone { .. } => {}
        }
    }

    fn on_arrive(&mut self, server: NodeId, request: ClientRequest) {
        let id = request.request_id;
        let reject = if request.deadline <= self.now {
            RejectReason::DeadlinePassed
        } else if self.leader != Some(server) {
            RejectReason::NotLeader(self.hint())
        } else if self.chance(|faults| faults.overloaded) {
            RejectReason::Overloaded
        } else {
            self.log.push_back(Proposed { request, token: Some(server) });
            let after = Duration::from_micros(self.rng.u64(50..20_000));
            self.schedule(after, Event::Commit { term: self.term });
            return;
        };
        self.answer(server, id, Reply::Rejected(reject));
    }

    /// What a server believes of the leader: often right, sometimes stale, sometimes nothing.
    fn hint(&mut self) -> LeaderHint {
        let leader = match self.rng.u32(0..10) {
            0..6 => self.leader,
            6..8 => Some(NodeId(self.rng.u64(1..=3))),
            _ => None,
        };
        LeaderHint { leader, members: None }
    }

    /// Some of what the old leader proposed survives, none of it with anybody who waits.
    fn change_leader(&mut self) {
        if self.faults.reign.is_zero() {
            self.leader = self.leader.or(Some(NodeId(2)));
            self.term += 1;
            while !self.log.is_empty() {
                self.commit_next();
            }
            return;
        }
        if let Some(old) = self.leader.take() {
            let survive = self.rng.usize(..=self.log.len());
            let how = self.rng.u32(0..4);
            for at in 0..self.log.len() {
                if let Some(server) = self.log[at].token.take() {
                    let id = self.log[at].request.request_id;
                    let reason = match how {
                        0 => RejectReason::LeadershipLost(self.hint()),
                        1 => RejectReason::Stopping { proposed: true },
                        // The server died: nothing but the link itself says so, or nobody.
                        _ => continue,
                    };
                    self.answer(server, id, Reply::Rejected(reason));
                }
            }
            if how == 2 {
                self.schedule(Duration::from_millis(1), Event::Gone { server: old });
            }
            self.log.truncate(survive);
            self.term += 1;
            let election = Duration::from_millis(self.rng.u64(1..600));
            self.schedule(election, Event::ChangeLeader);
            return;
        }
        self.leader = Some(NodeId(self.rng.u64(1..=3)));
        self.term += 1;
        for _ in 0..self.log.len() {
            let after = Duration::from_micros(self.rng.u64(50..20_000));
            self.schedule(after, Event::Commit { term: self.term });
        }
        let reign = self.faults.reign;
        self.schedule_around(reign, Event::ChangeLeader);
    }

    fn commit_next(&mut self) {
        let Some(Proposed { request, token }) = self.log.pop_front() else {
            return;
        };
        let reply = self.apply(&request);
        if let Some(server) = token {
            self.answer(server, request.request_id, reply);
        }
    }

    fn apply(&mut self, request: &ClientRequest) -> Reply {
        self.index += 1;
        let now = self.now;
        self.sessions.retain(|_, session| session.last_active + session.ttl >= now);
        match Payload::parse(request.kind, &request.payload).unwrap() {
            Payload::SessionOpen(settings) => {
                let session = Session {
                    last_active: now,
                    ttl: Duration::from_millis(settings.ttl_millis),
                    window: settings.window.into(),
                    ..Session::default()
                };
                self.sessions.insert(SessionId(self.index), session);
                Reply::SessionOpened(SessionId(self.index))
            }
            Payload::SessionKeepAlive { session, floor } => match self.sessions.get_mut(&session) {
                Some(session) => {
                    session.touch(now, floor);
                    Reply::SessionDone
                }
                None => Reply::SessionExpired,
            },
            Payload::SessionClose { session } => {
                self.sessions.remove(&session);
                Reply::SessionDone
            }
            Payload::SessionCommand { header, .. } => self.apply_command(request, header),
            Payload::Plain { .. } => self.apply_body(request),
            other => panic!("a client sent {other:?}"),
        }
    }

    fn apply_command(&mut self, request: &ClientRequest, header: CommandHeader) -> Reply {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&header.session) else {
            return Reply::SessionExpired;
        };
        session.touch(now, header.floor);
        if header.sequence < session.floor {
            self.forgotten.extend(number(request));
            return Reply::Forgotten;
        }
        if let Some(kept) = session.replies.get(&header.sequence) {
            return kept.clone();
        }
        if header.sequence >= session.floor + session.window {
            panic!("the client left its window: {header:?}, the floor is {}", session.floor);
        }
        // The server's session may be full of replies.
        if header.sequence > session.floor && self.rng.u32(0..50) == 0 {
            return Reply::SessionFull;
        }
        let reply = self.apply_body(request);
        if let Some(session) = self.sessions.get_mut(&header.session) {
            session.replies.insert(header.sequence, reply.clone());
        }
        reply
    }

    fn apply_body(&mut self, request: &ClientRequest) -> Reply {
        let number = number(request).unwrap();
        let text = Bytes::from(format!("{number} at {}", self.index));
        let panics = self.chance(|faults| faults.panics);
        let reply = if panics { Reply::Panicked(text) } else { Reply::Applied(text) };
        self.applied.entry(number).or_default().push(reply.clone());
        reply
    }
}

impl Session {
    fn touch(&mut self, now: Duration, floor: u64) {
        self.last_active = now;
        self.floor = self.floor.max(floor);
        self.replies = self.replies.split_off(&self.floor);
    }
}
