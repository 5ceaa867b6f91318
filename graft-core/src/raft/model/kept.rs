//! The mutants, each with a seed that catches it. A model that misses them is no evidence.

use std::time::Instant;

use super::{
    runner::{long, run},
    trace::Trace,
};
use crate::raft::Mutant;

/// A known bug, and a seed in which it is noticed.
struct Kept {
    mutant: Mutant,
    seed: u64,
    /// What happens there.
    story: &'static str,
}

const KEPT: [Kept; 10] = [
    Kept { mutant: Mutant::VoteBeforeDurable, seed: 0, story: "" },
    Kept { mutant: Mutant::AppendBeforeDurable, seed: 0, story: "" },
    Kept { mutant: Mutant::LeaderCountsItselfEarly, seed: 0, story: "" },
    Kept { mutant: Mutant::RequestVoteBeforeDurable, seed: 0, story: "" },
    Kept { mutant: Mutant::TruncationWithoutClipping, seed: 0, story: "" },
    Kept { mutant: Mutant::StaleAcknowledgement, seed: 0, story: "" },
    Kept { mutant: Mutant::TermBeforeDurable, seed: 0, story: "" },
    Kept { mutant: Mutant::CommitOldTerm, seed: 0, story: "" },
    Kept { mutant: Mutant::VoteCountedTwice, seed: 0, story: "" },
    Kept { mutant: Mutant::VoteWithoutLogCheck, seed: 0, story: "" },
];

/// How a mutant was caught.
struct Catch {
    seed: u64,
    steps: u64,
    why: String,
}

/// The first seed at or after `first` that catches a mutant. Ten million steps take far less than a
/// minute, and every mutant is to be caught within one.
fn search(mutant: Mutant, first: u64) -> Option<Catch> {
    const MOST_STEPS: u64 = 10_000_000;
    let mut steps = 0;
    let mut seeds = first..;
    while steps < MOST_STEPS {
        let seed = seeds.next()?;
        let run = run(seed, Some(mutant), Trace::default());
        steps += run.steps;
        if let Some(why) = run.failure {
            return Some(Catch { seed, steps, why });
        }
    }
    None
}

#[test]
fn the_kept_seed_of_every_mutant_catches_it() {
    let kept = |mutant: Mutant| KEPT.iter().any(|kept| kept.mutant == mutant);
    assert!(Mutant::ALL.into_iter().all(kept), "a mutant has no kept seed");
    let mut stale = String::new();
    for Kept { mutant, seed, story } in KEPT {
        let healthy = run(seed, None, Trace::default()).failure;
        assert!(healthy.is_none(), "seed {seed} fails without {mutant:?}: {healthy:?}");
        let caught = run(seed, Some(mutant), Trace::default()).failure;
        match caught {
            Some(why) => println!("{mutant:?}: seed {seed}: {why}\n    {story}"),
            None => stale += &format!("{mutant:?} {:?}\n", search(mutant, 0).map(|new| new.seed)),
        }
    }
    assert!(
        stale.is_empty(),
        "the model or the core has changed its course, and these kept seeds pass their bug by; keep \
         the seeds beside them, with their stories (GRAFT_MUTANT=<name> GRAFT_SEED=<seed>):\n{stale}"
    );
}

#[test]
fn a_search_from_anywhere_catches_every_mutant() {
    if !long() {
        return;
    }
    for mutant in Mutant::ALL {
        let started = Instant::now();
        let Some(Catch { seed, steps, why }) = search(mutant, 1_000_000) else {
            panic!("{mutant:?} is not caught");
        };
        let took = started.elapsed();
        println!("{mutant:?}: seed {seed} after {steps} steps and {took:?}: {why}");
    }
}
