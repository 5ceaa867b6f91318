//! The table of open requests: a slot each, found by number, never by search.

use std::{mem, task::Waker};

use bytes::Bytes;
use graft_core::{EntryKind, NodeId, SessionId};

use crate::{error::RequestError, kept::Kept};

/// A slot and the generation that makes it this request's and no other's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// The number of a request on a link: `generation << 32 | attempt << 20 | slot`.
///
/// The generation keeps a late reply from another request; the attempt tells a refusal of what is
/// out now from a repeated refusal of something earlier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestId(pub(crate) u64);

const SLOT_BITS: u32 = 20;
const ATTEMPT_BITS: u32 = 12;

impl RequestId {
    /// Never given to a request: the last slot number is not used.
    pub(crate) const NONE: Self = Self(u64::MAX);

    pub(crate) fn new(ticket: Ticket, attempt: u16) -> Self {
        let low = u64::from(attempt) << SLOT_BITS | u64::from(ticket.slot);
        Self(u64::from(ticket.generation) << 32 | low)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the parts are cut out of the number")]
    pub(crate) fn split(self) -> (Ticket, u16) {
        let slot = self.0 as u32 & ((1 << SLOT_BITS) - 1);
        let attempt = (self.0 as u32) >> SLOT_BITS;
        let generation = (self.0 >> 32) as u32;
        (Ticket { slot, generation }, attempt as u16)
    }
}

/// Beyond this many attempts they can no longer be told apart, and a refusal proves nothing.
pub(crate) const MAX_ATTEMPT: u16 = (1 << ATTEMPT_BITS) - 1;

/// Whom a slot serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// A [`Request`](crate::Request).
    User,
    /// The client itself, to open a session.
    Open,
    /// The client itself, to keep its session alive.
    KeepAlive,
}

/// How far a request has come.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The slot serves nobody.
    Free,
    /// In the queue for a place in the session.
    Waiting,
    /// Holds a place in the window; whoever has the body sends it.
    Granted,
    /// An attempt is out, unanswered.
    Sent,
    /// In the driver's list, to be sent.
    Ready(Target),
    /// Refused; waits for its turn to try again.
    Backoff {
        /// Whether finding a leader ends the wait.
        seeking: bool,
    },
    /// Ended; the result waits to be taken.
    Done(Result<Bytes, RequestError>),
}

/// Where the driver sends a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// To this server, which another one named.
    Server(NodeId),
    /// To the leader if known, else to the next server.
    Seek,
    /// Nowhere for a while.
    Pause {
        /// Whether finding a leader ends the wait.
        seeking: bool,
    },
}

/// The latest reason of those that did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Refusal {
    #[default]
    None,
    NotLeader,
    Overloaded,
}

/// One open request.
#[derive(Debug)]
pub(crate) struct Slot {
    generation: u32,
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    /// The number of the latest attempt; the first is 1.
    pub(crate) attempt: u16,
    /// How many attempts the link has taken.
    pub(crate) handed: u16,
    /// Whether an attempt before the one that is out may have been taken in.
    pub(crate) uncertain: bool,
    /// Whether the servers wait for a later floor than the payload states.
    pub(crate) floor_is_old: bool,
    /// The latest refusal.
    pub(crate) refusal: Refusal,
    /// How often it went on at once since it last waited.
    pub(crate) hops: u8,
    /// How often it has waited.
    pub(crate) round: u8,
    /// How many servers it has tried without knowing a leader.
    pub(crate) probe: u16,
    /// Whether the latest attempt went to a server that was taken for the leader, or to the same as the one before.
    pub(crate) asks_leader: bool,
    /// How often such an attempt was not answered in time.
    pub(crate) silences: u8,
    /// Where the latest attempt went.
    pub(crate) server: NodeId,
    pub(crate) kind: EntryKind,
    /// What is sent; empty as long as the body is with the future.
    pub(crate) payload: Kept,
    /// The place in a session; sequence 0 is none.
    pub(crate) session: SessionId,
    pub(crate) sequence: u64,
    /// When it began and when it must end, in nanoseconds of the runtime's clock.
    pub(crate) started: u64,
    pub(crate) deadline: u64,
    pub(crate) waker: Option<Waker>,
}

