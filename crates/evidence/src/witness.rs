//! What a witness is asked, and what it answers (C2SP tlog-witness).
//!
//! A witness keeps the last checkpoint that it cosigned of each log, and cosigns another one only
//! where that provably grew from it. So a log cannot show different histories to different people
//! without the witness: it would have to have two checkpoints cosigned that exclude each other.

use std::fmt;

use crate::{
    checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint},
    hash::{Base64Hash, Hash},
    lines::Lines,
    note::{KeyName, MAX_NOTE_BYTES, Note, NoteError, VerifierKey},
    tree::{MAX_PROOF_HASHES, ProofError, empty_root, verify_growth},
};

/// Longest request: a note, and before it a size and the hashes of a proof.
pub const MAX_ADD_CHECKPOINT_BYTES: usize = MAX_NOTE_BYTES + 64 * (MAX_PROOF_HASHES + 1);

/// Asks a witness to cosign a checkpoint: the body of `POST /add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the last checkpoint that the witness cosigned of this log; 0 for none.
    pub old_size: u64,
    /// Consistency proof from that size; empty from 0.
    pub proof: Vec<Hash>,
    /// The new checkpoint, signed by the log.
    pub checkpoint: Note,
}

/// The body is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddCheckpointError {
    /// Longer than [`MAX_ADD_CHECKPOINT_BYTES`], or not UTF-8.
    #[error("a request has at most {MAX_ADD_CHECKPOINT_BYTES} bytes of UTF-8")]
    NotText,
    /// The first line is not `old <size>`.
    #[error("the first line states the old size")]
    OldSize,
    /// A line of the proof is no hash, there are too many, or no blank line ends it.
    #[error("a proof has at most {MAX_PROOF_HASHES} lines of base64, and a blank line after them")]
    Proof,
    /// What follows is no signed note.
    #[error("the checkpoint is not a signed note")]
    Note(#[from] NoteError),
}

impl AddCheckpoint {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, AddCheckpointError> {
        let text = std::str::from_utf8(body).map_err(|_| AddCheckpointError::NotText)?;
        if body.len() > MAX_ADD_CHECKPOINT_BYTES {
            return Err(AddCheckpointError::NotText);
        }
        let (head, note) = text.split_once("\n\n").ok_or(AddCheckpointError::Proof)?;
        let head = format!("{head}\n");
        let mut lines = Lines::new(&head);
        let old_size = lines
            .value("old")
            .map_err(|_| AddCheckpointError::OldSize)?;
        let mut proof = Vec::new();
        while !lines.is_at_end() {
            if proof.len() == MAX_PROOF_HASHES {
                return Err(AddCheckpointError::Proof);
            }
            let hash: Base64Hash = lines.bare("proof").map_err(|_| AddCheckpointError::Proof)?;
            proof.push(hash.0);
        }
        Ok(Self {
            old_size,
            proof,
            checkpoint: note.parse()?,
        })
    }
}

/// The body.
impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        for hash in &self.proof {
            writeln!(f, "{}", Base64Hash(*hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Why a witness does not cosign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The text is no checkpoint, or its old size is above its own.
    #[error("not a checkpoint of a log that grew")]
    Malformed,
    /// No key of the log signed it.
    #[error("the checkpoint is not signed by the log")]
    NotByTheLog(#[source] CheckpointError),
    /// The proof starts from another size than the one last cosigned.
    #[error("the last checkpoint cosigned had {0} entries")]
    OtherOldSize(u64),
    /// The same size with another root was cosigned before: the log has two histories.
    #[error("another tree of {0} entries was cosigned before")]
    Fork(u64),
    /// No valid proof was given that it grew from the last one. That says nothing about the log: whoever sent it may have
    /// made the proof up.
    #[error("no valid proof was given that the checkpoint grew from the last one")]
    NotGrown(#[from] ProofError),
}

/// What a witness knows of one log.
#[derive(Debug, Clone)]
pub struct WitnessedLog {
    keys: Vec<VerifierKey>,
    last: Checkpoint,
}

impl WitnessedLog {
    /// Takes up a log where it was left: `last` is the last checkpoint cosigned, and `keys` are those of
    /// the log.
    pub const fn new(keys: Vec<VerifierKey>, last: Checkpoint) -> Self {
        Self { keys, last }
    }

    /// The last checkpoint cosigned.
    pub const fn last(&self) -> &Checkpoint {
        &self.last
    }

    /// Whether this checkpoint may be cosigned. It then is the last one ([`WitnessedLog::advance`]) once
    /// it was stored, and only then may the cosignature be given away.
    pub fn judge(&self, request: &AddCheckpoint) -> Result<Checkpoint, Refusal> {
        let signed = SignedCheckpoint::open(&request.checkpoint, &self.keys);
        let next = match signed {
            Ok(signed) => signed.checkpoint,
            Err(CheckpointError::Text(_) | CheckpointError::TooLarge(_)) => {
                return Err(Refusal::Malformed);
            }
            Err(error @ (CheckpointError::Note(_) | CheckpointError::NotByTheLog(_))) => {
                return Err(Refusal::NotByTheLog(error));
            }
        };
        if next.origin != self.last.origin {
            let other = CheckpointError::NotByTheLog(self.last.origin.clone());
            return Err(Refusal::NotByTheLog(other));
        }
        if request.old_size > next.size {
            return Err(Refusal::Malformed);
        }
        let last = &self.last;
        // Whatever old size the sender states: this is signed by the log, and proves by itself that it has two
        // histories.
        if next.size == last.size && next.root != last.root {
            return Err(Refusal::Fork(last.size));
        }
        if request.old_size != last.size {
            return Err(Refusal::OtherOldSize(last.size));
        }
        verify_growth(last.size, &last.root, next.size, &next.root, &request.proof)?;
        Ok(next)
    }

    /// Notes that a checkpoint was stored as the last one.
    pub fn advance(&mut self, next: Checkpoint) {
        self.last = next;
    }
}

impl Checkpoint {
    /// The state of a log before its first entry: where a witness starts.
    pub fn empty(origin: KeyName) -> Self {
        Self {
            origin,
            size: 0,
            root: empty_root(),
        }
    }
}
