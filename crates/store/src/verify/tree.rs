//! What is stored about a part of the tree, read with the entries that it is made of.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use quittance_domain::verification::{
    CheckpointMac, CheckpointRow, HeadMac, Linked, TreeEnd, TreePage,
};
use quittance_evidence::note::VerifierKey;
use quittance_evidence::tile::{self, TileId};

use super::cosignatures::ReadCosignatures;
use super::long::readable_time;
use super::read::POSITIONS;
use crate::keys::KeyRing;
use crate::schema::{checkpoints, cosignatures, tree_heads, tree_tiles};
use crate::statement::statement;
use crate::tree::{CheckpointCells, ReadTiles, StoredHead, witness_id};

/// Most entries of a part: a page, and as many that are missing before it.
const MAX_PART: u64 = 2 * POSITIONS.unsigned_abs();
/// Most heads that are compared with one page: a part has as many trees as entries. Where there are more, somebody put them in.
const MAX_HEADS: i64 = 2 * POSITIONS;
/// Most checkpoints that are compared with one page; there is about one a second, and none without a new entry. Where
/// there are more, somebody put them in.
const MAX_CHECKPOINTS: i64 = 8_192;
/// Most bytes of their notes: a note of the log has some hundreds.
const MAX_NOTES: i64 = 16 * 1_024 * 1_024;
/// Most heads, checkpoints, cosignatures and tiles each that are named where they lie beyond the log.
const MAX_BEYOND: i64 = 16;
/// Most checkpoints that are looked at for one that was not stored yet.
const MAX_LATE: i64 = 64;
/// Levels of tiles.
const TILE_LEVELS: u8 = 8;

/// Reads checkpoints by size, the first of each size first, as long as their notes do not fill the memory; and beside each,
/// how many there are, up to one more than are read.
struct ReadCheckpoints {
    first: i64,
    to: i64,
}

type CheckpointTypes = (
    BigInt,
    Binary,
    Text,
    Timestamptz,
    (
        Nullable<Binary>,
        Nullable<Text>,
        Nullable<BigInt>,
        Nullable<Binary>,
    ),
    BigInt,
);
type CheckpointTuple = (
    i64,
    Vec<u8>,
    String,
    DateTime<Utc>,
    (
        Option<Vec<u8>>,
        Option<String>,
        Option<i64>,
        Option<Vec<u8>>,
    ),
    i64,
);

/// What the MAC of a row is over.
fn cells(row: &CheckpointTuple) -> CheckpointCells<'_> {
    let (size, _, note, signed_at, (mac, mac_key_id, previous, note_digest), _) = row;
    CheckpointCells {
        size: *size,
        signed_at: *signed_at,
        previous: *previous,
        note,
        note_digest: note_digest.as_deref(),
        mac_key_id: mac_key_id.as_deref(),
        mac: mac.as_deref(),
    }
}

fn checkpoint_row(row: CheckpointTuple, keys: &KeyRing) -> CheckpointRow {
    let cells = cells(&row);
    let (mac, note_is_ours) = (cells.mac(keys), cells.has_its_note());
    let (size, root, note, signed_at, (_, _, previous, _), _) = row;
    CheckpointRow {
        size,
        root,
        note,
        signed_at,
        mac,
        note_is_ours,
        previous,
    }
}

statement!(
    ReadCheckpoints,
    ReadCheckpoints,
    CheckpointTypes,
    |self, out| {
        out.push_sql("select tree_size, substr(root_hash, 1, 33), left(note, 65536), ");
        out.push_sql(&readable_time("signed_at"));
        out.push_sql(
            ", substr(mac, 1, 33), left(mac_key_id, 1024), previous_size, \
             substr(note_digest, 1, 33), counted from (\
             select *, count(*) over () as counted, row_number() over read as number, \
             sum(octet_length(note)) over read - octet_length(note) as before \
             from (select * from checkpoints where tree_size >= ",
        );
        out.push_bind_param::<BigInt, _>(&self.first)?;
        out.push_sql(" and tree_size <= ");
        out.push_bind_param::<BigInt, _>(&self.to)?;
        out.push_sql(" order by tree_size, signed_at limit ");
        out.push_bind_param::<BigInt, _>(&(MAX_CHECKPOINTS + 1))?;
        out.push_sql(") c window read as (order by tree_size, signed_at)) c where number <= ");
        out.push_bind_param::<BigInt, _>(&MAX_CHECKPOINTS)?;
        out.push_sql(" and before < ");
        out.push_bind_param::<BigInt, _>(&MAX_NOTES)?;
        out.push_sql(" order by tree_size, signed_at");
    }
);

