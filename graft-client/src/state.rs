//! What the lock of a client guards: its open requests, its session, the leader it knows.
//!
//! Everything here runs under the lock for tens of nanoseconds and calls nothing foreign but the
//! caller's buffer. What must happen outside, waking and dropping, is collected in an [`After`].

use std::{collections::VecDeque, mem, task::Waker};

use bytes::Bytes;
use graft_core::{ClientRequest, EntryKind, NodeId, SessionId};

use crate::{
    client::Stats,
    config::ClientConfig,
    error::{Outcome, RequestError},
    session::{Position, Session},
    shared::{duration, nanos},
    slots::{
        MAX_ATTEMPT, NEVER, NewRequest, Phase, Refusal, RequestId, Role, Slot, Slots, Target,
        Ticket,
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
    queue: VecDeque<Ticket>,
    pub(crate) waiting: usize,
    /// How many hold a place that they have not used yet.
    granted: u64,
    /// What the driver must send, or put off.
    pub(crate) ready: VecDeque<Ticket>,
    /// Servers that are gone; the driver looks for what was sent to them.
    pub(crate) gone: Vec<NodeId>,
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
    config: ClientConfig,
}

/// What is left to do once the lock is released.
#[derive(Debug, Default)]
#[must_use = "wakers and buffers collected under the lock are meant to be used after it"]
pub(crate) struct After {
    waker: Option<Waker>,
    driver: Option<Waker>,
    more: Vec<Waker>,
    payload: Bytes,
    more_payloads: Vec<Bytes>,
}

impl After {
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        if self.waker.is_none() {
            self.waker = waker;
        } else {
            self.more.extend(waker);
        }
    }

    pub(crate) fn discard(&mut self, payload: Bytes) {
        if self.payload.is_empty() {
            self.payload = payload;
        } else {
            self.more_payloads.push(payload);
        }
    }

    /// Must be called with no lock held.
    #[inline]
    pub(crate) fn run(self) {
        let wakers = self.waker.into_iter().chain(self.driver).chain(self.more);
        wakers.for_each(Waker::wake);
    }
}

