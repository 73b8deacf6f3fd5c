//! Section `[notifications]`: how tenants are told of their events.

use std::time::Duration;

use quittance_domain::notification::NotificationCause;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::error::ConfigError;
use super::settings::{Settings, read};
use crate::notifications::sender::MAX_RETRY_AFTER_SECONDS;
use crate::notifications::{AllowedNetworks, Network, SenderSettings};

/// Most waits of a schedule.
const MAX_WAITS: usize = 30;
/// Longest wait of a schedule. Milliseconds: a week.
const MAX_WAIT_MS: u64 = 604_800_000;

/// Section `[notifications]`.
#[derive(Debug, Clone)]
pub struct NotificationsConfig {
    /// Whether this process makes and sends any.
    pub enabled: bool,
    /// How often it looks for what is due, besides right after something was made.
    pub poll_interval: Duration,
    /// Notifications sent at once.
    pub concurrency: usize,
    /// The same, to one endpoint.
    pub concurrency_per_endpoint: usize,
    /// How long the others leave alone what this process has claimed.
    pub claim: Duration,
    /// When what failed is tried again.
    pub retries: NotificationRetries,
    /// How they are sent.
    pub sender: SenderSettings,
    /// Most endpoints of one tenant.
    pub max_endpoints: usize,
    /// How long what was delivered is kept.
    pub keep_delivered: Duration,
    /// How long dead letters are kept.
    pub keep_dead: Duration,
}

/// When a notification that failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationRetries {
    /// The waits after the first failure, the second and so on.
    pub schedule: Vec<Duration>,
    /// By up to how many hundredths a wait is lengthened at random.
    pub jitter_percent: u32,
    /// Longest `Retry-After` of a receiver that is honoured.
    pub max_retry_after: Duration,
}

impl NotificationRetries {
    /// How long to wait after so many failures; `None` where the schedule is used up. `lot` is from 0 to 1.
    pub fn wait(&self, failures: u32, retry_after: Option<Duration>, lot: f64) -> Option<Duration> {
        let index = usize::try_from(failures.checked_sub(1)?).ok()?;
        let wait = *self.schedule.get(index)?;
        let spread = wait.mul_f64(f64::from(self.jitter_percent) / 100.0);
        let wait = wait + spread.mul_f64(lot.clamp(0.0, 1.0));
        let asked = retry_after.map(|asked| asked.min(self.max_retry_after));
        Some(wait.max(asked.unwrap_or_default()))
    }

    /// How often it is begun at most: as often as the schedule says, and as often again, for those times that whoever is
    /// at it dies.
    pub fn most_tries(&self) -> u32 {
        let scheduled = u32::try_from(self.schedule.len()).unwrap_or(u32::MAX);
        scheduled.saturating_add(1).saturating_mul(2)
    }

    /// Whether trying again could help.
    pub const fn worth_it(cause: NotificationCause) -> bool {
        match cause {
            NotificationCause::Gone
            | NotificationCause::EndpointClosed
            | NotificationCause::Abandoned => false,
            NotificationCause::HttpStatus
            | NotificationCause::Redirect
            | NotificationCause::Timeout
            | NotificationCause::Unreachable
            | NotificationCause::ConnectionLost
            | NotificationCause::NameNotResolved
            | NotificationCause::AddressRefused
            | NotificationCause::NotPrepared => true,
        }
    }
}

impl NotificationsConfig {
    pub(super) fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        const PER_ENDPOINT: &str = "notifications.concurrency_per_endpoint";
        const CLAIM: &str = "notifications.claim_seconds";
        const DEAD: &str = "notifications.keep_dead_days";
        let config = Self {
            enabled: settings.flag("notifications.enabled")?,
            poll_interval: settings.millis("notifications.poll_interval_ms", 10..=60_000)?,
            concurrency: settings.number("notifications.concurrency", 1..=1_000)?,
            concurrency_per_endpoint: settings.number(PER_ENDPOINT, 1..=1_000)?,
            claim: settings.seconds(CLAIM, 1..=3_600)?,
            retries: retries(settings)?,
            sender: sender(settings)?,
            max_endpoints: settings.number("notifications.max_endpoints_per_tenant", 1..=1_000)?,
            keep_delivered: days(settings, "notifications.keep_delivered_days")?,
            keep_dead: days(settings, DEAD)?,
        };
        if config.concurrency_per_endpoint > config.concurrency {
            return Err(
                settings.invalid(PER_ENDPOINT, "must not be above notifications.concurrency")
            );
        }
        // Whoever claimed it must have ended before another claims it, or the order of a payment could break.
        if config.sender.total_timeout.saturating_mul(2) > config.claim {
            let reason = "must be at least twice notifications.total_timeout_ms";
            return Err(settings.invalid(CLAIM, reason));
        }
        if config.keep_dead < config.keep_delivered {
            let reason = "must not be below notifications.keep_delivered_days";
            return Err(settings.invalid(DEAD, reason));
        }
        Ok(config)
    }
}