/// A part of the tree: its entries from one on, and below another.
pub(super) struct TreePart {
    from: u64,
    to: u64,
}

impl TreePart {
    /// What comes behind the tree of `from` entries, up to `to`; nothing where no entry does.
    pub(super) fn new(from: u64, to: Option<u64>) -> Self {
        let most = from.saturating_add(MAX_PART);
        Self {
            from,
            to: to.unwrap_or(from).clamp(from, most),
        }
    }

    /// The sizes of trees that end in it, the first and the last, as their column has them; with the first part also that of
    /// no entries, and what no tree has.
    fn sizes(&self) -> (i64, i64) {
        let first = if self.from == 0 {
            i64::MIN
        } else {
            i64::try_from(self.from.saturating_add(1)).unwrap_or(i64::MAX)
        };
        (first, i64::try_from(self.to).unwrap_or(i64::MAX))
    }

    /// What is stored about it.
    pub(super) async fn page(
        &self,
        connection: &mut AsyncPgConnection,
        keys: &KeyRing,
        witnesses: &[VerifierKey],
    ) -> QueryResult<TreePage> {
        let (first, to) = self.sizes();
        let mut heads: Vec<StoredHead> = tree_heads::table
            .select(head_columns())
            .filter(tree_heads::tree_size.ge(first))
            .filter(tree_heads::tree_size.le(to))
            .order(tree_heads::tree_size)
            .limit(MAX_HEADS + 1)
            .load(connection)
            .await?;
        let heads_cut = cut_heads(&mut heads);
        let read = ReadCheckpoints { first, to };
        let rows: Vec<CheckpointTuple> = read.load(connection).await?;
        let read = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let last = rows.last();
        let checkpoints_cut = last.and_then(|(size, .., all)| (*all > read).then_some(*size));
        let checkpoints = rows.into_iter().map(|row| checkpoint_row(row, keys));
        let (cosignatures, cosignatures_cut) =
            ReadCosignatures::page((first, to), witnesses, keys, connection).await?;
        let ids = tile::changed(self.from, self.to).map(|(id, _)| id);
        let rows: Vec<(i16, i64, Vec<u8>)> = ReadTiles::new(ids).load(connection).await?;
        let (mut tiles, mut tiles_repeated) = (BTreeMap::new(), Vec::new());
        for (level, index, hashes) in rows {
            let Some(id) = tile_id(level, index) else {
                continue;
            };
            if tiles.insert(id, hashes).is_some() {
                tiles_repeated.push(id);
            }
        }
        Ok(TreePage {
            newest: newest(connection).await?,
            heads: heads.into_iter().map(|head| head.into_row(keys)).collect(),
            heads_cut,
            checkpoints: checkpoints.collect(),
            checkpoints_cut,
            cosignatures,
            cosignatures_cut,
            tiles,
            tiles_repeated,
        })
    }

    /// What is stored beyond it, where it is the last.
    pub(super) async fn end(
        &self,
        connection: &mut AsyncPgConnection,
        witnesses: &[VerifierKey],
    ) -> QueryResult<TreeEnd> {
        let (_, to) = self.sizes();
        let newest = newest(connection).await?;
        let heads = tree_heads::table
            .select(tree_heads::tree_size)
            .filter(tree_heads::tree_size.gt(to))
            .order(tree_heads::tree_size)
            .limit(MAX_BEYOND)
            .load(connection)
            .await?;
        let checkpoints = checkpoints::table
            .select(checkpoints::tree_size)
            .filter(checkpoints::tree_size.gt(newest))
            .order(checkpoints::tree_size)
            .limit(MAX_BEYOND)
            .load(connection)
            .await?;
        let cosignatures = cosignatures::table
            .select(cosignatures::tree_size)
            .filter(cosignatures::tree_size.gt(newest))
            .filter(cosignatures::witness.eq_any(witnesses.iter().map(witness_id)))
            .order(cosignatures::tree_size)
            .limit(MAX_BEYOND)
            .load(connection)
            .await?;
        let mut tiles = Vec::new();
        for level in 0..TILE_LEVELS {
            let hashes = newest >> (u32::from(level) * u32::from(tile::TILE_HEIGHT));
            let first = hashes.unsigned_abs().div_ceil(tile::TILE_WIDTH.into());
            let beyond: Vec<(i16, i64)> = tree_tiles::table
                .select((tree_tiles::level, tree_tiles::tile_index))
                .filter(tree_tiles::level.eq(i16::from(level)))
                .filter(tree_tiles::tile_index.ge(i64::try_from(first).unwrap_or(i64::MAX)))
                .order(tree_tiles::tile_index)
                .limit(MAX_BEYOND)
                .load(connection)
                .await?;
            tiles.extend(
                beyond
                    .into_iter()
                    .filter_map(|(level, index)| tile_id(level, index)),
            );
        }
        Ok(TreeEnd {
            newest,
            heads,
            checkpoints,
            cosignatures,
            tiles,
        })
    }
}

