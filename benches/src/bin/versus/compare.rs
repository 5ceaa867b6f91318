//! Throughput, latency and CPU time of everyone at several numbers of clients.

use clap::Args;
use graft_benches::{
    Failure, Flavour, Measurement, Workload, contenders::Store, disk::Error, median,
};
use serde::Serialize;

use crate::{Common, Contestant, progress, report};

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// The numbers of clients.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1024, 4096])]
    clients: Vec<usize>,
    /// How many requests a run has, all clients together; by default what keeps the slowest busy
    /// for about a second.
    #[arg(long)]
    ops_per_run: Option<usize>,
    /// How many bytes a command carries. Contenders who only take empty ones are left out of more.
    #[arg(long, default_value_t = 0)]
    payload: usize,
}

/// How many bytes a run writes at most, unless it is told how many requests it has.
const LOG_BYTES: usize = 256 << 20;

/// Everything that was found out.
#[derive(Serialize, Debug)]
pub(crate) struct Comparison {
    pub(crate) processors: usize,
    pub(crate) runs: u32,
    pub(crate) payload: usize,
    /// The better setting of each contender at each number of clients.
    pub(crate) results: Vec<Summary>,
    pub(crate) ratios: Vec<Ratio>,
    /// Every setting, the better ones included.
    pub(crate) settings: Vec<Summary>,
}

/// The medians of one contender under one flavour at one number of clients.
#[derive(Serialize, Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) contender: &'static str,
    pub(crate) is_graft: bool,
    pub(crate) clients: usize,
    pub(crate) flavour: String,
    pub(crate) operations_per_run: usize,
    pub(crate) throughput: f64,
    pub(crate) throughput_min: f64,
    pub(crate) throughput_max: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
    pub(crate) cpu_micros: f64,
    /// How many runs ended in a failure and were repeated.
    pub(crate) failed_runs: u32,
}

/// Graft against one peer, each in its better setting.
#[derive(Serialize, Debug)]
pub(crate) struct Ratio {
    pub(crate) contender: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) clients: usize,
    /// Above one: graft answers more requests a second.
    pub(crate) throughput: f64,
    /// Below one: graft spends less CPU time a request.
    pub(crate) cpu: f64,
}

/// One contender under one flavour at one number of clients.
struct Setting<'a> {
    contestant: &'a Contestant,
    flavour: Flavour,
    workload: Workload,
    measured: Vec<Measurement>,
    failed: u32,
}

pub(crate) fn run(options: &Options) -> Result<String, Error> {
    let common = &options.common;
    let contestants = common.contestants(options.payload > 0);
    let mut settings = options.settings(&contestants)?;
    for round in 0..common.runs() {
        progress(&format!("round {} of {}", round + 1, common.runs()));
        // There and back, so that nobody always follows the same neighbour.
        if round % 2 == 1 {
            settings.reverse();
        }
        for setting in &mut settings {
            setting.measure()?;
        }
        if round % 2 == 1 {
            settings.reverse();
        }
    }
    let settings: Vec<Summary> = settings.iter().map(Setting::summary).collect();
    let results = best(&settings);
    let comparison = Comparison {
        processors: crate::processors(),
        runs: common.runs(),
        payload: options.payload,
        ratios: ratios(&results),
        results,
        settings,
    };
    if common.json {
        Ok(serde_json::to_string_pretty(&comparison)?)
    } else {
        Ok(report::comparison(&comparison))
    }
}

impl Options {
    /// All settings in the order in which a round runs them: contenders next to each other, so that
    /// whatever else the machine does meets them alike.
    fn settings<'a>(&self, contestants: &'a [Contestant]) -> Result<Vec<Setting<'a>>, Error> {
        let flavours = self.common.flavours();
        let mut settings = Vec::new();
        for &clients in &self.clients {
            if clients == 0 {
                return Err("--clients: a run needs at least one client".into());
            }
            let (operations, payload) = (self.operations(clients), self.payload);
            let workload = Workload { clients, operations, payload };
            for &flavour in &flavours {
                settings.extend(contestants.iter().map(|contestant| Setting {
                    contestant,
                    flavour,
                    workload,
                    measured: Vec::new(),
                    failed: 0,
                }));
            }
        }
        if settings.is_empty() {
            return Err("nothing to measure: --only names no contender".into());
        }
        Ok(settings)
    }

    fn operations(&self, clients: usize) -> usize {
        let usual = match clients {
            1 => 30_000,
            2..=31 => 100_000,
            32..=511 => 300_000,
            _ => 600_000,
        };
        // A disk answers one client some thousand times a second, and many by the batch.
        let usual = match self.common.store {
            Store::Memory => usual,
            Store::Redb => usual.min(5_000 * clients),
        };
        // Logs in memory keep it three times.
        let held = LOG_BYTES / self.payload.max(1);
        let wanted = self.ops_per_run.unwrap_or_else(|| usual.min(held).max(2 * clients));
        if self.common.quick { wanted.min(200 + 4 * clients) } else { wanted }
    }
}

