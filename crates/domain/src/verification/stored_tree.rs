//! What is stored about the tree, and what is known of it outside of the database, as [`super::TreeWalk`] takes it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use quittance_evidence::Hash;
use quittance_evidence::note::VerifierKey;
use quittance_evidence::tile::TileId;

/// What is known about the log outside of its database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    /// The published keys of checkpoints; none where the log is not signed, or they are not at hand.
    pub keys: Vec<VerifierKey>,
    /// What was signed last.
    pub signed: SignedLast,
    /// The witnesses' keys, under which stored cosignatures are verified.
    pub witnesses: Vec<VerifierKey>,
}

/// What the signer signed last, as it keeps it outside the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SignedLast {
    /// The log is not signed.
    #[default]
    Nothing,
    /// It cannot be read. Says why.
    Unreadable(String),
    /// A tree, by its size and its root.
    Tree {
        /// How many entries.
        size: u64,
        /// The root over them.
        root: Hash,
    },
}

/// A checkpoint as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Column `tree_size`.
    pub size: i64,
    /// Column `root_hash`.
    pub root: Vec<u8>,
    /// Column `note`.
    pub note: String,
    /// Column `signed_at`.
    pub signed_at: DateTime<Utc>,
    /// Whether this service stored it with that time and that one before it.
    pub mac: CheckpointMac,
    /// Whether the note has the signatures that it was stored with: its digest, which is under the same MAC, says so. True where
    /// the row has none.
    pub note_is_ours: bool,
    /// Column `previous_size`, which is under the same MAC: entries of the checkpoint that was signed before it.
    pub previous: Option<i64>,
}

/// Whether this service stored a checkpoint with its time: only it has the keys of their MACs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointMac {
    /// It did.
    Ours,
    /// It has none, or one that is another's, or of another time or another one before it.
    Wrong,
    /// The MAC names a key that we do not have.
    KeyUnknown(String),
}

/// A cosignature as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignatureRow {
    /// Column `tree_size`.
    pub size: i64,
    /// Column `root_hash`.
    pub root: Vec<u8>,
    /// The key that column `witness` names, which is one of [`Trusted::witnesses`].
    pub witness: VerifierKey,
    /// Column `line`.
    pub line: String,
    /// What its MAC says.
    pub mac: CosignatureMac,
}

/// Whether this service stored a cosignature: only it has the keys of their MACs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CosignatureMac {
    /// It has none: it was stored before there was one, or by somebody else. Who gave it, its signature says.
    Absent,
    /// It did.
    Ours {
        /// Column `previous_size`, which is under the same MAC: entries of the one of this witness that was stored before it; 0
        /// for the first.
        previous: u64,
    },
    /// The MAC is another's, or of another row.
    Wrong,
    /// The MAC names a key that we do not have.
    KeyUnknown(String),
}

/// Rows that each name the one before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Linked {
    /// Heads of the tree.
    Heads,
    /// Checkpoints.
    Checkpoints,
    /// What this witness cosigned.
    Cosignatures(Box<VerifierKey>),
}

/// A head as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadRow {
    /// Column `tree_size`.
    pub size: i64,
    /// Column `root_hash`.
    pub root: Vec<u8>,
    /// What its MAC says.
    pub mac: HeadMac,
    /// Column `previous_size`, which is under the same MAC: entries of the head that it was grown from.
    pub previous: Option<i64>,
}

/// Whether this service made a head: only it has the keys of their MACs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadMac {
    /// It did.
    Ours,
    /// It did not: the MAC is another's, or of another size or root.
    Wrong,
    /// The MAC names a key that we do not have.
    KeyUnknown(String),
}

/// What is stored about a part of the tree, of one moment: that of the entries that come with it.
#[derive(Debug, Clone, Default)]
pub struct TreePage {
    /// Entries of the newest head; 0 where there is none.
    pub newest: i64,
    /// Heads, by size, from behind the page's first entry to behind its last.
    pub heads: Vec<HeadRow>,
    /// From those of so many entries on they were not all read.
    pub heads_cut: Option<i64>,
    /// Checkpoints, likewise; with the first page also those of no entries.
    pub checkpoints: Vec<CheckpointRow>,
    /// From those of so many entries on they were not all read.
    pub checkpoints_cut: Option<i64>,
    /// Cosignatures of the witnesses whose keys are known, likewise.
    pub cosignatures: Vec<CosignatureRow>,
    /// From those of so many entries on they were not all read.
    pub cosignatures_cut: Option<i64>,
    /// The tiles that hold hashes which the page's entries complete.
    pub tiles: BTreeMap<TileId, Vec<u8>>,
    /// Tiles of which there are several, each once.
    pub tiles_repeated: Vec<TileId>,
}

/// What lies beyond the last entry, of the moment of the last page. A few of each will do.
#[derive(Debug, Clone, Default)]
pub struct TreeEnd {
    /// Entries of the newest head; 0 where there is none.
    pub newest: i64,
    /// Heads of more entries than there are.
    pub heads: Vec<i64>,
    /// Checkpoints of more entries than the newest head has.
    pub checkpoints: Vec<i64>,
    /// Cosignatures, likewise, of the witnesses whose keys are known.
    pub cosignatures: Vec<i64>,
    /// Tiles of which the newest head has none.
    pub tiles: Vec<TileId>,
}
