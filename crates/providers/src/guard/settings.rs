//! When a circuit opens and closes, and how many calls an account carries: as configured, and checked.

use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::config::MAX_TOTAL_TIMEOUT_MS;

/// Default of [`crate::config::ProviderAccountConfig::max_concurrent_calls`].
pub const DEFAULT_MAX_CONCURRENT_CALLS: u32 = 512;
/// Upper bound of [`crate::config::ProviderAccountConfig::max_concurrent_calls`].
pub const MAX_CONCURRENT_CALLS: u32 = 100_000;
/// Default of [`crate::config::ProviderAccountConfig::max_concurrent_lookups`].
pub const DEFAULT_MAX_CONCURRENT_LOOKUPS: u32 = 16;
/// Upper bound of [`crate::config::ProviderAccountConfig::max_concurrent_lookups`].
pub const MAX_CONCURRENT_LOOKUPS: u32 = 10_000;

/// Upper bound of [`CircuitConfig::window_calls`]: each takes two bytes.
pub const MAX_WINDOW_CALLS: u32 = 10_000;
/// Lower bound of [`CircuitConfig::open_ms`].
pub const MIN_OPEN_MS: u64 = 100;
/// Upper bound of [`CircuitConfig::open_ms`].
pub const MAX_OPEN_MS: u64 = 600_000;
/// Upper bound of [`CircuitConfig::max_open_ms`].
pub const MAX_MAX_OPEN_MS: u64 = 3_600_000;
/// Upper bound of [`CircuitConfig::open_growth`].
pub const MAX_OPEN_GROWTH: u32 = 10;
/// Upper bound of [`CircuitConfig::jitter_percent`]: above it a pause would hardly be one.
pub const MAX_JITTER_PERCENT: u32 = 50;
/// Upper bound of [`CircuitConfig::half_open_probes`].
pub const MAX_HALF_OPEN_PROBES: u32 = 1_000;

/// A number of an account's configuration is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{setting} must be {min} to {max}")]
pub struct OutOfRange {
    /// The setting, as the configuration names it.
    pub setting: &'static str,
    /// Smallest value allowed.
    pub min: u64,
    /// Largest value allowed.
    pub max: u64,
}

/// When an account's circuit opens and closes. It counts the last calls, sends and lookups alike.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitConfig {
    /// How many of the last calls count: 1 to [`MAX_WINDOW_CALLS`]. Default 100.
    pub window_calls: u32,
    /// Fewer calls than this never open it: 1 to `window_calls`. Default 20.
    pub min_calls: u32,
    /// Opens when this share of them failed, in percent: 1 to 100. Default 50.
    pub failure_rate_percent: u32,
    /// A call that takes this long is slow, in milliseconds: 1 to [`MAX_TOTAL_TIMEOUT_MS`].
    /// Default 5,000. Above the account's total timeout, no call is slow.
    pub slow_call_ms: u64,
    /// Opens when this share of them was slow, in percent: 1 to 100. Default 80.
    pub slow_rate_percent: u32,
    /// How long it stays open the first time, in milliseconds: [`MIN_OPEN_MS`] to [`MAX_OPEN_MS`].
    /// Default 5,000.
    pub open_ms: u64,
    /// By how much the pause grows each time that it opens again without having closed: 1 to
    /// [`MAX_OPEN_GROWTH`]. Default 2.
    pub open_growth: u32,
    /// Longest pause, in milliseconds: `open_ms` to [`MAX_MAX_OPEN_MS`]. Default 30,000.
    pub max_open_ms: u64,
    /// By up to how much a pause is shortened at random, in percent, so that replicas do not probe
    /// in step: 0 to [`MAX_JITTER_PERCENT`]. Default 20.
    pub jitter_percent: u32,
    /// How many calls try the account after the pause, and must all succeed to close the circuit: 1 to
    /// [`MAX_HALF_OPEN_PROBES`]. Default 5.
    pub half_open_probes: u32,
}

impl Default for CircuitConfig {
    fn default() -> Self {
        Self {
            window_calls: 100,
            min_calls: 20,
            failure_rate_percent: 50,
            slow_call_ms: 5_000,
            slow_rate_percent: 80,
            open_ms: 5_000,
            open_growth: 2,
            max_open_ms: 30_000,
            jitter_percent: 20,
            half_open_probes: 5,
        }
    }
}