impl Slot {
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// The next of the servers to ask where no leader is known: not the one that was asked last, if there is another.
    pub(crate) fn next_server(&mut self, servers: &[NodeId]) -> Option<NodeId> {
        let next = self.probe_next(servers)?;
        if self.handed > 0 && next == self.server { self.probe_next(servers) } else { Some(next) }
    }

    fn probe_next(&mut self, servers: &[NodeId]) -> Option<NodeId> {
        let at = usize::from(self.probe).checked_rem(servers.len())?;
        self.probe = self.probe.wrapping_add(1);
        Some(servers[at])
    }
}

/// What a new request is made of.
#[derive(Debug)]
pub(crate) struct NewRequest {
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    pub(crate) kind: EntryKind,
    pub(crate) session: SessionId,
    pub(crate) sequence: u64,
    pub(crate) started: u64,
    pub(crate) deadline: u64,
    pub(crate) waker: Option<Waker>,
}

/// What a slot held: only to be dropped.
#[derive(Debug)]
pub(crate) struct Freed {
    _phase: Phase,
    _payload: Option<Bytes>,
    _waker: Option<Waker>,
}

/// All slots, and beside them, close together, when each needs the driver.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    due: Vec<u64>,
    free: Vec<u32>,
    /// No slot is due before this.
    nearest: u64,
    /// Where a request that knows no leader begins to look for one.
    first_probe: u16,
}

/// Never.
pub(crate) const NEVER: u64 = u64::MAX;

impl Slots {
    pub(crate) fn new() -> Self {
        Self { nearest: NEVER, ..Self::default() }
    }

