//! What the driver does to the state: it looks for what is overdue, puts off, sends again, and cares for
//! the session.

use bytes::Bytes;
use graft_core::{
    ClientRequest, EntryKind, NodeId, SessionId,
    session::{
        COMMAND_HEADER, CommandHeader, Payload, SessionSettings, encode_close, encode_keep_alive,
        encode_plain, write_command_header,
    },
};

use crate::{
    config::ClientConfig,
    error::RequestError,
    mutants::Bug,
    session::{Position, Session},
    shared::{duration, nanos},
    slots::{MAX_ATTEMPT, NEVER, NewRequest, Phase, RequestId, Role, Slot, Target, Ticket},
    state::{After, GRANULARITY, Life, MAX_HOPS, State},
};

/// How long the last message of a client may be on its way: 5 s.
const CLOSE_NANOS: u64 = 5_000_000_000;

/// Which requests that are out are not waited for any longer.
pub(crate) struct Lost {
    /// Those at servers that are gone.
    pub(crate) gone: Vec<NodeId>,
    /// Those at everyone but the leader that was named.
    pub(crate) elected: Option<NodeId>,
}

impl Lost {
    pub(crate) const fn is_any(&self) -> bool {
        !self.gone.is_empty() || self.elected.is_some()
    }

    /// Whether what was asked of `server` is lost, while `leader` is taken for the leader. Whoever was named meanwhile, or
    /// has answered as one, is asked nothing twice; and where the one that was named is gone, the others may answer.
    fn is_with(&self, server: NodeId, leader: Option<NodeId>) -> bool {
        let elected = self.elected.filter(|elected| leader == Some(*elected));
        self.gone.contains(&server) || elected.is_some_and(|elected| elected != server)
    }
}

impl State {
    pub(crate) fn has_work(&self) -> bool {
        let needs_session = self.waiting > 0 && self.session.is_none() && self.opener.is_none();
        needs_session
            || !self.ready.is_empty()
            || !self.gone.is_empty()
            || self.elected.is_some()
            || self.found
            || self.life != Life::Running
    }

    pub(crate) fn next_wake(&self) -> u64 {
        let requests = match self.slots.nearest() {
            NEVER => NEVER,
            nearest => nearest.div_ceil(GRANULARITY).saturating_mul(GRANULARITY),
        };
        requests.min(self.keep_alive_at())
    }

    /// The last thing a client does.
    pub(crate) fn close(&mut self, now: u64) -> Option<(NodeId, ClientRequest)> {
        let session = self.session.take()?;
        let request = ClientRequest {
            request_id: RequestId::NONE.0,
            deadline: duration(now.saturating_add(CLOSE_NANOS)),
            kind: EntryKind::SessionClose,
            payload: encode_close(session.id()),
        };
        self.leader().map(|leader| (leader, request))
    }

    /// What was sent in vain, though it may have been taken in, is sent again. What looked for a leader goes on at once
    /// where one was found.
    pub(crate) fn sweep(&mut self, slot: u32, lost: &Lost, found: bool, after: &mut After) {
        let leader = self.leader();
        let entry = self.slots.at_mut(slot);
        match entry.phase {
            Phase::Sent if lost.is_with(entry.server, leader) => {
                entry.uncertain = true;
                let target = if entry.hops < MAX_HOPS {
                    entry.hops += 1;
                    Target::Seek
                } else {
                    Target::Pause { seeking: true }
                };
                self.make_ready(slot, target, after);
            }
            Phase::Backoff { seeking: true } if found => {
                self.make_ready(slot, Target::Seek, after);
            }
            _ => {}
        }
    }

