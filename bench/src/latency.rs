//! Latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart, in microseconds; longer ones count as this.
const MAX_MICROS: u64 = 120_000_000;
/// Significant digits.
const DIGITS: u8 = 3;

/// Latencies of many payments.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Quantiles {
    /// Half of the payments took no longer.
    pub p50: f64,
    /// 99 % took no longer.
    pub p99: f64,
    /// 99.9 % took no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// Never with these constants; the library's constructor is fallible.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, MAX_MICROS, DIGITS)?))
    }

    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.0
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(MAX_MICROS));
    }

    /// Adds all of another.
    ///
    /// # Errors
    /// Never: all have the same bounds.
    pub fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantiles that the report shows.
    pub fn quantiles(&self) -> Quantiles {
        let at = |quantile| millis(self.0.value_at_quantile(quantile));
        Quantiles {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(self.0.max()),
        }
    }
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds_over_merged_parts() {
        let (mut all, mut part) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        (1..=50).for_each(|millis| all.record(Duration::from_millis(millis)));
        (51..=100).for_each(|millis| part.record(Duration::from_millis(millis)));
        all.merge(&part).unwrap();
        let quantiles = all.quantiles();
        assert_eq!(all.count(), 100);
        assert!((quantiles.p50 - 50.0).abs() < 0.1, "{quantiles:?}");
        assert!((quantiles.p99 - 99.0).abs() < 0.1, "{quantiles:?}");
        assert!((quantiles.max - 100.0).abs() < 0.2, "{quantiles:?}");
    }
}
