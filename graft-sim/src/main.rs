//! The simulator from the command line: runs seeds, and replays one.

#[cfg(feature = "mutants")]
mod mutants;

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    ops::Range,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use graft_sim::{FaultKind, Options, Outcome, Registers, simulate, simulate_all};

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
        #[arg(long, default_value_t = 5.0)]
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
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// How long each lasts, in simulated minutes.
        #[arg(long, default_value_t = 1.0)]
        minutes: f64,
        /// How many requests a second the clients send together.
        #[arg(long, default_value_t = 100.0)]
        rate: f64,
    },
    /// Runs one seed again, and says what happened in it.
    Replay {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// How long it lasts, in simulated minutes: as it was run.
        #[arg(long, default_value_t = 5.0)]
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
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// How long each lasts, in simulated minutes.
        #[arg(long, default_value_t = 0.5)]
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
    let mut out = io::stdout().lock();
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
    out: &mut impl Write,
    seeds: Range<u64>,
    limit: Duration,
    options: &Options,
    jobs: NonZeroUsize,
    faults: bool,
) -> io::Result<bool> {
    let (begun, first) = (Instant::now(), seeds.start);
    let over = |_: &Outcome| begun.elapsed() >= limit;
    let summary = simulate_all(seeds, jobs, options, Registers::new, over);
    for failure in &summary.failures {
        tell_failure(out, failure, options)?;
    }
    if faults {
        for kind in FaultKind::ALL {
            writeln!(out, "{:>10}  {kind:?}: {}", summary.faults.of(*kind), kind.meaning())?;
        }
    }
    let missing: Vec<FaultKind> = summary.faults.missing().collect();
    let blind = summary.seeds >= MANY_SEEDS && !missing.is_empty();
    if blind {
        writeln!(out, "these faults never struck, so nothing is known about them: {missing:?}")?;
    }
    if limit < Duration::MAX {
        writeln!(out, "seeds {first}..{} were run", first + summary.seeds)?;
    }
    writeln!(out, "{summary}")?;
    Ok(summary.failures.is_empty() && !blind)
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

fn tell_failure(out: &mut impl Write, failure: &Outcome, options: &Options) -> io::Result<()> {
    let Some(violation) = &failure.violation else { return Ok(()) };
    let minutes = options.length.as_secs_f64() / 60.0;
    writeln!(out, "seed {} failed: {violation}", failure.seed)?;
    writeln!(out, "    {}", violation.checker.meaning())?;
    writeln!(out, "    replay it: -- replay --seed {} --minutes {minutes}", failure.seed)
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

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` is no range of seeds: write one like 0..1000, or 1000..");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let end = if end.is_empty() { Ok(u64::MAX) } else { end.parse() };
    let (Ok(start), Ok(end)) = (start.parse(), end) else { return Err(wrong()) };
    if start < end { Ok(start..end) } else { Err(wrong()) }
}
