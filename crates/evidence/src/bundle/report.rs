//! What was found about a bundle.

use std::fmt;

use uuid::Uuid;

use crate::{
    chain::ChainError,
    checkpoint::CheckpointError,
    disclosure::Disclosure,
    hash::Hash,
    leaf::Leaf,
    lines::TextError,
    note::{KeyName, NoteError},
    tree::ProofError,
};

/// One thing that has to be right for a bundle to prove anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckName {
    /// The checkpoint is signed by the log.
    Checkpoint,
    /// Every entry is readable, about this payment, numbered without gaps from 1, and linked to the one
    /// before it.
    Entries,
    /// Every entry, as its bytes stand, is in the log at its place.
    Inclusion,
    /// The log says, signed, that there was no further entry.
    LastEntry,
    /// Every disclosed value is the one whose digest an entry holds.
    Disclosures,
    /// Every witness whose key the reader gave has cosigned the checkpoint. Passed where none was given.
    Witnesses,
}

impl CheckName {
    /// All, in the order in which they are reported.
    pub const ALL: [Self; 6] = [
        Self::Checkpoint,
        Self::Entries,
        Self::Inclusion,
        Self::LastEntry,
        Self::Disclosures,
        Self::Witnesses,
    ];

    /// Short, stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Entries => "entries",
            Self::Inclusion => "inclusion",
            Self::LastEntry => "last_entry",
            Self::Disclosures => "disclosures",
            Self::Witnesses => "witnesses",
        }
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a check failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckFailure {
    /// The checkpoint is not to be believed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What signed the checkpoint may speak for a log, and is none.
    #[error("{0} is the name of a key that speaks for a log, and not that of a log")]
    NotALog(KeyName),
    /// There is nothing in the bundle.
    #[error("there are no entries")]
    NoEntries,
    /// An entry does not belong where it stands.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The entries are those of something else.
    #[error("the entries are not those of payment {0}")]
    OtherPayment(Uuid),
    /// Nothing can be compared with a checkpoint that is not to be believed.
    #[error("there is no checkpoint to compare with")]
    NoCheckpoint,
    /// Nothing can be compared with entries that do not hold together.
    #[error("there are no sound entries to compare with")]
    NoSoundEntries,
    /// An entry is not in the log.
    #[error("entry {number} is not proved to be in the log")]
    NotInLog {
        /// Which entry of the bundle, from 1.
        number: usize,
        /// Why.
        #[source]
        source: ProofError,
    },
    /// The statement about the last entry is not signed by a key that the reader trusts.
    #[error(transparent)]
    StatementNote(NoteError),
    /// The statement is not signed by a key of the log.
    #[error("the statement is not signed by a key of the log {0}")]
    StatementNotByTheLog(KeyName),
    /// The statement is about something else than a last entry.
    #[error("not a statement about a payment's last entry")]
    StatementText(#[source] TextError),
    /// The statement is about another payment, another checkpoint or another log.
    #[error("the statement is about another {0}")]
    StatementAboutAnother(&'static str),
    /// Entries are missing at the end, or there are more than there were.
    #[error("the last entry was number {stated}, and the bundle ends with number {found}")]
    OtherLastEntry {
        /// As the log states.
        stated: u64,
        /// As the bundle has it.
        found: u64,
    },
    /// The last entry has the right number and other bytes.
    #[error("the last entry is not the one that the log states")]
    OtherLastLeaf,
    /// A disclosed value is in no entry.
    #[error("the disclosed value {number}, {name}, is in no entry")]
    NotInEntries {
        /// Which disclosure of the bundle, from 1.
        number: usize,
        /// Name of the field.
        name: String,
    },
    /// Witnesses on whom the reader relies have not cosigned.
    #[error("not cosigned by {}", names(.0))]
    NotCosigned(Vec<KeyName>),
}

fn names(of: &[KeyName]) -> String {
    let names: Vec<_> = of.iter().map(KeyName::as_str).collect();
    names.join(", ")
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Which.
    pub name: CheckName,
    /// What it found.
    pub result: Result<(), CheckFailure>,
}

/// An entry that is readable and chained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedEntry {
    /// What it says.
    pub leaf: Leaf,
    /// Its leaf hash.
    pub leaf_hash: Hash,
}

/// What a bundle proves, check by check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The payment.
    pub payment_id: Uuid,
    /// One for each of [`CheckName::ALL`], in that order.
    pub checks: Vec<Check>,
    /// The log, where its checkpoint is signed by it.
    pub origin: Option<KeyName>,
    /// Entries of the log at the checkpoint.
    pub tree_size: Option<u64>,
    /// Root of the log at the checkpoint.
    pub root: Option<Hash>,
    /// Witnesses that cosigned the checkpoint, with the time in seconds since 1970: by then all of
    /// this was on record. Empty where no witness did, and then times are the log's word only.
    pub cosigned: Vec<(KeyName, u64)>,
    /// Witnesses whose key the reader gave and that did not cosign the checkpoint, or of which that is not known because
    /// nothing of it is to be believed.
    pub not_cosigned: Vec<KeyName>,
    /// The entries, up to the first that does not belong.
    pub entries: Vec<CheckedEntry>,
    /// The disclosed values that are those of the entries.
    pub disclosures: Vec<Disclosure>,
}

impl Report {
    /// Whether every check passed.
    pub fn is_proved(&self) -> bool {
        self.checks.iter().all(|check| check.result.is_ok())
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = (CheckName, &CheckFailure)> {
        self.checks
            .iter()
            .filter_map(|check| Some((check.name, check.result.as_ref().err()?)))
    }
}