    pub(crate) fn on_due(&mut self, ticket: Ticket, now: u64, after: &mut After) {
        let slot = ticket.slot;
        let Some(entry) = self.slots.get_mut(ticket) else {
            return;
        };
        if matches!(entry.phase, Phase::Done(_)) {
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
                entry.silences = entry.silences.saturating_add(u8::from(entry.asks_leader));
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

    pub(crate) fn back_off(&mut self, slot: u32, until: u64, seeking: bool) {
        let entry = self.slots.at_mut(slot);
        entry.round = entry.round.saturating_add(1);
        entry.phase = Phase::Backoff { seeking };
        let due = until.min(entry.deadline);
        self.seeking += usize::from(seeking);
        self.slots.set_due(slot, due);
    }

    pub(crate) fn resend(
        &mut self,
        slot: u32,
        to: NodeId,
        now: u64,
        after: &mut After,
    ) -> ClientRequest {
        let entry = self.slots.at_mut(slot);
        if entry.attempt > 0 {
            self.stats.retries += 1;
        }
        if entry.handed > 0 && self.switch.is(Bug::RetryWithoutSession) {
            leave_session(entry);
        }
        if let Some(session) = &self.session
            && entry.floor_is_old
            && entry.session == session.id()
        {
            let floor = session.peek().floor;
            let position = Position { session: entry.session, sequence: entry.sequence, floor };
            let payload = with_position(entry.payload.bytes(), position);
            after.discard(entry.payload.keep(&payload));
        }
        let payload = entry.payload.share();
        self.launch(slot, to, payload, now, after)
    }

    /// Deals with a command whose session is not the one in use any more. Says whether that was the
    /// end of this way.
    pub(crate) fn leaves_its_session(&mut self, ticket: Ticket, after: &mut After) -> bool {
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
            let error = RequestError::SessionExpired;
            self.finish(ticket.slot, Err(error), after);
        }
        expired
    }

    /// Opens a session where one is wanted, and keeps the one that is used.
    pub(crate) fn care_for_session(&mut self, now: u64, config: &ClientConfig, after: &mut After) {
        if self.waiting > 0 && self.session.is_none() && self.opener.is_none() {
            let settings = SessionSettings {
                ttl_millis: u64::try_from(config.session_ttl.as_millis()).unwrap_or(u64::MAX),
                window: config.session_window,
                max_sessions: config.max_sessions,
            };
            let deadline = now.saturating_add(nanos(config.deadline));
            let open = own(Role::Open, EntryKind::SessionOpen, now, deadline);
            self.opener = Some(self.start_own(open, &settings.encode(), after));
        }
        if now < self.keep_alive_at() {
            return;
        }
        let ttl = self.ttl();
        if let Some(session) = &mut self.session {
            let last = session.renewed().saturating_add(ttl / 3 * 2);
            if session.take_used() && now < last {
                let payload = encode_keep_alive(session.id(), session.peek().floor);
                let mut keep = own(Role::KeepAlive, EntryKind::SessionKeepAlive, now, last);
                keep.session = session.id();
                self.keeper = Some(self.start_own(keep, &payload, after));
            }
        }
    }

    fn start_own(&mut self, new: NewRequest, payload: &Bytes, after: &mut After) -> Ticket {
        let ticket = self.slots.insert(new);
        after.discard(self.slots.at_mut(ticket.slot).payload.keep(payload));
        self.make_ready(ticket.slot, Target::Seek, after);
        ticket
    }

    /// When the session wants to be kept alive, if nothing else renews it before.
    pub(crate) fn keep_alive_at(&self) -> u64 {
        let idle = self.session.as_ref().and_then(Session::idle_since);
        match idle {
            Some(since) if self.keeper.is_none() => since.saturating_add(self.ttl() / 3),
            _ => NEVER,
        }
    }
}

/// A request of the client's own.
fn own(role: Role, kind: EntryKind, started: u64, deadline: u64) -> NewRequest {
    NewRequest {
        role,
        phase: Phase::Waiting,
        kind,
        session: SessionId(0),
        sequence: 0,
        started,
        deadline,
        waker: None,
    }
}

/// Moves a command that no link ever took into the session that is open now.
pub(crate) fn rehome(
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
    let payload = with_position(slot.payload.bytes(), position);
    state.send_granted(ticket, position, payload, now, after)
}

/// What a known bug does: the command goes on without its session.
fn leave_session(slot: &mut Slot) {
    if slot.kind != EntryKind::SessionCommand {
        return;
    }
    let version = match Payload::parse(EntryKind::SessionCommand, slot.payload.bytes()) {
        Ok(Payload::SessionCommand { header, .. }) => header.version,
        _ => 0,
    };
    slot.kind = EntryKind::Plain;
    let payload = encode_plain(version, &slot.payload.bytes()[COMMAND_HEADER..]);
    drop(slot.payload.keep(&payload));
}

/// A copy of a command's payload at another place. The body keeps its alignment of 16.
fn with_position(payload: &[u8], position: Position) -> Bytes {
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
