//! Asks a witness to cosign what was signed (C2SP tlog-witness), and keeps what it says.
//!
//! One task for each witness, on the server that signs. It always sends the newest checkpoint, at most so often, so a
//! witness that was away catches up with one call. Nothing waits for it: not the signer, no payment.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use quittance_domain::ports::StoreError;
use quittance_evidence::note::{Note, Signature};
use quittance_evidence::witness::AddCheckpoint;
use quittance_evidence::{CheckpointError, Hash, SignedCheckpoint};
use quittance_store::{
    PgStore, StoredCheckpoint, StoredCosignature, TreeHead, TreeReadError, witness_id,
};
use quittance_telemetry::Metrics;
use reqwest::{Client, StatusCode};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::keys::LogKeys;
use crate::config::WitnessConfig;
use crate::workers::pace::doubled;

/// How metrics name a witness that says that the log did not grow from what it cosigned.
pub const WITNESS_CHECK: &str = "witness";

/// Most bytes of an answer: signature lines, or a size.
const MAX_ANSWER_BYTES: usize = 16 * 1_024;
/// Most calls for one checkpoint: one to learn which size the witness has, one from there, and one for another server
/// that asked in between.
const MAX_CALLS: u32 = 3;
/// Longest wait after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// How far a witness's clock may be from ours, in seconds.
const MAX_CLOCK_DIFFERENCE: u64 = 300;

/// Why there is no cosignature.
#[derive(Debug, Error)]
pub enum CosigningError {
    /// The witness could not be reached, or did not answer in time.
    #[error("the witness cannot be reached")]
    Unreachable,
    /// It answered with a status that says nothing about the log: it does not know it (404) or its key (403), or is in
    /// trouble.
    #[error("the witness answered with HTTP status {0}")]
    Status(u16),
    /// The answer is not what the protocol says, or not under the configured key.
    #[error("the witness's answer holds no cosignature under its key")]
    Answer,
    /// The cosignature's time is not now.
    #[error("the witness's clock is wrong: it cosigned at {0}")]
    Clock(u64),
    /// Others asked in between again and again.
    #[error("the witness's size kept changing")]
    Moving,
    /// The database could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored tree proves nothing.
    #[error("the stored tree: {0}")]
    Tree(TreeReadError),
    /// Our own checkpoint cannot be read.
    #[error("the checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// It cosigned another tree of the same size: there are two histories of the log.
    #[error(
        "the witness has cosigned another tree of {0} entries: this is not the log that it knows"
    )]
    Forked(u64),
    /// Our proof did not convince it: what it cosigned is not the beginning of our tree.
    #[error(
        "our tree does not continue what the witness cosigned: this is not the log that it knows"
    )]
    NotGrown,
    /// It cosigned more than was ever signed here, as far as the database says.
    #[error(
        "the witness has cosigned {witness} entries, and {signed} are signed here: the log was set back"
    )]
    SetBack {
        /// What it cosigned.
        witness: u64,
        /// The newest checkpoint here.
        signed: u64,
    },
}

impl From<TreeReadError> for CosigningError {
    fn from(error: TreeReadError) -> Self {
        match error {
            TreeReadError::Store(error) => Self::Store(error),
            error @ (TreeReadError::OutOfRange(_) | TreeReadError::Damaged(_)) => Self::Tree(error),
        }
    }
}

impl CosigningError {
    /// Whether somebody has to look at once: the log is not what the witness saw.
    const fn is_alarm(&self) -> bool {
        match self {
            Self::Forked(_) | Self::NotGrown | Self::SetBack { .. } | Self::Tree(_) => true,
            Self::Unreachable
            | Self::Status(_)
            | Self::Answer
            | Self::Clock(_)
            | Self::Moving
            | Self::Store(_)
            | Self::Checkpoint(_) => false,
        }
    }
}

