//! The keys that sign: of checkpoints, and of receipts.

use std::path::Path;

use quittance_evidence::bundle::TrustedKeys;
use quittance_evidence::note::{KeyError, KeyName, SEED_BYTES, SigningKey, VerifierKey};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::files::{
    KeyFileError, LOG_KEY_FILE, RECEIPT_KEY_FILE, make_directory, read_secret, write_secret,
};
use crate::config::SigningConfig;

/// What is put behind the log's name for the key of its receipts: one key signs one kind of thing.
const RECEIPTS: &str = "/receipts";

/// The keys of one log.
#[derive(Debug)]
pub struct LogKeys {
    /// Sign checkpoints, all of them; the first is the one that stays. All have the log's name.
    log: Vec<SigningKey>,
    /// Signs receipts.
    receipts: SigningKey,
}

impl LogKeys {
    /// Reads the configured key files.
    ///
    /// # Errors
    /// [`KeyFileError`] names the file, and what is wrong with it.
    pub fn load(config: &SigningConfig) -> Result<Self, KeyFileError> {
        let mut log: Vec<SigningKey> = Vec::new();
        for path in &config.log_key_files {
            let key = read_key(path)?;
            let mismatch = |reason| KeyFileError::Mismatch {
                path: path.clone(),
                reason,
            };
            if log.iter().any(|known| known.name() != key.name()) {
                return Err(mismatch("all keys of the log have one name, the log's"));
            }
            if log.iter().any(|known| known.verifier() == key.verifier()) {
                return Err(mismatch("the same key twice"));
            }
            log.push(key);
        }
        let path = &config.receipt_key_file;
        let receipts = read_key(path)?;
        if log.iter().any(|key| key.name() == receipts.name()) {
            let reason = "the key of receipts has a name of its own, or a receipt could be taken for a checkpoint";
            let path = path.clone();
            return Err(KeyFileError::Mismatch { path, reason });
        }
        if !log.iter().all(|key| is_below(key.name(), receipts.name())) {
            let reason = "the key of receipts is named below the log, or nobody would know that it speaks for it";
            let path = path.clone();
            return Err(KeyFileError::Mismatch { path, reason });
        }
        Ok(Self { log, receipts })
    }

    /// The log's name.
    pub fn origin(&self) -> Option<&KeyName> {
        self.log.first().map(SigningKey::name)
    }

    /// What signs checkpoints.
    pub fn log(&self) -> Vec<&SigningKey> {
        self.log.iter().collect()
    }

    /// What checkpoints are checked with.
    pub fn verifiers(&self) -> Vec<VerifierKey> {
        self.log.iter().map(|key| key.verifier().clone()).collect()
    }

    /// What everything that is signed is checked with: checkpoints, receipts and statements.
    pub fn published(&self) -> TrustedKeys {
        let receipts = self.receipts.verifier().clone();
        TrustedKeys::new(self.verifiers().into_iter().chain([receipts]).collect())
    }

    /// What signs receipts, and statements about payments.
    pub fn receipts(&self) -> &SigningKey {
        &self.receipts
    }
}

/// Whether a key speaks for the log of that name, without being the log's own.
fn is_below(origin: &KeyName, key: &KeyName) -> bool {
    let below = key.as_str().strip_prefix(origin.as_str());
    below.is_some_and(|rest| rest.starts_with('/'))
}

fn read_key(path: &Path) -> Result<SigningKey, KeyFileError> {
    let text = read_secret(path)?;
    let key = SigningKey::parse(&text);
    key.map_err(|source| KeyFileError::Key {
        path: path.to_owned(),
        source,
    })
}

/// Draws a key.
fn draw(name: KeyName) -> Result<SigningKey, KeyFileError> {
    let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
    OsRng.try_fill_bytes(seed.as_mut_slice())?;
    Ok(SigningKey::from_seed(name, &seed))
}

/// The name of the key that signs the receipts of a log.
///
/// # Errors
/// The name would be too long.
pub fn receipts_name(origin: &KeyName) -> Result<KeyName, KeyError> {
    KeyName::new(format!("{origin}{RECEIPTS}"))
}

/// Makes the keys of a new log in a directory; answers the halves to publish, that of the log first.
///
/// # Errors
/// [`KeyFileError`]; a key file that is there already stays as it is, and is an error.
pub fn generate(directory: &Path, origin: &KeyName) -> Result<[VerifierKey; 2], KeyFileError> {
    make_directory(directory).map_err(|source| KeyFileError::Io {
        path: directory.to_owned(),
        source,
    })?;
    let receipts = receipts_name(origin).map_err(|source| KeyFileError::Key {
        path: directory.join(RECEIPT_KEY_FILE),
        source,
    })?;
    let log = new_log_key(&directory.join(LOG_KEY_FILE), origin)?;
    let receipts = draw(receipts)?;
    write_secret(
        &directory.join(RECEIPT_KEY_FILE),
        &receipts.to_secret_text(),
    )?;
    Ok([log, receipts.verifier().clone()])
}

/// Makes a further key of a log; answers the half to publish.
///
/// # Errors
/// [`KeyFileError`], also where the file is there already.
pub fn new_log_key(path: &Path, origin: &KeyName) -> Result<VerifierKey, KeyFileError> {
    let key = draw(origin.clone())?;
    write_secret(path, &key.to_secret_text())?;
    Ok(key.verifier().clone())
}