impl State {
    pub(crate) fn new(config: ClientConfig) -> Self {
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
            leader: None,
            confirmed: false,
            found: false,
            seeking: 0,
            armed: 0,
            poked: false,
            driver: None,
            stats: Stats::default(),
            config,
        }
    }

    /// Makes the driver look, now or as soon as it has finished its turn.
    pub(crate) fn poke(&mut self, after: &mut After) {
        self.poked = true;
        if after.driver.is_none() {
            after.driver = self.driver.take();
        }
    }

    /// The driver must look at `slot` at `due`.
    pub(crate) fn set_due(&mut self, slot: u32, due: u64, after: &mut After) {
        self.slots.set_due(slot, due);
        if due.saturating_add(GRANULARITY) < self.armed {
            self.poke(after);
        }
    }

    // -- Leaders ---------------------------------------------------------------------------------

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

    /// `server` is not to be asked first any more.
    pub(crate) fn forget_leader(&mut self, server: NodeId) {
        if self.leader == Some(server) {
            self.leader = None;
            self.confirmed = false;
        }
    }

    // -- The way of a request --------------------------------------------------------------------

    /// How many requests may be open, whatever their kind.
    fn max_open(&self) -> usize {
        let window = usize::try_from(self.config.session_window).unwrap_or(usize::MAX);
        window.saturating_add(self.config.max_waiting)
    }

    /// Whether another request may be opened at all.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.open() < self.max_open()
    }

    /// Whether another request may wait.
    pub(crate) fn may_wait(&self) -> bool {
        self.waiting < self.config.max_waiting
    }

    /// Where the next command stands, if one may go out now without passing others that wait.
    pub(crate) fn next_position(&mut self, now: u64) -> Option<Position> {
        self.retire_stale_session(now);
        if self.waiting > 0 {
            return None;
        }
        let session = self.session.as_ref()?;
        (session.room() > self.granted).then(|| session.peek())
    }

    /// Opens a slot for a request that goes out at once, to the leader if it is known, else by the driver.
    /// `position` was just peeked.
    pub(crate) fn open_sent(
        &mut self,
        new: NewRequest,
        after: &mut After,
    ) -> (Ticket, Option<(NodeId, ClientRequest)>) {
        self.stats.requests += 1;
        let now = new.started;
        if new.sequence != 0 {
            self.take_position(new.session, new.sequence, now);
        }
        let ticket = self.slots.insert(new);
        (ticket, self.send_or_seek(ticket.slot, now, after))
    }

    fn take_position(&mut self, id: SessionId, sequence: u64, now: u64) {
        if let Some(session) = &mut self.session {
            assert!(
                session.peek().session == id && session.peek().sequence == sequence,
                "a place is taken where it was peeked"
            );
            session.take(now);
        }
    }

    fn send_or_seek(
        &mut self,
        slot: u32,
        now: u64,
        after: &mut After,
    ) -> Option<(NodeId, ClientRequest)> {
        if let Some(leader) = self.leader {
            return Some((leader, self.launch(slot, leader, now, after)));
        }
        self.make_ready(slot, Target::Seek, after);
        None
    }

    /// Opens a slot for a request that waits for its place; its body stays with the future.
    pub(crate) fn open_waiting(&mut self, new: NewRequest, after: &mut After) -> Ticket {
        self.stats.requests += 1;
        let deadline = new.deadline;
        let ticket = self.slots.insert(new);
        self.set_due(ticket.slot, deadline, after);
        self.enqueue(ticket, after);
        ticket
    }

    /// Puts a slot into the queue for a place.
    pub(crate) fn enqueue(&mut self, ticket: Ticket, after: &mut After) {
        self.slots.at_mut(ticket.slot).phase = Phase::Waiting;
        // Requests that ended while they waited leave their tickets behind.
        if self.queue.len() > 64 + 2 * self.waiting {
            let slots = &mut self.slots;
            self.queue
                .retain(|ticket| slots.get_mut(*ticket).is_some_and(|slot| slot.is_waiting()));
        }
        self.queue.push_back(ticket);
        self.waiting += 1;
        if self.session.is_none() && self.opener.is_none() {
            self.poke(after);
        }
    }

    /// Gives free places to those that wait longest.
    pub(crate) fn grant(&mut self, after: &mut After) {
        while self.waiting > 0 {
            let room = self.session.as_ref().map_or(0, Session::room);
            if room <= self.granted {
                return;
            }
            let Some(ticket) = self.queue.pop_front() else {
                return;
            };
            let Some(slot) = self.slots.get_mut(ticket) else {
                continue;
            };
            if !matches!(slot.phase, Phase::Waiting) {
                continue;
            }
            slot.phase = Phase::Granted;
            self.waiting -= 1;
            self.granted += 1;
            if slot.payload.is_empty() {
                let waker = slot.waker.clone();
                after.wake(waker);
            } else {
                // The body was given away already: the driver moves it into this session.
                self.ready.push_back(ticket);
                self.poke(after);
            }
        }
    }

    /// Where a request that was granted a place may use it, or `None` where the session went away meanwhile and it
    /// must wait again.
    pub(crate) fn granted_position(
        &mut self,
        ticket: Ticket,
        now: u64,
        after: &mut After,
    ) -> Option<Position> {
        self.retire_stale_session(now);
        let position = self.session.as_ref().map(Session::peek);
        if position.is_none() {
            self.granted -= 1;
            self.enqueue(ticket, after);
        }
        position
    }

    /// Sends a request from the place it was granted. `position` was just peeked.
    pub(crate) fn send_granted(
        &mut self,
        ticket: Ticket,
        position: Position,
        payload: Bytes,
        now: u64,
        after: &mut After,
    ) -> Option<(NodeId, ClientRequest)> {
        self.granted -= 1;
        self.take_position(position.session, position.sequence, now);
        let slot = self.slots.at_mut(ticket.slot);
        slot.session = position.session;
        slot.sequence = position.sequence;
        after.discard(mem::replace(&mut slot.payload, payload));
        self.send_or_seek(ticket.slot, now, after)
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

    /// Makes the next attempt of a slot.
    #[inline]
    pub(crate) fn launch(
        &mut self,
        slot: u32,
        to: NodeId,
        now: u64,
        after: &mut After,
    ) -> ClientRequest {
        let ticket = self.slots.ticket(slot);
        let entry = self.slots.at_mut(slot);
        if entry.attempt < MAX_ATTEMPT {
            entry.attempt += 1;
        } else {
            entry.uncertain = true;
        }
        entry.handed = entry.handed.saturating_add(1);
        entry.phase = Phase::Sent;
        entry.server = to;
        let request = ClientRequest {
            request_id: RequestId::new(ticket, entry.attempt).0,
            deadline: duration(entry.deadline),
            kind: entry.kind,
            payload: entry.payload.clone(),
        };
        let due = now.saturating_add(nanos(self.config.attempt_timeout)).min(entry.deadline);
        self.stats.attempts += 1;
        self.set_due(slot, due, after);
        request
    }

    // -- Ends ------------------------------------------------------------------------------------

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
                after.discard(mem::take(&mut entry.payload));
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

    fn free(&mut self, slot: u32, after: &mut After) {
        let (_phase, payload, _waker) = self.slots.free(slot);
        after.discard(payload);
    }

    /// Undoes what is counted by phase.
    fn leave_phase(&mut self, slot: u32) {
        match self.slots.at_mut(slot).phase {
            Phase::Waiting => self.waiting -= 1,
            Phase::Granted => self.granted -= 1,
            Phase::Backoff { seeking: true } => self.seeking -= 1,
            _ => {}
        }
    }

    /// The answer of this slot is no longer wanted: the floor may rise, and others may go.
    fn release_place(&mut self, slot: u32, after: &mut After) {
        let entry = self.slots.at_mut(slot);
        let sequence = mem::take(&mut entry.sequence);
        if let Some(session) = &mut self.session
            && sequence != 0
            && entry.session == session.id()
        {
            session.release(sequence);
        }
        if self.waiting > 0 {
            self.grant(after);
        }
    }

    /// Ends every request that waits for a place in a session.
    pub(crate) fn fail_waiting(&mut self, error: &RequestError, after: &mut After) {
        for ticket in mem::take(&mut self.queue) {
            let waits = self.slots.get_mut(ticket).is_some_and(|slot| slot.is_waiting());
            if waits {
                self.finish(ticket.slot, Err(error.clone()), after);
            }
        }
    }

    /// Ends every open request, as the client or its runtime goes away.
    pub(crate) fn shut_down(&mut self, life: Life, after: &mut After) {
        self.life = life;
        // Nobody is to be let in by those that leave.
        self.queue.clear();
        for slot in self.slots.numbers() {
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

    /// Ends a slot whose deadline has passed.
    pub(crate) fn time_out(&mut self, slot: u32, now: u64, after: &mut After) {
        let opener_refusal = self.opener_refusal;
        let entry = self.slots.at_mut(slot);
        let error = deadline_error(entry, opener_refusal, now);
        if entry.role == Role::User {
            self.stats.timeouts += 1;
        }
        self.finish(slot, Err(error), after);
    }

    // -- Sessions --------------------------------------------------------------------------------

    /// A session that was idle for long is not used any more: the servers may be about to forget it,
    /// and a command that is sent into a forgotten session ends as unknown.
    fn retire_stale_session(&mut self, now: u64) {
        if let Some(session) = &self.session
            && now.saturating_sub(session.renewed()) > self.ttl() / 3 * 2
        {
            self.session = None;
        }
    }

    pub(crate) fn ttl(&self) -> u64 {
        nanos(self.config.session_ttl)
    }

    pub(crate) fn session_opened(&mut self, id: SessionId, sent: u64, after: &mut After) {
        self.session = Some(Session::new(id, self.config.session_window, sent));
        self.opener_refusal = Refusal::None;
        self.stats.sessions_opened += 1;
        self.grant(after);
        // The driver has a new session to keep alive.
        self.poke(after);
    }

    pub(crate) fn session_expired(&mut self, id: SessionId, after: &mut After) {
        if id > self.expired {
            self.expired = id;
            self.stats.sessions_expired += 1;
        }
        if self.session.as_ref().is_some_and(|session| session.id() == id) {
            self.session = None;
            if self.waiting > 0 {
                self.poke(after);
            }
        }
    }

    /// Whether a command of this slot could only be refused by the servers.
    pub(crate) fn is_expired(&mut self, slot: u32) -> bool {
        let expired = self.expired;
        let entry = self.slots.at_mut(slot);
        entry.kind == EntryKind::SessionCommand && entry.sequence != 0 && entry.session <= expired
    }
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
