//! What can be wrong with the tree, and with what is signed about it.

use quittance_evidence::tile::TileId;
use quittance_evidence::{CheckpointError, Hash};
use thiserror::Error;

use super::mismatch::Shown;

/// What is wrong. Its text says what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TreeFault {
    /// A stored head is not of the tree over the entries.
    #[error("the head of {size} entries should have the root {expected}, and has {found}")]
    HeadDiffers {
        /// Entries of the head.
        size: i64,
        /// The root over the entries.
        expected: Hash,
        /// As stored, in hexadecimal.
        found: Shown,
    },
    /// A head that this service did not make, whatever it says.
    #[error("the head of {size} entries was not made by this service: its MAC is wrong")]
    HeadMacWrong {
        /// Entries of the head.
        size: i64,
    },
    /// A head is not stored that a later one was grown from.
    #[error(
        "the head of {size} entries is not stored, and a later one was grown from it: it was deleted, and so was any other \
         that there was above {after} entries and below it"
    )]
    HeadMissing {
        /// Entries that it covered.
        size: u64,
        /// Entries of the last before it that is stored; 0 where there is none.
        after: u64,
    },
    /// A head's MAC names a key that we do not have.
    #[error(
        "the MAC of the head of {size} entries is under the key {key}, which is not in secrets.keys"
    )]
    HeadKeyUnknown {
        /// Entries of the head.
        size: i64,
        /// The key's id, as stored.
        key: Shown,
    },
    /// A head counts more entries than have a position.
    #[error("there is a head of {size} entries, and only {entries} have a position")]
    HeadBeyondLog {
        /// Entries of the head.
        size: i64,
        /// Entries of the log.
        entries: u64,
    },
    /// Heads were put in, so many that not all are read.
    #[error(
        "there are more heads than trees of so many entries: from that of {size} entries on, some are not compared"
    )]
    TooManyHeads {
        /// Entries of the last that was read.
        size: i64,
    },
    /// A tile that the newest head wants is not there.
    #[error("tile {} of level {} is missing", .0.index, .0.level)]
    TileMissing(TileId),
    /// There is a tile more than once: which of them is read is anybody's guess.
    #[error("tile {} of level {} is stored more than once", .0.index, .0.level)]
    TileRepeated(TileId),
    /// A tile has another number of hashes than the newest head says.
    #[error(
        "tile {} of level {} should have {expected} hashes of 32 bytes, and has {bytes} bytes",
        .tile.index, .tile.level
    )]
    TileWidthDiffers {
        /// Which.
        tile: TileId,
        /// Hashes that it should have.
        expected: u16,
        /// Bytes that it has.
        bytes: usize,
    },
    /// A hash of a tile is not that of the entries below.
    #[error(
        "hash {place} of tile {} of level {} is not that of its entries, nor are {more} hashes behind it",
        .tile.index, .tile.level
    )]
    TileDiffers {
        /// Which tile.
        tile: TileId,
        /// The first of its hashes that differs, from 0.
        place: u16,
        /// How many behind it differ as well.
        more: u16,
    },
    /// There is a tile where the tree has none.
    #[error("tile {} of level {} lies beyond the tree", .0.index, .0.level)]
    TileBeyondTree(TileId),
    /// Entries and their tiles are both gone, so nothing behind can be compared.
    #[error("the tree cannot be rebuilt beyond {size} entries: the next one is gone, and its tile")]
    Incomplete {
        /// How many could be compared.
        size: u64,
    },
    /// A checkpoint is not of the tree over the entries.
    #[error(
        "the checkpoint of {size} entries should state the root {expected}, and states {found}"
    )]
    CheckpointDiffers {
        /// Entries that it covers.
        size: i64,
        /// The root over the entries.
        expected: Hash,
        /// What it states.
        found: Shown,
    },
    /// A column beside a checkpoint is not what its note says, or what the service stored.
    #[error(
        "{column} of the checkpoint of {size} entries is not what its note says, or was stored with it"
    )]
    CheckpointColumnDiffers {
        /// As the column says.
        size: i64,
        /// Which column.
        column: &'static str,
    },
    /// The MAC of a checkpoint's row names a key that we do not have.
    #[error(
        "the MAC of the checkpoint of {size} entries is under the key {key}, which is not in secrets.keys"
    )]
    CheckpointKeyUnknown {
        /// Entries that it covers.
        size: i64,
        /// The key's id, as stored.
        key: Shown,
    },
    /// A checkpoint's note is none, or its signatures are wrong.
    #[error("the note of the checkpoint of {size} entries: {error}")]
    CheckpointNotSigned {
        /// As the column says.
        size: i64,
        /// What is wrong with it.
        error: CheckpointError,
    },
    /// Checkpoints were put in, so many or so long that not all are read.
    #[error(
        "there are more checkpoints than the log signs: from that of {size} entries on, some are not compared"
    )]
    TooManyCheckpoints {
        /// Entries of the last that was read.
        size: i64,
    },
    /// A checkpoint covers more than the tree has.
    #[error("there is a checkpoint of {size} entries, and the tree has {tree}")]
    CheckpointBeyondTree {
        /// Entries that it covers.
        size: i64,
        /// Entries of the newest head.
        tree: i64,
    },
    /// A cosignature is stored that its witness did not give.
    #[error("the cosignature of {size} entries is not one that the witness {witness} gave")]
    CosignatureForged {
        /// Entries, as the column says.
        size: i64,
        /// Name of the witness's key.
        witness: Shown,
    },
    /// The MAC of a cosignature's row names a key that we do not have.
    #[error(
        "the MAC of the cosignature of {size} entries by {witness} is under the key {key}, which is not in secrets.keys"
    )]
    CosignatureKeyUnknown {
        /// Entries that it covers.
        size: i64,
        /// Name of the witness's key.
        witness: Shown,
        /// The key's id, as stored.
        key: Shown,
    },
    /// A row of a cosignature was changed, whatever its witness gave.
    #[error(
        "the row of the cosignature of {size} entries by {witness} is not as this service stored it: its MAC is wrong"
    )]
    CosignatureMacWrong {
        /// Entries that it covers.
        size: i64,
        /// Name of the witness's key.
        witness: Shown,
    },
    /// A cosignature is not stored that a later one names as the one before it.
    #[error(
        "the cosignature of {size} entries by {witness} is not stored as it was, and a later one was stored behind it: it was \
         deleted or changed, and so was any other of {witness} that there was above {after} entries and below it"
    )]
    CosignatureMissing {
        /// Entries that it covered.
        size: u64,
        /// Name of the witness's key.
        witness: Shown,
        /// Entries of the last before it that is stored; 0 where there is none.
        after: u64,
    },
    /// A witness cosigned another tree.
    #[error(
        "the witness {witness} cosigned the root {found} of {size} entries, and the entries have {expected}: the log was \
         written anew"
    )]
    CosignatureDiffers {
        /// Entries that it covers.
        size: i64,
        /// Name of the witness's key.
        witness: Shown,
        /// The root over the entries.
        expected: Hash,
        /// What the witness saw.
        found: Hash,
    },
    /// A cosignature covers more than the tree has.
    #[error("there is a cosignature of {size} entries, and the tree has {tree}")]
    CosignatureBeyondTree {
        /// Entries that it covers.
        size: i64,
        /// Entries of the newest head.
        tree: i64,
    },
    /// Cosignatures were put in, so many that not all are read.
    #[error(
        "there are more cosignatures than witnesses give: from those of {size} entries on, some are not compared"
    )]
    TooManyCosignatures {
        /// Entries of the last that was read.
        size: i64,
    },
    /// The checkpoint that was signed last, as the signer keeps it outside the database, is not stored, nor is a larger one.
    #[error(
        "the signer's last checkpoint has {signed} entries, and the largest one that is stored and signed has {shown}: \
         checkpoints were deleted"
    )]
    CheckpointMissing {
        /// Entries that were signed.
        signed: u64,
        /// Entries of the largest one that is stored; 0 where there is none.
        shown: u64,
    },
    /// A checkpoint is not stored that a later one names as the one before it.
    #[error(
        "the checkpoint of {size} entries is not stored, and a later one was signed behind it: it was deleted, and so was any \
         other that there was above {after} entries and below it"
    )]
    EarlierCheckpointMissing {
        /// Entries that it covered.
        size: u64,
        /// Entries of the last before it that is stored; 0 where there is none.
        after: u64,
    },
    /// What the signer signed last, kept outside the database, is of another tree.
    #[error(
        "the signer's last checkpoint, of {size} entries, states the root {signed}, and the entries have {expected}: the \
         log was written anew"
    )]
    SignedDiffers {
        /// Entries that it covers.
        size: u64,
        /// The root over the entries.
        expected: Hash,
        /// What was signed.
        signed: Hash,
    },
    /// The signer signed more than the database holds: it was restored from an older backup, or cut off.
    #[error(
        "the signer's last checkpoint has {signed} entries, and the tree has {tree}: the database was set back"
    )]
    SetBack {
        /// Entries that were signed.
        signed: u64,
        /// Entries of the newest head.
        tree: i64,
    },
    /// What the signer signed last cannot be read, so a database that was set back would not be noticed.
    #[error("what was signed last cannot be read: {0}")]
    SignedUnreadable(String),
}

