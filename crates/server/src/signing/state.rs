//! What the signer signed last, kept outside the database.
//!
//! In a directory that all replicas share. A lock on a file in it lets one of them sign at a time; the lock goes with
//! its process. The state itself is replaced whole, and on disk before anybody sees what was signed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use quittance_evidence::note::{Note, VerifierKey};
use quittance_evidence::tree::empty_root;
use quittance_evidence::{Checkpoint, CheckpointError, SignedCheckpoint};
use quittance_store::{StoredCheckpoint, TreeHead};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::files::{make_directory, open_lock, replace};
use super::keys::LogKeys;

const STATE_FILE: &str = "signer.toml";
const LOCK_FILE: &str = "signer.lock";

/// Why the signer's state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The directory or a file in it cannot be used.
    #[error("audit.state_directory: {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing was ever signed, as far as this directory says.
    #[error(
        "audit.state_directory: {} holds no state of the signer. For a new log run `quittance audit signer init`; for \
         one that was signed before, restore the directory, or run it with --from-checkpoint and the newest checkpoint \
         that anybody has",
        path.display()
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// There is a state already.
    #[error("audit.state_directory: {} holds the state of a signer already", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// What is in the file is not a state.
    #[error("audit.state_directory: {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The checkpoint is not one of this log.
    #[error("not a checkpoint of this log: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Another process holds the lock.
    #[error("audit.state_directory: another process is signing")]
    Locked,
}

/// The last checkpoint that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerState {
    /// It.
    pub checkpoint: StoredCheckpoint,
}

/// The state as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    signed_at: DateTime<Utc>,
    note: String,
    /// Entries of the checkpoint before it, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<u64>,
}

/// Reads a checkpoint, which must be signed by a key of the log.
///
/// # Errors
/// It is not one, or of another log.
pub fn open_checkpoint(note: &str, keys: &[VerifierKey]) -> Result<TreeHead, CheckpointError> {
    let note = Note::parse(note.as_bytes())?;
    let signed = SignedCheckpoint::open(&note, keys)?;
    Ok(TreeHead {
        size: signed.checkpoint.size,
        root: signed.checkpoint.root,
    })
}

/// Signs a tree with all keys of the log, behind the checkpoint of `previous` entries.
///
/// # Errors
/// The keys cannot sign together.
pub fn sign(
    keys: &LogKeys,
    head: TreeHead,
    signed_at: DateTime<Utc>,
    previous: Option<u64>,
) -> Result<StoredCheckpoint, CheckpointError> {
    let signing = keys.log();
    let Some(first) = signing.first() else {
        return Err(quittance_evidence::note::NoteError::NoSignatures.into());
    };
    let checkpoint = Checkpoint {
        origin: first.name().clone(),
        size: head.size,
        root: head.root,
    };
    Ok(StoredCheckpoint {
        head,
        note: checkpoint.sign(&signing)?.to_string(),
        signed_at,
        previous,
    })
}

/// The directory.
#[derive(Debug, Clone)]
pub struct StateDirectory(PathBuf);

/// The directory, while this process alone may change it.
#[derive(Debug)]
pub struct Locked {
    directory: PathBuf,
    /// Unlocked when it is closed.
    _lock: File,
}

