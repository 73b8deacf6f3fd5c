//! Section `[audit]`: how the log is signed.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::settings::Settings;
use super::witnesses::WitnessesConfig;

/// Most keys that sign at once: the one that stays, and the one that it replaces.
const MAX_LOG_KEYS: usize = 2;

/// What signing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningConfig {
    /// Key files of the log, one or two; every checkpoint is signed by all.
    pub log_key_files: Vec<PathBuf>,
    /// Key file of receipts.
    pub receipt_key_file: PathBuf,
    /// Where the last signed state is kept, outside the database.
    pub state_directory: PathBuf,
    /// How often a checkpoint is signed, while entries arrive.
    pub interval: Duration,
    /// Who cosigns what was signed.
    pub witnesses: WitnessesConfig,
}

impl SigningConfig {
    /// Parses this section alone, for commands that need no other; `None` where it is switched off.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is wrong.
    pub fn parse(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        const KEYS: &str = "audit.log_key_files";
        let interval = settings.millis("audit.checkpoint_interval_ms", 100..=60_000)?;
        let witnesses = WitnessesConfig::parse(settings)?;
        let needed = |key: &str| -> Result<PathBuf, ConfigError> {
            let given = settings.text(key)?;
            given.map(PathBuf::from).ok_or_else(|| {
                let reason = "is needed to sign the audit log (`quittance audit keys generate` makes keys; \
                              audit.enabled = false goes without)";
                settings.invalid(key, reason)
            })
        };
        if !settings.flag("audit.enabled")? {
            return Ok(None);
        }
        let log_key_files: Vec<_> = settings
            .texts(KEYS)?
            .into_iter()
            .map(PathBuf::from)
            .collect();
        if !(1..=MAX_LOG_KEYS).contains(&log_key_files.len()) {
            let reason = "one key file, or two while one key replaces another, is needed to sign the audit log \
                          (`quittance audit keys generate` makes keys; audit.enabled = false goes without)";
            return Err(settings.invalid(KEYS, reason));
        }
        Ok(Some(Self {
            log_key_files,
            receipt_key_file: needed("audit.receipt_key_file")?,
            state_directory: needed("audit.state_directory")?,
            interval,
            witnesses,
        }))
    }
}