/// What the tasks of all witnesses share.
#[derive(Debug, Clone)]
pub struct CosigningParts {
    /// The tree, and where cosignatures are kept.
    pub store: Arc<PgStore>,
    /// The log's keys.
    pub keys: Arc<LogKeys>,
    /// Where it is counted.
    pub metrics: Metrics,
    /// Calls witnesses.
    pub client: Client,
    /// Shortest time between two calls.
    pub interval: Duration,
    /// The newest checkpoint, where this process signs.
    pub signed: watch::Receiver<Option<StoredCheckpoint>>,
}

/// Has one witness cosign.
#[derive(Debug)]
pub struct Cosigning {
    parts: CosigningParts,
    witness: WitnessConfig,
    /// The size that the witness last cosigned, as far as is known.
    size: u64,
    /// Entries of the last cosignature that was kept here; 0 where none was. The next one names it, also where somebody deletes
    /// it in between.
    kept: u64,
    told: Option<String>,
}

/// What a witness answered.
enum Answered {
    Lines(String),
    /// Its own size, which was not the one that we said.
    Size(u64),
}

impl Cosigning {
    /// Takes up a witness.
    pub fn new(parts: CosigningParts, witness: WitnessConfig) -> Self {
        parts.metrics.known_witness(witness.key.name().as_str());
        Self {
            parts,
            witness,
            size: 0,
            kept: 0,
            told: None,
        }
    }