impl CircuitConfig {
    /// The settings, each in its range.
    pub fn checked(&self) -> Result<CircuitSettings, OutOfRange> {
        let window = self.window_calls;
        Ok(CircuitSettings {
            window_calls: in_range("circuit.window_calls", window, 1, MAX_WINDOW_CALLS)?,
            min_calls: in_range("circuit.min_calls", self.min_calls, 1, window)?,
            failure_rate_percent: in_range(
                "circuit.failure_rate_percent",
                self.failure_rate_percent,
                1,
                100,
            )?,
            slow_call: millis(
                "circuit.slow_call_ms",
                self.slow_call_ms,
                1,
                MAX_TOTAL_TIMEOUT_MS,
            )?,
            slow_rate_percent: in_range(
                "circuit.slow_rate_percent",
                self.slow_rate_percent,
                1,
                100,
            )?,
            open: millis("circuit.open_ms", self.open_ms, MIN_OPEN_MS, MAX_OPEN_MS)?,
            open_growth: in_range("circuit.open_growth", self.open_growth, 1, MAX_OPEN_GROWTH)?,
            max_open: millis(
                "circuit.max_open_ms",
                self.max_open_ms,
                self.open_ms,
                MAX_MAX_OPEN_MS,
            )?,
            jitter_percent: in_range(
                "circuit.jitter_percent",
                self.jitter_percent,
                0,
                MAX_JITTER_PERCENT,
            )?,
            half_open_probes: in_range(
                "circuit.half_open_probes",
                self.half_open_probes,
                1,
                MAX_HALF_OPEN_PROBES,
            )?,
        })
    }
}

/// A [`CircuitConfig`] whose values are all in range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitSettings {
    window_calls: u32,
    min_calls: u32,
    failure_rate_percent: u32,
    slow_call: Duration,
    slow_rate_percent: u32,
    open: Duration,
    open_growth: u32,
    max_open: Duration,
    jitter_percent: u32,
    half_open_probes: u32,
}

impl CircuitSettings {
    /// How many of the last calls count.
    pub(super) fn window_calls(&self) -> u32 {
        self.window_calls
    }

    /// How many calls try the account after a pause.
    pub(super) fn half_open_probes(&self) -> u32 {
        self.half_open_probes
    }

    /// Whether a call that took this long was slow.
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        took >= self.slow_call
    }

    /// Whether so many failed and slow calls out of `calls` open the circuit.
    pub(super) fn opens(&self, calls: u32, failed: u32, slow: u32) -> bool {
        let reaches = |count: u32, percent: u32| {
            u64::from(count) * 100 >= u64::from(percent) * u64::from(calls)
        };
        calls >= self.min_calls
            && (reaches(failed, self.failure_rate_percent) || reaches(slow, self.slow_rate_percent))
    }

    /// How long the circuit stays open when it opens for the `opening`th time in a row (from 1):
    /// grown, cut to the maximum, and shortened by `chance`, a number drawn evenly from all of `u32`.
    pub(super) fn pause(&self, opening: u32, chance: u32) -> Duration {
        let factor = self.open_growth.saturating_pow(opening.saturating_sub(1));
        let whole = self.open.saturating_mul(factor).min(self.max_open);
        let most = whole * self.jitter_percent / 100;
        whole.saturating_sub(most.mul_f64(f64::from(chance) / f64::from(u32::MAX)))
    }
}

/// What an account carries at once, and its circuit: all in range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSettings {
    pub(super) max_concurrent_calls: usize,
    pub(super) max_concurrent_lookups: usize,
    pub(super) circuit: CircuitSettings,
}

impl GuardSettings {
    /// Checks the limits of an account.
    pub fn new(
        max_concurrent_calls: u32,
        max_concurrent_lookups: u32,
        circuit: &CircuitConfig,
    ) -> Result<Self, OutOfRange> {
        let (calls, lookups) = (max_concurrent_calls, max_concurrent_lookups);
        Ok(Self {
            max_concurrent_calls: places("max_concurrent_calls", calls, MAX_CONCURRENT_CALLS)?,
            max_concurrent_lookups: places(
                "max_concurrent_lookups",
                lookups,
                MAX_CONCURRENT_LOOKUPS,
            )?,
            circuit: circuit.checked()?,
        })
    }
}