impl Setting<'_> {
    /// How often a failed run is repeated. On a busy machine a peer may lose its leader, which ends a
    /// run, and says nothing about how fast it is.
    const PATIENCE: u32 = 3;

    fn measure(&mut self) -> Result<(), Failure> {
        let contender = &self.contestant.contender;
        loop {
            match contender.run(self.flavour, self.workload) {
                Ok(measurement) => {
                    self.measured.push(measurement);
                    return Ok(());
                }
                Err(error) if self.failed < Self::PATIENCE => {
                    self.failed += 1;
                    progress(&format!("repeated: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn summary(&self) -> Summary {
        let of = |value: fn(&Measurement) -> f64| self.measured.iter().map(value);
        let throughputs = || of(Measurement::throughput);
        Summary {
            contender: self.contestant.contender.name(),
            is_graft: self.contestant.is_graft,
            clients: self.workload.clients,
            flavour: self.flavour.to_string(),
            operations_per_run: self.workload.operations,
            throughput: median(throughputs()),
            throughput_min: throughputs().fold(f64::INFINITY, f64::min),
            throughput_max: throughputs().fold(0.0, f64::max),
            p50_micros: median(of(|run| run.p50.as_secs_f64() * 1e6)),
            p99_micros: median(of(|run| run.p99.as_secs_f64() * 1e6)),
            cpu_micros: median(of(Measurement::cpu_micros)),
            failed_runs: self.failed,
        }
    }
}

/// The setting of each contender at each number of clients that answered most requests a second.
fn best(settings: &[Summary]) -> Vec<Summary> {
    let mut best: Vec<Summary> = Vec::new();
    for setting in settings {
        let same = best
            .iter_mut()
            .find(|known| (known.contender, known.clients) == (setting.contender, setting.clients));
        match same {
            Some(known) if known.throughput >= setting.throughput => {}
            Some(known) => known.clone_from(setting),
            None => best.push(setting.clone()),
        }
    }
    best
}

fn ratios(results: &[Summary]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for ours in results.iter().filter(|result| result.is_graft) {
        let theirs =
            results.iter().filter(|result| !result.is_graft && result.clients == ours.clients);
        ratios.extend(theirs.map(|theirs| Ratio {
            contender: ours.contender,
            peer: theirs.contender,
            clients: ours.clients,
            throughput: ours.throughput / theirs.throughput,
            cpu: ours.cpu_micros / theirs.cpu_micros,
        }));
    }
    ratios
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(contender: &'static str, is_graft: bool, flavour: &str, throughput: f64) -> Summary {
        Summary {
            contender,
            is_graft,
            clients: 1,
            flavour: flavour.to_owned(),
            operations_per_run: 1,
            throughput,
            throughput_min: throughput,
            throughput_max: throughput,
            p50_micros: 1.0,
            p99_micros: 1.0,
            cpu_micros: 1.0,
            failed_runs: 0,
        }
    }

    #[test]
    fn everyone_is_compared_in_its_better_setting() {
        let settings = [
            summary("ours", true, "single", 300.0),
            summary("theirs", false, "single", 50.0),
            summary("ours", true, "shared", 200.0),
            summary("theirs", false, "shared", 100.0),
        ];
        let best = best(&settings);
        let flavours: Vec<&str> = best.iter().map(|result| result.flavour.as_str()).collect();
        assert_eq!(flavours, ["single", "shared"]);
        let ratios = ratios(&best);
        assert_eq!(ratios.len(), 1);
        assert!((ratios[0].throughput - 3.0).abs() < 1e-9);
    }
}
