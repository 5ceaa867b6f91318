//! What every [`LogStore`] must do, as named checks that any implementation can run.
//!
//! A [`Fixture`] gives a check an empty medium of its own and handles on it. The checks need no test
//! framework, no particular runtime and no clock: each is a future that ends in `Ok` or in a
//! [`Failure`] which says what was promised and what came instead.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use graft_core::LogStore;
//! use graft_storage::{MemoryStore, conformance};
//!
//! struct Memory(MemoryStore);
//!
//! #[async_trait::async_trait]
//! impl conformance::Fixture for Memory {
//!     async fn open(&self) -> Arc<dyn LogStore> {
//!         Arc::new(self.0.clone())
//!     }
//! }
//!
//! let suite = conformance::run(|| Memory(MemoryStore::new()));
//! let failures = conformance::block_on(Duration::from_secs(60), suite).expect("a store hangs");
//! assert!(failures.is_empty(), "{failures:#?}");
//! ```
//!
//! What these checks cannot show: that a power cut takes nothing that was acknowledged. The fault half,
//! [`faults`], shows that for a store that reaches its disk through a [`Medium`](crate::medium::Medium).

mod birth;
mod compaction;
pub mod faults;
mod fencing;
mod log;
mod membership;
mod reading;
pub(crate) mod samples;
mod snapshots;

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use graft_core::{LogStore, StoreError};

/// An empty medium and the ways to open it. Each check gets one of its own.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Another handle on the medium. Handles opened before may still be in use.
    async fn open(&self) -> Arc<dyn LogStore>;

    /// A handle as the next process gets it. The suite has dropped all handles opened before. By
    /// default the same as [`open`](Self::open): a store on a disk should close and reopen its files.
    async fn reopen(&self) -> Arc<dyn LogStore> {
        self.open().await
    }
}

/// A promise that a store broke.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{check}: {reason}")]
pub struct Failure {
    /// The name of the check.
    pub check: &'static str,
    /// What was promised and what came instead.
    pub reason: String,
}

/// One named check.
#[derive(Clone, Copy)]
pub struct Check {
    name: &'static str,
    body: Body,
}

type Body = for<'a> fn(&'a dyn Fixture) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

impl Check {
    /// Its name: the promise it checks.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Runs it on an empty medium.
    ///
    /// # Errors
    ///
    /// [`Failure`] where the store does not keep the promise.
    pub async fn run(&self, fixture: &dyn Fixture) -> Result<(), Failure> {
        (self.body)(fixture).await.map_err(|broken| Failure { check: self.name, reason: broken.0 })
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

/// All checks, in the order in which they build on each other.
#[must_use]
pub fn checks() -> Vec<Check> {
    [
        birth::CHECKS,
        log::CHECKS,
        reading::CHECKS,
        fencing::CHECKS,
        membership::CHECKS,
        compaction::CHECKS,
        snapshots::CHECKS,
    ]
    .concat()
}

/// Runs all checks, each on a medium from `make`, and returns those that failed.
pub async fn run<F: Fixture>(make: impl Fn() -> F) -> Vec<Failure> {
    let mut failures = Vec::new();
    for check in checks() {
        let fixture = make();
        if let Err(failure) = check.run(&fixture).await {
            failures.push(failure);
        }
    }
    failures
}

/// Runs `future` on this thread, with no runtime; `None` where it has not ended within `limit`.
pub fn block_on<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let start = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        let left = limit.checked_sub(start.elapsed())?;
        thread::park_timeout(left);
    }
}

/// What a check ends in.
type Verdict<T = ()> = Result<T, Broken>;

/// A broken promise, in words.
#[derive(Debug)]
struct Broken(String);

impl From<StoreError> for Broken {
    /// An error where the store should have done as asked.
    fn from(error: StoreError) -> Self {
        Self(format!("unexpectedly, {error} ({error:?})"))
    }
}

/// Breaks the check off where `condition` does not hold.
fn ensure(condition: bool, promise: impl fmt::Display) -> Verdict {
    if condition { Ok(()) } else { Err(Broken(promise.to_string())) }
}

/// Breaks the check off where `found` is not what was `wanted`.
fn ensure_eq<T: PartialEq + fmt::Debug>(
    found: &T,
    wanted: &T,
    promise: impl fmt::Display,
) -> Verdict {
    ensure(found == wanted, format_args!("{promise}: wanted {wanted:?}, found {found:?}"))
}

/// Breaks the check off where `found` is no error of the kind that `is_wanted` knows.
fn ensure_refused<T: fmt::Debug>(
    found: Result<T, StoreError>,
    is_wanted: impl Fn(&StoreError) -> bool,
    promise: impl fmt::Display,
) -> Verdict {
    match found {
        Err(error) if is_wanted(&error) => Ok(()),
        other => Err(Broken(format!("{promise}: found {other:?}"))),
    }
}

/// Lists checks under the names of their functions.
macro_rules! list_checks {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// The checks of this room.
        pub(super) const CHECKS: &[$crate::conformance::Check] = &[
            $($crate::conformance::Check {
                name: stringify!($name),
                body: |fixture| Box::pin($name(fixture)),
            }),*
        ];
    };
}
use list_checks;
