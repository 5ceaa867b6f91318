//! An executor of one thread that takes its order from a seed and its time from nowhere.

mod state;
mod tasks;
mod timers;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Context,
    time::Duration,
};

use graft_core::{BoxFuture, Runtime};

use self::{
    state::{Due, Fired, State},
    timers::Sleep,
};
use crate::clock::{Clock, nanos};

/// Runs tasks one at a time, each next one drawn by the seed from those that are ready. Time stands
/// still while any task is ready, then jumps to the next timer.
pub struct Executor {
    runtime: Arc<SimRuntime>,
}

/// The runtime that tasks of an [`Executor`] see. Each process has one, with a clock of its own.
pub struct SimRuntime {
    shared: Arc<Shared>,
    process: ProcessId,
}

/// Tasks that live and die together, on one machine's clock. Numbers are never used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProcessId(u32);

/// What an executor and its runtimes share.
pub(crate) struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor {
    /// An executor whose order of tasks, and whose [`Runtime::random`], follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let shared = Arc::new(Shared(Mutex::new(State::new(seed))));
        Self { runtime: Arc::new(SimRuntime { shared, process: ProcessId(0) }) }
    }

    /// The runtime to hand to nodes, hubs and clients: that of a process whose clock is right and that
    /// never ends.
    #[must_use]
    pub fn runtime(&self) -> Arc<SimRuntime> {
        Arc::clone(&self.runtime)
    }

    /// The world behind all processes.
    pub(crate) fn kernel(&self) -> Kernel {
        Kernel { shared: Arc::clone(&self.runtime.shared) }
    }

    /// Runs everything until `future` ends, or `None` where nothing can ever happen again: a deadlock.
    pub fn block_on<F>(&self, future: F) -> Option<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let slot = Arc::new(Mutex::new(None));
        let result = Arc::clone(&slot);
        self.runtime.spawn(Box::pin(async move {
            let output = future.await;
            *lock(&result) = Some(output);
        }));
        while lock(&slot).is_none() {
            if !self.step(u64::MAX) {
                return None;
            }
        }
        lock(&slot).take()
    }

    /// Runs everything that happens before `deadline`, and lets the time become `deadline`.
    pub fn run_until(&self, deadline: Duration) {
        let deadline = nanos(deadline);
        while self.step(deadline) {}
        let mut state = self.runtime.shared.lock();
        if !state.halted {
            state.now = state.now.max(deadline);
        }
    }

    /// Runs one task for one turn, or moves the time to the next timer, if that is not past `deadline`.
    /// Says whether there was anything.
    fn step(&self, deadline: u64) -> bool {
        let mut state = self.runtime.shared.lock();
        if state.halted {
            return false;
        }
        let Some(mut drawn) = state.draw() else {
            if !state.advance(deadline) {
                return false;
            }
            while let Some(fired) = state.fire() {
                drop(state);
                match fired {
                    Fired::Timer(waker) => waker.wake(),
                    Fired::Call(call) => call(),
                }
                state = self.runtime.shared.lock();
            }
            return true;
        };
        drop(state);
        let poll = Pin::as_mut(&mut drawn.future).poll(&mut Context::from_waker(&drawn.waker));
        // What is dropped here may come back to the executor, so it goes without the lock.
        let rest = self.runtime.shared.lock().put_back(drawn, poll.is_pending());
        drop(rest);
        true
    }
}

impl Drop for Executor {
    /// Tasks hold their executor by their wakers and runtimes: they are let go by hand.
    fn drop(&mut self) {
        loop {
            let rest = self.runtime.shared.lock().take_everything();
            if rest.is_empty() {
                return;
            }
            drop(rest);
        }
    }
}

/// What the world can do to processes. Clones are the same world.
#[derive(Clone)]
pub(crate) struct Kernel {
    shared: Arc<Shared>,
}

impl Kernel {
    /// The time of the world, in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        self.shared.lock().now
    }

    /// A process without tasks.
    pub(crate) fn process(&self, clock: Clock) -> Arc<SimRuntime> {
        let process = self.shared.lock().add_process(clock);
        Arc::new(SimRuntime { shared: Arc::clone(&self.shared), process })
    }

    /// Ends a process: its tasks are dropped wherever they stand, and it gets no others.
    pub(crate) fn kill(&self, process: ProcessId) {
        let rest = self.shared.lock().kill(process);
        drop(rest);
    }

    /// Stops a process for `length`: nothing of it runs, and its clock goes on.
    pub(crate) fn pause(&self, process: ProcessId, length: Duration) {
        let until = self.shared.lock().pause(process, nanos(length));
        let kernel = self.clone();
        self.call_at(until, move || kernel.shared.lock().resume(process));
    }

    /// Ends the pauses of a process.
    pub(crate) fn resume(&self, process: ProcessId) {
        self.shared.lock().end_pauses(process);
    }

    /// Turns the clock of a process.
    pub(crate) fn turn_clock(&self, process: ProcessId, turn: impl FnOnce(&mut Clock, u64)) {
        self.shared.lock().turn_clock(process, turn);
    }

    /// Calls `call` at `moment`, whatever becomes of any process.
    pub(crate) fn call_at(&self, moment: u64, call: impl FnOnce() + Send + 'static) {
        self.shared.lock().push(moment, Due::Call(Box::new(call)));
    }

    /// Ends `delay` from now, for a task of whatever process: something outside of it has happened.
    pub(crate) fn sleep(&self, delay: Duration) -> Sleep {
        let deadline = self.now().saturating_add(nanos(delay));
        Sleep::new(Arc::clone(&self.shared), ProcessId(0), deadline)
    }

    /// Nothing happens any more.
    pub(crate) fn halt(&self) {
        self.shared.lock().halted = true;
    }

    /// How many turns and events there were, and a hash of their order.
    pub(crate) fn tally(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (state.events, state.hash)
    }

    /// From now on work that may block begins up to this late.
    pub(crate) fn set_blocking_delay(&self, longest: Duration) {
        self.shared.lock().blocking_delay = nanos(longest);
    }
}

impl SimRuntime {
    pub(crate) fn id(&self) -> ProcessId {
        self.process
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.lock().shown_by(self.process))
    }

    /// The wall clock is the monotonic one, as if the world had begun in 2001, and whatever its owner has
    /// set it to.
    fn unix_millis(&self) -> u64 {
        self.shared.lock().unix_millis(self.process)
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture {
        Box::pin(Sleep::new(Arc::clone(&self.shared), self.process, nanos(deadline)))
    }

    fn spawn(&self, task: BoxFuture) {
        // The task of a process that has ended is dropped, without the lock.
        let refused = tasks::spawn(&self.shared, self.process, task);
        drop(refused);
    }

    /// Runs as a task like any other: what may block takes no time here, but its turn comes when the
    /// seed says so.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        let wait = self.shared.lock().draw_blocking_delay();
        if wait == 0 {
            self.spawn(Box::pin(async move { work() }));
            return;
        }
        let until = self.shared.lock().now.saturating_add(wait);
        let sleep = Sleep::new(Arc::clone(&self.shared), ProcessId(0), until);
        self.spawn(Box::pin(async move {
            sleep.await;
            work();
        }));
    }

    fn random(&self) -> u64 {
        self.shared.lock().rng.u64(..)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.runtime, f)
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("SimRuntime")
            .field("now", &Duration::from_nanos(state.now))
            .field("process", &self.process.0)
            .field("ready", &state.ready.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
