//! The one task of a client: all that takes time or must be sent again happens here.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use graft_core::{
    BoxFuture, ClientRequest, EntryKind, Link, NodeId, SessionId,
    session::{
        COMMAND_HEADER, CommandHeader, Payload, SessionSettings, encode_close, encode_keep_alive,
        write_command_header,
    },
};

use crate::{
    session::{Position, Session},
    shared::{Shared, duration, nanos},
    slots::{MAX_ATTEMPT, NEVER, NewRequest, Phase, RequestId, Role, Target, Ticket},
    state::{After, GRANULARITY, Life, MAX_HOPS, State},
};

/// How many requests are sent again before other tasks get their turn.
const BATCH: usize = 256;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    link: Arc<dyn Link>,
    rng: fastrand::Rng,
    due: Vec<u32>,
    outbox: Vec<(NodeId, ClientRequest)>,
}

/// How long the last message of a client may be on its way: 5 s.
const CLOSE_NANOS: u64 = 5_000_000_000;

/// What follows a turn.
enum Turn {
    /// Another one, after others had theirs.
    Again,
    /// Sleep, unless something happens.
    Sleep(u64),
    /// The client is gone.
    End,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, link: Arc<dyn Link>) -> Self {
        let rng = fastrand::Rng::with_seed(shared.runtime.random());
        Self { shared, link, rng, due: Vec::new(), outbox: Vec::new() }
    }

    pub(crate) async fn run(mut self) {
        loop {
            match self.turn() {
                Turn::Again => yield_now().await,
                Turn::Sleep(until) => self.sleep(until).await,
                Turn::End => return,
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let now = self.shared.now();
        if self.look_around(now) == Life::Closing {
            return Turn::End;
        }
        self.resend(now);
        let mut state = self.shared.lock();
        if state.has_work() {
            return Turn::Again;
        }
        let until = state.next_wake();
        state.armed = until;
        state.poked = false;
        Turn::Sleep(until)
    }

    /// Finds out what must be done, and puts it into the list of what is ready.
    fn look_around(&mut self, now: u64) -> Life {
        let shared = Arc::clone(&self.shared);
        let mut after = After::default();
        let mut state = shared.lock();
        if state.life != Life::Running {
            let close = state.close(now);
            drop(state);
            if let Some((leader, request)) = close {
                // Nobody waits for the answer: a session that is not closed here expires.
                let _unsent = self.link.send(leader, request);
            }
            return Life::Closing;
        }
        state.retry_what_is_gone(&mut after);
        state.retry_what_sought(&mut after);
        if state.slots.nearest() <= now {
            state.slots.take_due(now, &mut self.due);
            for slot in self.due.drain(..) {
                state.on_due(slot, now, &mut after);
            }
        }
        state.care_for_session(now, &self.shared.config, &mut after);
        let life = state.life;
        drop(state);
        after.run();
        life
    }

    /// Sends a batch of what is ready.
    fn resend(&mut self, now: u64) {
        if self.shared.lock().ready.is_empty() {
            return;
        }
        let servers = self.link.servers();
        let shared = Arc::clone(&self.shared);
        let mut after = After::default();
        let mut state = shared.lock();
        for _ in 0..BATCH {
            let Some(ticket) = state.ready.pop_front() else {
                break;
            };
            let send = self.prepare(&mut state, ticket, &servers, now, &mut after);
            self.outbox.extend(send);
        }
        drop(state);
        after.run();
        for (to, request) in self.outbox.drain(..) {
            let (ticket, attempt) = RequestId(request.request_id).split();
            if let Err(error) = self.link.send(to, request) {
                shared.on_link_error(ticket, attempt, &error);
            }
        }
    }

    /// What to send for a slot that is ready, if it is not put off or ended instead.
    fn prepare(
        &mut self,
        state: &mut State,
        ticket: Ticket,
        servers: &[NodeId],
        now: u64,
        after: &mut After,
    ) -> Option<(NodeId, ClientRequest)> {
        let slot = state.slots.get_mut(ticket)?;
        let target = match slot.phase {
            Phase::Ready(target) => target,
            Phase::Granted if !slot.payload.is_empty() => {
                return rehome(state, ticket, now, after);
            }
            _ => return None,
        };
        if now >= slot.deadline {
            state.time_out(ticket.slot, now, after);
            return None;
        }
        if state.leaves_its_session(ticket, after) {
            return None;
        }
        let leader = state.leader();
        let slot = state.slots.at_mut(ticket.slot);
        let to = match target {
            Target::Server(server) => Some(server),
            Target::Seek => leader.or_else(|| slot.next_server(servers)),
            // Another request found the leader while this one was refused.
            Target::Pause { seeking: true } if slot.hops < MAX_HOPS => {
                slot.hops += 1;
                leader.filter(|leader| *leader != slot.server)
            }
            Target::Pause { .. } => None,
        };
        if let Some(to) = to {
            return Some((to, state.resend(ticket.slot, to, now, after)));
        }
        let seeking = !matches!(target, Target::Pause { seeking: false });
        let round = slot.round;
        let backoff = self.backoff(round);
        state.back_off(ticket.slot, now.saturating_add(backoff), seeking);
        None
    }

    /// How long to wait after the `round`-th refusal: exponential, half of it random, so that those
    /// who were refused together do not come back together.
    fn backoff(&mut self, round: u8) -> u64 {
        let config = &self.shared.config;
        let most = nanos(config.backoff_max);
        let full = nanos(config.backoff_min).saturating_mul(1 << round.min(32)).min(most);
        full / 2 + self.rng.u64(0..=full / 2)
    }

    /// Ends at `until`, or when the client has something to do.
    async fn sleep(&self, until: u64) {
        let mut timer: Option<BoxFuture> =
            (until != NEVER).then(|| self.shared.runtime.sleep_until(duration(until)));
        poll_fn(|context| {
            if self.poll_poked(context).is_ready() {
                return Poll::Ready(());
            }
            match &mut timer {
                Some(timer) => timer.as_mut().poll(context),
                None => Poll::Pending,
            }
        })
        .await;
    }

    fn poll_poked(&self, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut state = self.shared.lock();
        if state.poked {
            return Poll::Ready(());
        }
        let old = state.driver.replace(waker);
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Where the runtime drops the task, nobody would look after the open requests any more.
    fn drop(&mut self) {
        let mut after = After::default();
        let mut state = self.shared.lock();
        state.shut_down(Life::Stopped, &mut after);
        drop(state);
        after.run();
    }
}

impl State {
    fn has_work(&self) -> bool {
        let needs_session = self.waiting > 0 && self.session.is_none() && self.opener.is_none();
        needs_session
            || !self.ready.is_empty()
            || !self.gone.is_empty()
            || self.found
            || self.life != Life::Running
    }

    fn next_wake(&self) -> u64 {
        let requests = match self.slots.nearest() {
            NEVER => NEVER,
            nearest => nearest.div_ceil(GRANULARITY).saturating_mul(GRANULARITY),
        };
        requests.min(self.keep_alive_at())
    }

    /// The last thing a client does.
    fn close(&mut self, now: u64) -> Option<(NodeId, ClientRequest)> {
        let session = self.session.take()?;
        let request = ClientRequest {
            request_id: RequestId::NONE.0,
            deadline: duration(now.saturating_add(CLOSE_NANOS)),
            kind: EntryKind::SessionClose,
            payload: encode_close(session.id()),
        };
        self.leader().map(|leader| (leader, request))
    }

    /// What was sent to servers that are gone will not be answered; it may have been taken in.
    fn retry_what_is_gone(&mut self, after: &mut After) {
        if self.gone.is_empty() {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        for slot in self.slots.numbers() {
            let entry = self.slots.at_mut(slot);
            if matches!(entry.phase, Phase::Sent) && gone.contains(&entry.server) {
                entry.uncertain = true;
                let target = if entry.hops < MAX_HOPS {
                    entry.hops += 1;
                    Target::Seek
                } else {
                    Target::Pause { seeking: true }
                };
                self.make_ready(slot, target, after);
            }
        }
    }

    /// A leader was found: those who looked for one go on at once.
    fn retry_what_sought(&mut self, after: &mut After) {
        if !std::mem::take(&mut self.found) {
            return;
        }
        for slot in self.slots.numbers() {
            if matches!(self.slots.at_mut(slot).phase, Phase::Backoff { seeking: true }) {
                self.make_ready(slot, Target::Seek, after);
            }
        }
    }

    fn on_due(&mut self, slot: u32, now: u64, after: &mut After) {
        let entry = self.slots.at_mut(slot);
        if matches!(entry.phase, Phase::Free | Phase::Done(_)) {
            return;
        }
        if now >= entry.deadline {
            self.time_out(slot, now, after);
            return;
        }
        match entry.phase {
            Phase::Sent => {
                entry.uncertain = true;
                entry.hops = 0;
                let server = entry.server;
                self.stats.attempt_timeouts += 1;
                self.forget_leader(server);
                self.make_ready(slot, Target::Seek, after);
            }
            Phase::Backoff { .. } => {
                entry.hops = 0;
                self.make_ready(slot, Target::Seek, after);
            }
            _ => {
                let deadline = entry.deadline;
                self.slots.set_due(slot, deadline);
            }
        }
    }

    fn back_off(&mut self, slot: u32, until: u64, seeking: bool) {
        let entry = self.slots.at_mut(slot);
        entry.round = entry.round.saturating_add(1);
        entry.phase = Phase::Backoff { seeking };
        let due = until.min(entry.deadline);
        self.seeking += usize::from(seeking);
        self.slots.set_due(slot, due);
    }

    fn resend(&mut self, slot: u32, to: NodeId, now: u64, after: &mut After) -> ClientRequest {
        let entry = self.slots.at_mut(slot);
        if entry.attempt > 0 {
            self.stats.retries += 1;
        }
        if let Some(session) = &self.session
            && entry.floor_is_old
            && entry.session == session.id()
        {
            let floor = session.peek().floor;
            let position = Position { session: entry.session, sequence: entry.sequence, floor };
            let payload = with_position(&entry.payload, position);
            after.discard(std::mem::replace(&mut entry.payload, payload));
        }
        self.launch(slot, to, now, after)
    }

    /// Deals with a command whose session is not the one in use any more. Says whether that was the
    /// end of this way.
    fn leaves_its_session(&mut self, ticket: Ticket, after: &mut After) -> bool {
        let current = self.session.as_ref().map(Session::id);
        let expired = self.is_expired(ticket.slot);
        let slot = self.slots.at_mut(ticket.slot);
        if slot.kind != EntryKind::SessionCommand || current == Some(slot.session) {
            return false;
        }
        if slot.handed == 0 {
            slot.sequence = 0;
            self.enqueue(ticket, after);
            self.grant(after);
            return true;
        }
        if expired {
            let error = crate::RequestError::SessionExpired;
            self.finish(ticket.slot, Err(error), after);
        }
        expired
    }

    /// Opens a session where one is wanted, and keeps the one that is used.
    fn care_for_session(&mut self, now: u64, config: &crate::ClientConfig, after: &mut After) {
        if self.waiting > 0 && self.session.is_none() && self.opener.is_none() {
            let settings = SessionSettings {
                ttl_millis: u64::try_from(config.session_ttl.as_millis()).unwrap_or(u64::MAX),
                window: config.session_window,
                max_sessions: config.max_sessions,
            };
            let deadline = now.saturating_add(nanos(config.deadline));
            let open = own(Role::Open, EntryKind::SessionOpen, settings.encode(), now, deadline);
            self.opener = Some(self.start_own(open, after));
        }
        if now < self.keep_alive_at() {
            return;
        }
        let ttl = self.ttl();
        if let Some(session) = &mut self.session {
            let last = session.renewed().saturating_add(ttl / 3 * 2);
            if session.take_used() && now < last {
                let payload = encode_keep_alive(session.id(), session.peek().floor);
                let mut keep =
                    own(Role::KeepAlive, EntryKind::SessionKeepAlive, payload, now, last);
                keep.session = session.id();
                self.keeper = Some(self.start_own(keep, after));
            }
        }
    }

    fn start_own(&mut self, new: NewRequest, after: &mut After) -> Ticket {
        let ticket = self.slots.insert(new);
        self.make_ready(ticket.slot, Target::Seek, after);
        ticket
    }

    /// When the session wants to be kept alive, if nothing else renews it before.
    fn keep_alive_at(&self) -> u64 {
        let idle = self.session.as_ref().and_then(Session::idle_since);
        match idle {
            Some(since) if self.keeper.is_none() => since.saturating_add(self.ttl() / 3),
            _ => NEVER,
        }
    }
}

/// A request of the client's own.
fn own(role: Role, kind: EntryKind, payload: Bytes, started: u64, deadline: u64) -> NewRequest {
    NewRequest {
        role,
        phase: Phase::Waiting,
        kind,
        payload,
        session: SessionId(0),
        sequence: 0,
        started,
        deadline,
        waker: None,
    }
}

/// Moves a command that no link ever took into the session that is open now.
fn rehome(
    state: &mut State,
    ticket: Ticket,
    now: u64,
    after: &mut After,
) -> Option<(NodeId, ClientRequest)> {
    let position = state.granted_position(ticket, now, after)?;
    let slot = state.slots.at_mut(ticket.slot);
    assert!(
        slot.handed == 0 && slot.attempt <= MAX_ATTEMPT,
        "a command once sent is never sent under another session"
    );
    let payload = with_position(&slot.payload, position);
    state.send_granted(ticket, position, payload, now, after)
}

/// A copy of a command's payload at another place. The body keeps its alignment of 16.
fn with_position(payload: &Bytes, position: Position) -> Bytes {
    let version = match Payload::parse(EntryKind::SessionCommand, payload) {
        Ok(Payload::SessionCommand { header, .. }) => header.version,
        _ => 0,
    };
    let mut copy = vec![0; payload.len() + 16];
    let offset = copy.as_ptr().align_offset(16).min(16);
    let buffer = &mut copy[offset..offset + payload.len()];
    buffer[COMMAND_HEADER..].copy_from_slice(&payload[COMMAND_HEADER..]);
    write_command_header(buffer, &position.header(version));
    let end = offset + payload.len();
    Bytes::from(copy).slice(offset..end)
}

impl Position {
    pub(crate) fn header(self, version: u16) -> CommandHeader {
        CommandHeader { session: self.session, sequence: self.sequence, floor: self.floor, version }
    }
}

/// Lets other tasks run.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
