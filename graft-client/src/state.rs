//! What the lock of a client guards: its open requests, its session, the leader it knows.
//!
//! Everything here runs under the lock for tens of nanoseconds and calls nothing foreign but the
//! caller's buffer. What must happen outside, waking and dropping, is collected in an [`After`].

use std::{collections::VecDeque, mem, task::Waker};

use bytes::Bytes;
use graft_core::{ClientRequest, NodeId, SessionId};

use crate::{
    client::Stats,
    config::ClientConfig,
    error::{Outcome, RequestError},
    mutants::{Bug, Switch},
    session::Session,
    shared::{duration, nanos},
    slots::{
        Freed, MAX_ATTEMPT, NEVER, Phase, Refusal, RequestId, Role, Slot, Slots, Target, Ticket,
    },
};

/// The driver's timer is not set finer than this: 10 ms.
pub(crate) const GRANULARITY: u64 = 10_000_000;

/// How often a request goes on to another server at once before it waits.
pub(crate) const MAX_HOPS: u8 = 4;

/// Whether a client takes requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    Running,
    /// No more requests; the driver has still to close the session.
    Closing,
    Stopped,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) life: Life,
    pub(crate) slots: Slots,
    pub(crate) session: Option<Session>,
    /// The request that opens the next session.
    pub(crate) opener: Option<Ticket>,
    /// Why the servers last refused to open one.
    pub(crate) opener_refusal: Refusal,
    pub(crate) keeper: Option<Ticket>,
    /// Sessions up to this one are known to be gone.
    pub(crate) expired: SessionId,
    /// Requests that wait for a place in the session, in order. Those that ended meanwhile are skipped.
    pub(crate) queue: VecDeque<Ticket>,
    pub(crate) waiting: usize,
    /// How many hold a place that they have not used yet.
    pub(crate) granted: u64,
    /// What the driver must send, or put off.
    pub(crate) ready: VecDeque<Ticket>,
    /// Servers that are gone; the driver looks for what was sent to them.
    pub(crate) gone: Vec<NodeId>,
    /// A leader that was named, or came within reach; the driver looks for what was sent to others.
    pub(crate) elected: Option<NodeId>,
    leader: Option<NodeId>,
    /// Whether `leader` has itself answered as one.
    confirmed: bool,
    /// A leader was found: what waits for one must be sent.
    pub(crate) found: bool,
    /// How many wait for a leader to be found.
    pub(crate) seeking: usize,
    /// When the driver will look by itself.
    pub(crate) armed: u64,
    pub(crate) poked: bool,
    pub(crate) driver: Option<Waker>,
    pub(crate) stats: Stats,
    pub(crate) limits: Limits,
    pub(crate) switch: Switch,
    spare: Spare,
}

/// What the configuration says of it, in nanoseconds and counts.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) attempt_timeout: u64,
    pub(crate) session_ttl: u64,
    pub(crate) session_window: u32,
    pub(crate) max_waiting: usize,
    /// How many requests may be open, whatever their kind.
    pub(crate) max_open: usize,
}

impl Limits {
    fn new(config: &ClientConfig) -> Self {
        let window = usize::try_from(config.session_window).unwrap_or(usize::MAX);
        Self {
            attempt_timeout: nanos(config.attempt_timeout),
            session_ttl: nanos(config.session_ttl),
            session_window: config.session_window,
            max_waiting: config.max_waiting,
            max_open: window.saturating_add(config.max_waiting),
        }
    }
}

/// What is left to do once the lock is released. Most changes leave one waker and one payload.
#[derive(Debug, Default)]
#[must_use = "wakers and buffers collected under the lock are meant to be used after it"]
pub(crate) struct After {
    waker: Option<Waker>,
    payload: Option<Bytes>,
    more: Spare,
    freed: Vec<Freed>,
}

/// What did not find its place in an [`After`]; once that has run, its memory is kept for the next batch of replies.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    wakers: Vec<Waker>,
    payloads: Vec<Bytes>,
}

impl After {
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        if self.waker.is_none() {
            self.waker = waker;
        } else {
            self.more.wakers.extend(waker);
        }
    }

    pub(crate) fn discard(&mut self, payload: Option<Bytes>) {
        if self.payload.is_none() {
            self.payload = payload;
        } else {
            self.more.payloads.extend(payload);
        }
    }

    fn discard_slot(&mut self, freed: Freed) {
        self.freed.push(freed);
    }

    /// Must be called with no lock held.
    #[inline]
    pub(crate) fn run(self) {
        drop(self.run_all());
    }

    /// As [`run`](Self::run), for many; gives the memory back.
    #[inline]
    pub(crate) fn run_all(mut self) -> Spare {
        if let Some(waker) = self.waker {
            waker.wake();
        }
        self.more.wakers.drain(..).for_each(Waker::wake);
        self.more.payloads.clear();
        self.more
    }
}

