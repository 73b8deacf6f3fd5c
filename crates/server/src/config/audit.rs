//! Section `[audit]`: the audit log.

use std::time::Duration;

use super::error::ConfigError;
use super::settings::Settings;

/// Section `[audit]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// How many parts of the log a verification reads at once.
    pub verify_lanes: usize,
    /// How often the log is verified without being asked; `None` for never.
    pub verify_every: Option<Duration>,
}

impl AuditConfig {
    pub(super) fn parse(settings: &Settings) -> Result<Self, ConfigError> {
        let every = settings.seconds("audit.verify_interval_seconds", 0..=31_622_400)?;
        Ok(Self {
            verify_every: (!every.is_zero()).then_some(every),
            verify_lanes: settings.number("audit.verify_lanes", 1..=16)?,
        })
    }
}