impl StateDirectory {
    /// Names it.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> StateError + use<> {
        let path = self.0.join(name);
        move |source| StateError::Io { path, source }
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// `Locked` where another process has it; `Io`.
    pub fn lock(&self) -> Result<Locked, StateError> {
        let file = open_lock(&self.0.join(LOCK_FILE)).map_err(self.failed(LOCK_FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(Locked {
                directory: self.0.clone(),
                _lock: file,
            }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked),
            Err(TryLockError::Error(source)) => Err(self.failed(LOCK_FILE)(source)),
        }
    }

    /// Whether there is a state of this log, for whoever starts.
    ///
    /// # Errors
    /// `Missing`, or what is wrong with it.
    pub fn check(&self, keys: &[VerifierKey]) -> Result<(), StateError> {
        read(&self.0, keys).map(|_| ())
    }

    /// The tree that was signed last, as it is at this moment, whoever signs.
    ///
    /// # Errors
    /// `Missing`, or what is wrong with it.
    pub fn last(&self, keys: &[VerifierKey]) -> Result<TreeHead, StateError> {
        read(&self.0, keys).map(|state| state.checkpoint.head)
    }

    /// Makes the first state: of a new log, or from a checkpoint of this log that was signed before.
    ///
    /// # Errors
    /// `Exists`, `Checkpoint`, `Io`.
    pub fn init(
        &self,
        keys: &LogKeys,
        from: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<TreeHead, StateError> {
        let locked = self.fresh(keys)?;
        let checkpoint = if let Some(note) = from {
            StoredCheckpoint {
                head: open_checkpoint(note, &keys.verifiers())?,
                note: note.to_owned(),
                signed_at: now,
                previous: None,
            }
        } else {
            let head = TreeHead {
                size: 0,
                root: empty_root(),
            };
            sign(keys, head, now, None)?
        };
        let head = checkpoint.head;
        locked.write(&SignerState { checkpoint })?;
        Ok(head)
    }

    /// Makes the first state of a log that begins with a tree which is there already, behind the checkpoint of `previous` entries
    /// of another log; gives its first checkpoint, which nobody has seen yet.
    ///
    /// # Errors
    /// `Exists`, `Checkpoint`, `Io`.
    pub fn begin(
        &self,
        keys: &LogKeys,
        head: TreeHead,
        previous: Option<u64>,
        now: DateTime<Utc>,
    ) -> Result<StoredCheckpoint, StateError> {
        let locked = self.fresh(keys)?;
        let checkpoint = sign(keys, head, now, previous)?;
        let state = SignerState { checkpoint };
        locked.write(&state)?;
        Ok(state.checkpoint)
    }

    /// Takes the lock on a directory that holds no state, which is made where it is missing.
    fn fresh(&self, keys: &LogKeys) -> Result<Locked, StateError> {
        make_directory(&self.0).map_err(self.failed(""))?;
        let locked = self.lock()?;
        match read(&self.0, &keys.verifiers()) {
            Err(StateError::Missing { .. }) => Ok(locked),
            Ok(_) | Err(StateError::Damaged { .. } | StateError::Checkpoint(_)) => {
                Err(StateError::Exists {
                    path: self.0.clone(),
                })
            }
            Err(other) => Err(other),
        }
    }
}

impl Locked {
    /// What was signed last.
    ///
    /// # Errors
    /// `Missing`, or what is wrong with it.
    pub fn read(&self, keys: &[VerifierKey]) -> Result<SignerState, StateError> {
        read(&self.directory, keys)
    }

    /// Replaces it; on disk once this returns.
    ///
    /// # Errors
    /// `Io`: the old or the new one is there.
    pub fn write(&self, state: &SignerState) -> Result<(), StateError> {
        let written = Written {
            signed_at: state.checkpoint.signed_at,
            note: state.checkpoint.note.clone(),
            previous: state.checkpoint.previous,
        };
        let path = self.directory.join(STATE_FILE);
        let text = toml::to_string(&written).map_err(|error| StateError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        replace(&self.directory, STATE_FILE, &text)
            .map_err(|source| StateError::Io { path, source })
    }
}

fn read(directory: &Path, keys: &[VerifierKey]) -> Result<SignerState, StateError> {
    let path = directory.join(STATE_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StateError::Missing {
                path: directory.to_owned(),
            });
        }
        Err(source) => return Err(StateError::Io { path, source }),
    };
    let written: Written = toml::from_str(&text).map_err(|error| StateError::Damaged {
        path: path.clone(),
        reason: error.to_string(),
    })?;
    let head = open_checkpoint(&written.note, keys)?;
    Ok(SignerState {
        checkpoint: StoredCheckpoint {
            head,
            note: written.note,
            signed_at: written.signed_at,
            previous: written.previous,
        },
    })
}
