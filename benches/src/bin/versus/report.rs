//! Tables for people.

use std::fmt::Write as _;

use crate::{
    compare::{Comparison, Ratio},
    growth::Report,
};

/// A table of text: the first row is the head, the first column flush left.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Self { rows: vec![head] }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a string cannot fail.
                let _ = if column == 0 {
                    write!(text, "{cell:<width$}")
                } else {
                    write!(text, "  {cell:>width$}")
                };
            }
            text.push('\n');
        }
        text
    }
}

pub(crate) fn comparison(comparison: &Comparison) -> String {
    let mut results = Table::new(&[
        "contender",
        "clients",
        "setting",
        "ops/s",
        "min",
        "max",
        "p50 us",
        "p99 us",
        "CPU us/op",
    ]);
    for result in &comparison.results {
        results.push(vec![
            result.contender.to_owned(),
            result.clients.to_string(),
            result.flavour.clone(),
            grouped(result.throughput),
            grouped(result.throughput_min),
            grouped(result.throughput_max),
            format!("{:.1}", result.p50_micros),
            format!("{:.1}", result.p99_micros),
            format!("{:.2}", result.cpu_micros),
        ]);
    }
    let commands = match comparison.payload {
        0 => "empty commands".to_owned(),
        bytes => format!("commands of {} bytes", grouped(bytes as f64)),
    };
    let head = format!(
        "{} processors, {commands}, medians of {} runs, each contender in its better setting:\n\
         single: one thread; shared(n): n threads for all; split(n+1): n for servers, one for clients\n\n",
        comparison.processors, comparison.runs
    );
    let mut text = head + &results.render();
    let failed: u32 = comparison.settings.iter().map(|setting| setting.failed_runs).sum();
    if failed > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{failed} runs failed and were repeated; see the messages above");
    }
    if !comparison.ratios.is_empty() {
        text.push_str("\nthroughput against each peer (CPU time a request against it)\n\n");
        text.push_str(&ratios(&comparison.ratios));
    }
    text
}

fn ratios(ratios: &[Ratio]) -> String {
    let mut clients: Vec<usize> = ratios.iter().map(|ratio| ratio.clients).collect();
    clients.sort_unstable();
    clients.dedup();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for ratio in ratios {
        if !pairs.contains(&(ratio.contender, ratio.peer)) {
            pairs.push((ratio.contender, ratio.peer));
        }
    }
    let counts: Vec<String> = clients.iter().map(ToString::to_string).collect();
    let mut head = vec!["ratio"];
    head.extend(counts.iter().map(String::as_str));
    let mut table = Table::new(&head);
    for pair in pairs {
        let mut row = vec![format!("{} / {}", pair.0, pair.1)];
        row.extend(clients.iter().map(|count| {
            let of = |ratio: &&Ratio| (ratio.contender, ratio.peer) == pair;
            let found = ratios.iter().filter(of).find(|ratio| ratio.clients == *count);
            found.map_or_else(String::new, |ratio| {
                format!("{:.2} ({:.2})", ratio.throughput, ratio.cpu)
            })
        }));
        table.push(row);
    }
    table.render()
}

pub(crate) fn growth(report: &Report) -> String {
    let mut table = Table::new(&[
        "contender",
        "setting",
        "entries",
        "us/op",
        "ratio",
        "CPU us/op",
        "CPU ratio",
    ]);
    for summary in &report.growth {
        for cost in &summary.costs {
            table.push(vec![
                summary.contender.to_owned(),
                summary.flavour.clone(),
                grouped(f64::from(u32::try_from(cost.entries).unwrap_or(u32::MAX))),
                format!("{:.3}", cost.wall_micros),
                format!("{:.2}", cost.wall_ratio),
                format!("{:.3}", cost.cpu_micros),
                format!("{:.2}", cost.cpu_ratio),
            ]);
        }
    }
    let head = format!(
        "{} processors, {} clients, medians of {} runs; ratios are against the shortest log\n\n",
        report.processors, report.clients, report.runs
    );
    head + &table.render()
}

/// A whole number in groups of three digits.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_from_the_right() {
        assert_eq!(grouped(7.4), "7");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", "n"]);
        table.push(vec!["a".to_owned(), "100".to_owned()]);
        assert_eq!(table.render(), "name    n\na     100\n");
    }
}
