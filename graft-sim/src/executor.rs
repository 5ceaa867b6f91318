//! An executor of one thread that takes its order from a seed and its time from nowhere.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use graft_core::{BoxFuture, Runtime};

/// Runs tasks one at a time, each next one drawn by the seed from those that are ready. Time stands
/// still while any task is ready, then jumps to the next timer.
pub struct Executor {
    runtime: Arc<SimRuntime>,
}

/// The runtime that tasks of an [`Executor`] see.
pub struct SimRuntime {
    state: Arc<Mutex<State>>,
}

/// A task's number; they are never used again.
type TaskId = u64;

struct State {
    now: Duration,
    rng: fastrand::Rng,
    tasks: BTreeMap<TaskId, BoxFuture>,
    next_task: TaskId,
    /// Those that were woken, each at most once.
    ready: Vec<TaskId>,
    timers: BTreeMap<(Duration, u64), Waker>,
    next_timer: u64,
}

impl Executor {
    /// An executor whose order of tasks, and whose [`Runtime::random`], follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: Duration::ZERO,
            rng: fastrand::Rng::with_seed(seed),
            tasks: BTreeMap::new(),
            next_task: 0,
            ready: Vec::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
        };
        Self { runtime: Arc::new(SimRuntime { state: Arc::new(Mutex::new(state)) }) }
    }

    /// The runtime to hand to nodes, hubs and clients.
    #[must_use]
    pub fn runtime(&self) -> Arc<SimRuntime> {
        Arc::clone(&self.runtime)
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
            if !self.step() {
                return None;
            }
        }
        lock(&slot).take()
    }

    /// Runs everything that happens before `deadline`, and lets the time become `deadline`.
    pub fn run_until(&self, deadline: Duration) {
        loop {
            let next = {
                let state = self.runtime.lock();
                if state.ready.is_empty() { state.next_timer() } else { Some(state.now) }
            };
            if next.is_none_or(|next| next > deadline) {
                break;
            }
            self.step();
        }
        let mut state = self.runtime.lock();
        state.now = state.now.max(deadline);
    }

    /// Runs one task for one turn, or moves the time to the next timer. Says whether there was anything.
    fn step(&self) -> bool {
        let mut state = self.runtime.lock();
        let Some((id, mut task)) = state.draw() else {
            let Some(next) = state.next_timer() else { return false };
            state.now = state.now.max(next);
            let due = state.due_timers();
            drop(state);
            due.into_iter().for_each(Waker::wake);
            return true;
        };
        drop(state);
        let waker = Waker::from(Arc::new(Task { id, state: Arc::clone(&self.runtime.state) }));
        let poll = Pin::as_mut(&mut task).poll(&mut Context::from_waker(&waker));
        if poll == Poll::Pending {
            self.runtime.lock().tasks.insert(id, task);
        }
        true
    }
}

impl State {
    /// Takes a ready task out, any of them with equal chance. A task that has ended is skipped.
    fn draw(&mut self) -> Option<(TaskId, BoxFuture)> {
        while !self.ready.is_empty() {
            let drawn = self.rng.usize(..self.ready.len());
            let id = self.ready.swap_remove(drawn);
            if let Some(task) = self.tasks.remove(&id) {
                return Some((id, task));
            }
        }
        None
    }

    fn next_timer(&self) -> Option<Duration> {
        self.timers.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    fn due_timers(&mut self) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            due.push(entry.remove());
        }
        due
    }

    fn wake(&mut self, id: TaskId) {
        if !self.ready.contains(&id) {
            self.ready.push(id);
        }
    }
}

struct Task {
    id: TaskId,
    state: Arc<Mutex<State>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        lock(&self.state).wake(self.id);
    }
}

impl SimRuntime {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Duration {
        self.lock().now
    }

    /// The wall clock is the monotonic one, as if the world had begun in 2001.
    fn unix_millis(&self) -> u64 {
        const BIRTH: u64 = 1_000_000_000_000;
        BIRTH + u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX - BIRTH)
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture {
        Box::pin(Sleep { deadline, registered: None, state: Arc::clone(&self.state) })
    }

    fn spawn(&self, task: BoxFuture) {
        let mut state = self.lock();
        let id = state.next_task;
        state.next_task += 1;
        state.tasks.insert(id, task);
        state.wake(id);
    }

    /// Runs as a task like any other: what may block takes no time here, but its turn comes when the
    /// seed says so.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.spawn(Box::pin(async move { work() }));
    }

    fn random(&self) -> u64 {
        self.lock().rng.u64(..)
    }
}

/// A wait for a moment. Dropping it forgets the timer.
struct Sleep {
    deadline: Duration,
    registered: Option<u64>,
    state: Arc<Mutex<State>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let shared = Arc::clone(&self.state);
        let mut state = lock(&shared);
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let id = *self.registered.get_or_insert_with(|| {
            state.next_timer += 1;
            state.next_timer
        });
        state.timers.insert((self.deadline, id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.registered {
            lock(&self.state).timers.remove(&(self.deadline, id));
        }
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
        let state = self.lock();
        f.debug_struct("SimRuntime")
            .field("now", &state.now)
            .field("tasks", &state.tasks.len())
            .field("ready", &state.ready.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tasks that yield and sleep; the order in which they write is the order of the run.
    fn order(seed: u64) -> Vec<u64> {
        let executor = Executor::new(seed);
        let runtime = executor.runtime();
        let written = Arc::new(Mutex::new(Vec::new()));
        for task in 0..3 {
            let (clock, written) = (Arc::clone(&runtime), Arc::clone(&written));
            runtime.spawn(Box::pin(async move {
                for round in 1..20 {
                    lock(&written).push(task);
                    clock.sleep_until(Duration::from_millis(round)).await;
                }
            }));
        }
        executor.run_until(Duration::from_secs(1));
        assert_eq!(runtime.now(), Duration::from_secs(1));
        lock(&written).clone()
    }

    #[test]
    fn a_seed_is_an_order_and_another_seed_another() {
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn a_deadlock_is_told_and_not_waited_for() {
        assert_eq!(Executor::new(1).block_on(std::future::pending::<()>()), None);
    }

    #[test]
    fn a_timer_that_is_dropped_is_forgotten() {
        let executor = Executor::new(1);
        let runtime = executor.runtime();
        let clock = Arc::clone(&runtime);
        let waited = executor.block_on(async move {
            let mut long = clock.sleep_until(Duration::from_secs(9));
            let pending = std::future::poll_fn(|context| {
                Poll::Ready(Pin::as_mut(&mut long).poll(context).is_pending())
            });
            assert!(pending.await);
            drop(long);
            clock.sleep_until(Duration::from_secs(1)).await;
        });
        assert_eq!(waited, Some(()));
        assert!(runtime.lock().timers.is_empty());
    }
}
