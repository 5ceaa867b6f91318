//! What the command line takes, and what it says of the rest.

use std::ops::Range;

pub(crate) fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` is no range of seeds: write one like 0..1000, or 1000..");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let end = if end.is_empty() { Ok(u64::MAX) } else { end.parse() };
    let (Ok(start), Ok(end)) = (start.parse(), end) else { return Err(wrong()) };
    if start < end { Ok(start..end) } else { Err(wrong()) }
}

/// Of no length, or of none that is one, nothing can be simulated.
pub(crate) fn parse_minutes(text: &str) -> Result<f64, String> {
    positive(text).ok_or_else(|| {
        format!("`{text}` is no length of a run: give a number of minutes above zero, like 0.5")
    })
}

pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    positive(text).ok_or_else(|| {
        format!("`{text}` is no rate: give a number of requests a second above zero, like 100")
    })
}

fn positive(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0)
}

/// A build without known bugs cannot switch one on, but says how to come by one that can.
#[cfg(not(feature = "mutants"))]
pub(crate) fn no_mutants(rest: &[String]) -> clap::Error {
    let rest: String = rest.iter().map(|word| format!(" {word}")).collect();
    <crate::Arguments as clap::CommandFactory>::command().error(
        clap::error::ErrorKind::InvalidSubcommand,
        format!(
            "known bugs are compiled in only where the feature `mutants` is on: \
             cargo run --release -p graft-sim --features mutants -- mutants{rest}"
        ),
    )
}
