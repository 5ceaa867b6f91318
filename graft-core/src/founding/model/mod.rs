//! The proof by exhaustion of chance: random foundings over a network that loses, repeats, reorders and
//! delays without bound, with processes that start again, disks that are emptied, addresses that
//! change, and two processes under one name. After each step every promise of the module is checked;
//! then all heals, and whoever can found must have.
//!
//! Each rule is also broken, one at a time, and the same test must notice.
//!
//! `GRAFT_LONG=1` tries a hundred times as many seeds.

mod scenes;
mod world;

use std::collections::BTreeMap;

use super::Mutant;
use world::{Tally, World};

fn is_long() -> bool {
    std::env::var("GRAFT_LONG").is_ok_and(|value| value == "1")
}

/// Plays a seed to its end, or to the promise that is broken.
fn play(seed: u64, mutant: Option<Mutant>) -> Result<Tally, String> {
    let mut world = World::new(seed, mutant);
    for _ in 0..world.steps {
        world.step();
        world.check()?;
    }
    if mutant.is_none() {
        world.heal()?;
    }
    Ok(world.tally)
}

#[test]
fn no_two_foundings_stand_beside_each_other_and_all_who_can_found() {
    let seeds = if is_long() { 400_000 } else { 4_000 };
    let mut all = BTreeMap::<&'static str, u64>::new();
    for seed in 0..seeds {
        let tally = play(seed, None).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        for (what, count) in tally {
            *all.entry(what).or_default() += count;
        }
    }
    // A model in which something never happens says nothing about it.
    let wanted = [
        "founded by all",
        "adopted",
        "already founded",
        "another birth",
        "known otherwise",
        "other address",
        "contradicted",
        "emptied after it founded",
        "left alone under its name",
        "healed from nothing",
        "healed from some",
        "stuck",
    ];
    for what in wanted {
        let count = all.get(what).copied().unwrap_or(0);
        assert!(count >= seeds / 2000, "`{what}` came {count} times in {seeds} seeds: {all:?}");
    }
}

/// By chance within reach of every run; [`scenes`] plays what breaking the other rules leads to, and the
/// long run finds most of that by chance too.
#[test]
fn every_rule_is_needed() {
    use Mutant::{CountsWithoutEcho, FoundsUnseen, RewritesTheMap, TakesBackTheEmptied};
    let (seeds, mutants): (u64, &[Mutant]) = if is_long() {
        (1_000_000, &[FoundsUnseen, TakesBackTheEmptied, RewritesTheMap, CountsWithoutEcho])
    } else {
        (3_000, &[FoundsUnseen, TakesBackTheEmptied])
    };
    let unnoticed = |mutant: &&Mutant| (0..seeds).all(|seed| play(seed, Some(**mutant)).is_ok());
    let missed: Vec<&Mutant> = mutants.iter().filter(unnoticed).collect();
    assert!(missed.is_empty(), "{missed:?} went unnoticed");
}
