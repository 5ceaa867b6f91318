#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use std::time::Duration;

use clap::{Parser, error::ErrorKind};
use graft_sim::{Checker, Options, Outcome, Registers, Summary, Violation, simulate, simulate_all};

use crate::{Arguments, MANY_SEEDS, blind_spots, is_well, tell::Teller, threads};

fn second() -> Options {
    Options::default().length(Duration::from_secs(1))
}

fn failed(seed: u64) -> Outcome {
    let mut outcome = simulate(seed, &second(), Registers::new);
    outcome.hash = 0xfeed;
    outcome.violation = Some(Violation {
        checker: Checker::VoteOnce,
        at: Duration::from_millis(250),
        what: "s1 voted for s1 and for s2 in term 3".into(),
    });
    outcome
}

#[test]
fn many_seeds_in_which_a_fault_never_struck_are_a_failure_and_few_are_none() {
    let mut summary = Summary::default();
    summary.seeds = MANY_SEEDS - 1;
    assert!(is_well(&summary) && blind_spots(&summary).is_empty(), "few seeds show few faults");
    summary.seeds = MANY_SEEDS;
    assert!(!is_well(&summary), "nothing struck in {MANY_SEEDS} seeds");
    assert_eq!(blind_spots(&summary), graft_sim::FaultKind::ALL);

    // One fault that struck is a blind spot less, and where all did there is none.
    let options = Options::default().length(Duration::from_secs(60));
    let mut ran = simulate_all(0..120, threads(None), &options, Registers::new, |_| false);
    assert_eq!(ran.faults.missing().count(), 0);
    ran.seeds = MANY_SEEDS;
    assert!(is_well(&ran));
    ran.failures.push(failed(7));
    assert!(!is_well(&ran), "a seed failed");
}

#[test]
fn a_failure_is_told_when_it_happens_with_its_hash_and_the_whole_command() {
    let (options, mut out, mut progress) = (second(), Vec::new(), Vec::new());
    let mut teller = Teller::new(&mut out, &mut progress, &options);
    let fine = simulate(6, &options, Registers::new);
    assert!(teller.hear(&fine, Duration::from_secs(1)));
    assert!(teller.hear(&failed(7), Duration::from_secs(30)));
    teller.end().unwrap();
    let (out, progress) = (String::from_utf8(out).unwrap(), String::from_utf8(progress).unwrap());
    assert!(out.contains("seed 7 failed: VoteOnce after 250ms: s1 voted for s1 and"), "{out}");
    assert!(out.contains("hash=000000000000feed"), "{out}");
    let command =
        "cargo run --release -p graft-sim -- replay --seed 7 --minutes 0.016666666666666666\n";
    assert!(out.contains(command), "{out}");
    assert!(!out.contains("seed 6"), "{out}");
    assert_eq!(progress, "so far: seeds=2 wall_s=30 failures=1\n");
}

#[test]
fn numbers_that_are_none_are_refused_with_words() {
    let wrong = [
        (["run", "--minutes", "nan"], "no length of a run"),
        (["run", "--minutes", "inf"], "no length of a run"),
        (["run", "--minutes=-3", "--seeds=0..1"], "no length of a run"),
        (["replay", "--seed=1", "--minutes=0"], "no length of a run"),
        (["measure", "--rate", "nan"], "no rate"),
        (["measure", "--rate", "0"], "no rate"),
        (["measure", "--seeds=1", "--rate=-5"], "no rate"),
        (["measure", "--seeds", "0"], "0 is not in 1.."),
    ];
    for (words, says) in wrong {
        let refused = Arguments::try_parse_from(["graft-sim"].into_iter().chain(words));
        let error = refused.err().unwrap_or_else(|| panic!("{words:?} is taken"));
        assert_eq!(error.kind(), ErrorKind::ValueValidation, "{words:?}: {error}");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(says), "{words:?}: {error}");
    }
    let taken = Arguments::try_parse_from(["graft-sim", "measure", "--rate=0.5", "--minutes=0.1"]);
    assert!(taken.is_ok());
}

#[cfg(not(feature = "mutants"))]
#[test]
fn whoever_wants_mutants_of_a_build_without_is_told_how_to_get_them() {
    let words = ["graft-sim", "mutants", "--recorded"];
    let order = Arguments::try_parse_from(words).ok().unwrap().order;
    let crate::Order::Mutants { rest } = order else { panic!("it is another order") };
    let error = crate::arguments::no_mutants(&rest);
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--features mutants -- mutants --recorded"), "{error}");
}
