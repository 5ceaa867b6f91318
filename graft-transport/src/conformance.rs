//! What every [`Transport`] and [`Link`] must do, as named checks that any implementation can run.
//!
//! A [`Fixture`] makes connected servers and clients on a network without faults. The checks need no
//! test framework; time is that of the fixture's [`Runtime`], so on a runtime with virtual time the
//! suite waits for nothing. Each check ends in `Ok` or in a [`Failure`] which says what was promised
//! and what came instead.
//!
//! A transport may lose a message, so a check that wants one to arrive sends it a few times. It never
//! relies on order.
//!
//! ```
//! use std::sync::Arc;
//! use graft_core::{Link, NodeId, Runtime, TokioRuntime, Transport};
//! use graft_transport::{Hub, conformance};
//!
//! struct InMemory(Hub, Arc<dyn Runtime>);
//!
//! #[async_trait::async_trait]
//! impl conformance::Fixture for InMemory {
//!     fn runtime(&self) -> Arc<dyn Runtime> {
//!         Arc::clone(&self.1)
//!     }
//!     fn nodes(&self) -> Vec<NodeId> {
//!         vec![NodeId(1), NodeId(2), NodeId(3)]
//!     }
//!     async fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
//!         Arc::new(self.0.transport(node))
//!     }
//!     async fn link(&self) -> Arc<dyn Link> {
//!         Arc::new(self.0.link())
//!     }
//! }
//!
//! let tokio = tokio::runtime::Builder::new_current_thread()
//!     .enable_time()
//!     .start_paused(true)
//!     .build()
//!     .unwrap();
//! tokio.block_on(async {
//!     let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::current().unwrap());
//!     let make = || InMemory(Hub::new(Arc::clone(&runtime), 1), Arc::clone(&runtime));
//!     let failures = conformance::run(make).await;
//!     assert!(failures.is_empty(), "{failures:#?}");
//! });
//! ```

mod bounds;
mod closing;
mod delivery;
mod requests;
mod samples;
mod servers;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use graft_core::{Link, NodeId, Runtime, Transport};

/// A network of servers and clients without faults. Each check gets one of its own.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The time that the transports run on.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// The servers: three or more.
    fn nodes(&self) -> Vec<NodeId>;

    /// A new transport for one of them, not attached yet. Once all are attached they find each other,
    /// soon. Called again for the same server, it is that of its restart.
    async fn transport(&self, node: NodeId) -> Arc<dyn Transport>;

    /// A new client's link to all of them, not attached yet.
    async fn link(&self) -> Arc<dyn Link>;

    /// What the transport is measured by.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// What a transport is measured by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How long a message may take at most. Default 20 s: only what is broken reaches it.
    pub patience: Duration,
    /// How long it must be quiet before nothing more is expected: above the time that a message
    /// normally takes. Default 200 ms.
    pub quiet: Duration,
    /// How many bytes of payload may be on their way to a peer that takes nothing, in each class, beside
    /// its inbox. Default 16 MiB.
    pub in_flight_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(20),
            quiet: Duration::from_millis(200),
            in_flight_bytes: 16 << 20,
        }
    }
}

/// A promise that a transport broke.
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

    /// Runs it on a network of its own.
    ///
    /// # Errors
    ///
    /// [`Failure`] where the transport does not keep the promise.
    pub async fn run(&self, fixture: &dyn Fixture) -> Result<(), Failure> {
        let verdict = (self.body)(fixture).await;
        verdict.map_err(|broken| Failure { check: self.name, reason: broken.0 })
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
    [delivery::CHECKS, requests::CHECKS, bounds::CHECKS, closing::CHECKS].concat()
}

/// Runs all checks, each on a network from `make`, and returns those that failed.
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

/// What a check ends in.
type Verdict<T = ()> = Result<T, Broken>;

/// A broken promise, in words.
#[derive(Debug)]
struct Broken(String);

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
    let holds = found == wanted;
    ensure(holds, format_args!("{promise}: wanted {wanted:?}, found {found:?}"))
}

/// Lists checks under the names of their functions.
macro_rules! list_checks {
    ($($name:ident),* $(,)?) => {
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
