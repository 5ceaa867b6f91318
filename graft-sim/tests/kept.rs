//! What seeds have found in graft itself, and the seeds that would find it again.
//!
//! Seeds find other things as soon as anything changes that they draw, so a number alone would soon keep nothing. What
//! was mended can therefore be switched on again, as one of the known bugs (feature `mutants`), and the seed is the one
//! that `mutants.md` records, which `mutants --record` renews. Here each is run with production code as it is, and
//! where the feature is on, with the bug as well: `cargo test --release -p graft-sim --features mutants --test kept`. So does
//! `cargo run --release -p graft-sim --features mutants -- mutants --recorded`, with which the bug cannot come back
//! unseen. Each is kept once more by a test in the crate that was mended, where it needs no luck.
//!
//! The seeds and words that the stories quote are of the day when they were told. Once the seeds are recorded anew they may
//! be others: `mutants.md` has those of today.
//!
//! A third find has no seed. A leader that commits more slowly than an attempt may take was sent the same command again
//! after each attempt's time, put it into its log each time, and was slower still: logs had six times as many entries as
//! there were commands. Each was applied once and answered in time, so no property was broken and no seed could
//! fail; it was work for nothing, seen in the figures of runs. `graft-client/tests/retry.rs` keeps it.
//!
//! Nor has a fourth. A server whose driver had panicked was being opened again from a disk that did not answer, and was told
//! to restart; it heard that only once the disk answered, and whoever had told it was told after fifteen seconds that
//! its machine blocks (`NothingUnexplained`, one run in some thousands of five minutes: too rare to be recorded).
//! `graft/tests/panics.rs` keeps it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use std::time::Duration;

use graft_sim::{FaultKind, Options, Outcome, Registers, simulate};

/// As long as recorded seeds are.
fn half_a_minute() -> Options {
    Options::default().length(Duration::from_secs(30))
}

/// Who catches a mutant and in which seed, as recorded.
fn record_of(mutant: &str) -> (String, u64) {
    let page = include_str!("../mutants.md");
    let begin = format!("| `{mutant}` |");
    let row = page.lines().find(|line| line.starts_with(&begin)).expect("it is recorded");
    let (_, rest) = row.split_once("[`").unwrap();
    let (checker, _) = rest.split_once("`]").unwrap();
    let seed = row.trim_end_matches(" |").rsplit(' ').next().unwrap();
    (checker.to_owned(), seed.parse().unwrap())
}

#[cfg(feature = "mutants")]
fn must_be_caught(name: &str, by: &str, seed: u64) {
    use graft_core::raft::Mutant;
    let named = |mutant: &&Mutant| format!("{mutant:?}") == name;
    let mutant = Mutant::ALL.iter().find(named).copied();
    assert!(mutant.is_some(), "there is no mutant `{name}`");
    let caught = simulate(seed, &half_a_minute().mutant(mutant), Registers::new).violation;
    let caught = caught.unwrap_or_else(|| panic!("seed {seed} does not catch {name}"));
    assert_eq!(format!("{:?}", caught.checker), by, "{caught}");
}

#[cfg(not(feature = "mutants"))]
const fn must_be_caught(_: &str, _: &str, _: u64) {}

/// The recorded seed of what was mended passes, and would not if it were not. Gives what came of it.
fn keep(mutant: &str, by: &str) -> Outcome {
    let (checker, seed) = record_of(mutant);
    assert_eq!(checker, by, "the story is another one: tell it anew");
    must_be_caught(mutant, by, seed);
    let outcome = simulate(seed, &half_a_minute(), Registers::new);
    if let Some(violation) = &outcome.violation {
        panic!("seed {seed}: {violation}; {}", violation.checker.meaning());
    }
    outcome
}

/// The story: requests had shorter deadlines than an attempt may take, and their leader fell silent without a word. Each
/// request ended by its deadline before its attempt did, and nothing was learned from that, so the next one
/// went to the same server, and so did the opening of the next session, for ever, although the others had long had a new
/// leader. Since then a second such end without an answer in between sends a client elsewhere first (`State::doubt` in
/// `graft-client`; without luck: `graft-client/tests/retry.rs`).
///
/// With that taken back seed 108 then said, after both clients had asked a lost leader ten times each: "`RequestsResolve`
/// after 27.658948335s: after everything had healed, request 10 of client 0 ended as: no answer came within 710ms; the
/// entry was not applied".
#[test]
fn a_client_leaves_a_leader_that_is_silent_although_its_deadlines_are_short() {
    let outcome = keep("SilentLeaderAskedForEver", "RequestsResolve");
    assert!(outcome.faults.of(FaultKind::SilentForGood) > 0, "nobody was silent");
}

/// The story: a client without a session had once been told by a follower that it did not lead. Later it asked another server
/// to open one, which was silent; and those who waited for the session were told at their deadline that nobody
/// leads, by that old word, while somebody did. Since then what they are told is what became of the last that was asked
/// in their place (`State::opener_refusal_now` in `graft-client`; without luck: `graft-client/tests/outcomes.rs`).
///
/// With that taken back seed 649 then said: "`NoLeaderIsTrue` after 22.903s: while s5 leads term 3, client 2 is told: no leader
/// was found in 1.743s: see that a majority of the servers runs and can talk to each other".
#[test]
fn whoever_waits_for_a_session_of_a_silent_server_is_not_told_that_nobody_leads() {
    let outcome = keep("SilenceCalledNoLeader", "NoLeaderIsTrue");
    assert!(outcome.faults.of(FaultKind::SilentForGood) > 0, "nobody was silent");
}
