//! What was signed last, for whoever verifies the log: the one thing that a database which was set back cannot forget.

use std::sync::Arc;

use quittance_domain::verification::{SignedLast, Trusted};
use quittance_evidence::note::VerifierKey;

use super::keys::LogKeys;
use super::signer::SignerError;
use super::state::{StateDirectory, StateError};

/// The published keys, those of the witnesses, and the signer's state.
#[derive(Debug, Clone)]
pub struct SignedOutside {
    pub(super) keys: Arc<LogKeys>,
    pub(super) state: StateDirectory,
    pub(super) witnesses: Vec<VerifierKey>,
}

impl SignedOutside {
    /// Reads the state, as it is at this moment.
    ///
    /// # Errors
    /// The file could not be read just now. One that is missing, or is none, is no error: verification tells it.
    pub async fn read(&self) -> Result<Trusted, SignerError> {
        let keys = self.keys.verifiers();
        let (directory, verifiers) = (self.state.clone(), keys.clone());
        let read = tokio::task::spawn_blocking(move || directory.last(&verifiers)).await;
        let signed = match read.map_err(|_| SignerError::Interrupted)? {
            Ok(head) => SignedLast::Tree {
                size: head.size,
                root: head.root,
            },
            Err(error @ (StateError::Io { .. } | StateError::Locked)) => return Err(error.into()),
            Err(
                error @ (StateError::Missing { .. }
                | StateError::Exists { .. }
                | StateError::Damaged { .. }
                | StateError::Checkpoint(_)),
            ) => SignedLast::Unreadable(error.to_string()),
        };
        Ok(Trusted {
            keys,
            signed,
            witnesses: self.witnesses.clone(),
        })
    }
}
