//! Section `[webhooks]`: how webhooks are received, and applied.

use std::time::Duration;

use super::error::ConfigError;
use super::settings::Settings;

/// Section `[webhooks]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// Bytes of one body.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive, and then to be stored.
    pub read_timeout: Duration,
    /// Webhooks stored at once; others wait.
    pub max_stores: usize,
    /// How often the inbox is looked at, besides right after something was stored.
    pub poll_interval: Duration,
    /// Webhooks applied at once.
    pub concurrency: usize,
    /// How long the others leave alone what this process has claimed.
    pub claim: Duration,
    /// When what cannot be applied yet is tried again.
    pub retries: WebhookRetries,
    /// How long bodies are kept.
    pub retention: WebhookRetention,
}

/// How long the bodies of webhooks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookRetention {
    /// Those of applied and ignored webhooks.
    pub done: Duration,
    /// Those of dead letters.
    pub dead: Duration,
    /// Those of dead letters that name no payment of ours.
    pub unnamed: Duration,
    /// How often what is kept no longer is looked for.
    pub every: Duration,
}

/// When a parked webhook is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookRetries {
    /// Longest wait before the first time; doubles from time to time.
    pub first: Duration,
    /// Longest wait before any.
    pub max: Duration,
    /// How often it is tried in all, before it is a dead letter.
    pub max_attempts: u32,
    /// How long what waits for something else uses up no try.
    pub wait: Duration,
}

impl WebhookRetries {
    /// The longest wait after a number of attempts.
    pub fn limit(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(31);
        self.first
            .saturating_mul(2u32.saturating_pow(doublings))
            .min(self.max)
    }

    /// The longest wait of what uses up no try, at this age: as long again as it has waited.
    pub fn limit_at(&self, age: Duration) -> Duration {
        age.clamp(self.first, self.max)
    }
}

impl WebhooksConfig {
    pub(super) fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        const FIRST: &str = "webhooks.retry_first_ms";
        const DEAD: &str = "webhooks.keep_dead_days";
        const WAIT: &str = "webhooks.wait_days";
        const DAYS: std::ops::RangeInclusive<u64> = 1..=3_650;
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let config = Self {
            max_body_bytes: settings.number("webhooks.max_body_bytes", 1_024..=4_194_304)?,
            read_timeout: settings.millis("webhooks.read_timeout_ms", 100..=60_000)?,
            max_stores: settings.number("webhooks.max_stores", 1..=1_000)?,
            poll_interval: settings.millis("webhooks.poll_interval_ms", 10..=60_000)?,
            concurrency: settings.number("webhooks.concurrency", 1..=1_000)?,
            claim: settings.seconds("webhooks.claim_seconds", 1..=3_600)?,
            retries: WebhookRetries {
                first: settings.millis(FIRST, 10..=86_400_000)?,
                max: settings.millis("webhooks.retry_max_ms", 10..=86_400_000)?,
                max_attempts: settings.number("webhooks.max_attempts", 1..=1_000)?,
                wait: days(settings.number(WAIT, 0..=365)?),
            },
            retention: WebhookRetention {
                done: days(settings.number("webhooks.keep_days", DAYS)?),
                dead: days(settings.number(DEAD, DAYS)?),
                unnamed: days(settings.number("webhooks.keep_unnamed_days", DAYS)?),
                every: settings.millis("webhooks.wipe_interval_ms", 100..=86_400_000)?,
            },
        };
        if config.retries.max < config.retries.first {
            return Err(settings.invalid(FIRST, "must not be above webhooks.retry_max_ms"));
        }
        if config.retention.dead < config.retention.done {
            return Err(settings.invalid(DEAD, "must not be below webhooks.keep_days"));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_waits_double_up_to_their_limit() {
        let retries = WebhookRetries {
            first: Duration::from_secs(1),
            max: Duration::from_secs(900),
            max_attempts: 30,
            wait: Duration::from_secs(86_400),
        };
        let limits = [0, 1, 2, 3, 10, 11, 1_000].map(|attempts| retries.limit(attempts).as_secs());
        assert_eq!(limits, [1, 1, 2, 4, 512, 900, 900]);
        let limits =
            [0, 5, 900, 86_400].map(|age| retries.limit_at(Duration::from_secs(age)).as_secs());
        assert_eq!(limits, [1, 5, 900, 900]);
    }
}
