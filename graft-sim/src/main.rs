//! The simulator from the command line: runs seeds, and replays one.

mod arguments;
#[cfg(feature = "mutants")]
mod mutants;
mod tell;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    ops::Range,
    process::ExitCode,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand, value_parser};
use graft_sim::{FaultKind, Options, Outcome, Registers, Summary, simulate, simulate_all};

use crate::{
    arguments::{parse_minutes, parse_range, parse_rate},
    tell::{Teller, tell_failure},
};

/// Runs whole clusters of production code under simulated network, disk and time.
#[derive(Parser)]
#[command(name = "graft-sim", version)]
struct Arguments {
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Runs many seeds, and says what came of them. Exits with 1 where a property did not hold.
    Run {
        /// Which: the first, and one behind the last, unless the time ends it.
        #[arg(long, value_name = "A..B", value_parser = parse_range)]
        seeds: Range<u64>,
        /// Begins no seed after so many seconds.
        #[arg(long = "for", value_name = "SECONDS")]
        limit: Option<u64>,
        /// How long each lasts, in simulated minutes.
        #[arg(long, default_value_t = 5.0, value_parser = parse_minutes)]
        minutes: f64,
        /// On how many threads. All there are, unless told otherwise.
        #[arg(long)]
        jobs: Option<NonZeroUsize>,
        /// Also says how often each kind of fault struck.
        #[arg(long)]
        faults: bool,
    },
    /// Says how fast clusters of three, five and seven servers are simulated under load, each on one thread.
    Measure {
        /// How many seeds each size gets.
        #[arg(long, default_value_t = 20, value_parser = value_parser!(u64).range(1..))]
        seeds: u64,
        /// How long each lasts, in simulated minutes.
        #[arg(long, default_value_t = 1.0, value_parser = parse_minutes)]
        minutes: f64,
        /// How many requests a second the clients send together.
        #[arg(long, default_value_t = 100.0, value_parser = parse_rate)]
        rate: f64,
    },
    /// Runs one seed again, and says what happened in it.
    Replay {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// How long it lasts, in simulated minutes: as it was run.
        #[arg(long, default_value_t = 5.0, value_parser = parse_minutes)]
        minutes: f64,
        /// Says all that happened, and not its end alone.
        #[arg(long)]
        trace: bool,
        /// With this known bug switched on.
        #[cfg(feature = "mutants")]
        #[arg(long, value_parser = mutants::parse)]
        mutant: Option<graft_core::raft::Mutant>,
    },
    /// Switches known bugs on, one at a time, and says how many seeds it takes to catch each. Exits with 1 where one
    /// is missed.
    #[cfg(feature = "mutants")]
    Mutants {
        /// How many seeds each gets.
        #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u64).range(1..))]
        seeds: u64,
        /// How long each lasts, in simulated minutes.
        #[arg(long, default_value_t = 0.5, value_parser = parse_minutes)]
        minutes: f64,
        /// On how many threads. All there are, unless told otherwise.
        #[arg(long)]
        jobs: Option<NonZeroUsize>,
        /// Only this one.
        #[arg(long, value_parser = mutants::parse)]
        only: Option<graft_core::raft::Mutant>,
        /// Run the recorded seed of each and nothing else.
        #[arg(long)]
        recorded: bool,
        /// Write down which seeds catch them.
        #[arg(long, conflicts_with_all = ["recorded", "only"])]
        record: bool,
    },
    /// Switches known bugs on: only with `cargo run --release -p graft-sim --features mutants -- mutants`.
    #[cfg(not(feature = "mutants"))]
    Mutants {
        /// What the order takes where it is there.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        rest: Vec<String>,
    },
}

/// From this many seeds on, each kind of fault must have struck.
const MANY_SEEDS: u64 = 1000;
/// How much of the end of a trace is shown.
const END_OF_TRACE: usize = 60;

fn main() -> ExitCode {
    match carry_out(Arguments::parse().order) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Nobody reads any more.
        Err(_) => ExitCode::from(2),
    }
}

