//! Reading the tree: heads, tiles, proofs and checkpoints.

use chrono::{DateTime, Utc};
use diesel::dsl::{max, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_evidence::note::{Note, VerifierKey};
use quittance_evidence::tile::{self, Tile, TileId, TileSet};
use quittance_evidence::tree::{
    CompactRange, NodeId, Path, TreeError, frontier, verify_consistency, verify_inclusion,
};
use quittance_evidence::{Checkpoint, Hash, SignedCheckpoint};
use thiserror::Error;

use super::heads::{StoredHead, head_of};
use super::statements::ReadTiles;
use super::{TreeDamage, TreeHead};
use crate::keys::{CheckpointFacts, KeyRing};
use crate::schema::{checkpoints, tree_heads};
use crate::store::PgStore;
use crate::verify::readable_time;
use crate::warning::Thinned;

/// Levels of tiles that there can be: eight of eight tree levels each.
const TILE_LEVELS: u8 = 8;

/// Checkpoints that are read at once: 2 MiB of them at most.
const CHECKPOINTS_READ: usize = 32;
/// How often more of them are read, where all were forged.
const MAX_CHECKPOINT_READS: usize = 8;

static FORGED: Thinned = Thinned::new();

/// Why the tree could not be read.
#[derive(Debug, Error)]
pub enum TreeReadError {
    /// The database could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such tree or leaf.
    #[error(transparent)]
    OutOfRange(#[from] TreeError),
    /// What is stored is not the tree: nothing is proved with it.
    #[error(transparent)]
    Damaged(#[from] TreeDamage),
}

/// A checkpoint as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The tree that it states.
    pub head: TreeHead,
    /// The checkpoint itself: a C2SP signed note.
    pub note: String,
    /// When it was signed, by the signer's clock.
    pub signed_at: DateTime<Utc>,
    /// How many entries the checkpoint has that was signed before it, 0 for the first; `None` where the signer did not know.
    pub previous: Option<u64>,
}

/// A checkpoint as read: anybody may have written it.
#[derive(Queryable)]
struct CheckpointRow {
    tree_size: i64,
    root_hash: Vec<u8>,
    note: String,
    signed_at: DateTime<Utc>,
    mac: Option<Vec<u8>>,
    mac_key_id: Option<String>,
    previous_size: Option<i64>,
    note_digest: Option<Vec<u8>>,
}

/// What a note states, without its signatures: lines may be added under it.
fn stated(note: &str) -> &str {
    note.rsplit_once("\n\n").map_or(note, |(text, _)| text)
}

/// What of a checkpoint's row its MAC is over, and the MAC.
#[derive(Clone, Copy)]
pub(crate) struct CheckpointCells<'a> {
    pub(crate) size: i64,
    pub(crate) signed_at: DateTime<Utc>,
    pub(crate) previous: Option<i64>,
    pub(crate) note: &'a str,
    pub(crate) note_digest: Option<&'a [u8]>,
    pub(crate) mac_key_id: Option<&'a str>,
    pub(crate) mac: Option<&'a [u8]>,
}

impl CheckpointCells<'_> {
    /// Whether the service stored what the note states with this time, and behind this one: whoever can write to the database
    /// could give it others. The signatures may be others.
    pub(crate) fn is_stored_so(&self, ring: &KeyRing) -> bool {
        let (Ok(size), Some(key), Some(mac)) =
            (u64::try_from(self.size), self.mac_key_id, self.mac)
        else {
            return false;
        };
        let Ok(previous) = self.previous.map(u64::try_from).transpose() else {
            return false;
        };
        let row = CheckpointFacts {
            size,
            signed_at: self.signed_at.timestamp_micros(),
            previous,
            note: stated(self.note),
            note_digest: self.note_digest,
        };
        ring.verify_checkpoint(row, key, mac)
    }

    /// Whether the whole note, with its signatures, is the one whose digest the row has. Rows from before there was one do not
    /// tell.
    pub(crate) fn has_its_note(&self) -> bool {
        let digest = Hash::of(self.note.as_bytes());
        self.note_digest.is_none_or(|it| it == digest.as_bytes())
    }
}

