//! What proves the log to others: the keys, the signer of checkpoints, receipts.
//!
//! Keys and the last signed state are files outside the database, so that nobody who owns the database can sign, or
//! make the signer forget what it signed.

mod bundles;
mod cosigning;
mod files;
mod keys;
mod outside;
mod receipts;
mod signer;
mod state;
mod witness_client;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use quittance_domain::fingerprint::FingerprintKey;
use quittance_evidence::note::{KeyName, VerifierKey};
use quittance_store::PgStore;
use quittance_telemetry::Metrics;
use thiserror::Error;
use tokio::sync::watch;

pub use self::bundles::{BundleError, Exported, finish as finish_bundle};
pub use self::cosigning::{Cosigning, CosigningParts, WITNESS_CHECK};
pub use self::files::{KeyFileError, LOG_KEY_FILE, RECEIPT_KEY_FILE};
pub use self::keys::{LogKeys, PublishedReceiptKey, generate, new_key, receipts_name};
pub use self::outside::SignedOutside;
pub use self::receipts::{Command, Receipts};
pub use self::signer::{SIGNER_CHECK, Signer};
pub use self::state::{SignerState, StateDirectory, StateError};
use crate::config::{ReceiptKeyConfig, SigningConfig, WitnessesConfig};

/// Why the signer cannot be set up. Names files, never what is in them.
#[derive(Debug, Error)]
pub enum SigningError {
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The signer's state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// TLS cannot be set up.
    #[error("audit.witnesses: no client to call them with: {0}")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where the signer of [`set_up`] keeps what it signed last.
const STATE_DIRECTORY: &str = "state";

/// Makes what a log needs that is signed, in one directory, where it is missing: keys, and the state of a new log.
/// Gives the settings that name them. For development and tests: a log whose state was lost begins anew unasked.
///
/// # Errors
/// [`SigningError`] names what cannot be made or read.
pub fn set_up(
    directory: &Path,
    origin: &str,
) -> Result<Vec<(&'static str, toml::Value)>, SigningError> {
    let config = in_directory(directory);
    let log = directory.join(LOG_KEY_FILE);
    if !log.exists() {
        let name = KeyName::new(origin).map_err(|source| KeyFileError::Key {
            path: log.clone(),
            source,
        })?;
        generate(directory, &name)?;
    }
    let keys = LogKeys::load(&config)?;
    match StateDirectory::new(&config.state_directory).init(&keys, None, Utc::now()) {
        Ok(_) | Err(StateError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let text = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned());
    Ok(vec![
        ("audit.log_key_files", toml::Value::Array(vec![text(&log)])),
        (
            "audit.receipt_key_file",
            text(&directory.join(RECEIPT_KEY_FILE)),
        ),
        ("audit.state_directory", text(&config.state_directory)),
    ])
}

/// What [`set_up`] makes, and where.
fn in_directory(directory: &Path) -> SigningConfig {
    SigningConfig {
        log_key_files: vec![directory.join(LOG_KEY_FILE)],
        receipt_keys: vec![ReceiptKeyConfig::of_file(directory.join(RECEIPT_KEY_FILE))],
        state_directory: directory.join(STATE_DIRECTORY),
        interval: Duration::ZERO,
        witnesses: WitnessesConfig::default(),
    }
}

/// The published halves of the keys that [`set_up`] made: of checkpoints, then of receipts.
///
/// # Errors
/// [`SigningError`] names the file that cannot be read.
pub fn published(directory: &Path) -> Result<[VerifierKey; 2], SigningError> {
    let keys = LogKeys::load(&in_directory(directory))?;
    let log = keys.log();
    let first = log.first().ok_or_else(|| KeyFileError::NotAKeyFile {
        path: directory.to_owned(),
    })?;
    Ok([first.verifier().clone(), keys.receipts().clone()])
}

/// What the services need to prove the log.
#[derive(Clone)]
pub struct Evidence {
    /// The tree and its checkpoints.
    pub store: Arc<PgStore>,
    /// The keys.
    pub keys: Arc<LogKeys>,
    /// Makes receipts.
    pub receipts: Receipts,
    /// The witnesses' keys: their cosignatures are shown, and nobody else's.
    pub witnesses: Arc<[VerifierKey]>,
    /// Where a failed check is counted.
    pub metrics: Metrics,
}

impl Evidence {
    /// Loads the keys.
    ///
    /// # Errors
    /// [`SigningError`] names the file that cannot be used.
    pub fn load(
        config: &SigningConfig,
        store: &Arc<PgStore>,
        fingerprints: FingerprintKey,
        metrics: &Metrics,
    ) -> Result<Self, SigningError> {
        let keys = Arc::new(LogKeys::load(config)?);
        Ok(Self {
            store: Arc::clone(store),
            receipts: Receipts::new(Arc::clone(&keys), Arc::clone(store), fingerprints),
            witnesses: config.witnesses.keys().cloned().collect(),
            keys,
            metrics: metrics.clone(),
        })
    }

    /// What verification compares the database with.
    pub fn signed(&self, config: &SigningConfig) -> SignedOutside {
        SignedOutside {
            keys: Arc::clone(&self.keys),
            state: StateDirectory::new(&config.state_directory),
            witnesses: self.witnesses.to_vec(),
        }
    }

    /// Those who ask the witnesses to cosign what this signer signs.
    ///
    /// # Errors
    /// [`SigningError::Client`]: no witness can be called.
    pub fn cosigning(
        &self,
        config: &WitnessesConfig,
        signer: &Signer,
    ) -> Result<Vec<Cosigning>, SigningError> {
        if config.witnesses.is_empty() {
            return Ok(Vec::new());
        }
        let client = witness_client::client(config.timeout).map_err(SigningError::Client)?;
        let parts = CosigningParts {
            store: Arc::clone(&self.store),
            keys: Arc::clone(&self.keys),
            metrics: self.metrics.clone(),
            client,
            interval: config.interval,
            signed: signer.signed.subscribe(),
        };
        let witnesses = config.witnesses.iter().cloned();
        let each = witnesses.map(|witness| Cosigning::new(parts.clone(), witness));
        Ok(each.collect())
    }

    /// The signer of this process. Its state must be there.
    ///
    /// # Errors
    /// [`SigningError`] says how to make the state, where there is none.
    pub fn signer(&self, config: &SigningConfig) -> Result<Signer, SigningError> {
        let state = StateDirectory::new(&config.state_directory);
        state.check(&self.keys.verifiers())?;
        Ok(Signer {
            store: Arc::clone(&self.store),
            keys: Arc::clone(&self.keys),
            state,
            metrics: self.metrics.clone(),
            every: config.interval,
            signed: watch::Sender::new(None),
        })
    }
}

#[cfg(test)]
mod tests;
