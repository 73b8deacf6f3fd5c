//! Sections `[recovery]` and `[payments.retries]`: when what has no outcome is taken up again.

use std::time::Duration;

use quittance_domain::retry::{Backoff, MaxSends, RetryPolicy};

use super::error::ConfigError;
use super::settings::Settings;

/// Longest wait between two steps of a schedule, and longest `Retry-After` that is honoured. Seconds.
const MAX_WAIT_SECONDS: u64 = 86_400;
/// Longest time after which recovery gives up. Seconds: a year.
const MAX_GIVE_UP_SECONDS: u64 = 31_536_000;

/// Section `[recovery]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// Whether this process recovers at all.
    pub enabled: bool,
    /// How often it looks for what is due.
    pub poll_interval: Duration,
    /// Transactions taken up at once.
    pub concurrency: usize,
    /// Transactions of one provider account taken up at once.
    pub concurrency_per_account: usize,
    /// How long nobody else takes up what this process has claimed.
    pub claim: Duration,
}

impl RecoveryConfig {
    pub(super) fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        const PER_ACCOUNT: &str = "recovery.concurrency_per_account";
        let config = Self {
            enabled: settings.flag("recovery.enabled")?,
            poll_interval: settings.millis("recovery.poll_interval_ms", 10..=60_000)?,
            concurrency: settings.number("recovery.concurrency", 1..=1_000)?,
            concurrency_per_account: settings.number(PER_ACCOUNT, 1..=1_000)?,
            claim: settings.seconds("recovery.claim_seconds", 1..=3_600)?,
        };
        if config.concurrency_per_account > config.concurrency {
            let reason = format_args!(
                "must not be above recovery.concurrency ({})",
                config.concurrency
            );
            return Err(settings.invalid(PER_ACCOUNT, reason));
        }
        Ok(config)
    }
}

/// Parses `[payments.retries]`.
pub(super) fn retries(settings: &Settings) -> Result<RetryPolicy, ConfigError> {
    Ok(RetryPolicy {
        reach: backoff(settings, "unreachable")?,
        leave: backoff(settings, "not_let_in")?,
        outcome: backoff(settings, "outcome_unknown")?,
        decision: backoff(settings, "undecided")?,
        customer: backoff(settings, "awaiting_customer")?,
        abandon_after: abandon_after(settings)?,
        release: backoff(settings, "release_refused")?,
        max_retry_after: settings.seconds(
            "payments.retries.max_retry_after_seconds",
            1..=MAX_WAIT_SECONDS,
        )?,
        max_sends: MaxSends {
            purchase: max_sends(settings, "purchase")?,
            authorize: max_sends(settings, "authorize")?,
            confirm: max_sends(settings, "confirm")?,
            capture: max_sends(settings, "capture")?,
            void: max_sends(settings, "void")?,
            refund: max_sends(settings, "refund")?,
        },
    })
}

fn backoff(settings: &Settings, name: &str) -> Result<Backoff, ConfigError> {
    let key = |part: &str| format!("payments.retries.{name}.{part}");
    let backoff = Backoff {
        first: settings.millis(&key("first_ms"), 10..=MAX_WAIT_SECONDS * 1_000)?,
        max: settings.millis(&key("max_ms"), 10..=MAX_WAIT_SECONDS * 1_000)?,
        steps: settings.number(&key("max_steps"), 1..=100_000)?,
        give_up_after: settings.seconds(&key("give_up_after_seconds"), 1..=MAX_GIVE_UP_SECONDS)?,
    };
    if backoff.max < backoff.first {
        return Err(settings.invalid(&key("max_ms"), "must not be below first_ms"));
    }
    Ok(backoff)
}

/// 0 stands for never.
fn abandon_after(settings: &Settings) -> Result<Option<Duration>, ConfigError> {
    const KEY: &str = "payments.retries.abandoned_after_seconds";
    let after = settings.seconds(KEY, 0..=MAX_GIVE_UP_SECONDS)?;
    Ok((!after.is_zero()).then_some(after))
}

fn max_sends(settings: &Settings, operation: &str) -> Result<u32, ConfigError> {
    settings.number(
        &format!("payments.retries.max_sends.{operation}"),
        1..=1_000,
    )
}
