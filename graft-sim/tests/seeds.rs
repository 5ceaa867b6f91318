//! Whole clusters from fixed seeds: a run is a function of its seed, nothing breaks in them, and much goes wrong.
//!
//! `GRAFT_LONG=1` runs many more. What seeds have found is in `kept.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use std::{num::NonZeroUsize, thread, time::Duration};

use graft_sim::{FaultKind, Options, Outcome, Registers, simulate, simulate_all};

fn long() -> bool {
    std::env::var_os("GRAFT_LONG").is_some()
}

fn minute() -> Options {
    Options::default().length(Duration::from_secs(60))
}

fn must_pass(outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    panic!("seed {}: {violation}; {}", outcome.seed, violation.checker.meaning());
}

#[test]
fn the_same_seed_is_the_same_run_to_the_hash_and_another_seed_another() {
    let mut hashes = Vec::new();
    for seed in 0..4 {
        let once = simulate(seed, &minute(), Registers::new);
        let again = simulate(seed, &minute().trace(true), Registers::new);
        must_pass(&once);
        let told = (once.hash, once.events, once.answered, once.simulated);
        assert_eq!(told, (again.hash, again.events, again.answered, again.simulated));
        assert!(once.trace.is_empty() && again.trace.len() > 50, "a trace is kept if asked for");
        hashes.push(once.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 4, "the seed makes no difference");
}

#[test]
fn nothing_breaks_in_a_fixed_set_of_seeds_and_every_fault_strikes() {
    let (seeds, options) = if long() { (0..2_000, Options::default()) } else { (0..120, minute()) };
    let jobs = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let summary = simulate_all(seeds, jobs, &options, Registers::new, |_| false);
    println!("{summary}");
    summary.failures.iter().for_each(must_pass);
    let missing: Vec<FaultKind> = summary.faults.missing().collect();
    assert!(missing.is_empty(), "these never struck: {missing:?}");
    assert!(summary.answered > 5_000, "only {} requests were answered", summary.answered);
}

#[test]
fn every_property_and_every_fault_stands_in_the_documentation() {
    let page = include_str!("../src/lib.rs");
    let checkers = graft_sim::Checker::ALL.iter();
    let checkers =
        checkers.map(|one| format!("| [`{one:?}`](Checker::{one:?}) | {} |", one.meaning()));
    let faults = FaultKind::ALL.iter();
    let faults =
        faults.map(|one| format!("| [`{one:?}`](FaultKind::{one:?}) | {} |", one.meaning()));
    let missing: Vec<String> = checkers.chain(faults).filter(|row| !page.contains(row)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(graft_sim::Checker::ALL.len() >= 20);
}

/// The mutants as `graft-core` declares them: name, meaning and origin. They cannot be named here: in a
/// default build there are none.
fn declared_mutants() -> Vec<[String; 3]> {
    let text = include_str!("../../graft-core/src/raft/mutants.rs");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let literal = |line: &str| {
        Some(line.trim_end_matches(',').strip_prefix('"')?.strip_suffix('"')?.replace("\\\"", "\""))
    };
    let declared = lines.windows(3).filter_map(|lines| {
        let name = lines[0];
        let is_name = !name.is_empty() && name.chars().all(char::is_alphanumeric);
        is_name.then(|| Some([name.to_owned(), literal(lines[1])?, literal(lines[2])?]))?
    });
    declared.collect()
}

#[test]
fn every_mutant_stands_in_the_documentation_with_who_catches_it_and_a_seed() {
    let page = include_str!("../mutants.md");
    let declared = declared_mutants();
    assert!(declared.len() >= 20, "only {} are found", declared.len());
    let rows = page.lines().count() - 2;
    assert_eq!(
        rows,
        declared.len(),
        "a row each: record them again, as the crate's documentation says"
    );
    for [name, meaning, origin] in declared {
        let begin = format!("| `{name}` | {meaning} | {origin} | [`");
        let row = page.lines().find_map(|row| row.strip_prefix(&begin));
        let row = row.unwrap_or_else(|| panic!("`{name}` has no row, or an old one: record again"));
        let (checker, rest) = row.split_once("`]").unwrap();
        let known = graft_sim::Checker::ALL.iter().any(|one| format!("{one:?}") == checker);
        let seed = rest.trim_end_matches(" |").rsplit(' ').next().unwrap();
        assert!(known && seed.parse::<u64>().is_ok(), "`{name}`: {row}");
    }
}
