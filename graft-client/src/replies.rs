//! What the link brings: replies, servers that are gone, and leaders that are new.

use bytes::Bytes;
use graft_core::{LeaderHint, NodeId, RejectReason, Replies, Reply};

use crate::{
    error::RequestError,
    mutants::Bug,
    shared::Shared,
    slots::{Phase, Refusal, RequestId, Role, Target},
    state::{After, MAX_HOPS, State},
};

impl Replies for Shared {
    fn on_reply(&self, from: NodeId, request_id: u64, reply: Reply) {
        let mut after = After::default();
        let mut state = self.lock();
        state.on_reply(from, RequestId(request_id), reply, &mut after);
        drop(state);
        after.run();
    }

    fn on_replies(&self, from: NodeId, replies: &mut dyn Iterator<Item = (u64, Reply)>) {
        let mut state = self.lock();
        let mut after = state.lend_after();
        for (request_id, reply) in replies {
            state.on_reply(from, RequestId(request_id), reply, &mut after);
        }
        drop(state);
        let spare = after.run_all();
        self.lock().return_after(spare);
    }

    fn on_server_gone(&self, server: NodeId) {
        let mut after = After::default();
        let mut state = self.lock();
        state.forget_leader(server);
        if !state.gone.contains(&server) {
            state.gone.push(server);
        }
        state.poke(&mut after);
        drop(state);
        after.run();
    }

    fn on_leader(&self, leader: NodeId) {
        let mut after = After::default();
        let mut state = self.lock();
        state.elect(leader, &mut after);
        drop(state);
        after.run();
    }
}

impl State {
    fn on_reply(&mut self, from: NodeId, id: RequestId, reply: Reply, after: &mut After) {
        let (ticket, attempt) = id.split();
        let Some(slot) = self.slots.get_mut(ticket) else {
            self.stats.late_replies += 1;
            return;
        };
        if matches!(slot.phase, Phase::Done(_)) {
            self.stats.late_replies += 1;
            return;
        }
        let role = slot.role;
        match (reply, role) {
            (Reply::Applied(response), Role::User) => {
                self.on_applied(from, ticket.slot, Ok(response), after);
            }
            (Reply::Panicked(message), Role::User) => {
                let message = String::from_utf8_lossy(&message).into_owned();
                let error = RequestError::MachinePanicked { message };
                self.on_applied(from, ticket.slot, Err(error), after);
            }
            (Reply::ResponseTooLarge { bytes, limit }, Role::User) => {
                let error = RequestError::ResponseTooLarge { bytes, limit };
                self.on_applied(from, ticket.slot, Err(error), after);
            }
            (Reply::SessionOpened(id), Role::Open) => {
                self.confirm_leader(from, after);
                let sent = slot_started(self, ticket.slot);
                self.finish(ticket.slot, Ok(Bytes::new()), after);
                self.session_opened(id, sent, after);
            }
            (Reply::SessionDone, Role::KeepAlive) => {
                self.on_applied(from, ticket.slot, Ok(Bytes::new()), after);
            }
            (Reply::SessionExpired, _) => self.on_expired(from, ticket.slot, after),
            (Reply::Forgotten, Role::User) => {
                // Only a server that mixes up sessions says this of an answer that is wanted.
                self.confirm_leader(from, after);
                self.finish(ticket.slot, Err(RequestError::SessionExpired), after);
            }
            (Reply::SessionFull, Role::User) if self.is_current(ticket.slot, attempt, from) => {
                self.confirm_leader(from, after);
                self.refused(ticket.slot, Refusal::Overloaded);
                // Room comes with the floor, so the next attempt must carry the latest one.
                self.slots.at_mut(ticket.slot).floor_is_old = true;
                self.make_ready(ticket.slot, Target::Pause { seeking: false }, after);
            }
            (Reply::Rejected(reason), _) => {
                if self.is_current(ticket.slot, attempt, from) {
                    self.on_rejected(from, ticket.slot, reason, after);
                } else {
                    self.stats.late_replies += 1;
                }
            }
            // No server answers so; whatever sent it, the deadline still holds.
            _ => self.stats.late_replies += 1,
        }
    }

    /// Whether this answers the attempt that is out. Only then does a refusal say anything.
    fn is_current(&mut self, slot: u32, attempt: u16, from: NodeId) -> bool {
        let entry = self.slots.at_mut(slot);
        matches!(entry.phase, Phase::Sent) && entry.attempt == attempt && entry.server == from
    }

