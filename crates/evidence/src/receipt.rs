//! The receipt of a change: our signed word, given with the answer, that the entry was committed.
//!
//! The entry is in the tree within the published maximum merge delay. A receipt whose entry is not
//! there by then is evidence against us.

use uuid::Uuid;

use crate::{
    hash::Hash,
    lines::{Lines, TextError},
    note::{Note, NoteError, SigningKey, VerifierKey},
};

/// First line of the text. It keeps receipts apart from all else that a key might sign.
const TITLE: &str = "quittance receipt v1";

/// Why a receipt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// It is no note, or its signatures are not right.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is no receipt.
    #[error("not a receipt")]
    Text(#[from] TextError),
}

/// That an entry of a payment was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The entry.
    pub entry_id: Uuid,
    /// The payment.
    pub payment_id: Uuid,
    /// Number of the entry among the payment's.
    pub entity_seq: u64,
    /// Leaf hash of the entry.
    pub leaf_hash: Hash,
    /// When the entry was recorded, in milliseconds since 1970.
    pub time_ms: u64,
}

impl Receipt {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!(
            "{TITLE}\nentry_id {}\npayment_id {}\nentity_seq {}\nleaf_hash {}\ntime_ms {}\n",
            self.entry_id, self.payment_id, self.entity_seq, self.leaf_hash, self.time_ms
        )
    }

    /// Signs the receipt, under keys that sign no checkpoints: two while one replaces the other. The same
    /// receipt and keys give the same bytes, so a replay of the call gets the same receipt.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<Note, NoteError> {
        Note::sign(self.text(), keys)
    }

    /// Reads the text of a receipt, which may be anybody's until its note is verified.
    pub fn parse_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text);
        lines.title(TITLE)?;
        let receipt = Self {
            entry_id: lines.value("entry_id")?,
            payment_id: lines.value("payment_id")?,
            entity_seq: lines.value("entity_seq")?,
            leaf_hash: lines.value("leaf_hash")?,
            time_ms: lines.value("time_ms")?,
        };
        lines.end()?;
        Ok(receipt)
    }

    /// Reads a signed receipt and checks it under the keys that the reader trusts for receipts.
    pub fn open(note: &Note, keys: &[VerifierKey]) -> Result<Self, ReceiptError> {
        note.verify(keys)?;
        Ok(Self::parse_text(note.text())?)
    }
}
