//! The store on a disk: appends beside a loop around redb, purging, and opening after a crash.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use clap::Args;
use graft_benches::{
    disk::{self, Appender, Batch, Kind, Latencies, Purging},
    median,
};
use serde::Serialize;

use crate::{
    progress,
    report::{Table, grouped},
};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// How often each is measured; medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure next to nothing: shows that everything works, not how fast.
    #[arg(long)]
    quick: bool,
    /// How many entries an append has.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1000])]
    entries: Vec<usize>,
    /// How many bytes an entry has.
    #[arg(long, value_delimiter = ',', default_values_t = [128, 1024])]
    sizes: Vec<usize>,
    /// Measure appends alone.
    #[arg(long)]
    appends: bool,
}

/// Everything that was found out.
#[derive(Serialize, Debug)]
struct Report {
    runs: u32,
    appends: Vec<Summary>,
    sustained: Vec<Sustained>,
    purging: Option<PurgingSummary>,
    opening: Option<Opening>,
}

/// Appends of one size by one caller who waits for each.
#[derive(Serialize, Debug)]
struct Summary {
    contender: &'static str,
    entries: usize,
    size: usize,
    commits: f64,
    p50_micros: f64,
    p99_micros: f64,
    /// graft's commits over this one's: the median of the ratios within each run.
    ratio: f64,
}

/// A log that grows far beyond one file, beside a loop around redb on one file that grows.
#[derive(Serialize, Debug)]
struct Sustained {
    entries: usize,
    size: usize,
    bytes: u64,
    commits: f64,
    bare_commits: f64,
    p99_micros: f64,
    bare_p99_micros: f64,
    ratio: f64,
}

/// Appends while a million entries go, and while none do.
#[derive(Serialize, Debug)]
struct PurgingSummary {
    entries: u64,
    p50_micros: [f64; 2],
    p99_micros: [f64; 2],
}

/// Opening a store whose process was killed.
#[derive(Serialize, Debug)]
struct Opening {
    bytes: u64,
    millis: f64,
    slowest_millis: f64,
}

pub(crate) fn run(options: &Options) -> Result<String, disk::Error> {
    let runs = if options.quick { 1 } else { options.runs };
    let appends = appends(options, runs)?;
    let mut report = Report { runs, appends, sustained: Vec::new(), purging: None, opening: None };
    if !options.appends {
        report.sustained = sustained(options, runs)?;
        report.purging = Some(purging(options, runs)?);
        report.opening = Some(opening(options, runs)?);
    }
    if options.json { Ok(serde_json::to_string_pretty(&report)?) } else { Ok(report.text()) }
}

fn appends(options: &Options, runs: u32) -> Result<Vec<Summary>, disk::Error> {
    let mut summaries = Vec::new();
    for &size in &options.sizes {
        for &entries in &options.entries {
            if entries == 0 {
                return Err("--entries: an append needs at least one entry".into());
            }
            progress(&format!("appends of {entries} x {size} bytes"));
            summaries.extend(compare(Batch { entries, size }, options.quick, runs)?);
        }
    }
    Ok(summaries)
}

/// Everyone's appends, a few at a time in turns, each on a log of its own: what else the machine does
/// meets all of them alike.
fn compare(batch: Batch, quick: bool, runs: u32) -> Result<Vec<Summary>, disk::Error> {
    let count = if quick { 4 } else { batch.per_file() };
    let mut measured: Vec<Vec<Latencies>> = vec![Vec::new(); Kind::ALL.len()];
    for _ in 0..runs {
        let mut appenders =
            Kind::ALL.map(|kind| (kind, Appender::new(kind, batch), Latencies::default()));
        let mut left = count;
        while left > 0 {
            let turn = left.min(16);
            for (_, appender, latencies) in &mut appenders {
                let appender = appender.as_mut().map_err(|error| error.to_string())?;
                for _ in 0..turn {
                    latencies.push(appender.append()?);
                }
            }
            left -= turn;
            appenders.rotate_left(1);
        }
        for (kind, _, latencies) in appenders {
            let place = Kind::ALL.iter().position(|known| *known == kind);
            measured[place.unwrap_or(0)].push(latencies);
        }
    }
    let ours = measured[0].clone();
    let summaries = Kind::ALL.iter().zip(&measured).map(|(kind, runs)| Summary {
        contender: kind.name(),
        entries: batch.entries,
        size: batch.size,
        commits: median(runs.iter().map(rate)),
        p50_micros: median(runs.iter().map(|run| micros(run.per_mille(500)))),
        p99_micros: median(runs.iter().map(|run| micros(run.per_mille(990)))),
        ratio: median(ours.iter().zip(runs).map(|(ours, run)| rate(ours) / rate(run))),
    });
    Ok(summaries.collect())
}

