//! What a request costs while the log grows from thousands to millions of entries.

use clap::Args;
use graft_benches::{Flavour, Growth, GrowthPlan, Measurement, disk::Error, median};
use serde::Serialize;

use crate::{Common, Contestant, progress, report};

#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// At which lengths of the log to measure.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 1_000_000])]
    entries: Vec<usize>,
    /// How many clients there are.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    clients: usize,
    /// How many requests one window of measurement has.
    #[arg(long, default_value_t = 5_000, value_parser = positive)]
    window: usize,
    /// How many windows are measured at each length; the median counts.
    #[arg(long, default_value_t = 11, value_parser = positive)]
    windows: usize,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Everything that was found out.
#[derive(Serialize, Debug)]
pub(crate) struct Report {
    pub(crate) processors: usize,
    pub(crate) runs: u32,
    pub(crate) clients: usize,
    pub(crate) growth: Vec<Summary>,
}

/// One contender under one flavour.
#[derive(Serialize, Debug)]
pub(crate) struct Summary {
    pub(crate) contender: &'static str,
    pub(crate) flavour: String,
    pub(crate) costs: Vec<Cost>,
}

/// What a request cost at one length of the log.
#[derive(Serialize, Debug)]
pub(crate) struct Cost {
    pub(crate) entries: usize,
    pub(crate) wall_micros: f64,
    pub(crate) cpu_micros: f64,
    /// Wall time against the first length: the median of the ratios within each run.
    pub(crate) wall_ratio: f64,
    /// CPU time against the first length: the median of the ratios within each run.
    pub(crate) cpu_ratio: f64,
}

pub(crate) fn run(options: &Options) -> Result<String, Error> {
    let common = &options.common;
    let contestants = common.contestants(false);
    let flavours = options.flavours();
    let plan = options.plan()?;
    let pairs = flavours
        .iter()
        .flat_map(|flavour| contestants.iter().map(move |contestant| (contestant, *flavour)));
    let mut runs: Vec<(&Contestant, Flavour, Vec<Growth>)> =
        pairs.map(|(contestant, flavour)| (contestant, flavour, Vec::new())).collect();
    for round in 0..common.runs() {
        progress(&format!("round {} of {}", round + 1, common.runs()));
        for (contestant, flavour, growths) in &mut runs {
            growths.push(contestant.contender.grow(*flavour, &plan)?);
        }
    }
    let growth = runs.iter().map(|(contestant, flavour, growths)| Summary {
        contender: contestant.contender.name(),
        flavour: flavour.to_string(),
        costs: costs(&plan, growths),
    });
    let found = Report {
        processors: crate::processors(),
        runs: common.runs(),
        clients: plan.clients,
        growth: growth.collect(),
    };
    if common.json { Ok(serde_json::to_string_pretty(&found)?) } else { Ok(report::growth(&found)) }
}

impl Options {
    fn plan(&self) -> Result<GrowthPlan, Error> {
        if !self.entries.is_sorted() || self.entries.is_empty() {
            return Err("--entries: give one or more lengths in rising order".into());
        }
        let scale = if self.common.quick { 100 } else { 1 };
        Ok(GrowthPlan {
            clients: self.clients,
            entries: self.entries.iter().map(|mark| mark / scale).collect(),
            window: (self.window / scale).max(1),
            windows: self.windows,
        })
    }

    /// One thread unless told otherwise: what grows with the log shows best where nothing else moves.
    fn flavours(&self) -> Vec<Flavour> {
        if self.common.flavours.is_empty() { vec![Flavour::Single] } else { self.common.flavours() }
    }
}

fn costs(plan: &GrowthPlan, growths: &[Growth]) -> Vec<Cost> {
    let cost = |growth: &Growth, mark: usize, value: fn(&Measurement) -> f64| {
        median(growth.windows[mark].iter().map(value))
    };
    let over_runs = |mark: usize, value: fn(&Measurement) -> f64| {
        median(growths.iter().map(|growth| cost(growth, mark, value)))
    };
    let ratio = |mark: usize, value: fn(&Measurement) -> f64| {
        let of_run = |growth| cost(growth, mark, value) / cost(growth, 0, value);
        median(growths.iter().map(of_run))
    };
    let costs = plan.entries.iter().enumerate().map(|(mark, entries)| Cost {
        entries: *entries,
        wall_micros: over_runs(mark, Measurement::wall_micros),
        cpu_micros: over_runs(mark, Measurement::cpu_micros),
        wall_ratio: ratio(mark, Measurement::wall_micros),
        cpu_ratio: ratio(mark, Measurement::cpu_micros),
    });
    costs.collect()
}
