//! The tree's statements.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, SmallInt, Text, Uuid as SqlUuid};
use quittance_evidence::tile::{Tile, TileId};
use uuid::Uuid;

use super::heads::StoredHead;
use super::{Lease, TreeHead};
use crate::keys::{KeyRing, TreeHeadFacts};
use crate::sequencer::{Arrived, CLAIMED_COLUMNS};
use crate::statement::statement;

/// The newest head, and how many entries have a position.
#[derive(Queryable)]
pub(super) struct NewestHead {
    next_position: i64,
    tree_size: Option<i64>,
    root_hash: Option<Vec<u8>>,
    mac: Option<Vec<u8>>,
    mac_key_id: Option<String>,
    previous_size: Option<i64>,
}

impl NewestHead {
    /// How many entries have a position, and the head, where there is one.
    pub(super) fn into_parts(self) -> (i64, Option<StoredHead>) {
        let head = || {
            Some(StoredHead {
                tree_size: self.tree_size?,
                root_hash: self.root_hash?,
                mac: self.mac?,
                mac_key_id: self.mac_key_id?,
                previous_size: self.previous_size,
            })
        };
        (self.next_position, head())
    }
}

/// Reads them.
pub(super) struct ReadNewestHead;

statement!(
    ReadNewestHead,
    ReadNewestHead,
    (
        BigInt,
        Nullable<BigInt>,
        Nullable<Binary>,
        Nullable<Binary>,
        Nullable<Text>,
        Nullable<BigInt>
    ),
    |self, out| {
        out.push_sql(
            "select s.next_position, h.tree_size, h.root_hash, h.mac, h.mac_key_id, h.previous_size \
             from sequencer_head s left join \
             (select * from tree_heads order by tree_size desc limit 1) h on true",
        );
    }
);

/// Most tiles that are read of one place: there is one, and a second where somebody dropped the key and put another in.
const TILES_OF_A_PLACE: i64 = 2;

/// Reads tiles by their places, at most [`TILES_OF_A_PLACE`] of each.
pub(crate) struct ReadTiles {
    levels: Vec<i16>,
    indexes: Vec<i64>,
}

impl ReadTiles {
    pub(crate) fn new(ids: impl IntoIterator<Item = TileId>) -> Self {
        let place = |id: TileId| {
            // No tile has an index beyond the column's range.
            let index = i64::try_from(id.index).unwrap_or(-1);
            (i16::from(id.level), index)
        };
        let (levels, indexes) = ids.into_iter().map(place).unzip();
        Self { levels, indexes }
    }
}

statement!(
    ReadTiles,
    ReadTiles,
    (SmallInt, BigInt, Binary),
    |self, out| {
        // Cut behind a full one: whoever made it longer does not fill the memory.
        out.push_sql("select t.level, t.tile_index, substr(t.hashes, 1, 8193) from unnest(");
        out.push_bind_param::<Array<SmallInt>, _>(&self.levels)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<BigInt>, _>(&self.indexes)?;
        out.push_sql(
            ") as p (level, tile_index) cross join lateral (select * from tree_tiles t \
             where t.level = p.level and t.tile_index = p.tile_index limit ",
        );
        out.push_bind_param::<BigInt, _>(&TILES_OF_A_PLACE)?;
        out.push_sql(") t");
    }
);

/// An entry with its position.
#[derive(Queryable)]
pub(super) struct Placed {
    pub(super) position: i64,
    arrival: i64,
    entry_id: Uuid,
    stream_id: Uuid,
    entity_seq: i64,
    tenant_id: Option<String>,
    leaf: Vec<u8>,
    mac: Vec<u8>,
    mac_key_id: String,
}

impl Placed {
    pub(super) fn into_row(self) -> Arrived {
        Arrived {
            arrival: self.arrival,
            entry_id: self.entry_id,
            stream_id: self.stream_id,
            entity_seq: self.entity_seq,
            tenant_id: self.tenant_id,
            leaf: self.leaf,
            mac: self.mac,
            mac_key_id: self.mac_key_id,
        }
    }
}

/// Reads entries from a position on.
pub(super) struct ReadPlaced {
    pub(super) from: i64,
    pub(super) limit: i64,
}

type PlacedTypes = (
    BigInt,
    BigInt,
    SqlUuid,
    SqlUuid,
    BigInt,
    Nullable<Text>,
    Binary,
    Binary,
    Text,
);

