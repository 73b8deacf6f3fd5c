//! Reading the tree: heads, tiles, proofs and checkpoints.

use chrono::{DateTime, Utc};
use diesel::dsl::{max, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_evidence::Hash;
use quittance_evidence::note::VerifierKey;
use quittance_evidence::tile::{self, Tile, TileId, TileSet};
use quittance_evidence::tree::{
    CompactRange, NodeId, Path, TreeError, frontier, verify_consistency, verify_inclusion,
};
use thiserror::Error;

use super::checkpoint_rows::{CheckpointRow, Judged, stated};
use super::heads::StoredHead;
use super::statements::ReadTiles;
use super::{TreeDamage, TreeHead};
use crate::keys::CheckpointFacts;
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

/// How rows under a key that this process does not have are counted among failures of verification.
pub(crate) const CHECKPOINT_KEY_CHECK: &str = "checkpoint_key";

static FORGED: Thinned = Thinned::new();
static UNJUDGED: Thinned = Thinned::new();

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
    /// stored it, and of other keys alone, was signed by keys that were replaced: it is passed over in silence. One whose MAC is
    /// under a key that this process lacks is passed over and reported as such.
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
            let (mut forged, mut unknown, mut newest) = (0, 0, None);
            for row in &rows {
                match row.judge(keys, &self.inner.keys) {
                    Judged::Genuine(checkpoint) => {
                        newest = Some(checkpoint);
                        break;
                    }
                    Judged::OfReplacedKeys => {}
                    Judged::KeyUnknown => unknown += 1,
                    Judged::Forged => forged += 1,
                }
            }
            self.report_forged_checkpoints(forged);
            self.report_unjudged_checkpoints(unknown);
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

    fn report_unjudged_checkpoints(&self, count: usize) {
        if count == 0 {
            return;
        }
        let observer = &self.inner.observer;
        observer.verification_failed(CHECKPOINT_KEY_CHECK, count);
        if UNJUDGED.due().is_some() {
            tracing::error!(
                count,
                "checkpoints are stored under a key that this process does not have (secrets.keys): they are passed over"
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

    /// Entries of the largest checkpoint of fewer than `size` that this service stored and that is of the stored tree, whichever
    /// log it is of: 0 where there is none, `None` where none of the largest ones is.
    pub async fn last_checkpoint_below(&self, size: u64) -> Result<Option<u64>, TreeReadError> {
        let mut after: Option<CheckpointRow> = None;
        for _ in 0..MAX_CHECKPOINT_READS {
            let rows = self.checkpoint_rows(None, after.as_ref()).await?;
            let stored = rows.iter().filter_map(|row| row.stored(&self.inner.keys));
            for head in stored.filter(|head| head.size < size) {
                if self.tree_root(head.size).await? == head.root {
                    return Ok(Some(head.size));
                }
            }
            if rows.len() < CHECKPOINTS_READ {
                return Ok(Some(0));
            }
            after = rows.into_iter().next_back();
        }
        Ok(None)
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