    /// Asks until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            // After a failure the newest is sent again, whether there is a newer one or not.
            if failures == 0 {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = self.parts.signed.changed() => if changed.is_err() { return },
                }
            }
            let newest = self.parts.signed.borrow_and_update().clone();
            let Some(checkpoint) = newest else { continue };
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = self.cosign(checkpoint) => asked,
            };
            failures = match &asked {
                Ok(_) => 0,
                Err(_) => failures + 1,
            };
            self.tell(asked);
            let wait = doubled(self.parts.interval, failures, MAX_BACKOFF);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn tell(&mut self, asked: Result<bool, CosigningError>) {
        let name = self.witness.key.name().as_str();
        let error = match asked {
            Ok(asked) => {
                if asked {
                    self.parts.metrics.witness_asked(name, "cosigned");
                }
                self.told = None;
                return;
            }
            Err(error) => error,
        };
        let alarm = error.is_alarm();
        let result = if alarm { "refused" } else { "failed" };
        self.parts.metrics.witness_asked(name, result);
        if alarm {
            self.parts.metrics.verification_failed(WITNESS_CHECK, 1);
        }
        // Once, not with every try.
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            if alarm {
                tracing::error!(
                    audit.witness = name,
                    error.message = text,
                    "a witness refuses this log"
                );
            } else {
                tracing::warn!(audit.witness = name, error.message = text, "no cosignature");
            }
            self.told = Some(text);
        }
    }

    /// Has a checkpoint cosigned, or a newer one where another server was faster. Answers whether the witness was asked.
    async fn cosign(&mut self, mut checkpoint: StoredCheckpoint) -> Result<bool, CosigningError> {
        let kept = self.kept().await?;
        if kept == Some(checkpoint.head) {
            // Another server has asked.
            return Ok(false);
        }
        let mut old = self.size.max(kept.map_or(0, |kept| kept.size));
        for _ in 0..MAX_CALLS {
            if old > checkpoint.head.size {
                checkpoint = self.newer(old, checkpoint.head.size).await?;
            }
            let request = self.request(old, &checkpoint).await?;
            match self.ask(&request).await? {
                Answered::Lines(lines) => {
                    self.keep(&checkpoint, request.checkpoint, &lines).await?;
                    self.size = checkpoint.head.size;
                    return Ok(true);
                }
                Answered::Size(size) if size == old => {
                    return Err(CosigningError::Forked(size));
                }
                Answered::Size(size) => {
                    self.size = size;
                    old = size;
                }
            }
        }
        Err(CosigningError::Moving)
    }

    /// The largest tree that the witness cosigned, as far as is known here.
    async fn kept(&self) -> Result<Option<TreeHead>, CosigningError> {
        let Some(origin) = self.parts.keys.origin() else {
            return Ok(None);
        };
        let last = self.parts.store.last_cosigned(origin, &self.witness.key);
        Ok(last.await?.map(|cosignature| cosignature.head))
    }

    /// A checkpoint of at least so many entries, which another server must have signed.
    async fn newer(&self, witness: u64, signed: u64) -> Result<StoredCheckpoint, CosigningError> {
        let keys = self.parts.keys.verifiers();
        let newest = self.parts.store.newest_checkpoint(&keys).await?;
        let size = newest.as_ref().map_or(signed, |newest| newest.head.size);
        newest
            .filter(|newest| newest.head.size >= witness)
            .ok_or(CosigningError::SetBack {
                witness,
                signed: size,
            })
    }

    async fn request(
        &self,
        old: u64,
        checkpoint: &StoredCheckpoint,
    ) -> Result<AddCheckpoint, CosigningError> {
        let size = checkpoint.head.size;
        let proof: Vec<Hash> = if old == 0 || old == size {
            Vec::new()
        } else {
            self.parts.store.consistency_proof(old, size).await?.0
        };
        let note = Note::parse(checkpoint.note.as_bytes()).map_err(CheckpointError::from)?;
        Ok(AddCheckpoint {
            old_size: old,
            proof,
            checkpoint: note,
        })
    }

    async fn ask(&self, request: &AddCheckpoint) -> Result<Answered, CosigningError> {
        let call = self.parts.client.post(self.witness.url.clone());
        let response = call.body(request.to_string()).send().await;
        let mut response = response.map_err(|_| CosigningError::Unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|_| CosigningError::Unreachable)?
        {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(CosigningError::Answer);
            }
        }
        let text = String::from_utf8(body).map_err(|_| CosigningError::Answer)?;
        if status == StatusCode::OK {
            return Ok(Answered::Lines(text));
        }
        if status == StatusCode::CONFLICT {
            let size = text
                .trim_end()
                .parse()
                .map_err(|_| CosigningError::Answer)?;
            return Ok(Answered::Size(size));
        }
        Err(if status == StatusCode::UNPROCESSABLE_ENTITY {
            CosigningError::NotGrown
        } else {
            CosigningError::Status(status.as_u16())
        })
    }

    /// Verifies what the witness answered under its key, and keeps it.
    async fn keep(
        &mut self,
        checkpoint: &StoredCheckpoint,
        mut note: Note,
        lines: &str,
    ) -> Result<(), CosigningError> {
        let witness = &self.witness.key;
        let lines = Signature::parse_lines(lines).map_err(|_| CosigningError::Answer)?;
        // A witness may sign with further keys, which nobody here knows.
        let line = lines.into_iter().find(|line| line.is_of(witness));
        let line = line.ok_or(CosigningError::Answer)?;
        let text = line.to_string();
        note.add([line]).map_err(|_| CosigningError::Answer)?;
        let mut keys = self.parts.keys.verifiers();
        keys.push(witness.clone());
        let signed = SignedCheckpoint::open(&note, &keys).map_err(|_| CosigningError::Answer)?;
        let (_, seconds) = signed.cosigned().next().ok_or(CosigningError::Answer)?;
        let now = self.parts.store.clock().now().timestamp();
        let cosigned_at = i64::try_from(seconds)
            .ok()
            .filter(|at| at.abs_diff(now) <= MAX_CLOCK_DIFFERENCE)
            .and_then(|at| DateTime::from_timestamp(at, 0))
            .ok_or(CosigningError::Clock(seconds))?;
        let cosignature = StoredCosignature {
            head: checkpoint.head,
            witness: witness_id(witness),
            cosigned_at,
            line: text,
        };
        let store = &self.parts.store;
        store.keep_cosignature(&cosignature, self.kept).await?;
        self.kept = cosignature.head.size;
        Ok(())
    }
}
