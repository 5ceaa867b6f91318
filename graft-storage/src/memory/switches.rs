//! What the fault switches of a memory store are set to, and the writes they hold back.

use std::{
    collections::VecDeque,
    future::Future,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use graft_core::{StoreError, Write};

use super::{Shared, State};
use crate::fault::Fate;

/// How a write ends.
pub(super) type Outcome = Result<Vec<Write>, StoreError>;

/// The switches, all off by default.
#[derive(Default)]
pub(crate) struct Switches {
    pub(crate) hold_writes: bool,
    pub(crate) hold_reads: bool,
    pub(crate) fail_write: Option<Fate>,
    pub(crate) fail_read: bool,
    pub(crate) fail_recover: bool,
    held: VecDeque<(Batch, Ticket)>,
    /// Those who wait for a switch to be turned or a write to be held. Each looks again when woken.
    waiting: Vec<Waker>,
}

/// A write that was given to the store while a switch had a say in it.
pub(super) struct Batch {
    /// The generation under which it was given: it is applied under no other.
    pub(super) generation: u64,
    pub(super) writes: Vec<Write>,
    pub(super) failure: Option<Fate>,
}

impl Switches {
    pub(super) fn is_write_in_doubt(&self) -> bool {
        self.hold_writes || self.fail_write.is_some()
    }

    pub(super) fn hold(&mut self, batch: Batch) -> Ticket {
        let ticket = Ticket::default();
        self.held.push_back((batch, ticket.clone()));
        ticket
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn fail_read(&mut self) -> Result<(), StoreError> {
        fail_if(mem::take(&mut self.fail_read), "read")
    }

    pub(super) fn fail_recover(&mut self) -> Result<(), StoreError> {
        fail_if(mem::take(&mut self.fail_recover), "recover")
    }

    /// Wakers to call once the store's lock is released.
    pub(crate) fn take_waiting(&mut self) -> Vec<Waker> {
        mem::take(&mut self.waiting)
    }
}

/// The error of a switch, as a medium would give it.
pub(super) fn injected(action: &'static str) -> StoreError {
    let source = io::Error::other("a fault switch of a test is on");
    StoreError::Io { action, source }
}

fn fail_if(on: bool, action: &'static str) -> Result<(), StoreError> {
    if on { Err(injected(action)) } else { Ok(()) }
}

impl State {
    /// Ends the first `count` held writes in order. The tickets are to be told without the lock.
    pub(crate) fn release(&mut self, count: usize) -> Vec<Told> {
        let count = count.min(self.switches.held.len());
        let released: Vec<_> = self.switches.held.drain(..count).collect();
        let told = released
            .into_iter()
            .map(|(batch, ticket)| Told { outcome: self.finish(batch), ticket });
        told.collect()
    }

    /// Gives up the held writes: none of them ever happens.
    pub(crate) fn give_up_held(&mut self) -> Vec<Told> {
        let given_up = self
            .switches
            .held
            .drain(..)
            .map(|(_, ticket)| Told { ticket, outcome: Err(StoreError::Fenced) });
        given_up.collect()
    }
}

/// A held write that has ended.
pub(crate) struct Told {
    ticket: Ticket,
    outcome: Outcome,
}

impl Told {
    /// Tells whoever waits for it. Wakes tasks, so the store's lock must not be held.
    pub(crate) fn tell(self) {
        let waker = {
            let mut slot = self.ticket.lock();
            slot.outcome = Some(self.outcome);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Waits for the end of a held write.
#[derive(Clone, Default)]
pub(super) struct Ticket(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl Ticket {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut slot = self.lock();
        if let Some(outcome) = slot.outcome.take() {
            return Poll::Ready(outcome);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Waits until the switches are as wanted.
pub(crate) struct Until<F> {
    shared: Shared,
    wanted: F,
}

impl Shared {
    pub(crate) fn until<F: Fn(&Switches) -> bool>(&self, wanted: F) -> Until<F> {
        Until { shared: self.clone(), wanted }
    }
}

impl<F: Fn(&Switches) -> bool> Future for Until<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if (self.wanted)(&state.switches) {
            return Poll::Ready(());
        }
        let waiting = &mut state.switches.waiting;
        if !waiting.iter().any(|other| other.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
