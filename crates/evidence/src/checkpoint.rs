//! The signed head of the tree (C2SP tlog-checkpoint), and what witnesses add to it.

use crate::{
    hash::{Base64Hash, Hash},
    lines::{Lines, TextError},
    note::{
        KeyName, KeyType, Note, NoteError, Signature, SigningKey, Verified, VerifierKey, WitnessKey,
    },
    tree::MAX_TREE_SIZE,
};

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is no note, or its signatures are not right.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is no checkpoint.
    #[error("not a checkpoint")]
    Text(#[from] TextError),
    /// A tree of that size is beyond [`MAX_TREE_SIZE`].
    #[error("a tree has at most {MAX_TREE_SIZE} leaves, not {0}")]
    TooLarge(u64),
    /// It is signed by witnesses only, or by keys of another log.
    #[error("the checkpoint is not signed by a key of the log {0}")]
    NotByTheLog(KeyName),
}

/// A state of the log: how many entries it has, and their root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of its keys.
    pub origin: KeyName,
    /// Entries, at most [`MAX_TREE_SIZE`].
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed: origin, size and base64 of the root, one a line.
    pub fn text(&self) -> String {
        let root = Base64Hash(self.root);
        format!("{}\n{}\n{root}\n", self.origin, self.size)
    }

    /// Reads the text of a checkpoint, which may be anybody's until its note is verified.
    ///
    /// # Errors
    /// `Text`, also for extension lines: our log writes none, and what is not understood is not to be
    /// vouched for. `TooLarge`.
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = Lines::new(text);
        let origin = lines.bare("origin")?;
        let size = lines.bare("size")?;
        let root: Base64Hash = lines.bare("root")?;
        lines.end()?;
        if size > MAX_TREE_SIZE {
            return Err(CheckpointError::TooLarge(size));
        }
        Ok(Self {
            origin,
            size,
            root: root.0,
        })
    }

    /// Signs the checkpoint with the log's keys: two while one replaces the other. The keys are named
    /// like the origin, or verifiers do not take them for the log's.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<Note, NoteError> {
        Note::sign(self.text(), keys)
    }

    /// States as a witness that at `time`, in seconds since 1970, this was the largest tree of the log
    /// that it had seen, grown from all that it saw before. Who calls it has checked that.
    pub fn cosign(&self, key: &WitnessKey, time: u64) -> Signature {
        key.cosign(&self.text(), time)
    }

    /// When `witness` cosigned this checkpoint, in seconds since 1970, as `line` says, which is one line under its note with the
    /// newline; `None` where the witness did not give it.
    pub fn cosigned_by(&self, witness: &VerifierKey, line: &str) -> Option<u64> {
        let note = format!("{}\n{line}", self.text());
        let note = Note::parse(note.as_bytes()).ok()?;
        let [_only] = note.signatures() else {
            return None;
        };
        let cosigned = note.verify(std::slice::from_ref(witness)).ok()?;
        cosigned.into_iter().find_map(|one| one.time)
    }
}

/// A checkpoint whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint<'k> {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// The log's keys that signed it; at least one.
    pub signers: Vec<&'k VerifierKey>,
    /// The witnesses that cosigned it, with their times.
    pub cosigners: Vec<Verified<'k>>,
}

impl<'k> SignedCheckpoint<'k> {
    /// Reads a signed checkpoint and checks it under the keys that the reader trusts: those of the log,
    /// named like its origin, and those of witnesses. Keys of the wrong type for their part are ignored.
    ///
    /// # Errors
    /// `Note` where it is no note or a known key's signature is wrong, `Text`, `TooLarge`, and
    /// `NotByTheLog`.
    pub fn open(note: &Note, keys: &'k [VerifierKey]) -> Result<Self, CheckpointError> {
        let verified = note.verify(keys)?;
        let checkpoint = Checkpoint::parse_text(note.text())?;
        let mut signed = Self {
            checkpoint,
            signers: Vec::new(),
            cosigners: Vec::new(),
        };
        for one in verified {
            match one.key.key_type() {
                KeyType::Cosignature => signed.cosigners.push(one),
                KeyType::Ed25519 if *one.key.name() == signed.checkpoint.origin => {
                    signed.signers.push(one.key);
                }
                KeyType::Ed25519 => {}
            }
        }
        if signed.signers.is_empty() {
            let origin = signed.checkpoint.origin;
            return Err(CheckpointError::NotByTheLog(origin));
        }
        Ok(signed)
    }

    /// Name and time, in seconds since 1970, of every witness that cosigned.
    pub fn cosigned(&self) -> impl Iterator<Item = (KeyName, u64)> {
        self.cosigners
            .iter()
            .filter_map(|one| Some((one.key.name().clone(), one.time?)))
    }
}
