//! What happened, as a number: equal hashes mean equal runs.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use graft_core::stable_hash;

/// A hash over all that was noted, in order. Clones share it.
#[derive(Clone, Default)]
pub struct Trace {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    hash: u64,
    events: u64,
    line: String,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `event` happened at `now`.
    pub fn note(&self, now: Duration, event: fmt::Arguments<'_>) {
        let mut state = self.lock();
        let State { hash, events, line } = &mut *state;
        line.clear();
        // Writing to a string cannot fail.
        let _ = write!(line, "{hash:x} {} {event}", now.as_nanos());
        *hash = stable_hash(line.as_bytes());
        *events += 1;
    }

    /// The hash of everything noted so far, and how much that was.
    #[must_use]
    pub fn finish(&self) -> (u64, u64) {
        let state = self.lock();
        (state.hash, state.events)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hash, events) = self.finish();
        write!(f, "Trace({hash:016x}, {events} events)")
    }
}
