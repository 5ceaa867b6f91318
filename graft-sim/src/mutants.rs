//! The hunt for known bugs: a simulator that misses them is no evidence.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    ops::Range,
};

use graft_core::raft::Mutant;
use graft_sim::{Options, Registers, simulate_all};

/// The mutant of this name.
pub(crate) fn parse(name: &str) -> Result<Mutant, String> {
    let all = Mutant::ALL.iter().copied();
    let found = all.clone().find(|mutant| format!("{mutant:?}").eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let names: Vec<String> = all.map(|mutant| format!("{mutant:?}")).collect();
        format!("there is no mutant `{name}`: choose one of {}", names.join(", "))
    })
}

/// Runs seeds with each mutant until one catches it. Says whether all were caught.
pub(crate) fn hunt(
    out: &mut impl Write,
    seeds: Range<u64>,
    options: &Options,
    jobs: NonZeroUsize,
    only: Option<Mutant>,
) -> io::Result<bool> {
    let mut all_caught = true;
    let chosen =
        Mutant::ALL.iter().copied().filter(|mutant| only.is_none_or(|only| only == *mutant));
    for mutant in chosen {
        let options = options.mutant(Some(mutant));
        let failed = |outcome: &graft_sim::Outcome| outcome.violation.is_some();
        let summary = simulate_all(seeds.clone(), jobs, &options, Registers::new, failed);
        match summary.failures.first() {
            Some(caught) => {
                let after = caught.seed - seeds.start + 1;
                writeln!(out, "{mutant:?} caught after {after} seeds")?;
                if let Some(violation) = &caught.violation {
                    writeln!(out, "    seed {}: {violation}", caught.seed)?;
                }
            }
            None => {
                all_caught = false;
                writeln!(out, "{mutant:?} missed")?;
            }
        }
    }
    Ok(all_caught)
}