impl CheckpointRow {
    fn cells(&self) -> CheckpointCells<'_> {
        CheckpointCells {
            size: self.tree_size,
            signed_at: self.signed_at,
            previous: self.previous_size,
            note: &self.note,
            note_digest: self.note_digest.as_deref(),
            mac_key_id: self.mac_key_id.as_deref(),
            mac: self.mac.as_deref(),
        }
    }

    /// Whether the columns state what the note does.
    fn states(&self, stated: &Checkpoint) -> bool {
        let head = head_of(self.tree_size, &self.root_hash);
        head.is_ok_and(|head| (head.size, head.root) == (stated.size, stated.root))
    }

    /// What its note states, where one of `keys` signed it, and the columns state the same. The note is left with what
    /// these keys signed: a line that somebody wrote under it in another's name would spoil it for whoever knows that key.
    fn open(&self, keys: &[VerifierKey], ring: &KeyRing) -> Option<StoredCheckpoint> {
        let note = Note::parse(self.note.as_bytes()).ok()?;
        let stated = SignedCheckpoint::open(&note, keys).ok()?.checkpoint;
        let genuine = self.states(&stated) && self.cells().is_stored_so(ring);
        genuine.then(|| StoredCheckpoint {
            head: TreeHead {
                size: stated.size,
                root: stated.root,
            },
            note: note.only_of(keys).to_string(),
            signed_at: self.signed_at,
            previous: self.previous_size.and_then(|size| u64::try_from(size).ok()),
        })
    }

    /// Whether the service stored it so, and none of `keys` signed it: it is of keys that were replaced since, and nobody
    /// forged it.
    fn is_of_replaced_keys(&self, keys: &[VerifierKey], ring: &KeyRing) -> bool {
        let Ok(note) = Note::parse(self.note.as_bytes()) else {
            return false;
        };
        let mut signatures = note.signatures().iter();
        let known = signatures.any(|signature| keys.iter().any(|key| signature.is_of(key)));
        let stated = Checkpoint::parse_text(note.text());
        let cells = self.cells();
        !known
            && stated.is_ok_and(|stated| self.states(&stated))
            && cells.is_stored_so(ring)
            && cells.has_its_note()
    }
}

/// The last tile of each level of a tree, where it is not full; also those that are still empty.
pub(super) fn edge_tiles(size: u64) -> impl Iterator<Item = TileId> {
    (0..TILE_LEVELS).map(move |level| {
        let hashes = size.checked_shr(u32::from(level) * 8).unwrap_or(0);
        TileId {
            level,
            index: hashes >> 8,
        }
    })
}

/// Stored tiles, read.
pub(super) fn into_tiles(rows: Vec<(i16, i64, Vec<u8>)>) -> Result<TileSet, TreeDamage> {
    let mut tiles = TileSet::new();
    for (level, index, hashes) in rows {
        let level = u8::try_from(level).map_err(|_| TreeDamage::Number)?;
        let index = u64::try_from(index).map_err(|_| TreeDamage::Number)?;
        let tile = Tile::decode(&hashes).map_err(|_| TreeDamage::Tiles)?;
        tiles.insert(TileId { level, index }, tile);
    }
    Ok(tiles)
}

/// The root of a tree, from tiles that hold its frontier.
pub(crate) fn root_of(tiles: &TileSet, size: u64) -> Result<Hash, TreeReadError> {
    let range = CompactRange::load(size, |node| {
        let hash = tiles.node(node);
        hash.map_err(|_| TreeReadError::from(TreeDamage::Tiles))
    })?;
    Ok(range.root())
}

pub(crate) fn prove(tiles: &TileSet, path: &Path) -> Result<Vec<Hash>, TreeDamage> {
    path.prove(|node| tiles.node(node).map_err(|_| TreeDamage::Tiles))
}

impl PgStore {
    /// The newest committed head; `None` while there is none. One that this service did not make is `Damaged`: it is
    /// neither taken for the tree nor passed over.
    pub async fn tree_head(&self) -> Result<Option<TreeHead>, TreeReadError> {
        let read = self.inner.reader.read("read tree head", |connection| {
            let newest = tree_heads::table
                .select((
                    tree_heads::tree_size,
                    tree_heads::root_hash,
                    tree_heads::mac,
                    tree_heads::mac_key_id,
                    tree_heads::previous_size,
                ))
                .order(tree_heads::tree_size.desc());
            async move {
                let first = newest.first::<StoredHead>(connection).await;
                first.optional()
            }
            .boxed()
        });
        let head = read.await?.map(|head| head.authentic(&self.inner.keys));
        Ok(head.transpose()?)
    }