fn rate(latencies: &Latencies) -> f64 {
    latencies.len() as f64 / latencies.total().as_secs_f64()
}

/// Logs that fill many files, one after the other.
fn sustained(options: &Options, runs: u32) -> Result<Vec<Sustained>, disk::Error> {
    let bytes: u64 = if options.quick { 1 << 20 } else { 128 << 20 };
    let mut found = Vec::new();
    for (entries, size) in [(10, 128), (100, 128), (1000, 128), (1000, 1024)] {
        progress(&format!("{} MiB in appends of {entries} x {size} bytes", bytes >> 20));
        let mut pairs = Vec::new();
        for _ in 0..runs {
            pairs.push(disk::sustain(Batch { entries, size }, bytes)?);
        }
        let side = |side: usize, figure: &dyn Fn(&Latencies) -> f64| {
            median(pairs.iter().map(|pair| figure(&pair[side])))
        };
        let p99 = |latencies: &Latencies| micros(latencies.per_mille(990));
        found.push(Sustained {
            entries,
            size,
            bytes,
            commits: side(0, &rate),
            bare_commits: side(1, &rate),
            p99_micros: side(0, &p99),
            bare_p99_micros: side(1, &p99),
            ratio: median(pairs.iter().map(|[ours, theirs]| rate(ours) / rate(theirs))),
        });
    }
    Ok(found)
}

/// A caller who waits for each append purges a million entries in a thousand steps; before and
/// after each of these stretches it appends as much and purges nothing.
fn purging(options: &Options, runs: u32) -> Result<PurgingSummary, disk::Error> {
    let (entries, writes) = if options.quick { (10_000, 50) } else { (1_000_000, 1000) };
    let mut quantiles: [Vec<[f64; 2]>; 2] = [Vec::new(), Vec::new()];
    for run in 0..runs {
        progress(&format!("purging, round {} of {runs}", run + 1));
        let directory = disk::scratch()?;
        let store = disk::newborn(&directory.path().join("log"))?;
        let last = disk::fill(&store, 0, entries, 128)?;
        disk::cover(&store, last)?;
        let (last, before) = disk::append_while(&store, last, writes / 2, Purging::Nothing)?;
        let steps = Purging::Steps { from: 0, step: entries / writes };
        let (last, purging) = disk::append_while(&store, last, writes, steps)?;
        let (_, after) = disk::append_while(&store, last, writes / 2, Purging::Nothing)?;
        let mut without = before;
        without.extend(after);
        for (quantiles, latencies) in quantiles.iter_mut().zip([without, purging]) {
            quantiles.push([500, 990].map(|share| micros(latencies.per_mille(share))));
        }
    }
    let middle =
        |side: usize, place: usize| median(quantiles[side].iter().map(|found| found[place]));
    Ok(PurgingSummary {
        entries,
        p50_micros: [middle(0, 0), middle(1, 0)],
        p99_micros: [middle(0, 1), middle(1, 1)],
    })
}

