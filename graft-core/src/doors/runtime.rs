//! The seam to time and tasks.

use std::{future::Future, pin::Pin, time::Duration};

/// A boxed future, as the seams need it.
pub type BoxFuture<T = ()> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Time and tasks. Everything in graft that waits or spawns does it through this, so a simulator can
/// own both.
pub trait Runtime: Send + Sync + 'static {
    /// Monotonic time since some fixed moment. Never goes back.
    fn now(&self) -> Duration;

    /// The wall clock, in milliseconds since the Unix epoch. Decides nothing of graft's own.
    fn unix_millis(&self) -> u64;

    /// Ends at or soon after `deadline`, on the clock of [`now`](Self::now).
    fn sleep_until(&self, deadline: Duration) -> BoxFuture;

    /// Runs a task until it ends.
    fn spawn(&self, task: BoxFuture);

    /// Runs work that may block, where it holds up no task. A panic in it must not take anything
    /// else down.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>);

    /// A random number that differs between starts: the source of seeds and incarnations.
    fn random(&self) -> u64;
}

/// The tokio runtime that was current when this was made.
#[cfg(feature = "tokio")]
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    handle: tokio::runtime::Handle,
    origin: tokio::time::Instant,
}

#[cfg(feature = "tokio")]
impl TokioRuntime {
    /// The runtime around the caller, or `None` outside one.
    #[must_use]
    pub fn current() -> Option<Self> {
        let handle = tokio::runtime::Handle::try_current().ok()?;
        let _inside = handle.enter();
        Some(Self { origin: tokio::time::Instant::now(), handle: handle.clone() })
    }
}

#[cfg(feature = "tokio")]
impl Runtime for TokioRuntime {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn unix_millis(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture {
        // The timer must register with this runtime even where the caller is outside of it.
        let _inside = self.handle.enter();
        Box::pin(tokio::time::sleep_until(self.origin + deadline))
    }

    fn spawn(&self, task: BoxFuture) {
        self.handle.spawn(task);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        self.handle.spawn_blocking(work);
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}
