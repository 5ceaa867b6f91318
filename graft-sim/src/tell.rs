//! Says what fails as soon as it has failed, and now and then how far a long run is.

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use graft_sim::{Options, Outcome};

/// How often somebody who waits is told how far it is.
const PROGRESS: Duration = Duration::from_secs(20);

/// Tells of runs as they end.
pub(crate) struct Teller<'a, W, P> {
    out: W,
    /// Where progress goes, so that the results can be read by programs.
    progress: P,
    options: &'a Options,
    next: Duration,
    seeds: u64,
    failures: u64,
    /// The first thing that could not be said: nobody reads any more.
    broken: io::Result<()>,
}

impl<'a, W: Write, P: Write> Teller<'a, W, P> {
    pub(crate) const fn new(out: W, progress: P, options: &'a Options) -> Self {
        Self { out, progress, options, next: PROGRESS, seeds: 0, failures: 0, broken: Ok(()) }
    }

    /// A run has ended, so long after the first began. Says whether anybody still reads.
    pub(crate) fn hear(&mut self, outcome: &Outcome, elapsed: Duration) -> bool {
        self.seeds += 1;
        if outcome.violation.is_some() && self.broken.is_ok() {
            self.failures += 1;
            let told = tell_failure(&mut self.out, outcome, self.options);
            self.broken = told.and_then(|()| self.out.flush());
        }
        if elapsed >= self.next {
            self.next = elapsed + PROGRESS;
            let (seeds, failures) = (self.seeds, self.failures);
            let wall = elapsed.as_secs_f64();
            // That nobody hears how far it is ends nothing.
            let _ = writeln!(
                self.progress,
                "so far: seeds={seeds} wall_s={wall:.0} failures={failures}"
            );
        }
        self.broken.is_ok()
    }

    pub(crate) fn end(self) -> io::Result<()> {
        self.broken
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What failed, and how to see it happen again: the hash says whether that is the same run.
pub(crate) fn tell_failure(
    out: &mut impl Write,
    failure: &Outcome,
    options: &Options,
) -> io::Result<()> {
    let Some(violation) = &failure.violation else { return Ok(()) };
    let (seed, minutes) = (failure.seed, options.length.as_secs_f64() / 60.0);
    let (features, mutant) = build_of(options);
    writeln!(out, "seed {seed} failed: {violation}")?;
    writeln!(out, "    {}", violation.checker.meaning())?;
    writeln!(out, "    hash={:016x}", failure.hash)?;
    writeln!(
        out,
        "    replay it: cargo run --release -p graft-sim{features} -- \
         replay --seed {seed} --minutes {minutes}{mutant}"
    )
}

/// What a command line must say beside the seed and the length.
fn build_of(options: &Options) -> (&'static str, String) {
    #[cfg(feature = "mutants")]
    if let Some(mutant) = options.mutant {
        return (" --features mutants", format!(" --mutant {mutant:?}"));
    }
    let _ = options;
    ("", String::new())
}