impl State {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            life: Life::Running,
            slots: Slots::new(),
            session: None,
            opener: None,
            opener_refusal: Refusal::None,
            keeper: None,
            expired: SessionId(0),
            queue: VecDeque::new(),
            waiting: 0,
            granted: 0,
            ready: VecDeque::new(),
            gone: Vec::new(),
            elected: None,
            leader: None,
            confirmed: false,
            found: false,
            seeking: 0,
            armed: 0,
            poked: false,
            driver: None,
            stats: Stats::default(),
            limits: Limits::new(config),
            switch: Switch::of(config),
            spare: Spare::default(),
        }
    }

    /// For what many replies leave to do.
    pub(crate) fn lend_after(&mut self) -> After {
        After { more: mem::take(&mut self.spare), ..After::default() }
    }

    pub(crate) fn return_after(&mut self, spare: Spare) {
        self.spare = spare;
    }

    /// Makes the driver look, now or as soon as it has finished its turn.
    pub(crate) fn poke(&mut self, after: &mut After) {
        self.poked = true;
        after.wake(self.driver.take());
    }

    /// The driver must look at `slot` at `due`.
    pub(crate) fn set_due(&mut self, slot: u32, due: u64, after: &mut After) {
        self.slots.set_due(slot, due);
        if due.saturating_add(GRANULARITY) < self.armed {
            self.poke(after);
        }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// `server` answered as only a leader does.
    #[inline]
    pub(crate) fn confirm_leader(&mut self, server: NodeId, after: &mut After) {
        if self.confirmed && self.leader == Some(server) {
            return;
        }
        self.leader = Some(server);
        self.confirmed = true;
        if self.seeking > 0 {
            self.found = true;
            self.poke(after);
        }
    }

    /// `from` does not lead, and may know who does. Says whom to ask next, if it is another one.
    pub(crate) fn learn_leader(&mut self, from: NodeId, hint: Option<NodeId>) -> Option<NodeId> {
        let other = hint.filter(|leader| *leader != from);
        if other.is_some() {
            if self.leader != other {
                self.leader = other;
                self.confirmed = false;
            }
        } else {
            self.forget_leader(from);
        }
        other
    }

    /// The servers say that `leader` leads now. What others were asked is asked of it at once: one of them may be
    /// dead without anybody having noticed yet.
    pub(crate) fn elect(&mut self, leader: NodeId, after: &mut After) {
        if self.leader != Some(leader) {
            self.leader = Some(leader);
            self.confirmed = false;
        }
        self.elected = Some(leader);
        self.found |= self.seeking > 0;
        self.poke(after);
    }

    /// `server` is not to be asked first any more.
    pub(crate) fn forget_leader(&mut self, server: NodeId) {
        if self.leader == Some(server) {
            self.leader = None;
            self.confirmed = false;
        }
    }

    /// A request waited for `server` until its deadline. Where deadlines are shorter than an attempt may
    /// take, this is all that shows that a server is silent. One such request may have come too late; after a second one
    /// without a leader's answer in between, another server is asked first.
    fn doubt(&mut self, server: NodeId) {
        if self.leader == Some(server) && self.confirmed {
            self.confirmed = false;
            return;
        }
        self.forget_leader(server);
        self.slots.begin_elsewhere();
    }

    /// Hands the slot to the driver.
    pub(crate) fn make_ready(&mut self, slot: u32, target: Target, after: &mut After) {
        let ticket = self.slots.ticket(slot);
        let entry = self.slots.at_mut(slot);
        if matches!(entry.phase, Phase::Backoff { seeking: true }) {
            self.seeking -= 1;
        }
        entry.phase = Phase::Ready(target);
        let deadline = entry.deadline;
        self.slots.set_due(slot, deadline);
        self.ready.push_back(ticket);
        self.poke(after);
    }

    /// Makes the next attempt of a slot. `payload` is what the slot keeps.
    #[inline]
    pub(crate) fn launch(
        &mut self,
        slot: u32,
        to: NodeId,
        payload: Bytes,
        now: u64,
        after: &mut After,
    ) -> ClientRequest {
        let ticket = self.slots.ticket(slot);
        let is_leader = self.leader == Some(to);
        let entry = self.slots.at_mut(slot);
        let asks_leader = is_leader || (entry.handed > 0 && entry.server == to);
        if entry.attempt < MAX_ATTEMPT {
            entry.attempt += 1;
        } else {
            entry.uncertain = true;
        }
        entry.handed = entry.handed.saturating_add(1);
        entry.phase = Phase::Sent;
        entry.server = to;
        entry.asks_leader = asks_leader;
        let request = ClientRequest {
            request_id: RequestId::new(ticket, entry.attempt).0,
            deadline: duration(entry.deadline),
            kind: entry.kind,
            payload,
        };
        let attempt = attempt_time(entry, self.limits.attempt_timeout);
        let due = now.saturating_add(attempt).min(entry.deadline);
        self.stats.attempts += 1;
        self.set_due(slot, due, after);
        request
    }

    /// Ends a slot: a request's future is woken with the result; the client's own just end.
    pub(crate) fn finish(
        &mut self,
        slot: u32,
        result: Result<Bytes, RequestError>,
        after: &mut After,
    ) {
        self.leave_phase(slot);
        self.release_place(slot, after);
        let entry = self.slots.at_mut(slot);
        match entry.role {
            Role::User => {
                entry.phase = Phase::Done(result);
                after.discard(entry.payload.clear());
                let waker = entry.waker.take();
                after.wake(waker);
                self.slots.set_due(slot, NEVER);
            }
            Role::Open => {
                self.opener = None;
                self.free(slot, after);
                if self.waiting > 0 {
                    self.poke(after);
                }
            }
            Role::KeepAlive => {
                self.keeper = None;
                self.free(slot, after);
            }
        }
    }

    /// The future is gone, or has its result: nothing about this request matters any more.
    pub(crate) fn forget(&mut self, ticket: Ticket, after: &mut After) {
        if self.slots.get_mut(ticket).is_none() {
            return;
        }
        self.leave_phase(ticket.slot);
        self.release_place(ticket.slot, after);
        self.free(ticket.slot, after);
    }

    pub(crate) fn free(&mut self, slot: u32, after: &mut After) {
        after.discard_slot(self.slots.free(slot));
    }

    /// Undoes what is counted by phase.
    pub(crate) fn leave_phase(&mut self, slot: u32) {
        match self.slots.at_mut(slot).phase {
            Phase::Waiting => self.waiting -= 1,
            Phase::Granted => self.granted -= 1,
            Phase::Backoff { seeking: true } => self.seeking -= 1,
            _ => {}
        }
    }

    /// Ends every open request, as the client or its runtime goes away.
    pub(crate) fn shut_down(&mut self, life: Life, after: &mut After) {
        self.life = life;
        // Nobody is to be let in by those that leave.
        self.queue.clear();
        for slot in 0..self.slots.count() {
            let entry = self.slots.at_mut(slot);
            if matches!(entry.phase, Phase::Free | Phase::Done(_)) {
                continue;
            }
            let outcome = match entry.handed {
                0 => Outcome::NotApplied,
                _ => Outcome::Unknown,
            };
            self.finish(slot, Err(RequestError::Shutdown { outcome }), after);
        }
        self.poke(after);
    }

    /// Why there is no session yet. Whoever was asked for one and is silent has refused nothing, whatever
    /// others said before.
    fn opener_refusal_now(&mut self) -> Refusal {
        let opener = self.opener.and_then(|opener| self.slots.get_mut(opener));
        let is_silent = opener.is_some_and(|opener| matches!(opener.phase, Phase::Sent));
        if is_silent && !self.switch.is(Bug::SilenceCalledNoLeader) {
            self.opener_refusal = Refusal::None;
        }
        self.opener_refusal
    }

    /// Ends a slot whose deadline has passed.
    pub(crate) fn time_out(&mut self, slot: u32, now: u64, after: &mut After) {
        let opener_refusal = self.opener_refusal_now();
        let entry = self.slots.at_mut(slot);
        let mut error = deadline_error(entry, opener_refusal, now);
        if self.switch.is(Bug::TimeoutCalledNotApplied)
            && let RequestError::Timeout { outcome, .. } = &mut error
        {
            *outcome = Outcome::NotApplied;
        }
        if entry.role == Role::User {
            self.stats.timeouts += 1;
        }
        if matches!(entry.phase, Phase::Sent) && !self.switch.is(Bug::SilentLeaderAskedForEver) {
            let server = entry.server;
            self.doubt(server);
        }
        self.finish(slot, Err(error), after);
    }
}

