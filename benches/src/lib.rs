//! The same work on graft and on its peers: what the benches and the binary `versus` share.
//!
//! A [`Deployment`] is three servers of one kind in this process: a log in memory or on a disk, a
//! machine that does nothing, an empty command. [`Bench`] runs any deployment under any [`Flavour`] of runtime and
//! measures it the same way; that makes it a [`Contender`].

mod contender;
pub mod contenders;
pub mod disk;
mod measurement;
pub mod samples;
mod workload;

pub use contender::{Bench, Contender, Failure, Flavour, Growth, GrowthPlan};
pub use measurement::{Measurement, median};
pub use workload::{Caller, Deployment, Workload};