fn in_range(setting: &'static str, value: u32, min: u32, max: u32) -> Result<u32, OutOfRange> {
    within(setting, value.into(), min.into(), max.into()).map(|_| value)
}

fn millis(setting: &'static str, value: u64, min: u64, max: u64) -> Result<Duration, OutOfRange> {
    within(setting, value, min, max).map(Duration::from_millis)
}

fn places(setting: &'static str, value: u32, max: u32) -> Result<usize, OutOfRange> {
    let value = in_range(setting, value, 1, max)?;
    // No target that this is built for has a smaller usize; the limit holds all the same.
    Ok(usize::try_from(value).unwrap_or(usize::MAX))
}

fn within(setting: &'static str, value: u64, min: u64, max: u64) -> Result<u64, OutOfRange> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(OutOfRange { setting, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        let circuit = CircuitConfig::default();
        let settings = GuardSettings::new(
            DEFAULT_MAX_CONCURRENT_CALLS,
            DEFAULT_MAX_CONCURRENT_LOOKUPS,
            &circuit,
        );
        let settings = settings.unwrap();
        assert_eq!(settings.max_concurrent_calls, 512);
        assert_eq!(settings.max_concurrent_lookups, 16);
        assert_eq!(settings.circuit.open, Duration::from_secs(5));
    }

    type Change = fn(&mut CircuitConfig);

    #[test]
    fn every_setting_has_a_range_that_its_refusal_names() {
        let cases: [(Change, &str); 14] = [
            (|c| c.window_calls = 0, "window_calls must be 1 to 10000"),
            (
                |c| c.window_calls = 10_001,
                "window_calls must be 1 to 10000",
            ),
            (|c| c.min_calls = 0, "min_calls must be 1 to 100"),
            (|c| c.min_calls = 101, "min_calls must be 1 to 100"),
            (
                |c| c.failure_rate_percent = 0,
                "failure_rate_percent must be 1 to 100",
            ),
            (
                |c| c.failure_rate_percent = 101,
                "failure_rate_percent must be 1 to 100",
            ),
            (|c| c.slow_call_ms = 0, "slow_call_ms must be 1 to 120000"),
            (
                |c| c.slow_rate_percent = 101,
                "slow_rate_percent must be 1 to 100",
            ),
            (|c| c.open_ms = 99, "open_ms must be 100 to 600000"),
            (|c| c.open_growth = 0, "open_growth must be 1 to 10"),
            (
                |c| c.max_open_ms = 4_999,
                "max_open_ms must be 5000 to 3600000",
            ),
            (|c| c.jitter_percent = 51, "jitter_percent must be 0 to 50"),
            (
                |c| c.half_open_probes = 0,
                "half_open_probes must be 1 to 1000",
            ),
            (
                |c| c.half_open_probes = 1_001,
                "half_open_probes must be 1 to 1000",
            ),
        ];
        for (change, message) in cases {
            let mut circuit = CircuitConfig::default();
            change(&mut circuit);
            let error = circuit.checked().unwrap_err().to_string();
            assert_eq!(error, format!("circuit.{message}"));
        }
        let circuit = CircuitConfig::default();
        for (calls, lookups, message) in [
            (0, 1, "max_concurrent_calls must be 1 to 100000"),
            (100_001, 1, "max_concurrent_calls must be 1 to 100000"),
            (1, 0, "max_concurrent_lookups must be 1 to 10000"),
            (1, 10_001, "max_concurrent_lookups must be 1 to 10000"),
        ] {
            let error = GuardSettings::new(calls, lookups, &circuit).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn pauses_grow_to_the_maximum_and_are_only_ever_shortened() {
        let settings = CircuitConfig::default().checked().unwrap();
        let pauses = [1, 2, 3, 4, 5, u32::MAX].map(|opening| settings.pause(opening, 0));
        assert_eq!(pauses.map(|pause| pause.as_secs()), [5, 10, 20, 30, 30, 30]);
        assert_eq!(settings.pause(1, u32::MAX), Duration::from_secs(4));
        let half = settings.pause(1, u32::MAX / 2);
        assert!((4_400..=4_600).contains(&half.as_millis()), "{half:?}");
    }
}
