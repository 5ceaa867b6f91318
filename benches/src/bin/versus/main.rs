//! The same work on graft and on its peers, interleaved run by run on this machine.
//!
//! Each run starts three servers in this process with an empty log in memory, warms them up, and
//! then lets so many clients send empty commands, each waiting for its answer before it sends the
//! next. A runtime flavour is a property of the program around a library, so every contender is run
//! under each, and reported under the one that serves it best at that number of clients.
//!
//! `--store redb` does the same with every log on a disk, against a leader and two followers that
//! write and do nothing else, and `--network quic` with QUIC between the servers, and between them and the
//! client, against a leader and two followers that send and do nothing else. `--payload` fills the commands.
//!
//! `disk` holds the store alone against a loop around redb. `failover` kills leaders.

mod compare;
mod disk;
mod failover;
mod growth;
mod report;

use std::{
    io::{self, Write},
    process::ExitCode,
    thread::available_parallelism,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use graft_benches::{
    Contender, Flavour,
    contenders::{Field, Network, Store},
};

/// Measures graft beside its peers: the same work, interleaved run by run.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: compare::Options,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// What a request costs as the log grows, on servers that keep running.
    Growth(growth::Options),
    /// The store on a disk beside a loop around redb; purging, and opening after a crash.
    Disk(disk::Options),
    /// Fills a store until it is killed.
    #[command(hide = true)]
    Crash(disk::Crash),
    /// From the death of a leader to the next answer, over QUIC, with every log on a disk.
    Failover(failover::Options),
    /// Runs a server until it is killed.
    #[command(hide = true)]
    Serve(failover::Serve),
}

/// What every measurement can be told.
#[derive(Args, Clone, Debug)]
struct Common {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// How often each contender is measured; medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure next to nothing: shows that everything works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Only the contenders whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these flavours of runtime.
    #[arg(long, value_delimiter = ',')]
    flavours: Vec<FlavourName>,
    /// Where the servers' logs are.
    #[arg(long, value_enum, default_value_t = Store::Memory)]
    store: Store,
    /// What is between the servers, and between them and their clients.
    #[arg(long, value_enum, default_value_t = Network::Memory)]
    network: Network,
}

/// A flavour, to be sized to the machine.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum FlavourName {
    /// One thread for servers and clients.
    Single,
    /// One runtime with a thread a processor for servers and clients.
    Shared,
    /// A thread for the clients, the other processors for the servers.
    Split,
}

/// Somebody to measure, and on which side.
struct Contestant {
    contender: Box<dyn Contender>,
    is_graft: bool,
}

impl Common {
    /// Everyone who takes commands of this kind.
    fn contestants(&self, filled: bool) -> Vec<Contestant> {
        let side = |contenders: Vec<Box<dyn Contender>>, is_graft| {
            contenders.into_iter().map(move |contender| Contestant { contender, is_graft })
        };
        let field = Field { store: self.store, network: self.network, filled };
        side(field.graft(), true)
            .chain(side(field.others(), false))
            .filter(|contestant| self.wants(contestant.contender.name()))
            .collect()
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    fn flavours(&self) -> Vec<Flavour> {
        let wanted = |flavour: &Flavour| {
            let name = match flavour {
                Flavour::Single => FlavourName::Single,
                Flavour::Shared { .. } => FlavourName::Shared,
                Flavour::Split { .. } => FlavourName::Split,
            };
            self.flavours.is_empty() || self.flavours.contains(&name)
        };
        Flavour::all(processors()).into_iter().filter(wanted).collect()
    }

    const fn runs(&self) -> u32 {
        if self.quick { 1 } else { self.runs }
    }
}

fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Tells whoever waits how far it is, apart from the results.
fn progress(line: &str) {
    // Where nobody reads it, nothing is lost.
    let _ = writeln!(io::stderr(), "{line}");
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => compare::run(&cli.compare),
        Some(Command::Growth(options)) => growth::run(options),
        Some(Command::Disk(options)) => disk::run(options),
        Some(Command::Crash(options)) => disk::fill_until_killed(options),
        Some(Command::Failover(options)) => failover::run(options),
        Some(Command::Serve(options)) => failover::serve(options),
    };
    let printed = result.and_then(|text| Ok(writeln!(io::stdout(), "{text}")?));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("versus: {error}"));
            ExitCode::FAILURE
        }
    }
}
