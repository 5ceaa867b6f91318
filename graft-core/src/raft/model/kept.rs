//! The mutants, each with a seed that catches it.

use std::time::Instant;

use super::{
    runner::{Run, long, run},
    trace::Trace,
};
use crate::raft::Mutant;

/// A known bug, the seed that notices it, and how.
struct Kept {
    mutant: Mutant,
    seed: u64,
}

const KEPT: [Kept; 0] = [];

/// The first seed that catches a mutant within so many steps, and what it noticed.
fn search(mutant: Mutant, first: u64, most_steps: u64) -> Option<(u64, u64, String)> {
    let mut steps = 0;
    (first..)
        .map_while(|seed| {
            let run = run(seed, Some(mutant), Trace::default());
            steps += run.steps;
            (steps < most_steps || run.failure.is_some()).then_some((seed, steps, run.failure))
        })
        .find_map(|(seed, steps, failure)| Some((seed, steps, failure?)))
}

#[test]
fn a_search_from_anywhere_catches_every_mutant() {
    if !long() {
        return;
    }
    for mutant in Mutant::ALL {
        let started = Instant::now();
        let found = search(mutant, 1_000_000, 20_000_000);
        let (seed, steps, why) = found.expect("caught");
        println!("{mutant:?}: seed {seed} after {steps} steps, {:?}: {why}", started.elapsed());
    }
}

#[test]
fn the_kept_seed_of_every_mutant_catches_it() {
    for Kept { mutant, seed } in KEPT {
        let Run { failure, .. } = run(seed, Some(mutant), Trace::default());
        assert!(failure.is_some());
    }
}
