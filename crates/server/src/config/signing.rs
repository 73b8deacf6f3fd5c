//! Section `[audit]`: how the log is signed.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::error::ConfigError;
use super::settings::Settings;
use super::witnesses::WitnessesConfig;

/// Most keys that sign at once: the one that stays, and the one that it replaces.
const MAX_LOG_KEYS: usize = 2;

/// Most keys of receipts that were replaced.
const MAX_OLDER_RECEIPT_KEYS: usize = 7;
const RECEIPT_KEY_FROM: &str = "audit.receipt_key_from";
const OLDER_RECEIPT_KEYS: &str = "audit.older_receipt_keys";

/// A key of receipts, and what it signs: by when that was recorded, so that every server and every repetition gives the
/// same receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptKeyConfig {
    /// Its file.
    pub file: PathBuf,
    /// It signs what is recorded from then on; `None`: from the beginning.
    pub from: Option<DateTime<Utc>>,
    /// It signs what is recorded before; `None`: it has no end.
    pub until: Option<DateTime<Utc>>,
}

impl ReceiptKeyConfig {
    /// One that signs everything.
    pub fn of_file(file: PathBuf) -> Self {
        Self {
            file,
            from: None,
            until: None,
        }
    }

    /// Reads `FILE until TIME` or `FILE from TIME until TIME`.
    fn parse_older(text: &str) -> Result<Self, String> {
        let form = "must be \"FILE until TIME\" or \"FILE from TIME until TIME\", with times as in RFC 3339";
        let (rest, until) = text.rsplit_once(" until ").ok_or(form)?;
        let until = time(until)?;
        let (file, from) = match rest.rsplit_once(" from ") {
            Some((file, from)) => (file, Some(time(from)?)),
            None => (rest, None),
        };
        if from.is_some_and(|from| from >= until) {
            return Err(format!("{file}: it begins when it has ended"));
        }
        Ok(Self {
            file: file.into(),
            from,
            until: Some(until),
        })
    }

    /// The key that signs now, and those that it replaced.
    fn parse(settings: &Settings, file: PathBuf) -> Result<Vec<Self>, ConfigError> {
        let invalid = |key: &str, reason: String| settings.invalid(key, reason);
        let from = settings.text(RECEIPT_KEY_FROM)?.map(|from| time(&from));
        let from = from.transpose();
        let from = from.map_err(|reason| invalid(RECEIPT_KEY_FROM, reason))?;
        let mut keys = vec![Self {
            from,
            ..Self::of_file(file)
        }];
        for text in settings.texts(OLDER_RECEIPT_KEYS)? {
            let older = Self::parse_older(&text);
            keys.push(older.map_err(|reason| invalid(OLDER_RECEIPT_KEYS, reason))?);
        }
        if keys.len() > MAX_OLDER_RECEIPT_KEYS + 1 {
            return Err(invalid(OLDER_RECEIPT_KEYS, "at most 7".to_owned()));
        }
        if has_gap(&keys) {
            let reason = "between the keys of receipts there is a time at which none signs";
            return Err(invalid(RECEIPT_KEY_FROM, reason.to_owned()));
        }
        Ok(keys)
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text.trim());
    let time = time.map_err(|_| format!("{text} is no time such as 2026-12-01T00:00:00Z"))?;
    Ok(time.to_utc())
}

/// Whether there is a time after the first of the keys begins at which none of them signs. The newest has no end.
fn has_gap(keys: &[ReceiptKeyConfig]) -> bool {
    let mut spans: Vec<_> = keys.iter().map(|key| (key.from, key.until)).collect();
    spans.sort_unstable();
    let mut spans = spans.into_iter();
    let mut reached = spans.next().and_then(|(_, until)| until);
    for (from, until) in spans {
        let Some(end) = reached else { return false };
        if from.is_some_and(|from| from > end) {
            return true;
        }
        reached = until.map(|until| until.max(end));
    }
    false
}

/// What signing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningConfig {
    /// Key files of the log, one or two; every checkpoint is signed by all.
    pub log_key_files: Vec<PathBuf>,
    /// Keys of receipts, the one that stays first.
    pub receipt_keys: Vec<ReceiptKeyConfig>,
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
        let receipts = needed("audit.receipt_key_file")?;
        Ok(Some(Self {
            log_key_files,
            receipt_keys: ReceiptKeyConfig::parse(settings, receipts)?,
            state_directory: needed("audit.state_directory")?,
            interval,
            witnesses,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(from: Option<i64>, until: Option<i64>) -> ReceiptKeyConfig {
        let at = |hour: i64| DateTime::from_timestamp(hour * 3_600, 0).unwrap();
        ReceiptKeyConfig {
            from: from.map(at),
            until: until.map(at),
            ..ReceiptKeyConfig::of_file("receipt.key".into())
        }
    }

    #[test]
    fn a_replaced_key_of_receipts_is_a_file_and_until_when_it_signs() {
        let parse = ReceiptKeyConfig::parse_older;
        let older = parse("/etc/a key from 1970-01-01T01:00:00Z until 1970-01-01T04:00:00+02:00");
        let expected = ReceiptKeyConfig {
            file: "/etc/a key".into(),
            ..key(Some(1), Some(2))
        };
        assert_eq!(older, Ok(expected));
        let older = parse("receipt.key until 1970-01-01T02:00:00Z");
        assert_eq!(older, Ok(key(None, Some(2))));
        for wrong in [
            "receipt.key",
            "receipt.key until tomorrow",
            "receipt.key from 1970-01-01T02:00:00Z",
            "receipt.key from x until 1970-01-01T02:00:00Z",
            "receipt.key from 1970-01-01T02:00:00Z until 1970-01-01T02:00:00Z",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn some_key_of_receipts_signs_at_every_time() {
        assert!(!has_gap(&[key(None, None)]));
        assert!(!has_gap(&[key(Some(5), None)]), "the first begins then");
        assert!(!has_gap(&[key(Some(2), None), key(None, Some(2))]));
        assert!(!has_gap(&[key(Some(2), None), key(None, Some(3))]));
        assert!(has_gap(&[key(Some(3), None), key(None, Some(2))]));
        let chain = [
            key(Some(5), None),
            key(Some(1), Some(5)),
            key(None, Some(1)),
        ];
        assert!(!has_gap(&chain));
        assert!(has_gap(&[chain[0].clone(), chain[2].clone()]));
    }
}
