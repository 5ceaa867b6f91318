//! The fault half of the suite: what must hold of a store whose disk fails, and whose power does.
//!
//! It runs on any [`LogStore`] that reaches its disk through a [`Medium`]: it opens the store on a
//! [`FaultyMedium`](crate::medium::FaultyMedium), gives it generated work, and breaks things.
//!
//! * [`crash_points`](Suite::crash_points): the power goes, or the process ends, at every boundary of the
//!   work: at each write, sync, change of length, creation, renaming and removal of a file. What was not
//!   synced is kept, lost or torn. The store then is in a state between the last acknowledged and the last submitted write:
//!   never less, never a mixture. It takes further writes; and then the power goes again at some
//!   boundary of that recovery or of those writes, and again.
//! * [`failing_calls`](Suite::failing_calls): a call of the medium fails, once, for a while or for good. A
//!   write that could not be made durable is not acknowledged, after a failed sync the store refuses
//!   service for the life of the process, and the next process finds what was acknowledged.
//! * [`full_disk`](Suite::full_disk): the same where there is no space left.
//! * [`bit_flips`](Suite::bit_flips): a bit on the disk turns around. What the store returns is what was
//!   written, or an error that says where it is corrupt.
//!
//! ```no_run
//! use std::sync::Arc;
//! use graft_core::LogStore;
//! use graft_storage::{conformance::faults::{Opened, Suite}, medium::Medium};
//!
//! fn open(medium: Arc<dyn Medium>) -> Opened {
//!     # return Err("yours".into());
//!     # /*
//!     Ok(Arc::new(MyStore::open_on(medium)?))
//!     # */
//! }
//!
//! let suite = Suite::new(open);
//! println!("{}", suite.run(0..50).expect("a promise is broken"));
//! ```

mod calls;
mod crashes;
mod flips;
mod life;
mod workers;
mod workload;

use std::{error::Error, fmt, ops::Range, sync::Arc, time::Duration};

use graft_core::LogStore;

pub use self::{
    flips::Bits,
    workload::{Mismatch, Workload},
};
use super::Failure;
use crate::medium::{Call, Medium};

/// A store on a medium, or why there is none.
pub type Opened = Result<Arc<dyn LogStore>, Box<dyn Error + Send + Sync>>;

/// The fault half of the suite for one kind of store.
#[derive(Clone)]
pub struct Suite {
    open: Arc<dyn Fn(Arc<dyn Medium>) -> Opened + Send + Sync>,
    names_a_place: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    limit: Duration,
    threads: usize,
}

/// How much was tried.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Tally {
    /// Lives of a store, each with work of its own.
    pub workloads: u64,
    /// Times that the power went or the process ended, and a store was opened afterwards.
    pub crashes: u64,
    /// Those of them that came while the store recovered from another, or right after.
    pub repeated: u64,
    /// Calls of the medium that were made to fail.
    pub failed_calls: u64,
    /// Bits that were turned around.
    pub flips: u64,
    /// Those of them that the store reported; the others changed nothing that can be seen.
    pub reported: u64,
    failed: [u64; Call::ALL.len()],
}

impl Tally {
    /// How many of the calls that were made to fail were of this kind: a kind of which none was has
    /// not been tried.
    #[must_use]
    pub fn failed(&self, call: Call) -> u64 {
        self.failed[call as usize]
    }

    fn add_failed(&mut self, call: Call, count: u64) {
        self.failed_calls += count;
        self.failed[call as usize] += count;
    }
}

impl Suite {
    /// For stores that `open` makes. It is called many times for the same medium, each time after the
    /// store before was dropped; a dropped store must have let the medium go.
    pub fn new(open: impl Fn(Arc<dyn Medium>) -> Opened + Send + Sync + 'static) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            open: Arc::new(open),
            names_a_place: Arc::new(|text| !text.is_empty()),
            limit: Duration::from_secs(120),
            threads,
        }
    }

    /// What the text of an error about a flipped bit must satisfy: that it names a record or a file.
    /// By default it must not be empty.
    #[must_use]
    pub fn naming(mut self, names_a_place: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.names_a_place = Arc::new(names_a_place);
        self
    }

    /// For how long one workload may show no progress before the store counts as hanging. 120 seconds by
    /// default.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How many workloads are tried at once. By default one on each processor.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Everything, on one workload for each seed.
    ///
    /// # Errors
    ///
    /// The first promise that was found broken, with the seed that shows it.
    pub fn run(&self, seeds: Range<u64>) -> Result<Tally, Failure> {
        let mut tally = self.crash_points(seeds.clone())?;
        tally += self.failing_calls(seeds.clone())?;
        tally += self.full_disk(seeds.clone())?;
        tally += self.bit_flips(seeds, Bits::Sample(500))?;
        Ok(tally)
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.crashes += other.crashes;
        self.repeated += other.repeated;
        self.failed_calls += other.failed_calls;
        self.flips += other.flips;
        self.reported += other.reported;
        for (count, more) in self.failed.iter_mut().zip(other.failed) {
            *count += more;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "workloads={} crashes={} repeated={} failed_calls={} flips={} reported={}",
            self.workloads,
            self.crashes,
            self.repeated,
            self.failed_calls,
            self.flips,
            self.reported
        )
    }
}