/// The notes of checkpoints of at least so many entries.
pub(super) async fn notes_from(
    connection: &mut AsyncPgConnection,
    size: u64,
) -> QueryResult<Vec<String>> {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    checkpoints::table
        .select(sql::<Text>("left(note, 65536)"))
        .filter(checkpoints::tree_size.ge(size))
        .order((checkpoints::tree_size, checkpoints::signed_at))
        .limit(MAX_LATE)
        .load(connection)
        .await
}

/// What is read of a head.
type HeadColumns = (
    tree_heads::tree_size,
    SqlLiteral<Binary>,
    SqlLiteral<Binary>,
    SqlLiteral<Text>,
    tree_heads::previous_size,
);

/// Each column is cut behind the longest that the service writes.
fn head_columns() -> HeadColumns {
    (
        tree_heads::tree_size,
        sql("substr(root_hash, 1, 33)"),
        sql("substr(mac, 1, 33)"),
        sql("left(mac_key_id, 1024)"),
        tree_heads::previous_size,
    )
}

/// Leaves the heads that are compared. Gives the size from which on some are not.
fn cut_heads(heads: &mut Vec<StoredHead>) -> Option<i64> {
    let most = usize::try_from(MAX_HEADS).unwrap_or(usize::MAX);
    if heads.len() <= most {
        return None;
    }
    heads.truncate(most);
    heads.last().map(StoredHead::size)
}

/// Entries of the newest head.
async fn newest(connection: &mut AsyncPgConnection) -> QueryResult<i64> {
    let newest = tree_heads::table
        .select(tree_heads::tree_size)
        .order(tree_heads::tree_size.desc())
        .first(connection)
        .await;
    Ok(newest.optional()?.unwrap_or(0))
}

fn tile_id(level: i16, index: i64) -> Option<TileId> {
    Some(TileId {
        level: level.try_into().ok()?,
        index: index.try_into().ok()?,
    })
}

/// Of which of these sizes there is one that the service stored so.
pub(super) async fn stored(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    kind: &Linked,
    sizes: &[u64],
) -> QueryResult<Vec<u64>> {
    let mut stored = Vec::new();
    for size in sizes {
        let Ok(column) = i64::try_from(*size) else {
            continue;
        };
        let ours = match kind {
            Linked::Heads => head_is_stored(connection, keys, column).await?,
            Linked::Checkpoints => checkpoint_is_stored(connection, keys, column).await?,
            Linked::Cosignatures(witness) => {
                ReadCosignatures::is_stored(column, witness, keys, connection).await?
            }
        };
        stored.extend(ours.then_some(*size));
    }
    Ok(stored)
}

async fn head_is_stored(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    size: i64,
) -> QueryResult<bool> {
    let head = tree_heads::table.select(head_columns());
    let head = head.filter(tree_heads::tree_size.eq(size));
    let head: Option<StoredHead> = head.first(connection).await.optional()?;
    Ok(head.is_some_and(|head| head.into_row(keys).mac == HeadMac::Ours))
}

async fn checkpoint_is_stored(
    connection: &mut AsyncPgConnection,
    keys: &KeyRing,
    size: i64,
) -> QueryResult<bool> {
    let (first, to) = (size, size);
    let rows: Vec<CheckpointTuple> = ReadCheckpoints { first, to }.load(connection).await?;
    // One under a key that is not known is there, and is reported where it is read.
    Ok(rows.iter().any(|row| match cells(row).mac(keys) {
        CheckpointMac::Ours | CheckpointMac::KeyUnknown(_) => true,
        CheckpointMac::Wrong => false,
    }))
}
