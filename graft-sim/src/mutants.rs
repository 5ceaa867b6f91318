//! The hunt for known bugs: a simulator that misses them is no evidence.
//!
//! `mutants.md` is at once a part of the documentation and the record: for each mutant a seed that catches it.

use std::{
    fs,
    io::{self, Write},
    num::NonZeroUsize,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use graft_core::raft::Mutant;
use graft_sim::{Options, Outcome, Registers, Violation, simulate, simulate_all};

/// What was recorded when this program was built.
const RECORD: &str = include_str!("../mutants.md");
/// Where it is written again.
const RECORD_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/mutants.md");
const HEAD: &str = "\
| mutant | what it is | where it is from | caught by | in seed |
| --- | --- | --- | --- | --- |
";

/// The mutant of this name.
pub(crate) fn parse(name: &str) -> Result<Mutant, String> {
    let all = Mutant::ALL.iter().copied();
    let found = all.clone().find(|mutant| format!("{mutant:?}").eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let names: Vec<String> = all.map(|mutant| format!("{mutant:?}")).collect();
        format!("there is no mutant `{name}`: choose one of {}", names.join(", "))
    })
}

fn chosen(only: Option<Mutant>) -> impl Iterator<Item = Mutant> {
    Mutant::ALL.iter().copied().filter(move |mutant| only.is_none_or(|only| only == *mutant))
}

/// A seed with a mutant, and what became of it.
struct Catch {
    seed: u64,
    violation: Violation,
}

/// The first of these seeds that catches a mutant.
fn search(
    mutant: Mutant,
    seeds: Range<u64>,
    options: &Options,
    jobs: NonZeroUsize,
) -> Option<Catch> {
    let options = options.mutant(Some(mutant));
    let failed = |outcome: &Outcome| outcome.violation.is_some();
    let summary = simulate_all(seeds, jobs, &options, Registers::new, failed);
    let caught = summary.failures.into_iter().next()?;
    Some(Catch { seed: caught.seed, violation: caught.violation? })
}

/// What a seed that catches a mutant comes to without it: only where that is well the mutant was caught.
fn without(seed: u64, options: &Options) -> Option<Violation> {
    simulate(seed, &options.mutant(None), Registers::new).violation
}

/// Runs seeds with each mutant until one catches it. Says whether all were caught, and writes that down
/// where `record` wants it.
pub(crate) fn hunt(
    out: &mut impl Write,
    seeds: Range<u64>,
    options: &Options,
    jobs: NonZeroUsize,
    only: Option<Mutant>,
    record: bool,
) -> io::Result<bool> {
    quieten();
    let mut all_caught = true;
    let mut table = HEAD.to_owned();
    for mutant in chosen(only) {
        let Some(Catch { seed, violation }) = search(mutant, seeds.clone(), options, jobs) else {
            all_caught = false;
            writeln!(out, "{mutant:?} missed")?;
            continue;
        };
        if let Some(violation) = without(seed, options) {
            all_caught = false;
            writeln!(out, "{mutant:?} unknown: seed {seed} fails without it: {violation}")?;
            continue;
        }
        writeln!(out, "{mutant:?} caught after {} seeds", seed - seeds.start + 1)?;
        writeln!(out, "    seed {seed}: {violation}")?;
        table += &row(mutant, &violation, seed);
    }
    if record && all_caught && only.is_none() {
        fs::write(RECORD_PATH, table)?;
        writeln!(out, "written to {RECORD_PATH}")?;
    }
    Ok(all_caught)
}

fn row(mutant: Mutant, violation: &Violation, seed: u64) -> String {
    let (meaning, origin, checker) = (mutant.meaning(), mutant.origin(), violation.checker);
    format!(
        "| `{mutant:?}` | {meaning} | {origin} | [`{checker:?}`](Checker::{checker:?}) | {seed} |\n"
    )
}

/// The seed that was recorded for a mutant.
fn recorded(mutant: Mutant) -> Option<u64> {
    let begin = format!("| `{mutant:?}` |");
    let line = RECORD.lines().find(|line| line.starts_with(&begin))?;
    line.trim_end_matches('|').rsplit('|').next()?.trim().parse().ok()
}

/// Runs the recorded seed of each mutant, which must catch it, and be well without it.
pub(crate) fn replay_recorded(
    out: &mut impl Write,
    options: &Options,
    jobs: NonZeroUsize,
    only: Option<Mutant>,
) -> io::Result<bool> {
    quieten();
    let begun = Instant::now();
    let mutants: Vec<Mutant> = chosen(only).collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![None; mutants.len()]);
    thread::scope(|scope| {
        for _ in 0..jobs.get() {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(mutant) = mutants.get(at)
                {
                    let told = replay(*mutant, options);
                    found.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(told);
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut stale = 0;
    for (mutant, told) in mutants.iter().zip(found.into_iter().flatten()) {
        stale += u64::from(told.is_err());
        let (Ok(words) | Err(words)) = told;
        writeln!(out, "{mutant:?} {words}")?;
    }
    let (count, took) = (mutants.len(), begun.elapsed().as_secs_f64());
    writeln!(out, "mutants={count} stale={stale} wall_s={took:.1}")?;
    if stale > 0 {
        writeln!(
            out,
            "what the servers or the simulator do has changed: record again with \
             `cargo run --release -p graft-sim --features mutants -- mutants --record`"
        )?;
    }
    Ok(stale == 0)
}

/// What came of a recorded seed, in words: an error where it shows nothing any more.
fn replay(mutant: Mutant, options: &Options) -> Result<String, String> {
    let Some(seed) = recorded(mutant) else { return Err("has no recorded seed".into()) };
    let outcome = simulate(seed, &options.mutant(Some(mutant)), Registers::new);
    let Some(caught) = outcome.violation else {
        return Err(format!("is not caught by seed {seed} any more"));
    };
    match without(seed, options) {
        Some(violation) => Err(format!("is not what fails in seed {seed}: {violation}")),
        None => Ok(format!("caught by seed {seed}: {caught}")),
    }
}

/// A mutant makes the core's assertions fail by the dozen: what they say stands in the violation.
fn quieten() {
    std::panic::set_hook(Box::new(|_| {}));
}
