//! What a run cost.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{Failure, Workload};

/// One run of one workload.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measurement {
    /// What was done.
    pub workload: Workload,
    /// From the first request to the last answer.
    pub wall: Duration,
    /// CPU time of the whole process meanwhile: servers, clients and all.
    pub cpu: Duration,
    /// The latency that half of the requests stayed below.
    pub p50: Duration,
    /// The latency that 99 of 100 requests stayed below.
    pub p99: Duration,
}

impl Measurement {
    pub(crate) fn new(
        contender: &'static str,
        workload: Workload,
        wall: Duration,
        cpu: Duration,
        latencies: &[Duration],
    ) -> Result<Self, Failure> {
        let fail = |error: &dyn std::fmt::Display| Failure::of(contender, error);
        let mut histogram = Histogram::<u64>::new(3).map_err(|error| fail(&error))?;
        for latency in latencies {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            histogram.record(nanos).map_err(|error| fail(&error))?;
        }
        let quantile = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
        Ok(Self { workload, wall, cpu, p50: quantile(0.5), p99: quantile(0.99) })
    }

    /// Requests answered a second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.operations() / self.wall.as_secs_f64()
    }

    /// Wall time a request, in microseconds.
    #[must_use]
    pub fn wall_micros(&self) -> f64 {
        self.wall.as_secs_f64() * 1e6 / self.operations()
    }

    /// CPU time a request, in microseconds.
    #[must_use]
    pub fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations()
    }

    fn operations(&self) -> f64 {
        self.workload.operations as f64
    }
}

/// The middle of `values`, the mean of the two middle ones where their number is even, and NaN where
/// there are none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_order_and_outliers() {
        assert!((median([9.0, 1.0, 1e9]) - 9.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 1e9]) - 3.0).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
    }
}