fn days(settings: &Settings, key: &str) -> Result<Duration, ConfigError> {
    let days: u64 = settings.number(key, 1..=3_650)?;
    Ok(Duration::from_secs(days * 86_400))
}

fn retries(settings: &Settings) -> Result<NotificationRetries, ConfigError> {
    const SCHEDULE: &str = "notifications.retry_schedule_ms";
    const RETRY_AFTER: &str = "notifications.max_retry_after_seconds";
    let invalid = || {
        let reason = format!("must be 1 to {MAX_WAITS} whole numbers from 10 to {MAX_WAIT_MS}");
        settings.invalid(SCHEDULE, reason)
    };
    let waits = settings.list(SCHEDULE)?;
    if !(1..=MAX_WAITS).contains(&waits.len()) {
        return Err(invalid());
    }
    let waits = waits.iter().map(|wait| {
        let wait = wait.as_integer().and_then(|wait| u64::try_from(wait).ok());
        wait.filter(|wait| (10..=MAX_WAIT_MS).contains(wait))
            .map(Duration::from_millis)
    });
    let schedule: Option<Vec<_>> = waits.collect();
    Ok(NotificationRetries {
        schedule: schedule.ok_or_else(invalid)?,
        jitter_percent: settings.number("notifications.jitter_percent", 0..=100)?,
        max_retry_after: settings.seconds(RETRY_AFTER, 1..=MAX_RETRY_AFTER_SECONDS)?,
    })
}

fn sender(settings: &Settings) -> Result<SenderSettings, ConfigError> {
    const CONNECT: &str = "notifications.connect_timeout_ms";
    const NETWORKS: &str = "notifications.allowed_networks";
    let connect_timeout = settings.millis(CONNECT, 10..=60_000)?;
    let total_timeout = settings.millis("notifications.total_timeout_ms", 10..=120_000)?;
    if connect_timeout > total_timeout {
        return Err(settings.invalid(CONNECT, "must not be above notifications.total_timeout_ms"));
    }
    let networks = settings.texts(NETWORKS)?;
    let networks: Result<Vec<Network>, _> = networks.iter().map(|text| text.parse()).collect();
    let networks = networks.map_err(|_| {
        let reason =
            "must be a list of networks such as 10.20.0.0/16, with no bits behind the prefix";
        settings.invalid(NETWORKS, reason)
    })?;
    Ok(SenderSettings {
        connect_timeout,
        total_timeout,
        networks: AllowedNetworks(networks),
        plaintext_loopback: settings.flag("notifications.allow_plaintext_loopback")?,
        authorities: authorities(settings)?,
    })
}

fn authorities(settings: &Settings) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    const CA_FILE: &str = "notifications.ca_file";
    let Some(path) = settings.text(CA_FILE)? else {
        return Ok(Vec::new());
    };
    let pem = read(CA_FILE, path.as_ref())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| settings.invalid(CA_FILE, "must be a file of certificates (PEM)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_a_notification_is_tried_as_often_as_its_schedule_says_and_waits_at_least_as_long() {
        let seconds = Duration::from_secs;
        let retries = NotificationRetries {
            schedule: vec![seconds(5), seconds(300)],
            jitter_percent: 10,
            max_retry_after: seconds(3_600),
        };
        assert_eq!(retries.wait(0, None, 0.5), None);
        assert_eq!(retries.wait(1, None, 0.0), Some(seconds(5)));
        assert_eq!(
            retries.wait(1, None, 1.0),
            Some(Duration::from_millis(5_500))
        );
        assert_eq!(retries.wait(2, None, 0.0), Some(seconds(300)));
        assert_eq!(retries.wait(3, None, 0.0), None);
        // A receiver may ask for more, within the limit, and never for less.
        assert_eq!(retries.wait(1, Some(seconds(60)), 0.0), Some(seconds(60)));
        assert_eq!(retries.wait(2, Some(seconds(60)), 0.0), Some(seconds(300)));
        assert_eq!(
            retries.wait(1, Some(seconds(9_999)), 0.0),
            Some(seconds(3_600))
        );
        assert_eq!(retries.wait(3, Some(seconds(60)), 0.0), None);
        assert_eq!(retries.most_tries(), 6);
    }
}
