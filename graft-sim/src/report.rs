//! Many runs, and what came of them all.

use std::{
    fmt,
    num::NonZeroUsize,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{FaultCounts, Options, Outcome, Rng, Workload, simulate};

/// What came of many runs. It prints as one line.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// How many seeds were run.
    pub seeds: u64,
    /// How long they lasted together, in simulated time.
    pub simulated: Duration,
    /// How long that took.
    pub wall: Duration,
    /// On how many threads.
    pub jobs: usize,
    /// How many requests were answered.
    pub answered: u64,
    /// How many turns and arrivals there were.
    pub events: u64,
    /// How often each kind of fault struck.
    pub faults: FaultCounts,
    /// The runs that failed, in the order of their seeds.
    pub failures: Vec<Outcome>,
}

impl Summary {
    /// How much faster than life that was, for each thread.
    #[must_use]
    pub fn speedup(&self) -> f64 {
        let spent =
            self.wall.as_secs_f64() * f64::from(u32::try_from(self.jobs).unwrap_or(u32::MAX));
        if spent > 0.0 { self.simulated.as_secs_f64() / spent } else { 0.0 }
    }

    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.answered += outcome.answered;
        self.events += outcome.events;
        self.faults.add(&outcome.faults);
        if outcome.violation.is_some() {
            self.failures.push(outcome);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seeds={} simulated_hours={:.2} wall_s={:.1} speedup={:.0} ops={} faults={} failures={}",
            self.seeds,
            self.simulated.as_secs_f64() / 3600.0,
            self.wall.as_secs_f64(),
            self.speedup(),
            self.answered,
            self.faults.total(),
            self.failures.len()
        )
    }
}

/// Runs all these seeds on `jobs` threads, each with the workload that `make` makes. Stops early once
/// `until` says so of what has ended; a seed that has begun is always finished.
pub fn simulate_all<W: Workload>(
    seeds: Range<u64>,
    jobs: NonZeroUsize,
    options: &Options,
    make: impl Fn(&mut Rng) -> W + Sync,
    until: impl Fn(&Outcome) -> bool + Sync,
) -> Summary {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let stopped = AtomicBool::new(false);
    let summary = Mutex::new(Summary { jobs: jobs.get(), ..Summary::default() });
    thread::scope(|scope| {
        for _ in 0..jobs.get() {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = simulate(seed, options, &make);
                    if until(&outcome) {
                        stopped.store(true, Ordering::Relaxed);
                    }
                    summary.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.wall = begun.elapsed();
    summary.failures.sort_by_key(|outcome| outcome.seed);
    summary
}