impl TreeFault {
    /// A stable name.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::HeadDiffers { .. } => "TREE_HEAD_DIFFERS",
            Self::HeadMacWrong { .. } => "TREE_HEAD_MAC_WRONG",
            Self::HeadMissing { .. } => "TREE_HEAD_MISSING",
            Self::HeadKeyUnknown { .. } => "TREE_HEAD_KEY_UNKNOWN",
            Self::HeadBeyondLog { .. } => "TREE_HEAD_BEYOND_LOG",
            Self::TooManyHeads { .. } => "TOO_MANY_TREE_HEADS",
            Self::TileMissing(_) => "TILE_MISSING",
            Self::TileRepeated(_) => "TILE_REPEATED",
            Self::TileWidthDiffers { .. } => "TILE_WIDTH_DIFFERS",
            Self::TileDiffers { .. } => "TILE_DIFFERS",
            Self::TileBeyondTree(_) => "TILE_BEYOND_TREE",
            Self::Incomplete { .. } => "TREE_INCOMPLETE",
            Self::CheckpointDiffers { .. } => "CHECKPOINT_DIFFERS",
            Self::CheckpointColumnDiffers { .. } => "CHECKPOINT_COLUMN_DIFFERS",
            Self::CheckpointKeyUnknown { .. } => "CHECKPOINT_KEY_UNKNOWN",
            Self::CheckpointNotSigned { .. } => "CHECKPOINT_NOT_SIGNED",
            Self::TooManyCheckpoints { .. } => "TOO_MANY_CHECKPOINTS",
            Self::CheckpointBeyondTree { .. } => "CHECKPOINT_BEYOND_TREE",
            Self::CosignatureForged { .. } => "COSIGNATURE_FORGED",
            Self::CosignatureMacWrong { .. } => "COSIGNATURE_MAC_WRONG",
            Self::CosignatureKeyUnknown { .. } => "COSIGNATURE_KEY_UNKNOWN",
            Self::CosignatureMissing { .. } => "COSIGNATURE_MISSING",
            Self::CosignatureDiffers { .. } => "COSIGNATURE_DIFFERS",
            Self::CosignatureBeyondTree { .. } => "COSIGNATURE_BEYOND_TREE",
            Self::TooManyCosignatures { .. } => "TOO_MANY_COSIGNATURES",
            Self::CheckpointMissing { .. } | Self::EarlierCheckpointMissing { .. } => {
                "CHECKPOINT_MISSING"
            }
            Self::SignedDiffers { .. } => "SIGNED_TREE_DIFFERS",
            Self::SetBack { .. } => "LOG_SET_BACK",
            Self::SignedUnreadable(_) => "SIGNED_STATE_UNREADABLE",
        }
    }

    /// The position that names it: of the first entry below a tile's hash, of the last entry that a head covers.
    pub(super) fn position(&self) -> Option<u64> {
        match self {
            Self::HeadDiffers { size, .. }
            | Self::HeadMacWrong { size }
            | Self::HeadKeyUnknown { size, .. }
            | Self::HeadBeyondLog { size, .. }
            | Self::TooManyHeads { size }
            | Self::CheckpointDiffers { size, .. }
            | Self::CheckpointColumnDiffers { size, .. }
            | Self::CheckpointKeyUnknown { size, .. }
            | Self::CheckpointNotSigned { size, .. }
            | Self::TooManyCheckpoints { size }
            | Self::CosignatureForged { size, .. }
            | Self::CosignatureMacWrong { size, .. }
            | Self::CosignatureKeyUnknown { size, .. }
            | Self::CosignatureDiffers { size, .. }
            | Self::CosignatureBeyondTree { size, .. }
            | Self::TooManyCosignatures { size }
            | Self::CheckpointBeyondTree { size, .. } => u64::try_from(*size).ok()?.checked_sub(1),
            Self::TileMissing(tile)
            | Self::TileRepeated(tile)
            | Self::TileBeyondTree(tile)
            | Self::TileWidthDiffers { tile, .. } => first_below(*tile, 0),
            Self::TileDiffers { tile, place, .. } => first_below(*tile, *place),
            Self::Incomplete { size } => Some(*size),
            Self::SignedDiffers { size, .. }
            | Self::EarlierCheckpointMissing { size, .. }
            | Self::CosignatureMissing { size, .. }
            | Self::HeadMissing { size, .. } => size.checked_sub(1),
            Self::SetBack { signed, .. } | Self::CheckpointMissing { signed, .. } => {
                signed.checked_sub(1)
            }
            Self::SignedUnreadable(_) => None,
        }
    }
}

/// The first leaf below a hash of a tile.
fn first_below(tile: TileId, place: u16) -> Option<u64> {
    let node = tile.index.checked_mul(256)?.checked_add(place.into())?;
    let shift = u32::from(tile.level).checked_mul(8)?;
    let leaf = node.checked_shl(shift)?;
    (leaf.checked_shr(shift) == Some(node)).then_some(leaf)
}
