//! Timers by slot: each belongs to the clock of a process.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{ProcessId, Shared, state::Due};

/// All timers that somebody waits for.
#[derive(Default)]
pub(super) struct Timers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Numbers are never used again, so that what is in the queue of a timer that was set again is known
    /// to be old.
    next_number: u64,
}

struct Slot {
    number: u64,
    process: ProcessId,
    /// On the clock of the process, in nanoseconds.
    deadline: u64,
    waker: Option<Waker>,
}

impl Timers {
    fn set(&mut self, process: ProcessId, deadline: u64, waker: Waker) -> (u32, u64) {
        self.next_number += 1;
        let number = self.next_number;
        let timer = Slot { number, process, deadline, waker: Some(waker) };
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = timer;
            return (slot, number);
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(timer);
        (slot, number)
    }

    /// Whether the timer still has this number.
    pub(super) fn is(&self, slot: u32, number: u64) -> bool {
        self.slots[slot as usize].number == number
    }

    /// Takes the waker of a timer that is due.
    pub(super) fn fire(&mut self, slot: u32, number: u64) -> Option<Waker> {
        let timer = &mut self.slots[slot as usize];
        if timer.number != number {
            return None;
        }
        timer.number = 0;
        timer.waker.take()
    }

    /// Gives new numbers to all timers of a process that are waited for: (slot, number, deadline).
    pub(super) fn renumber(&mut self, process: ProcessId) -> Vec<(u32, u64, u64)> {
        let mut renumbered = Vec::new();
        for (slot, timer) in (0..).zip(&mut self.slots) {
            if timer.process == process && timer.waker.is_some() {
                self.next_number += 1;
                timer.number = self.next_number;
                renumbered.push((slot, timer.number, timer.deadline));
            }
        }
        renumbered
    }

    fn clear(&mut self, slot: u32) -> Option<Waker> {
        let timer = &mut self.slots[slot as usize];
        timer.number = 0;
        self.free.push(slot);
        timer.waker.take()
    }

    pub(super) fn take_all(&mut self) -> Vec<Waker> {
        self.slots.iter_mut().filter_map(|timer| timer.waker.take()).collect()
    }

    #[cfg(test)]
    pub(super) fn waited_for(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// A wait for a moment on the clock of a process. Dropping it forgets the timer.
pub(crate) struct Sleep {
    shared: Arc<Shared>,
    process: ProcessId,
    deadline: u64,
    slot: Option<u32>,
}

impl Sleep {
    pub(super) const fn new(shared: Arc<Shared>, process: ProcessId, deadline: u64) -> Self {
        Self { shared, process, deadline, slot: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.shared.lock();
        if state.shown_by(this.process) >= this.deadline {
            return Poll::Ready(());
        }
        if let Some(slot) = this.slot {
            let timer = &mut state.timers.slots[slot as usize];
            match &mut timer.waker {
                Some(waker) => {
                    waker.clone_from(context.waker());
                    return Poll::Pending;
                }
                // It fired, and the clock was turned before anybody looked.
                None => {
                    state.timers.clear(slot);
                }
            }
        }
        let (slot, number) = state.timers.set(this.process, this.deadline, context.waker().clone());
        this.slot = Some(slot);
        let at = state.moment_of(this.process, this.deadline);
        state.push(at, Due::Timer { slot, number });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let waker = self.shared.lock().timers.clear(slot);
            drop(waker);
        }
    }
}
