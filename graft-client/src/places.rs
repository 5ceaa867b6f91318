//! Places in the session: who may send now, who waits, and what happens as sessions come and go.

use std::mem;

use bytes::Bytes;
use graft_core::{ClientRequest, EntryKind, NodeId, SessionId};

use crate::{
    error::RequestError,
    session::{Position, Session},
    slots::{NewRequest, Phase, Refusal, Target, Ticket},
    state::{After, State},
};

impl State {
    /// Whether another request may be opened at all.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.open() < self.limits.max_open
    }

    /// Whether another request may wait.
    pub(crate) fn may_wait(&self) -> bool {
        self.waiting < self.limits.max_waiting
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
        payload: Bytes,
        after: &mut After,
    ) -> (Ticket, Option<(NodeId, ClientRequest)>) {
        self.stats.requests += 1;
        let now = new.started;
        if new.sequence != 0 {
            self.take_position(new.session, new.sequence, now);
        }
        let ticket = self.slots.insert(new);
        (ticket, self.send_or_seek(ticket.slot, payload, now, after))
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
        payload: Bytes,
        now: u64,
        after: &mut After,
    ) -> Option<(NodeId, ClientRequest)> {
        after.discard(self.slots.at_mut(slot).payload.keep(&payload));
        if let Some(leader) = self.leader() {
            return Some((leader, self.launch(slot, leader, payload, now, after)));
        }
        after.discard(Some(payload));
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
        self.send_or_seek(ticket.slot, payload, now, after)
    }

    /// The answer of this slot is no longer wanted: the floor may rise, and others may go.
    pub(crate) fn release_place(&mut self, slot: u32, after: &mut After) {
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
        self.limits.session_ttl
    }

    pub(crate) fn session_opened(&mut self, id: SessionId, sent: u64, after: &mut After) {
        self.session = Some(Session::new(id, self.limits.session_window, sent));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::ClientConfig, slots::Role};

    fn waiting() -> NewRequest {
        NewRequest {
            role: Role::User,
            phase: Phase::Waiting,
            kind: EntryKind::SessionCommand,
            session: SessionId(0),
            sequence: 0,
            started: 0,
            deadline: 1,
            waker: None,
        }
    }

    /// Without a session nothing is taken off the queue, so what is given up must be swept out.
    #[test]
    fn the_queue_stays_as_short_as_those_that_wait() {
        let mut state = State::new(&ClientConfig::default());
        let mut after = After::default();
        let kept: Vec<_> = (0..10).map(|_| state.open_waiting(waiting(), &mut after)).collect();
        for _ in 0..10_000 {
            let given_up = state.open_waiting(waiting(), &mut after);
            state.forget(given_up, &mut After::default());
            assert!(state.queue.len() < 100, "{} tickets", state.queue.len());
        }
        assert_eq!(state.waiting, 10);
        assert!(kept.iter().all(|ticket| state.queue.contains(ticket)), "none is lost");
        state.session_opened(SessionId(1), 0, &mut after);
        assert_eq!((state.waiting, state.granted), (0, 10));
        after.run();
    }
    /// A search that is over must not make the next leader that is found wake everybody for nothing.
    #[test]
    fn those_that_seek_a_leader_are_counted_exactly() {
        let mut state = State::new(&ClientConfig::default());
        let mut after = After::default();
        let slots: Vec<_> = (0..3)
            .map(|_| {
                let new = NewRequest { kind: EntryKind::Plain, deadline: 9, ..waiting() };
                let (ticket, sent) = state.open_sent(new, Bytes::new(), &mut after);
                assert!(sent.is_none(), "no leader is known");
                state.back_off(ticket.slot, 5, true);
                ticket
            })
            .collect();
        assert_eq!(state.seeking, 3);
        state.forget(slots[0], &mut after);
        state.make_ready(slots[1].slot, Target::Seek, &mut after);
        state.finish(slots[2].slot, Ok(Bytes::new()), &mut after);
        assert_eq!(state.seeking, 0);
        after.run();
    }
}