    fn on_applied(
        &mut self,
        from: NodeId,
        slot: u32,
        result: Result<Bytes, RequestError>,
        after: &mut After,
    ) {
        self.confirm_leader(from, after);
        let entry = self.slots.at_mut(slot);
        let (id, started) = (entry.session, entry.started);
        if let Some(session) = &mut self.session
            && session.id() == id
        {
            session.renew(started);
        }
        self.finish(slot, result, after);
    }

    fn on_expired(&mut self, from: NodeId, slot: u32, after: &mut After) {
        self.confirm_leader(from, after);
        let id = self.slots.at_mut(slot).session;
        self.session_expired(id, after);
        let entry = self.slots.at_mut(slot);
        let sent = entry.role == Role::User && matches!(entry.phase, Phase::Sent);
        if sent && self.switch.is(Bug::ExpiredCommandSentAgain) {
            entry.handed = 0;
            self.make_ready(slot, Target::Seek, after);
            return;
        }
        self.finish(slot, Err(RequestError::SessionExpired), after);
    }

    /// The attempt that is out was refused by `from`, or taken in and then lost sight of.
    fn on_rejected(&mut self, from: NodeId, slot: u32, reason: RejectReason, after: &mut After) {
        match reason {
            RejectReason::NotLeader(hint) => {
                // Who was just named a leader is not told that there is none.
                let is_named = self.redirect(from, slot, &hint, after);
                self.refused(slot, if is_named { Refusal::None } else { Refusal::NotLeader });
            }
            RejectReason::LeadershipLost(hint) => {
                self.slots.at_mut(slot).uncertain = true;
                self.redirect(from, slot, &hint, after);
            }
            RejectReason::Stopping { proposed } => {
                if proposed {
                    self.slots.at_mut(slot).uncertain = true;
                } else {
                    self.refused(slot, Refusal::NotLeader);
                }
                self.redirect(from, slot, &LeaderHint::default(), after);
            }
            RejectReason::Overloaded => {
                self.refused(slot, Refusal::Overloaded);
                self.make_ready(slot, Target::Pause { seeking: false }, after);
            }
            RejectReason::DeadlinePassed => self.on_deadline_passed(slot, after),
            RejectReason::Invalid(reason) => {
                self.on_final(slot, RequestError::InvalidEntry { reason }, after);
            }
            RejectReason::TooLarge { bytes, limit } => {
                self.on_final(slot, RequestError::EntryTooLarge { bytes, limit }, after);
            }
            // A reason of a newer build: whatever it means, it may have been taken in.
            _ => {
                self.slots.at_mut(slot).uncertain = true;
                self.make_ready(slot, Target::Pause { seeking: false }, after);
            }
        }
    }

    fn refused(&mut self, slot: u32, refusal: Refusal) {
        let entry = self.slots.at_mut(slot);
        entry.refusal = refusal;
        if entry.role == Role::Open {
            self.opener_refusal = refusal;
        }
    }

    /// Sends a request on to the leader that `from` named, if that is another one and not too many
    /// have been tried without a pause. Says whether it named another.
    fn redirect(&mut self, from: NodeId, slot: u32, hint: &LeaderHint, after: &mut After) -> bool {
        let other = self.learn_leader(from, hint.leader);
        let entry = self.slots.at_mut(slot);
        let target = match other {
            Some(leader) if entry.hops < MAX_HOPS => {
                entry.hops += 1;
                self.stats.redirects += 1;
                Target::Server(leader)
            }
            _ => Target::Pause { seeking: true },
        };
        self.make_ready(slot, target, after);
        other.is_some()
    }

    /// The server found that the client's deadline has passed; the client's clock is a little behind.
    fn on_deadline_passed(&mut self, slot: u32, after: &mut After) {
        let entry = self.slots.at_mut(slot);
        if entry.role != Role::User {
            self.make_ready(slot, Target::Pause { seeking: false }, after);
            return;
        }
        // The attempt that was out did nothing, and it had found a leader.
        entry.phase = Phase::Ready(Target::Seek);
        entry.refusal = Refusal::None;
        let deadline = entry.deadline;
        self.time_out(slot, deadline, after);
    }

    /// No server would ever take this in. That is the end, unless an earlier attempt may have been
    /// taken in all the same: then only the session can tell, until the deadline.
    fn on_final(&mut self, slot: u32, error: RequestError, after: &mut After) {
        let entry = self.slots.at_mut(slot);
        if entry.uncertain {
            self.make_ready(slot, Target::Pause { seeking: false }, after);
            return;
        }
        if entry.role == Role::Open {
            // Those that wait for the session would wait in vain.
            self.fail_waiting(&error, after);
        }
        self.finish(slot, Err(error), after);
    }
}

fn slot_started(state: &mut State, slot: u32) -> u64 {
    state.slots.at_mut(slot).started
}