statement!(ReadPlaced, ReadPlaced, PlacedTypes, |self, out| {
    out.push_sql(
        "select p.position, p.arrival, p.entry_id, p.stream_id, p.entity_seq, left(p.tenant_id, 1024), ",
    );
    out.push_sql(CLAIMED_COLUMNS);
    out.push_sql(
        " from journal_positions p \
         join journal j on j.stream_id = p.stream_id and j.entity_seq = p.entity_seq where p.position >= ",
    );
    out.push_bind_param::<BigInt, _>(&self.from)?;
    out.push_sql(" order by p.position limit ");
    out.push_bind_param::<BigInt, _>(&self.limit)?;
});

/// Grows the tree: the new head and the tiles that changed, all or nothing, and nothing where the fence does not
/// hold or the head is not the one that it grew from. Answers how many heads were written.
pub(super) struct Grow {
    pub(super) lease: Lease,
    pub(super) old_size: i64,
    pub(super) new_size: i64,
    pub(super) root: Vec<u8>,
    pub(super) mac: Vec<u8>,
    pub(super) mac_key_id: String,
    pub(super) levels: Vec<i16>,
    pub(super) indexes: Vec<i64>,
    pub(super) hashes: Vec<Vec<u8>>,
}

impl Grow {
    /// `None` where a size is beyond the column's range.
    pub(super) fn new(lease: Lease, old_size: u64, new: TreeHead, ring: &KeyRing) -> Option<Self> {
        let (mac, mac_key_id) = ring.tree_head_mac(TreeHeadFacts {
            size: new.size,
            root: new.root.as_bytes(),
            previous: Some(old_size),
        });
        Some(Self {
            lease,
            old_size: i64::try_from(old_size).ok()?,
            new_size: i64::try_from(new.size).ok()?,
            root: new.root.as_bytes().to_vec(),
            mac: mac.to_vec(),
            mac_key_id,
            levels: Vec::new(),
            indexes: Vec::new(),
            hashes: Vec::new(),
        })
    }

    /// Adds a tile. `None` where its index is beyond the column's range.
    pub(super) fn push(&mut self, id: TileId, tile: &Tile) -> Option<()> {
        self.indexes.push(i64::try_from(id.index).ok()?);
        self.levels.push(i16::from(id.level));
        self.hashes.push(tile.encode());
        Some(())
    }
}

statement!(Grow, Grow, BigInt, |self, out| {
    // Locked: nobody takes over before this is written, or this waits, and finds the fence raised.
    out.push_sql("with fence as (select fence from sequencer_head where holder = ");
    out.push_bind_param::<SqlUuid, _>(&self.lease.holder)?;
    out.push_sql(" and fence = ");
    out.push_bind_param::<BigInt, _>(&self.lease.fence)?;
    // And only over entries that have their positions in this database: it may have lost some since they got them.
    out.push_sql(" and next_position >= ");
    out.push_bind_param::<BigInt, _>(&self.new_size)?;
    out.push_sql(
        " for share), grown as (insert into tree_heads \
         (tree_size, root_hash, mac, mac_key_id, previous_size, fence) select ",
    );
    out.push_bind_param::<BigInt, _>(&self.new_size)?;
    out.push_sql(", ");
    out.push_bind_param::<Binary, _>(&self.root)?;
    out.push_sql(", ");
    out.push_bind_param::<Binary, _>(&self.mac)?;
    out.push_sql(", ");
    out.push_bind_param::<Text, _>(&self.mac_key_id)?;
    out.push_sql(", ");
    out.push_bind_param::<BigInt, _>(&self.old_size)?;
    out.push_sql(
        ", fence from fence where coalesce((select max(tree_size) from tree_heads), 0) = ",
    );
    out.push_bind_param::<BigInt, _>(&self.old_size)?;
    out.push_sql(
        " returning 1), stored as (insert into tree_tiles (level, tile_index, hashes) \
         select t.level, t.tile_index, t.hashes from unnest(",
    );
    out.push_bind_param::<Array<SmallInt>, _>(&self.levels)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<BigInt>, _>(&self.indexes)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<Binary>, _>(&self.hashes)?;
    out.push_sql(
        ") as t (level, tile_index, hashes) where exists (select 1 from grown) \
         on conflict (level, tile_index) do update set hashes = excluded.hashes) \
         select count(*) from grown",
    );
});
