//! A deterministic simulator: production code of graft under simulated network, disk and time.
//!
//! Everything in graft that waits or spawns does it through [`graft_core::Runtime`]. [`Executor`] is a
//! runtime of one thread whose only source of order is a seed: it picks the next ready task at random,
//! and moves its clock forward only when no task is ready. Two runs with the same seed are the same
//! run, to the hash of their [`Trace`]; another seed is another interleaving.
//!
//! ```
//! use std::time::Duration;
//! use graft_core::Runtime;
//! use graft_sim::Executor;
//!
//! let executor = Executor::new(7);
//! let runtime = executor.runtime();
//! let slept = executor.block_on(async move {
//!     runtime.sleep_until(Duration::from_secs(3600)).await;
//!     runtime.now()
//! });
//! assert_eq!(slept, Some(Duration::from_secs(3600))); // and no time passed at all
//! ```

mod clock;
mod customers;
mod disk;
mod executor;
mod faults;
mod hosts;
mod journal;
mod machine;
mod nemesis;
mod network;
mod oracle;
mod report;
mod swarm;
mod trace;
mod workload;
mod world;

pub use executor::{Executor, SimRuntime};
pub use faults::{FaultCounts, FaultKind};
pub use oracle::{Checker, Violation};
pub use report::{Summary, simulate_all};
pub use trace::Trace;
pub use workload::{RegisterEntry, RegisterReply, RegisterStore, Registers, Rng, Workload};
pub use world::{Options, Outcome, simulate};
