//! The signer: signs the tree as it grows, and nothing else.
//!
//! It signs only a committed head, and only after it has verified with a proof that the tree of its last checkpoint
//! is the beginning of this one. What it signed last is on disk, outside the database, before anybody sees the next
//! checkpoint. Where anything is in doubt, it signs nothing.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::ports::StoreError;
use quittance_evidence::CheckpointError;
use quittance_evidence::tree::verify_growth;
use quittance_store::{PgStore, StoredCheckpoint, TreeHead, TreeReadError};
use quittance_telemetry::Metrics;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::keys::LogKeys;
use super::state::{Locked, SignerState, StateDirectory, StateError, sign};

/// How metrics name what the signer refuses.
pub const SIGNER_CHECK: &str = "signer";

/// Why nothing was signed.
#[derive(Debug, Error)]
pub enum SignerError {
    /// The last signed state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tree cannot be read, or is not one.
    #[error("the stored tree: {0}")]
    Tree(TreeReadError),
    /// A checkpoint cannot be made or read.
    #[error("a checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The database holds less than was signed: it was restored from an older backup.
    #[error(
        "the tree has {stored} entries, and {signed} were signed: the database was set back. Nothing is signed until it \
         holds what was signed"
    )]
    SetBack {
        /// Entries of the newest head.
        stored: u64,
        /// Entries of the last checkpoint.
        signed: u64,
    },
    /// The tree is not the one that was signed.
    #[error(
        "the tree of {size} entries is not the one that was signed: nothing is signed any more"
    )]
    Forked {
        /// Entries of the last checkpoint.
        size: u64,
    },
    /// The task that reads and writes files ended.
    #[error("the signer's file access was cut short")]
    Interrupted,
}

impl From<TreeReadError> for SignerError {
    fn from(error: TreeReadError) -> Self {
        match error {
            TreeReadError::Store(error) => Self::Store(error),
            error @ (TreeReadError::OutOfRange(_) | TreeReadError::Damaged(_)) => Self::Tree(error),
        }
    }
}

impl SignerError {
    /// Whether somebody has to look at once: the log is not what was signed.
    fn is_alarm(&self) -> bool {
        match self {
            Self::SetBack { .. } | Self::Forked { .. } | Self::Tree(_) | Self::Checkpoint(_) => {
                true
            }
            Self::State(error) => !matches!(error, StateError::Locked | StateError::Io { .. }),
            Self::Store(_) | Self::Interrupted => false,
        }
    }
}

/// One contender for signing: whoever has the lock on the state signs.
#[derive(Debug)]
pub struct Signer {
    /// The tree.
    pub store: Arc<PgStore>,
    /// The keys.
    pub keys: Arc<LogKeys>,
    /// What was signed last.
    pub state: StateDirectory,
    /// Where a refusal is counted.
    pub metrics: Metrics,
    /// How often.
    pub every: Duration,
    /// The newest checkpoint, for those who have it cosigned.
    pub signed: watch::Sender<Option<StoredCheckpoint>>,
}

impl Signer {
    /// Signs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<String> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            // Not cut off between writing the state and showing the checkpoint; the next start would mend that.
            match self.sign_once().await {
                Ok(newest) => {
                    told = None;
                    self.show(newest);
                }
                // Another process signs.
                Err(SignerError::State(StateError::Locked)) => {}
                Err(error) => {
                    if error.is_alarm() {
                        self.metrics.verification_failed(SIGNER_CHECK, 1);
                    }
                    // Once, not every second.
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        if matches!(error, SignerError::Store(_)) {
                            // For a moment, mostly, as after a pause of this process. That the database is away, others say louder.
                            tracing::warn!(error.message = text, "nothing is signed");
                        } else {
                            tracing::error!(error.message = text, "nothing is signed");
                        }
                        told = Some(text);
                    }
                }
            }
        }
    }

    /// Nobody waits for those who look at it.
    fn show(&self, newest: StoredCheckpoint) {
        self.signed.send_if_modified(|shown| {
            let is_new = shown.as_ref().is_none_or(|shown| shown.note != newest.note);
            if is_new {
                *shown = Some(newest);
            }
            is_new
        });
    }

    /// Signs what was added since the last time; answers the newest checkpoint.
    ///
    /// # Errors
    /// Why nothing was signed.
    pub async fn sign_once(&self) -> Result<StoredCheckpoint, SignerError> {
        let verifiers = self.keys.verifiers();
        let (directory, keys) = (self.state.clone(), verifiers.clone());
        let (locked, state) = blocking(move || {
            let locked = directory.lock()?;
            let state = locked.read(&keys)?;
            Ok((locked, state))
        })
        .await?;
        let shown = self.store.newest_checkpoint(&verifiers).await?;
        let (mut last, mut behind) = (state.checkpoint, false);
        if let Some(shown) = &shown {
            // Signed with these keys by somebody whose state is not ours.
            if shown.head.size > last.head.size {
                self.check_growth(last.head, shown.head).await?;
                (last, behind) = (shown.clone(), true);
            }
        }
        let head = self.store.tree_head().await?;
        let head = head.unwrap_or(TreeHead {
            size: 0,
            root: quittance_evidence::tree::empty_root(),
        });
        self.check_growth(last.head, head).await?;
        if head.size == last.head.size {
            if behind {
                self.write(locked, &last).await?;
            }
            self.show_last(shown.as_ref(), &last).await?;
            return Ok(last);
        }
        // Before the one that names it; nobody misses that of nothing.
        if last.head.size > 0 {
            self.show_last(shown.as_ref(), &last).await?;
        }
        let signed = sign(
            &self.keys,
            head,
            self.store.clock().now(),
            Some(last.head.size),
        )?;
        self.write(locked, &signed).await?;
        self.store.keep_checkpoint(&signed).await?;
        Ok(signed)
    }

    /// After a crash between the two writes, where the first checkpoint was never shown, or where somebody deleted it: what
    /// was signed last is stored.
    async fn show_last(
        &self,
        shown: Option<&StoredCheckpoint>,
        last: &StoredCheckpoint,
    ) -> Result<(), SignerError> {
        if shown.is_none_or(|shown| shown.head.size < last.head.size) {
            self.store.keep_checkpoint(last).await?;
        }
        Ok(())
    }

    /// Verifies that the tree only grew, by a proof made from the tiles.
    async fn check_growth(&self, old: TreeHead, new: TreeHead) -> Result<(), SignerError> {
        if new.size < old.size {
            return Err(SignerError::SetBack {
                stored: new.size,
                signed: old.size,
            });
        }
        let (proof, root) = match (old.size, new.size) {
            (_, 0) => (Vec::new(), new.root),
            // From nothing, everything grows: the tiles must have this root all the same.
            (0, size) => (Vec::new(), self.store.tree_root(size).await?),
            (old, size) => {
                let (proof, [_, root]) = self.store.consistency_proof(old, size).await?;
                (proof, root)
            }
        };
        let grown = verify_growth(old.size, &old.root, new.size, &new.root, &proof);
        if grown.is_err() || root != new.root {
            return Err(SignerError::Forked { size: old.size });
        }
        Ok(())
    }

    async fn write(&self, locked: Locked, signed: &StoredCheckpoint) -> Result<(), SignerError> {
        let state = SignerState {
            checkpoint: signed.clone(),
        };
        // The lock goes with it: what is on disk is the newest, whoever has it next.
        blocking(move || locked.write(&state)).await
    }
}

/// File access, off the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, SignerError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| SignerError::Interrupted)??)
}
