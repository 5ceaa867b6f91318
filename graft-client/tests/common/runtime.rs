//! A single-threaded runtime of virtual time: nothing runs but in [`TestRuntime::settle`], and time
//! moves only in [`TestRuntime::advance`].

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use graft_client::RequestError;
use graft_core::{BoxFuture, Runtime};

pub struct TestRuntime {
    shared: Arc<Inner>,
    random: Mutex<fastrand::Rng>,
    tasks: Mutex<Vec<Arc<Task>>>,
    polls: Mutex<usize>,
}

#[derive(Default)]
struct Inner {
    woken: Mutex<VecDeque<Arc<Task>>>,
    now: Mutex<Duration>,
    timers: Mutex<BTreeMap<(Duration, u64), Waker>>,
    next_timer: Mutex<u64>,
}

struct Task {
    runtime: Weak<Inner>,
    future: Mutex<Option<BoxFuture>>,
    woken: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst)
            && let Some(runtime) = self.runtime.upgrade()
        {
            runtime.woken.lock().unwrap().push_back(self);
        }
    }
}

impl TestRuntime {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::default(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            tasks: Mutex::default(),
            polls: Mutex::default(),
        })
    }

    /// Polls woken tasks, in the order in which they were woken, until none is.
    pub fn settle(&self) {
        let mut ended = false;
        loop {
            let woken = self.shared.woken.lock().unwrap().pop_front();
            let Some(task) = woken else {
                break;
            };
            task.woken.store(false, Ordering::SeqCst);
            *self.polls.lock().unwrap() += 1;
            task.poll();
            ended |= !task.is_alive();
        }
        if ended {
            self.tasks.lock().unwrap().retain(|task| task.is_alive());
        }
    }

    /// How often a task was polled.
    pub fn polls(&self) -> usize {
        *self.polls.lock().unwrap()
    }

    /// How many tasks have neither ended nor been cancelled.
    pub fn tasks(&self) -> usize {
        self.tasks.lock().unwrap().retain(|task| task.is_alive());
        self.tasks.lock().unwrap().len()
    }

    /// When the next timer ends.
    pub fn next_timer(&self) -> Option<Duration> {
        let timers = self.shared.timers.lock().unwrap();
        timers.keys().next().map(|(at, _)| *at)
    }

    /// Moves time on by `span`, timer by timer, settling after each.
    pub fn advance(&self, span: Duration) {
        self.settle();
        let end = self.now() + span;
        while let Some(at) = self.next_timer().filter(|at| *at <= end) {
            self.set_now(at.max(self.now()));
            self.fire();
            self.settle();
        }
        self.set_now(end);
        self.settle();
    }

    /// Moves time to `now` without letting anything run.
    pub fn set_now(&self, now: Duration) {
        *self.shared.now.lock().unwrap() = now;
    }

    fn fire(&self) {
        let now = self.now();
        let mut timers = self.shared.timers.lock().unwrap();
        let later = timers.split_off(&(now, u64::MAX));
        for waker in std::mem::replace(&mut *timers, later).into_values() {
            waker.wake();
        }
    }

    /// Drops all tasks, as a runtime does that is shut down.
    pub fn drop_tasks(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        for task in tasks {
            drop(task.future.lock().unwrap().take());
        }
    }

    /// Runs a request as a task.
    pub fn start<F>(&self, request: F) -> Running
    where
        F: Future<Output = Result<Bytes, RequestError>> + Send + 'static,
    {
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        let task = self.start_task(Box::pin(async move {
            let ended = request.await;
            *slot.lock().unwrap() = Some(ended);
        }));
        Running { result, task }
    }

    fn start_task(&self, future: BoxFuture) -> Arc<Task> {
        let task = Arc::new(Task {
            runtime: Arc::downgrade(&self.shared),
            future: Mutex::new(Some(future)),
            woken: AtomicBool::new(false),
        });
        self.tasks.lock().unwrap().push(Arc::clone(&task));
        Waker::from(Arc::clone(&task)).wake();
        task
    }
}

impl Task {
    fn poll(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let Some(mut future) = self.future.lock().unwrap().take() else {
            return;
        };
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            *self.future.lock().unwrap() = Some(future);
        }
    }

    fn is_alive(&self) -> bool {
        self.future.lock().unwrap().is_some()
    }
}

/// A request that runs as a task.
pub struct Running {
    result: Arc<Mutex<Option<Result<Bytes, RequestError>>>>,
    task: Arc<Task>,
}

impl Running {
    /// How it ended, if it has.
    pub fn result(&self) -> Option<Result<Bytes, RequestError>> {
        self.result.lock().unwrap().clone()
    }

    pub fn error(&self) -> RequestError {
        match self.result() {
            Some(Err(error)) => error,
            other => panic!("an error was expected, not {other:?}"),
        }
    }

    /// Drops the future.
    pub fn cancel(self) {
        drop(self.task.future.lock().unwrap().take());
    }
}

struct Sleep {
    inner: Arc<Inner>,
    until: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if *self.inner.now.lock().unwrap() >= self.until {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            let mut next = self.inner.next_timer.lock().unwrap();
            *next += 1;
            (self.until, *next)
        });
        let waker = context.waker().clone();
        self.inner.timers.lock().unwrap().insert(key, waker);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.inner.timers.lock().unwrap().remove(&key);
        }
    }
}

impl Runtime for TestRuntime {
    fn now(&self) -> Duration {
        *self.shared.now.lock().unwrap()
    }

    fn unix_millis(&self) -> u64 {
        0
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture {
        Box::pin(Sleep { inner: Arc::clone(&self.shared), until: deadline, key: None })
    }

    fn spawn(&self, task: BoxFuture) {
        self.start_task(task);
    }

    fn spawn_blocking(&self, _work: Box<dyn FnOnce() + Send>) {
        panic!("a client has no blocking work");
    }

    fn random(&self) -> u64 {
        self.random.lock().unwrap().u64(..)
    }
}
