//! Where the entries of a payment are in the tree.
//!
//! A position is a row, and whoever can write to the database can write another. So it is only where to look: an entry is at a
//! place of the tree where the tile there holds its leaf hash, and a proof from that tile leads to the signed root. One whose
//! position says something else is looked for near the entries that arrived before and behind it, and reported.

use std::collections::BTreeSet;

use diesel::sql_types::{BigInt, Binary, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::PaymentId;
use quittance_domain::ports::StoreError;
use quittance_evidence::tile::{TILE_WIDTH, TileSet};
use quittance_evidence::tree::NodeId;
use quittance_evidence::{Hash, leaf_hash};
use uuid::Uuid;

use super::column;
use crate::keys::KeyRing;
use crate::payment_row::ReadAs as _;
use crate::sequencer::{CLAIMED_COLUMNS, claimed};
use crate::statement::statement;
use crate::store::PgStore;
use crate::tree::{TreeDamage, TreeReadError};
use crate::warning::Thinned;

/// Most positions of one entry that are looked at. It has one; more need a constraint to be dropped.
const MAX_CLAIMED: i64 = 4;
/// So many entries that arrived before an entry, and so many behind it, tell near which place to look for it.
const NEIGHBOURS: i64 = 8;

static FORGED: Thinned = Thinned::new();

/// An entry that is in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedEntry {
    /// Its number within the payment.
    pub entity_seq: u64,
    /// Its bytes.
    pub leaf: Vec<u8>,
    /// Its place in the log: the tile there holds its leaf hash.
    pub position: u64,
}

/// Some of a payment's entries that are in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedEntries {
    /// In their order.
    pub entries: Vec<MergedEntry>,
    /// Whether no more of them are in that tree.
    pub done: bool,
}

/// How an entry is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Where the database says that it is.
    Told,
    /// Near those that arrived about when it did, too.
    Near,
    /// The same, behind the payment's newest entry: it may be none.
    Behind,
}

/// An entry, with what the database says of its place.
struct Claim {
    stream_id: Uuid,
    entity_seq: i64,
    entry_id: Uuid,
    leaf: Vec<u8>,
    mac: Vec<u8>,
    mac_key_id: String,
    hash: Hash,
    arrival: i64,
    positions: Vec<u64>,
    /// How many entries have a position.
    next_position: i64,
    /// Every arrival below has its position, or never comes.
    low_arrival: i64,
}

claimed!(Claim);

impl Claim {
    /// Whether the entry may be on its way: it has no position yet, or one that the tree of so many entries does not hold.
    fn is_under_way(&self, tree: u64) -> bool {
        let next = u64::try_from(self.next_position).unwrap_or(0);
        if self.positions.is_empty() {
            return self.arrival >= self.low_arrival;
        }
        self.positions.iter().all(|at| (tree..next).contains(at))
    }

    /// Whether somebody put the row in: its bytes are not ours, or are another entry's, and no place of the tree is said to
    /// be its. One that we wrote and that was changed since has one.
    fn is_put_in(&self, tree: u64, ring: &KeyRing) -> bool {
        !self.positions.iter().any(|at| *at < tree) && !self.claimed().is_authentic(ring)
    }

    /// The place that it claims, where it is there.
    fn proved(&self, tree: u64, tiles: &TileSet) -> Option<u64> {
        let mut positions = self.positions.iter().copied();
        positions.find(|at| *at < tree && leaf_at(tiles, *at) == Some(self.hash))
    }
}

fn node(index: u64) -> NodeId {
    NodeId { level: 0, index }
}

fn leaf_at(tiles: &TileSet, index: u64) -> Option<Hash> {
    tiles.node(node(index)).ok()
}

/// Reads a payment's entries behind one, with their positions, and how far the sequencer is at that moment.
struct ReadClaims {
    stream: Uuid,
    after: i64,
    limit: i64,
}

type ClaimTypes = (
    BigInt,
    SqlUuid,
    (Binary, Binary, Text),
    BigInt,
    Nullable<BigInt>,
    BigInt,
    BigInt,
);

type ClaimTuple = (
    i64,
    Uuid,
    (Vec<u8>, Vec<u8>, String),
    i64,
    Option<i64>,
    i64,
    i64,
);

