//! Our signed word which entry of a payment was its last, as of a checkpoint. Without it the newest
//! entries could be left out of an evidence bundle unseen.

use uuid::Uuid;

use crate::{
    hash::Hash,
    lines::{Lines, TextError},
    note::{KeyName, Note, NoteError, SigningKey},
};

/// First line of the text. It keeps statements apart from all else that a key might sign.
const TITLE: &str = "quittance last entry v1";

/// Which entry of a payment was its last in the tree of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEntry {
    /// The payment.
    pub payment_id: Uuid,
    /// Number of its last entry, which is how many it has.
    pub entity_seq: u64,
    /// Leaf hash of that entry.
    pub leaf_hash: Hash,
    /// Which log.
    pub origin: KeyName,
    /// Entries of the checkpoint.
    pub tree_size: u64,
    /// Root of the checkpoint.
    pub root: Hash,
}

impl LastEntry {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!(
            "{TITLE}\npayment_id {}\nentity_seq {}\nleaf_hash {}\norigin {}\ntree_size {}\nroot_hash {}\n",
            self.payment_id,
            self.entity_seq,
            self.leaf_hash,
            self.origin,
            self.tree_size,
            self.root
        )
    }

    /// Signs the statement, with the log's keys or those of its receipts.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<Note, NoteError> {
        Note::sign(self.text(), keys)
    }

    /// Reads the text of a statement, which may be anybody's until its note is verified.
    pub fn parse_text(text: &str) -> Result<Self, TextError> {
        let mut lines = Lines::new(text);
        lines.title(TITLE)?;
        let statement = Self {
            payment_id: lines.value("payment_id")?,
            entity_seq: lines.value("entity_seq")?,
            leaf_hash: lines.value("leaf_hash")?,
            origin: lines.value("origin")?,
            tree_size: lines.value("tree_size")?,
            root: lines.value("root_hash")?,
        };
        lines.end()?;
        Ok(statement)
    }
}