/// Says whether all was well.
fn carry_out(order: Order) -> io::Result<bool> {
    let mut out = io::stdout();
    match order {
        Order::Run { seeds, limit, minutes, jobs, faults } => {
            let limit = limit.map_or(Duration::MAX, Duration::from_secs);
            run(&mut out, seeds, limit, &options(minutes), threads(jobs), faults)
        }
        Order::Measure { seeds, minutes, rate } => {
            measure(&mut out, 0..seeds, &options(minutes).rate(rate))
        }
        #[cfg(not(feature = "mutants"))]
        Order::Replay { seed, minutes, trace } => replay(&mut out, seed, &options(minutes), trace),
        #[cfg(feature = "mutants")]
        Order::Replay { seed, minutes, trace, mutant } => {
            replay(&mut out, seed, &options(minutes).mutant(mutant), trace)
        }
        #[cfg(not(feature = "mutants"))]
        Order::Mutants { rest } => arguments::no_mutants(&rest).exit(),
        #[cfg(feature = "mutants")]
        Order::Mutants { minutes, jobs, only, recorded: true, .. } => {
            mutants::replay_recorded(&mut out, &options(minutes), threads(jobs), only)
        }
        #[cfg(feature = "mutants")]
        Order::Mutants { seeds, minutes, jobs, only, record, .. } => {
            mutants::hunt(&mut out, 0..seeds, &options(minutes), threads(jobs), only, record)
        }
    }
}

fn threads(asked: Option<NonZeroUsize>) -> NonZeroUsize {
    let jobs = asked.or_else(|| thread::available_parallelism().ok());
    jobs.unwrap_or(NonZeroUsize::MIN)
}

fn options(minutes: f64) -> Options {
    let seconds = (minutes * 60.0).clamp(1.0, 1e6);
    Options::default().length(Duration::from_secs_f64(seconds))
}

fn run(
    out: &mut (impl Write + Send),
    seeds: Range<u64>,
    limit: Duration,
    options: &Options,
    jobs: NonZeroUsize,
    faults: bool,
) -> io::Result<bool> {
    let (begun, first) = (Instant::now(), seeds.start);
    let teller = Mutex::new(Teller::new(&mut *out, io::stderr(), options));
    let over = |outcome: &Outcome| {
        let heard = tell::lock(&teller).hear(outcome, begun.elapsed());
        !heard || begun.elapsed() >= limit
    };
    let summary = simulate_all(seeds, jobs, options, Registers::new, over);
    tell::into_inner(teller).end()?;
    if faults {
        for kind in FaultKind::ALL {
            writeln!(out, "{:>10}  {kind:?}: {}", summary.faults.of(*kind), kind.meaning())?;
        }
    }
    let missing = blind_spots(&summary);
    if !missing.is_empty() {
        writeln!(out, "these faults never struck, so nothing is known about them: {missing:?}")?;
    }
    if limit < Duration::MAX {
        writeln!(out, "seeds {first}..{} were run", first + summary.seeds)?;
    }
    writeln!(out, "{summary}")?;
    Ok(is_well(&summary))
}

/// The faults that never struck in as many seeds as must show all of them.
fn blind_spots(summary: &Summary) -> Vec<FaultKind> {
    if summary.seeds < MANY_SEEDS { Vec::new() } else { summary.faults.missing().collect() }
}

/// Whether nothing failed, and nothing that must have been tried was not.
fn is_well(summary: &Summary) -> bool {
    summary.failures.is_empty() && blind_spots(summary).is_empty()
}

fn measure(out: &mut impl Write, seeds: Range<u64>, options: &Options) -> io::Result<bool> {
    let mut all_well = true;
    for servers in [3, 5, 7] {
        let options = options.servers(servers);
        let summary =
            simulate_all(seeds.clone(), NonZeroUsize::MIN, &options, Registers::new, |_| false);
        let wall = summary.wall.as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "it is only shown")]
        let rates = (summary.events as f64 / wall, summary.answered as f64 / wall);
        let (events, ops) = rates;
        writeln!(
            out,
            "servers={servers} speedup={:.0} events_per_s={events:.0} ops_per_s={ops:.0} failures={}",
            summary.speedup(),
            summary.failures.len()
        )?;
        all_well &= summary.failures.is_empty();
    }
    Ok(all_well)
}

fn replay(out: &mut impl Write, seed: u64, options: &Options, all: bool) -> io::Result<bool> {
    let outcome = simulate(seed, &options.trace(true), Registers::new);
    let skipped = if all { 0 } else { outcome.trace.len().saturating_sub(END_OF_TRACE) };
    if skipped > 0 {
        writeln!(out, "({skipped} lines before these: --trace shows them)")?;
    }
    for line in &outcome.trace[skipped..] {
        writeln!(out, "{line}")?;
    }
    tell_failure(out, &outcome, options)?;
    writeln!(
        out,
        "seed={} hash={:016x} events={} simulated_s={:.1} ops={} faults={}",
        outcome.seed,
        outcome.hash,
        outcome.events,
        outcome.simulated.as_secs_f64(),
        outcome.answered,
        outcome.faults.total()
    )?;
    Ok(outcome.violation.is_none())
}
