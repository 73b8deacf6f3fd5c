//! The keys that sign: of checkpoints, and of receipts.

use std::path::Path;

use chrono::{DateTime, Utc};
use quittance_evidence::bundle::{RECEIPTS_SUFFIX, TrustedKeys};
use quittance_evidence::note::{KeyError, KeyName, SEED_BYTES, SigningKey, VerifierKey};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::files::{
    KeyFileError, LOG_KEY_FILE, RECEIPT_KEY_FILE, make_directory, read_secret, write_secret,
};
use crate::config::{ReceiptKeyConfig, SigningConfig};

/// The keys of one log.
#[derive(Debug)]
pub struct LogKeys {
    /// Sign checkpoints, all of them; the first is the one that stays. All have the log's name.
    log: Vec<SigningKey>,
    /// Signs receipts: the one that stays.
    receipts: ReceiptKey,
    /// The ones that it replaced.
    older_receipts: Vec<ReceiptKey>,
}

/// A key of receipts, and what it signs: what was recorded in its time.
#[derive(Debug)]
struct ReceiptKey {
    key: SigningKey,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl ReceiptKey {
    fn signs(&self, recorded_at: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= recorded_at)
            && self.until.is_none_or(|until| recorded_at < until)
    }
}

/// The published half of a key of receipts, and when it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedReceiptKey {
    /// It.
    pub key: VerifierKey,
    /// From when on; `None`: from the beginning.
    pub from: Option<DateTime<Utc>>,
    /// Until when; `None`: without end.
    pub until: Option<DateTime<Utc>>,
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
            if is_of_receipts(key.name()) {
                return Err(mismatch(NO_LOG));
            }
            if log.iter().any(|known| known.name() != key.name()) {
                return Err(mismatch("all keys of the log have one name, the log's"));
            }
            if log.iter().any(|known| known.verifier() == key.verifier()) {
                return Err(mismatch("the same key twice"));
            }
            log.push(key);
        }
        let mut receipts: Vec<ReceiptKey> = Vec::new();
        for one in &config.receipt_keys {
            let key = receipt_key(one, &log)?;
            let mut known = receipts.iter().map(|known| known.key.verifier());
            if known.any(|known| known == key.key.verifier()) {
                let (path, reason) = (one.file.clone(), "the same key twice");
                return Err(KeyFileError::Mismatch { path, reason });
            }
            receipts.push(key);
        }
        let mut receipts = receipts.into_iter();
        let newest = receipts.next().ok_or(KeyFileError::NoReceiptKey)?;
        Ok(Self {
            log,
            receipts: newest,
            older_receipts: receipts.collect(),
        })
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

    /// What everything that is signed is checked with: checkpoints, receipts and statements, and under the keys of these
    /// witnesses what they cosigned. Nothing waits for a witness.
    pub fn published(&self, witnesses: &[VerifierKey]) -> TrustedKeys {
        let receipts = self.receipt_keys().into_iter().map(|one| one.key);
        let own = self.verifiers().into_iter().chain(receipts);
        TrustedKeys::new(own.chain(witnesses.iter().cloned()).collect()).with_late_witnesses()
    }

    /// The published half of the key of receipts that stays.
    pub fn receipts(&self) -> &VerifierKey {
        self.receipts.key.verifier()
    }

    /// The published halves of all keys of receipts, the one that stays first.
    pub fn receipt_keys(&self) -> Vec<PublishedReceiptKey> {
        let published = |one: &ReceiptKey| PublishedReceiptKey {
            key: one.key.verifier().clone(),
            from: one.from,
            until: one.until,
        };
        self.all_receipts().map(published).collect()
    }

    fn all_receipts(&self) -> impl Iterator<Item = &ReceiptKey> {
        std::iter::once(&self.receipts).chain(&self.older_receipts)
    }

    /// What signs the receipt of something that was recorded then, and a statement about a payment that is made then:
    /// the keys in whose time that is. Where it is in none's, the key that came first, which is the oldest at hand.
    pub fn receipts_at(&self, recorded_at: DateTime<Utc>) -> Vec<&SigningKey> {
        let signing = self.all_receipts().filter(|one| one.signs(recorded_at));
        let signing: Vec<_> = signing.map(|one| &one.key).collect();
        if !signing.is_empty() {
            return signing;
        }
        let oldest = self.all_receipts().min_by_key(|one| one.from);
        oldest.into_iter().map(|one| &one.key).collect()
    }
}

fn receipt_key(config: &ReceiptKeyConfig, log: &[SigningKey]) -> Result<ReceiptKey, KeyFileError> {
    let path = &config.file;
    let key = read_key(path)?;
    let mismatch = |reason| KeyFileError::Mismatch {
        path: path.clone(),
        reason,
    };
    if log.iter().any(|own| own.name() == key.name()) {
        return Err(mismatch(
            "the key of receipts has a name of its own, or a receipt could be taken for a checkpoint",
        ));
    }
    if !log.iter().all(|own| is_below(own.name(), key.name())) {
        return Err(mismatch(
            "the key of receipts is named below the log, or nobody would know that it speaks for it",
        ));
    }
    if !is_of_receipts(key.name()) {
        return Err(mismatch(
            "the name of a key of receipts ends with /receipts, or whoever has it could keep a log of its own",
        ));
    }
    Ok(ReceiptKey {
        key,
        from: config.from,
        until: config.until,
    })
}

/// Why a log cannot have a name.
const NO_LOG: &str =
    "no log's name ends with /receipts: verifiers take its key for one of receipts";

fn is_of_receipts(name: &KeyName) -> bool {
    name.as_str().ends_with(RECEIPTS_SUFFIX)
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
    KeyName::new(format!("{origin}{RECEIPTS_SUFFIX}"))
}

/// Makes the keys of a new log in a directory; answers the halves to publish, that of the log first.
///
/// # Errors
/// [`KeyFileError`], also where no log can have that name; a key file that is there already stays as it is, and is an error.
pub fn generate(directory: &Path, origin: &KeyName) -> Result<[VerifierKey; 2], KeyFileError> {
    make_directory(directory).map_err(|source| KeyFileError::Io {
        path: directory.to_owned(),
        source,
    })?;
    if is_of_receipts(origin) {
        return Err(KeyFileError::Mismatch {
            path: directory.join(LOG_KEY_FILE),
            reason: NO_LOG,
        });
    }
    let receipts = receipts_name(origin).map_err(|source| KeyFileError::Key {
        path: directory.join(RECEIPT_KEY_FILE),
        source,
    })?;
    let log = new_key(&directory.join(LOG_KEY_FILE), origin)?;
    let receipts = draw(receipts)?;
    write_secret(
        &directory.join(RECEIPT_KEY_FILE),
        &receipts.to_secret_text(),
    )?;
    Ok([log, receipts.verifier().clone()])
}

/// Makes a further key of that name; answers the half to publish.
///
/// # Errors
/// [`KeyFileError`], also where the file is there already.
pub fn new_key(path: &Path, name: &KeyName) -> Result<VerifierKey, KeyFileError> {
    let key = draw(name.clone())?;
    write_secret(path, &key.to_secret_text())?;
    Ok(key.verifier().clone())
}