fn opening(options: &Options, runs: u32) -> Result<Opening, disk::Error> {
    let bytes: u64 = if options.quick { 1 << 20 } else { 1 << 30 };
    progress("filling a store to open after crashes");
    let directory = disk::scratch()?;
    let path = directory.path().join("log");
    let store = disk::newborn(&path)?;
    disk::fill(&store, 0, bytes / (1024 + 32), 1024)?;
    drop(store);
    let mut times = Vec::new();
    for _ in 0..runs {
        crash(&path)?;
        let (_store, _last, took) = disk::open(&path)?;
        times.push(took.as_secs_f64() * 1e3);
    }
    let mut held = 0;
    for file in std::fs::read_dir(&path)? {
        held += file?.metadata()?.len();
    }
    let slowest_millis = times.iter().copied().fold(0.0, f64::max);
    Ok(Opening { bytes: held, millis: median(times), slowest_millis })
}

/// Has another process write to the store at `path`, and kills it.
fn crash(path: &Path) -> Result<(), disk::Error> {
    let mut child =
        Command::new(env::current_exe()?).arg("crash").arg(path).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("the child has no output")?;
    // So many appends are acknowledged; more are under way.
    let acknowledged = BufReader::new(output).lines().take(20).count();
    child.kill()?;
    child.wait()?;
    if acknowledged < 20 { Err("the child ended before it was killed".into()) } else { Ok(()) }
}

#[derive(Args, Debug)]
pub(crate) struct Crash {
    path: PathBuf,
}

/// Appends until this process is killed, and prints a line for each append that is durable.
pub(crate) fn fill_until_killed(options: &Crash) -> Result<String, disk::Error> {
    /// More than any caller waits for.
    const APPENDS: usize = 10_000;
    let (store, mut last, _) = disk::open(&options.path)?;
    for _ in 0..APPENDS {
        last = disk::fill(&store, last, 100, 128)?;
        writeln!(io::stdout(), "{last}")?;
    }
    Err("nobody killed this process".into())
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

impl Report {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            "one caller who waits",
            "entries",
            "bytes",
            "commits/s",
            "p50 us",
            "p99 us",
            "graft is at",
        ]);
        for append in &self.appends {
            table.push(vec![
                append.contender.to_owned(),
                append.entries.to_string(),
                append.size.to_string(),
                grouped(append.commits),
                format!("{:.0}", append.p50_micros),
                format!("{:.0}", append.p99_micros),
                format!("{:.0}%", append.ratio * 100.0),
            ]);
        }
        let mut text = format!("medians of {} runs\n\n{}", self.runs, table.render());
        if !self.sustained.is_empty() {
            let mut table = Table::new(&[
                "a long log",
                "entries",
                "bytes",
                "commits/s",
                "bare growing",
                "p99 us",
                "bare p99 us",
                "graft is at",
            ]);
            for log in &self.sustained {
                table.push(vec![
                    format!("{} MiB", log.bytes >> 20),
                    log.entries.to_string(),
                    log.size.to_string(),
                    grouped(log.commits),
                    grouped(log.bare_commits),
                    format!("{:.0}", log.p99_micros),
                    format!("{:.0}", log.bare_p99_micros),
                    format!("{:.0}%", log.ratio * 100.0),
                ]);
            }
            text = format!("{text}\n{}", table.render());
        }
        if let Some(purging) = &self.purging {
            let mut table = Table::new(&["appends of 100 x 128 bytes", "p50 us", "p99 us"]);
            let labels = [
                "purging nothing".to_owned(),
                format!("purging {}", grouped(purging.entries as f64)),
            ];
            for (side, label) in labels.into_iter().enumerate() {
                let figures = [purging.p50_micros[side], purging.p99_micros[side]];
                let [p50, p99] = figures.map(|micros| format!("{micros:.0}"));
                table.push(vec![label, p50, p99]);
            }
            text = format!("{text}\n{}", table.render());
        }
        if let Some(opening) = &self.opening {
            text = format!(
                "{text}\nopening {} MiB after a crash: {:.1} ms, at worst {:.1} ms\n",
                opening.bytes >> 20,
                opening.millis,
                opening.slowest_millis
            );
        }
        text
    }
}