/// How long the attempt that is out may take. A leader that is slow may well have the one before in its log, and
/// takes another in as one more entry, which makes it slower still: so each attempt at a leader gets twice the time
/// of the one before, whichever leader it is. Whoever is only asked in the search for one gets no more than the
/// usual, unless it is the only one there is to ask: it may lead without having said so.
#[inline]
fn attempt_time(slot: &Slot, usual: u64) -> u64 {
    const MOST_DOUBLINGS: u8 = 16;
    if !slot.asks_leader {
        return usual;
    }
    usual.saturating_mul(1 << slot.silences.min(MOST_DOUBLINGS))
}

/// What a request ends with at its deadline.
fn deadline_error(slot: &Slot, opener_refusal: Refusal, now: u64) -> RequestError {
    let waited = duration(now.saturating_sub(slot.started));
    if slot.uncertain || matches!(slot.phase, Phase::Sent) {
        return RequestError::Timeout { waited, outcome: Outcome::Unknown };
    }
    let refusal = match slot.phase {
        // What it waited for was asked in its place.
        Phase::Waiting if slot.refusal == Refusal::None => opener_refusal,
        _ => slot.refusal,
    };
    match refusal {
        Refusal::NotLeader => RequestError::NoLeader { waited },
        Refusal::Overloaded => RequestError::Overloaded,
        Refusal::None => RequestError::Timeout { waited, outcome: Outcome::NotApplied },
    }
}
