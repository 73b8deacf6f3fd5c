//! What the log says of erasures: it alone is believed.
//!
//! A row of `erasures` is only where to look. Whoever can write to the database could add one, so that a key is destroyed
//! for which nobody asked, or that one which is lost seems to be erased.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Text, Uuid as SqlUuid};
use quittance_domain::erasure::{ErasureDone, ErasureSaid};
use quittance_domain::ids::ErasureId;
use quittance_domain::reconciliation::StreamHead;
use quittance_domain::verification::UnjudgedErasure;
use quittance_evidence::{Leaf, leaf_hash};
use uuid::Uuid;

use crate::keys::KeyRing;
use crate::sequencer::{CLAIMED_COLUMNS, Claimed};
use crate::statement::statement;

/// An entry of an erasure's stream, with the erasure as its row says it is.
#[derive(Queryable)]
pub(crate) struct SaidRow {
    erasure_id: Uuid,
    customer_id: Uuid,
    tenant_id: String,
    /// Whether the row says that nothing more is to be done.
    closed: bool,
    entity_seq: i64,
    entry_id: Uuid,
    leaf: Vec<u8>,
    mac: Vec<u8>,
    mac_key_id: String,
}

/// Reads what the log says of the erasures of these customers: the first entries of each, of which there are two.
pub(crate) struct ReadSaid {
    customers: Vec<Uuid>,
    limit: i64,
}

impl ReadSaid {
    /// There is one erasure of a customer.
    pub(crate) fn of(customers: Vec<Uuid>) -> Self {
        let limit = i64::try_from(customers.len()).unwrap_or(i64::MAX);
        Self {
            customers,
            limit: limit.saturating_mul(4),
        }
    }
}

type SaidTypes = (
    SqlUuid,
    SqlUuid,
    Text,
    Bool,
    BigInt,
    SqlUuid,
    Binary,
    Binary,
    Text,
);

statement!(ReadSaid, ReadSaid, SaidTypes, |self, out| {
    out.push_sql(
        "select e.erasure_id, e.customer_id, e.tenant_id, e.finished_at is not null, j.entity_seq, j.entry_id, ",
    );
    out.push_sql(CLAIMED_COLUMNS);
    out.push_sql(
        " from erasures e \
         cross join lateral (select * from journal j where j.stream_id = e.erasure_id order by j.entity_seq limit 4) j \
         where e.customer_id = any(",
    );
    out.push_bind_param::<Array<SqlUuid>, _>(&self.customers)?;
    out.push_sql(") limit ");
    out.push_bind_param::<BigInt, _>(&self.limit)?;
});

impl SaidRow {
    fn claimed(&self) -> Claimed<'_> {
        Claimed {
            stream_id: self.erasure_id,
            entity_seq: self.entity_seq,
            entry_id: self.entry_id,
            leaf: &self.leaf,
            mac: &self.mac,
            mac_key_id: &self.mac_key_id,
        }
    }

    /// What the entry says, where this service wrote it and it is about the erasure that the row says.
    fn said(&self, ring: &KeyRing) -> Option<ErasureSaid> {
        if !self.claimed().is_authentic(ring) {
            return None;
        }
        let said = ErasureSaid::of(&Leaf::decode(&self.leaf).ok()?)?;
        (said.customer.0 == self.customer_id && said.tenant == self.tenant_id).then_some(said)
    }
}

/// An erasure of which nothing can be said here: what the log says of it is under a key that the ring lacks.
pub(super) fn unjudged(rows: &[SaidRow], ring: &KeyRing) -> Option<Uuid> {
    let known = |erasure: &Uuid| asked(rows, *erasure, ring).is_some();
    let lacking = rows.iter().filter(|row| row.claimed().lacks_key(ring));
    let mut lacking = lacking.map(|row| row.erasure_id);
    lacking.find(|erasure| !known(erasure))
}

/// The customers of whom it is not known here whether their data was erased, since an entry that may say so is under a key that
/// the ring lacks.
pub(crate) fn undecided(rows: &[SaidRow], ring: &KeyRing) -> BTreeMap<Uuid, UnjudgedErasure> {
    let is_done = |erasure| asked(rows, erasure, ring).is_some_and(|asked| asked.done.is_some());
    let lacking = rows.iter().filter(|row| row.claimed().lacks_key(ring));
    let undecided = lacking.filter(|row| !is_done(row.erasure_id));
    let undecided = undecided.map(|row| {
        let erasure = UnjudgedErasure {
            erasure: ErasureId(row.erasure_id),
            key: row.mac_key_id.clone(),
        };
        (row.customer_id, erasure)
    });
    undecided.collect()
}

/// The customers of whom the log says that their data was erased, or that it is to be and that it may be under way.
pub(crate) fn erased(rows: &[SaidRow], ring: &KeyRing) -> BTreeSet<Uuid> {
    customers(rows, ring, |said, row| said.done.is_some() || !row.closed)
}

/// The customers of whom the log says that their data was erased.
pub(crate) fn done(rows: &[SaidRow], ring: &KeyRing) -> BTreeSet<Uuid> {
    customers(rows, ring, |said, _| said.done.is_some())
}

/// The customers of whom the log says that, and the row that nobody will look for more.
pub(crate) fn closed(rows: &[SaidRow], ring: &KeyRing) -> BTreeSet<Uuid> {
    customers(rows, ring, |said, row| said.done.is_some() && row.closed)
}

/// The customers of whom the log says that their data is to be erased, or was.
pub(super) fn requested(rows: &[SaidRow], ring: &KeyRing) -> BTreeSet<Uuid> {
    customers(rows, ring, |_, _| true)
}

fn customers(
    rows: &[SaidRow],
    ring: &KeyRing,
    which: impl Fn(&ErasureSaid, &SaidRow) -> bool,
) -> BTreeSet<Uuid> {
    let believed = rows.iter().filter_map(|row| {
        let said = row.said(ring)?;
        which(&said, row).then_some(row.customer_id)
    });
    believed.collect()
}

/// What the log says of one erasure.
pub(crate) struct Asked {
    /// That it was done, where it says so.
    pub(crate) done: Option<ErasureDone>,
    /// The newest of its entries.
    pub(super) head: StreamHead,
}

/// Whether the log says that this erasure was asked for.
pub(crate) fn asked(rows: &[SaidRow], erasure: Uuid, ring: &KeyRing) -> Option<Asked> {
    let mut newest: Option<Asked> = None;
    for row in rows.iter().filter(|row| row.erasure_id == erasure) {
        let Some(said) = row.said(ring) else { continue };
        let Ok(entity_seq) = u64::try_from(row.entity_seq) else {
            continue;
        };
        let before = newest.as_ref().and_then(|asked| asked.done);
        let done = said.done.or(before);
        let leaf_hash = *leaf_hash(&row.leaf).as_bytes();
        let known = newest.as_ref().map_or(0, |asked| asked.head.entity_seq);
        if entity_seq > known {
            let head = StreamHead {
                entity_seq,
                leaf_hash,
            };
            newest = Some(Asked { done, head });
        }
    }
    newest
}