statement!(ReadClaims, ReadClaims, ClaimTypes, |self, out| {
    out.push_sql("select j.entity_seq, j.entry_id, ");
    out.push_sql(CLAIMED_COLUMNS);
    out.push_sql(
        ", j.arrival, p.position, coalesce(h.next_position, 0), coalesce(h.low_arrival, 9223372036854775807) from (\
         select * from journal where stream_id = ",
    );
    out.push_bind_param::<SqlUuid, _>(&self.stream)?;
    out.push_sql(" and entity_seq > ");
    out.push_bind_param::<BigInt, _>(&self.after)?;
    out.push_sql(" order by entity_seq limit ");
    out.push_bind_param::<BigInt, _>(&self.limit)?;
    // Of the entry, whatever arrival somebody gave it since.
    out.push_sql(
        ") j left join lateral (select position from journal_positions p \
         where p.stream_id = j.stream_id and p.entity_seq = j.entity_seq order by position limit ",
    );
    out.push_bind_param::<BigInt, _>(&MAX_CLAIMED)?;
    out.push_sql(") p on true left join sequencer_head h on true order by j.entity_seq");
});

/// Reads the positions of those that arrived next to an entry.
struct ReadNeighbours {
    arrival: i64,
}

statement!(ReadNeighbours, ReadNeighbours, BigInt, |self, out| {
    out.push_sql("(select position from journal_positions where arrival < ");
    out.push_bind_param::<BigInt, _>(&self.arrival)?;
    out.push_sql(" order by arrival desc limit ");
    out.push_bind_param::<BigInt, _>(&NEIGHBOURS)?;
    out.push_sql(") union all (select position from journal_positions where arrival > ");
    out.push_bind_param::<BigInt, _>(&self.arrival)?;
    out.push_sql(" order by arrival limit ");
    out.push_bind_param::<BigInt, _>(&NEIGHBOURS)?;
    out.push_sql(")");
});

impl PgStore {
    /// Place in the tree of one entry of a payment; `None` while it has none. With `eagerly` it is also looked for where
    /// the database says that it is not there yet.
    ///
    /// # Errors
    /// `Damaged`: the entry is gone, or is not where it should be by now.
    pub async fn place_of(
        &self,
        payment: PaymentId,
        entity_seq: u64,
        eagerly: bool,
    ) -> Result<Option<u64>, TreeReadError> {
        // First: whatever it holds had its position before the claim is read.
        let tree = self.tree_head().await?.map_or(0, |head| head.size);
        let before = entity_seq.saturating_sub(1);
        let claims = self.claims(payment, before, 1).await?;
        let mut own = claims.iter();
        let own = own.find(|claim| claim.entity_seq == column(entity_seq));
        let claim = own.ok_or(TreeDamage::EntryMissing)?;
        let tiles = self.tiles_of(&claims, tree).await?;
        let look = if eagerly { Look::Near } else { Look::Told };
        self.place(claim, tree, &tiles, look).await
    }

    /// The payment's entries behind number `after` that are in the tree of `tree_size` entries, in their order, at most
    /// `limit`; those up to number `last` must be. Once a checkpoint of that size is there, nothing is added to them any
    /// more. Rows behind that number which this service did not write are passed over, and reported.
    ///
    /// # Errors
    /// `Damaged`: one of them is not in the tree.
    pub async fn merged_entries(
        &self,
        payment: PaymentId,
        after: u64,
        last: u64,
        tree_size: u64,
        limit: usize,
    ) -> Result<MergedEntries, TreeReadError> {
        let claims = self.claims(payment, after, limit).await?;
        let tiles = self.tiles_of(&claims, tree_size).await?;
        let mut merged = MergedEntries {
            entries: Vec::with_capacity(claims.len()),
            done: claims.len() < limit,
        };
        for claim in claims {
            let entity_seq = u64::try_from(claim.entity_seq).at("journal.entity_seq")?;
            let look = if entity_seq > last {
                Look::Behind
            } else {
                Look::Near
            };
            match self.place(&claim, tree_size, &tiles, look).await? {
                Some(position) => merged.entries.push(MergedEntry {
                    entity_seq,
                    leaf: claim.leaf,
                    position,
                }),
                None if entity_seq <= last => {
                    self.report_forged_positions(1);
                    return Err(TreeDamage::Position.into());
                }
                None => {
                    merged.done = true;
                    break;
                }
            }
        }
        Ok(merged)
    }