    /// The tiles from which some nodes are had; those that there are.
    pub async fn tiles_holding(
        &self,
        nodes: impl IntoIterator<Item = NodeId>,
    ) -> Result<TileSet, TreeReadError> {
        let ids = tile::holding(nodes);
        let read = self.inner.reader.read("read tiles", |connection| {
            let read = ReadTiles::new(ids.iter().copied());
            async move { read.load::<(i16, i64, Vec<u8>)>(connection).await }.boxed()
        });
        Ok(into_tiles(read.await?)?)
    }

    /// The root of the tree of `size` entries as the tiles have it; at most the newest head's size.
    pub async fn tree_root(&self, size: u64) -> Result<Hash, TreeReadError> {
        let tiles = self.tiles_holding(frontier(size)).await?;
        root_of(&tiles, size)
    }

    /// The proof that the entry with this leaf hash is at `index` of the tree of `size` entries, and the root that
    /// it leads to. It was verified: one that would not convince anybody is `Damaged`.
    pub async fn inclusion_proof(
        &self,
        leaf: Hash,
        index: u64,
        size: u64,
    ) -> Result<(Vec<Hash>, Hash), TreeReadError> {
        let path = Path::inclusion(index, size)?;
        let nodes = path.nodes().chain(frontier(size));
        let tiles = self.tiles_holding(nodes).await?;
        let (proof, root) = (prove(&tiles, &path)?, root_of(&tiles, size)?);
        verify_inclusion(&leaf, index, size, &proof, &root).map_err(|_| TreeDamage::Root)?;
        Ok((proof, root))
    }

    /// The proof that the tree of `old_size` entries is the beginning of that of `new_size`, with the roots of
    /// both as the tiles have them. It was verified.
    pub async fn consistency_proof(
        &self,
        old_size: u64,
        new_size: u64,
    ) -> Result<(Vec<Hash>, [Hash; 2]), TreeReadError> {
        let path = Path::consistency(old_size, new_size)?;
        let edges = frontier(old_size).chain(frontier(new_size));
        let tiles = self.tiles_holding(path.nodes().chain(edges)).await?;
        let proof = prove(&tiles, &path)?;
        let roots = [root_of(&tiles, old_size)?, root_of(&tiles, new_size)?];
        verify_consistency(old_size, &roots[0], new_size, &roots[1], &proof)
            .map_err(|_| TreeDamage::Root)?;
        Ok((proof, roots))
    }

    /// The newest checkpoint that is signed by one of `keys`: of the largest tree, and where that was signed several
    /// times, the first. What it states is what its note states. Rows that state something else or another time than they
    /// were stored with, or whose note these keys do not verify, are passed over and reported: somebody added them. One that is as the service
    /// stored it, and of other keys alone, was signed by keys that were replaced: it is passed over in silence.
    pub async fn newest_checkpoint(
        &self,
        keys: &[VerifierKey],
    ) -> Result<Option<StoredCheckpoint>, TreeReadError> {
        self.newest_checkpoint_of(None, keys).await
    }

    /// The newest checkpoint of trees of this size, or of any.
    pub(super) async fn newest_checkpoint_of(
        &self,
        size: Option<i64>,
        keys: &[VerifierKey],
    ) -> Result<Option<StoredCheckpoint>, TreeReadError> {
        let mut after: Option<CheckpointRow> = None;
        for _ in 0..MAX_CHECKPOINT_READS {
            let rows = self.checkpoint_rows(size, after.as_ref()).await?;
            let whole = rows.len() < CHECKPOINTS_READ;
            let (mut forged, mut newest) = (0, None);
            for row in &rows {
                newest = row.open(keys, &self.inner.keys);
                if newest.is_some() {
                    break;
                }
                forged += usize::from(!row.is_of_replaced_keys(keys, &self.inner.keys));
            }
            self.report_forged_checkpoints(forged);
            if newest.is_some() {
                return Ok(newest);
            }
            if whole {
                return Ok(None);
            }
            after = rows.into_iter().next_back();
        }
        Err(TreeDamage::Checkpoints.into())
    }

