//! The Merkle tree over the journal (RFC 9162), in tiles: the leaf at index *n* is the entry at position *n*.
//!
//! The integrator of the process that is the sequencer appends what has a position, under the sequencer's fence:
//! tiles and the new head in one statement, which fails where the fence or the head has moved on. So there is one
//! tree, whoever else believes to be active. On taking over it rebuilds the root from the tiles, and goes no
//! further where that is not the head's.
//!
//! Leaf hashes come straight from the sequencer of the same process, which has verified the entries' MACs a moment
//! before ([`Fresh`]). What another process has sequenced is read from the journal, and verified again: a row that
//! was changed after it got its position never enters the tree.
//!
//! A head has a MAC under a key that the database never sees. One without is not taken for the tree, by the
//! integrator or by whoever signs: so a row that somebody inserted is never signed, and once it is deleted the tree
//! goes on.

mod checkpoint_rows;
mod cosignatures;
mod fresh;
mod heads;
mod held;
mod integrator;
mod lag;
mod own;
mod reads;
mod statements;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quittance_evidence::Hash;
use thiserror::Error;
use tokio::sync::watch;
use uuid::Uuid;

use crate::sequencer::UnknownKey;

pub(crate) use checkpoint_rows::CheckpointCells;
pub(crate) use cosignatures::CosignatureCells;
pub use cosignatures::{StoredCosignature, witness_id};
pub(crate) use fresh::Fresh;
pub(crate) use heads::StoredHead;
pub(crate) use integrator::Integrator;
pub(crate) use lag::KnownSince;
pub(crate) use own::OwnEntries;
pub(crate) use reads::{CHECKPOINT_KEY_CHECK, prove, root_of};
pub use reads::{StoredCheckpoint, TreeReadError};
pub(crate) use statements::ReadTiles;

/// Most entries that are appended to the tree at once; with so many waiting they are appended at once.
pub const MAX_INTEGRATED: usize = 1_024;
/// How long an entry with a position waits for others, until it is appended to the tree.
pub const INTEGRATE_EVERY: Duration = Duration::from_millis(250);

/// A tree, by its size and its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// How many entries.
    pub size: u64,
    /// The RFC 9162 root hash.
    pub root: Hash,
}

/// What is wrong with the stored tree. Somebody wrote to the database past the service, or it was not restored
/// as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TreeDamage {
    /// This service did not make the newest head.
    #[error("the tree's head was not made by this service: its MAC is wrong")]
    HeadMac,
    /// The newest head is under a key that this process does not have.
    #[error(
        "the tree's head is under a key that this process does not have (secrets.keys), or was made up"
    )]
    HeadKey,
    /// The tiles do not lead to the root of the newest head.
    #[error("the tiles do not lead to the root of the tree's head")]
    Root,
    /// A tile is missing, is wider or narrower than the head says, or is no tile.
    #[error("the last tiles of the tree are not those of its head")]
    Tiles,
    /// The tree has more entries than have a position.
    #[error("the tree has more entries than the log")]
    BeyondLog,
    /// An entry that has a position is not in the journal.
    #[error("an entry that has its position is missing from the journal")]
    EntryMissing,
    /// An entry that has a position was changed, or exchanged for another.
    #[error("an entry that has its position is not as it was written")]
    EntryChanged,
    /// An entry is not in the tree where its position says, and not near it either.
    #[error("an entry is not in the tree where its position says")]
    Position,
    /// None of the newest checkpoints is one that this log signed.
    #[error("none of the newest checkpoints was signed by this log")]
    Checkpoints,
    /// A number is not one that we write.
    #[error("a number of the stored tree is out of its range")]
    Number,
}

/// That this process is the sequencer, and how its writes are fenced. No two terms have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) holder: Uuid,
    pub(crate) fence: i64,
}

/// What the sequencer and the integrator of one process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) lease: watch::Sender<Option<Lease>>,
    pub(crate) fresh: Fresh,
    /// The key that the integrator lacks, for the sequencer to leave both works to another process.
    pub(crate) lacking: Mutex<Option<UnknownKey>>,
    pub(crate) known_since: KnownSince,
    pub(crate) own: Arc<OwnEntries>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            lease: watch::Sender::new(None),
            fresh: Fresh::default(),
            lacking: Mutex::default(),
            known_since: KnownSince::default(),
            own: Arc::default(),
        }
    }
}