    /// Entries of a payment behind one of them, each once.
    async fn claims(
        &self,
        payment: PaymentId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.read("read merged entries", |connection| {
            let query = ReadClaims {
                stream: payment.0,
                after: column(after),
                limit,
            };
            async move { query.load::<ClaimTuple>(connection).await }.boxed()
        });
        let mut claims: Vec<Claim> = Vec::new();
        for (entity_seq, entry_id, written, arrival, position, next_position, low_arrival) in
            read.await?
        {
            let (leaf, mac, mac_key_id) = written;
            let position = position.and_then(|at| u64::try_from(at).ok());
            match claims.last_mut() {
                Some(known) if known.entity_seq == entity_seq => known.positions.extend(position),
                Some(_) | None => claims.push(Claim {
                    stream_id: payment.0,
                    entity_seq,
                    entry_id,
                    mac,
                    mac_key_id,
                    hash: leaf_hash(&leaf),
                    leaf,
                    arrival,
                    positions: position.into_iter().collect(),
                    next_position,
                    low_arrival,
                }),
            }
        }
        Ok(claims)
    }

    /// The tiles that hold what is claimed.
    async fn tiles_of(&self, claims: &[Claim], tree: u64) -> Result<TileSet, TreeReadError> {
        let positions = claims.iter().flat_map(|claim| &claim.positions).copied();
        let inside = positions.filter(|at| *at < tree);
        self.tiles_holding(inside.map(node)).await
    }

    async fn place(
        &self,
        claim: &Claim,
        tree: u64,
        tiles: &TileSet,
        look: Look,
    ) -> Result<Option<u64>, TreeReadError> {
        if look == Look::Behind && claim.is_put_in(tree, &self.inner.keys) {
            self.report_put_in(1);
            return Ok(None);
        }
        let proved = claim.proved(tree, tiles);
        let right = usize::from(proved.is_some());
        if proved.is_some() {
            self.report_forged_positions(claim.positions.len().saturating_sub(right));
            return Ok(proved);
        }
        let under_way = claim.is_under_way(tree);
        if under_way && look == Look::Told {
            return Ok(None);
        }
        let found = self.search(claim, tree).await?;
        if found.is_none() && under_way {
            return Ok(None);
        }
        self.report_forged_positions(claim.positions.len().max(1));
        let found = found.ok_or(TreeDamage::Position)?;
        Ok(Some(found))
    }

    /// Looks for an entry in the tiles near those that arrived about when it did.
    async fn search(&self, claim: &Claim, tree: u64) -> Result<Option<u64>, TreeReadError> {
        let arrival = claim.arrival;
        let read = self.inner.reader.read("find position", |connection| {
            async move { ReadNeighbours { arrival }.load::<i64>(connection).await }.boxed()
        });
        let width = u64::from(TILE_WIDTH);
        let near = read
            .await?
            .into_iter()
            .filter_map(|at| u64::try_from(at).ok());
        let near = near.map(|at| at / width);
        let tiles: BTreeSet<u64> = near
            .flat_map(|tile| tile.saturating_sub(1)..=tile.saturating_add(1))
            .filter(|tile| tile.checked_mul(width).is_some_and(|first| first < tree))
            .collect();
        let nodes = tiles.iter().map(|tile| node(tile * width));
        let tiles = self.tiles_holding(nodes).await?;
        let found = tiles.iter().find_map(|(id, tile)| {
            let place = tile.hashes().iter().position(|hash| *hash == claim.hash)?;
            Some(id.index * width + u64::try_from(place).ok()?)
        });
        Ok(found.filter(|at| *at < tree))
    }

    fn report_forged_positions(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.inner.observer.verification_failed("position", count);
        if FORGED.due().is_some() {
            tracing::error!(
                count,
                "entries are not in the tree where their positions say: the positions are passed over"
            );
        }
    }
}