    async fn checkpoint_rows(
        &self,
        size: Option<i64>,
        after: Option<&CheckpointRow>,
    ) -> Result<Vec<CheckpointRow>, StoreError> {
        let limit = i64::try_from(CHECKPOINTS_READ).unwrap_or(i64::MAX);
        let read = self.inner.reader.read("read checkpoints", |connection| {
            let mut newest = checkpoints::table
                .select((
                    checkpoints::tree_size,
                    checkpoints::root_hash,
                    checkpoints::note,
                    // Where its check was dropped, the column can hold a time that no program reads.
                    sql::<Timestamptz>(&readable_time("signed_at")),
                    checkpoints::mac,
                    checkpoints::mac_key_id,
                    checkpoints::previous_size,
                    checkpoints::note_digest,
                ))
                .into_boxed::<Pg>()
                .filter(checkpoints::tree_size.le(size.unwrap_or(i64::MAX)))
                .filter(checkpoints::tree_size.ge(size.unwrap_or(i64::MIN)))
                .order((checkpoints::tree_size.desc(), checkpoints::signed_at))
                .limit(limit);
            if let Some(after) = after {
                let same = checkpoints::tree_size
                    .eq(after.tree_size)
                    .and(checkpoints::signed_at.gt(after.signed_at));
                newest = newest.filter(checkpoints::tree_size.lt(after.tree_size).or(same));
            }
            async move { newest.load(connection).await }.boxed()
        });
        read.await
    }

    fn report_forged_checkpoints(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.inner.observer.verification_failed("checkpoint", count);
        if FORGED.due().is_some() {
            tracing::error!(
                count,
                "checkpoints are stored that this log did not sign: they are passed over"
            );
        }
    }

    /// The size of the largest tree of which a checkpoint is stored, whoever signed it.
    pub async fn largest_checkpoint(&self) -> Result<Option<i64>, StoreError> {
        let read = self
            .inner
            .reader
            .read("read largest checkpoint", |connection| {
                let largest = checkpoints::table.select(max(checkpoints::tree_size));
                async move { largest.first::<Option<i64>>(connection).await }.boxed()
            });
        read.await
    }

    /// Keeps a checkpoint, to be served. One that is there already stays.
    pub async fn keep_checkpoint(&self, checkpoint: &StoredCheckpoint) -> Result<(), StoreError> {
        let size = i64::try_from(checkpoint.head.size)
            .map_err(|_| StoreError::Corrupt("checkpoints.tree_size".to_owned()))?;
        let previous = checkpoint.previous.map(i64::try_from).transpose();
        let previous =
            previous.map_err(|_| StoreError::Corrupt("checkpoints.previous_size".to_owned()))?;
        let digest = Hash::of(checkpoint.note.as_bytes());
        let (mac, key) = self.inner.keys.checkpoint_mac(CheckpointFacts {
            size: checkpoint.head.size,
            signed_at: checkpoint.signed_at.timestamp_micros(),
            previous: checkpoint.previous,
            note: stated(&checkpoint.note),
            note_digest: Some(digest.as_bytes()),
        });
        let write = self.inner.reader.write("keep checkpoint", |connection, _| {
            let row = (
                checkpoints::mac.eq(mac.to_vec()),
                checkpoints::mac_key_id.eq(key.clone()),
                checkpoints::tree_size.eq(size),
                checkpoints::previous_size.eq(previous),
                checkpoints::signed_at.eq(checkpoint.signed_at),
                checkpoints::root_hash.eq(checkpoint.head.root.as_bytes().to_vec()),
                checkpoints::note.eq(checkpoint.note.clone()),
                checkpoints::note_digest.eq(digest.as_bytes().to_vec()),
            );
            let insert = diesel::insert_into(checkpoints::table)
                .values(row)
                .on_conflict_do_nothing();
            async move { insert.execute(connection).await }.boxed()
        });
        write.await.map(|_| ())
    }
}
