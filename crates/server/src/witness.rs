//! The witness: a process of its own, best run by somebody else, which cosigns a log's checkpoints as
//! long as they provably grow (C2SP tlog-witness).
//!
//! It shares nothing with the service but this binary: no database, no configuration. What it has to
//! remember is one small file for each log, written and synced before a cosignature leaves.

mod http;
mod listen;
mod places;
mod state;
#[cfg(test)]
mod tests;

use std::path::Path;

use quittance_evidence::Checkpoint;
use quittance_evidence::note::{KeyName, Signature, VerifierKey, WitnessKey};
use quittance_evidence::witness::{AddCheckpoint, AddCheckpointError, Refusal, WitnessedLog};

pub use self::http::router;
pub use self::listen::serve;
pub use self::state::{StateError, WitnessState};

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The request is not one.
    #[error("malformed request")]
    Malformed(#[from] AddCheckpointError),
    /// The witness follows no log of that name.
    #[error("the log is not followed here")]
    UnknownLog,
    /// The checkpoint is not to be cosigned.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What was cosigned could not be kept, so nothing was.
    #[error("the state of the witness could not be kept")]
    State(#[from] StateError),
}

/// A witness with the logs that it follows.
#[derive(Debug)]
pub struct Witness {
    key: WitnessKey,
    state: WitnessState,
    logs: Vec<WitnessedLog>,
}

impl Witness {
    /// Takes up what it followed before.
    ///
    /// # Errors
    /// Where the state is missing: a witness that forgot what it saw would cosign a fork. `init` makes it.
    pub fn open(key: WitnessKey, keys: &[VerifierKey], state: &Path) -> Result<Self, StateError> {
        let state = WitnessState::lock(state)?;
        let logs = origins(keys)
            .into_iter()
            .map(|origin| {
                let own = keys.iter().filter(|key| *key.name() == origin);
                Ok(WitnessedLog::new(
                    own.cloned().collect(),
                    state.load(&origin)?,
                ))
            })
            .collect::<Result<_, StateError>>()?;
        Ok(Self { key, state, logs })
    }

    /// The key under which it cosigns.
    pub const fn key(&self) -> &WitnessKey {
        &self.key
    }

    /// The last checkpoint of each log that it cosigned.
    pub fn last(&self) -> impl Iterator<Item = &Checkpoint> {
        self.logs.iter().map(WitnessedLog::last)
    }

    /// Answers one `add-checkpoint` at `time`, in seconds since 1970. One at a time: checking the last
    /// checkpoint and keeping the new one must not be divided.
    ///
    /// # Errors
    /// As the protocol wants them told.
    pub fn add_checkpoint(&mut self, body: &[u8], time: u64) -> Result<Signature, WitnessError> {
        let request = AddCheckpoint::parse(body)?;
        let origin = request.checkpoint.text().lines().next();
        let log = self
            .logs
            .iter_mut()
            .find(|log| origin == Some(log.last().origin.as_str()))
            .ok_or(WitnessError::UnknownLog)?;
        let next = log.judge(&request)?;
        self.state.store(&next)?;
        let cosignature = next.cosign(&self.key, time);
        log.advance(next);
        Ok(cosignature)
    }
}

/// The names of the logs whose keys these are, each once.
pub fn origins(keys: &[VerifierKey]) -> Vec<KeyName> {
    let mut origins: Vec<_> = keys.iter().map(|key| key.name().clone()).collect();
    origins.sort_unstable();
    origins.dedup();
    origins
}