    /// How many slots are in use.
    pub(crate) fn open(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// From now on the search for a leader begins at the next server.
    pub(crate) fn begin_elsewhere(&mut self) {
        self.first_probe = self.first_probe.wrapping_add(1);
    }

    pub(crate) fn nearest(&self) -> u64 {
        self.nearest
    }

    /// Opens a slot. The caller has bounded how many there are.
    pub(crate) fn insert(&mut self, new: NewRequest) -> Ticket {
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = &mut self.slots[index as usize];
        slot.role = new.role;
        slot.phase = new.phase;
        slot.attempt = 0;
        slot.handed = 0;
        slot.uncertain = false;
        slot.floor_is_old = false;
        slot.refusal = Refusal::None;
        slot.hops = 0;
        slot.round = 0;
        slot.probe = self.first_probe;
        slot.asks_leader = false;
        slot.silences = 0;
        slot.server = NodeId(0);
        slot.kind = new.kind;
        slot.session = new.session;
        slot.sequence = new.sequence;
        slot.started = new.started;
        slot.deadline = new.deadline;
        slot.waker = new.waker;
        Ticket { slot: index, generation: slot.generation }
    }

    fn grow(&mut self) -> u32 {
        let index = self.slots.len();
        assert!(
            index < (1 << SLOT_BITS) - 1,
            "open requests are bounded below the room of a request's number"
        );
        self.slots.push(Slot {
            generation: 0,
            role: Role::User,
            phase: Phase::Free,
            attempt: 0,
            handed: 0,
            uncertain: false,
            floor_is_old: false,
            refusal: Refusal::None,
            hops: 0,
            round: 0,
            probe: 0,
            asks_leader: false,
            silences: 0,
            server: NodeId(0),
            kind: EntryKind::Plain,
            payload: Kept::default(),
            session: SessionId(0),
            sequence: 0,
            started: 0,
            deadline: 0,
            waker: None,
        });
        self.due.push(NEVER);
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// The slot of a request that is still open.
    #[inline]
    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(ticket.slot as usize)?;
        (slot.generation == ticket.generation && !matches!(slot.phase, Phase::Free)).then_some(slot)
    }

    /// The slot with this number, in use or not.
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// The ticket that is valid for a slot now.
    pub(crate) fn ticket(&self, slot: u32) -> Ticket {
        Ticket { slot, generation: self.slots[slot as usize].generation }
    }

    /// How many slots there are, in use or not.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Frees a slot: from now on its ticket and its request's number mean nothing. What it held is
    /// given back, to be dropped where no lock is held.
    pub(crate) fn free(&mut self, slot: u32) -> Freed {
        let freed = &mut self.slots[slot as usize];
        assert!(!matches!(freed.phase, Phase::Free), "a slot is freed once");
        freed.generation = freed.generation.wrapping_add(1);
        self.due[slot as usize] = NEVER;
        self.free.push(slot);
        Freed {
            _phase: mem::replace(&mut freed.phase, Phase::Free),
            _payload: freed.payload.clear(),
            _waker: freed.waker.take(),
        }
    }

    /// Frees the slot of a request that has ended, for its result.
    pub(crate) fn take_result(&mut self, slot: u32) -> Option<Result<Bytes, RequestError>> {
        let freed = &mut self.slots[slot as usize];
        if !matches!(freed.phase, Phase::Done(_)) {
            return None;
        }
        freed.generation = freed.generation.wrapping_add(1);
        self.free.push(slot);
        match mem::replace(&mut freed.phase, Phase::Free) {
            Phase::Done(result) => Some(result),
            _ => None,
        }
    }

    /// The driver must look at this slot at `due`.
    #[inline]
    pub(crate) fn set_due(&mut self, slot: u32, due: u64) {
        self.due[slot as usize] = due;
        self.nearest = self.nearest.min(due);
    }

    /// Collects the slots that are due, and finds the nearest time of the others.
    pub(crate) fn take_due(&mut self, now: u64, into: &mut Vec<Ticket>) {
        let mut nearest = NEVER;
        for (slot, due) in (0_u32..).zip(&mut self.due) {
            if *due <= now {
                *due = NEVER;
                let generation = self.slots[slot as usize].generation;
                into.push(Ticket { slot, generation });
            } else {
                nearest = nearest.min(*due);
            }
        }
        self.nearest = nearest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> NewRequest {
        NewRequest {
            role: Role::User,
            phase: Phase::Sent,
            kind: EntryKind::Plain,
            session: SessionId(0),
            sequence: 0,
            started: 0,
            deadline: 0,
            waker: None,
        }
    }

    #[test]
    fn a_request_number_holds_slot_attempt_and_generation() {
        for (slot, attempt, generation) in
            [(0, 0, 0), ((1 << SLOT_BITS) - 1, MAX_ATTEMPT, u32::MAX), (77, 3, 9)]
        {
            let ticket = Ticket { slot, generation };
            assert_eq!(RequestId::new(ticket, attempt).split(), (ticket, attempt));
        }
    }

    #[test]
    fn a_freed_slot_is_not_found_by_its_old_ticket() {
        let mut slots = Slots::new();
        let first = slots.insert(plain());
        assert!(slots.get_mut(first).is_some());
        slots.free(first.slot);
        assert!(slots.get_mut(first).is_none());
        let second = slots.insert(plain());
        assert_eq!(second.slot, first.slot);
        assert!(slots.get_mut(first).is_none() && slots.get_mut(second).is_some());
        assert_eq!(slots.open(), 1);
    }

    #[test]
    fn due_slots_are_taken_once_and_the_nearest_of_the_rest_is_known() {
        let mut slots = Slots::new();
        for due in [30, 10, 20, 40] {
            let ticket = slots.insert(plain());
            slots.set_due(ticket.slot, due);
        }
        assert_eq!(slots.nearest(), 10);
        let mut due = Vec::new();
        slots.take_due(20, &mut due);
        let numbers: Vec<_> = due.iter().map(|ticket| ticket.slot).collect();
        assert_eq!((numbers, slots.nearest()), (vec![1, 2], 30));
        due.clear();
        slots.take_due(20, &mut due);
        assert!(due.is_empty());
    }
}
