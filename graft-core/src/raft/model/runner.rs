//! Runs seeds: one, many, or all.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use super::{coverage::Coverage, trace::Trace, world::World};
use crate::raft::Mutant;

/// What came of one seed.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) steps: u64,
    pub(super) coverage: Coverage,
    /// What was wrong.
    pub(super) failure: Option<String>,
    pub(super) trace: Trace,
}

/// What came of many.
#[derive(Debug, Default)]
pub(super) struct Total {
    pub(super) steps: u64,
    pub(super) seeds: u64,
    pub(super) coverage: Coverage,
    /// The lowest seed that failed.
    pub(super) failed: Option<u64>,
}

/// Runs one seed, in silence or with a trace.
pub(super) fn run(seed: u64, mutant: Option<Mutant>, trace: Trace) -> Run {
    let mut world = World::new(seed, mutant, trace);
    // The world is only read after a panic, never run on.
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = result.err().map(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "a panic without words".into())
    });
    Run { steps: world.step, coverage: world.coverage, failure, trace: world.trace }
}

/// Runs seeds from `first` on until `enough` of the steps made, on all processors. The seeds that run
/// do not depend on how many there are: they go in blocks.
pub(super) fn run_many(first: u64, enough: impl Fn(&Total) -> bool) -> Total {
    const BLOCK: u64 = 64;
    let total = Mutex::new(Total::default());
    let mut next = first;
    loop {
        let seeds = Mutex::new(next..next + BLOCK);
        let work = || {
            loop {
                let Some(seed) = seeds.lock().expect("no panic holds it").next() else { return };
                let run = run(seed, None, Trace::default());
                let mut total = total.lock().expect("no panic holds it");
                total.steps += run.steps;
                total.seeds += 1;
                total.coverage.add(&run.coverage);
                if run.failure.is_some() {
                    total.failed = Some(total.failed.map_or(seed, |known| known.min(seed)));
                }
            }
        };
        thread::scope(|scope| {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
        next += BLOCK;
        let total = total.lock().expect("no panic holds it");
        if total.failed.is_some() || enough(&total) {
            break;
        }
    }
    total.into_inner().expect("no panic holds it")
}

/// Runs a seed again, now with a trace, and tells its story as the failure it is.
pub(super) fn fail(seed: u64) -> ! {
    let run = run(seed, None, Trace::kept());
    let cause =
        run.failure.unwrap_or_else(|| "the second run passed: the model is not pure".into());
    panic!(
        "{}\nseed {seed}, step {}: {cause}\n(GRAFT_SEED={seed} cargo test -p graft-core model -- \
         --nocapture shows all of it)",
        run.trace.last(60),
        run.steps
    );
}

#[test]
fn no_seed_breaks_a_promise_or_a_property_of_raft() {
    if let Ok(seed) = std::env::var("GRAFT_SEED") {
        let seed = seed.parse().expect("GRAFT_SEED is a number");
        let name = std::env::var("GRAFT_MUTANT").ok();
        let named =
            |mutant: &Mutant| name.as_ref().is_some_and(|name| *name == format!("{mutant:?}"));
        let run = run(seed, Mutant::ALL.iter().copied().find(named), Trace::kept());
        println!("{}", run.trace.last(usize::MAX));
        println!("seed {seed}: {} steps, {:?}", run.steps, run.failure);
        assert!(run.failure.is_none(), "seed {seed} fails");
        return;
    }
    let steps = if long() { 100_000_000 } else { 12_000_000 };
    let started = std::time::Instant::now();
    let total = run_many(0, |total| total.steps >= steps);
    if let Some(seed) = total.failed {
        fail(seed);
    }
    println!(
        "{} seeds, {} steps, {:?}\n{}",
        total.seeds,
        total.steps,
        started.elapsed(),
        total.coverage.table()
    );
    let missing = total.coverage.missing();
    assert!(missing.is_empty(), "the model does not reach {missing:?}");
}

/// Whether to search as long as it takes to be sure, not as long as fits a coffee.
pub(super) fn long() -> bool {
    std::env::var("GRAFT_LONG").is_ok_and(|value| value == "1")
}

#[test]
fn the_same_seed_lives_the_same_life() {
    for seed in 0..16 {
        let [one, other] = [(); 2].map(|()| run(seed, None, Trace::kept()));
        assert_eq!(one.trace.last(usize::MAX), other.trace.last(usize::MAX), "seed {seed}");
    }
}
