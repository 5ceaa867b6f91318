//! What the handles of a client, its requests, its driver and its link have in common.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use graft_core::{LinkError, Runtime};

use crate::{
    config::ClientConfig,
    slots::{Phase, Target, Ticket},
    state::{After, MAX_HOPS, State},
};

/// The client without its link. The link holds this to deliver replies, so this must not hold the link.
pub(crate) struct Shared {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) config: ClientConfig,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, config: ClientConfig) -> Self {
        Self { runtime, state: Mutex::new(State::new(&config)), config }
    }

    /// The state. Held for tens of nanoseconds; nothing is sent, woken or dropped meanwhile.
    ///
    /// A panic of a caller's buffer comes before any change, so a poisoned lock is as good as any.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> u64 {
        nanos(self.runtime.now())
    }

    /// The link did not take an attempt.
    #[cold]
    pub(crate) fn on_link_error(&self, ticket: Ticket, attempt: u16, error: &LinkError) {
        let mut after = After::default();
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(ticket) else {
            return;
        };
        if !matches!(slot.phase, Phase::Sent) || slot.attempt != attempt {
            return;
        }
        slot.handed -= 1;
        let server = slot.server;
        let unreachable = !matches!(error, LinkError::Full(_));
        let target = if unreachable && slot.hops < MAX_HOPS {
            slot.hops += 1;
            Target::Seek
        } else {
            Target::Pause { seeking: unreachable }
        };
        if unreachable {
            state.forget_leader(server);
        }
        state.make_ready(ticket.slot, target, &mut after);
        drop(state);
        after.run();
    }
}

/// A moment or span in nanoseconds; 584 years are as good as for ever.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(duration.subsec_nanos()))
}

pub(crate) const fn duration(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}
