//! How far the tree is behind the journal.
//!
//! An entry that was refused is not waited for; but anybody who can write to the database can say that one was refused. So
//! only those count as refused that really are not ours: each is judged by the rule by which the sequencer judges it. But one of
//! ours that the sequencer refuses since its columns were changed (tenant, arrival) is in no tree, and is waited for. How old an
//! entry is, its bytes say, where they are ours, and not the column beside them. One that cannot be judged is at least as old as
//! this process knows of it, whatever its column says.
//!
//! What the sequencer was kept from finding, the database does not say: see [`super::own`] and [`HeadFault`].

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use parking_lot::Mutex;
use quittance_domain::ports::StoreError;
use quittance_evidence::Leaf;
use uuid::Uuid;

use crate::keys::KeyRing;
use crate::sequencer::{CLAIMED_COLUMNS, HeadFault, PLACED, claimed};
use crate::statement::statement;
use crate::store::PgStore;
use crate::warning::Thinned;

/// Refused entries that are read at once: 8 MiB of them at most, and commonly 128 KiB.
const PAGE: usize = 128;
/// The same.
const PAGE_ROWS: i64 = 128;
/// Most pages of them that are judged at one look. More than 4,000 forged rows raise an alarm of their own.
const MAX_PAGES: usize = 32;

static UNJUDGED: Thinned = Thinned::new();

/// An entry without a place in the tree. Each column is cut behind the longest that the service writes.
#[derive(Queryable)]
struct Pending {
    arrival: i64,
    stream_id: Uuid,
    entity_seq: i64,
    entry_id: Uuid,
    leaf: Vec<u8>,
    mac: Vec<u8>,
    mac_key_id: String,
    occurred_at: DateTime<Utc>,
}

type PendingTypes = (
    BigInt,
    SqlUuid,
    BigInt,
    SqlUuid,
    Binary,
    Binary,
    Text,
    Timestamptz,
);

/// The columns of a [`Pending`].
fn pending(out: &mut AstPass<'_, '_, Pg>, before: &'static str) {
    out.push_sql(before);
    out.push_sql("select j.arrival, j.stream_id, j.entity_seq, j.entry_id, ");
    out.push_sql(CLAIMED_COLUMNS);
    out.push_sql(", least(greatest(j.occurred_at, '2000-01-01'), '2200-01-01') ");
}

/// A row of the journal.
type RowKey = (i64, Uuid, i64);

/// Since when this process has known of entries that it cannot judge.
#[derive(Debug, Default)]
pub(crate) struct KnownSince(Mutex<BTreeMap<RowKey, DateTime<Utc>>>);

impl KnownSince {
    /// Since when each of these rows is known; others are forgotten.
    fn of(&self, rows: impl Iterator<Item = RowKey>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut known = self.0.lock();
        let before = std::mem::take(&mut *known);
        *known = rows
            .map(|row| (row, before.get(&row).copied().unwrap_or(now)))
            .collect();
        known.values().copied().collect()
    }
}

claimed!(Pending);

impl Pending {
    fn key(&self) -> RowKey {
        (self.arrival, self.stream_id, self.entity_seq)
    }

    fn since(&self, ring: &KeyRing) -> DateTime<Utc> {
        let authentic = self.claimed().is_authentic(ring);
        let leaf = authentic.then(|| Leaf::decode(&self.leaf).ok()).flatten();
        leaf.map_or(self.occurred_at, |leaf| leaf.occurred_at)
    }
}

/// The first entry with a position that is not in the tree, and the first without one that nobody calls refused.
struct ReadPending;

statement!(ReadPending, ReadPending, PendingTypes, |self, out| {
    pending(&mut out, "(");
    out.push_sql(
        "from journal_positions p join journal j on j.stream_id = p.stream_id and j.entity_seq = p.entity_seq \
         where p.position >= coalesce((select max(tree_size) from tree_heads), 0) order by p.position limit 1)",
    );
    pending(&mut out, " union all (");
    // Where the sequencer's mark cannot be true: what arrived after the last that has a position.
    out.push_sql(
        "from journal j where j.arrival >= coalesce((select min(h.low_arrival) from sequencer_head h, journal_arrival s \
         where h.low_arrival::numeric - 1 <= s.last_value), (select max(p.arrival) from journal_positions p), 0) \
         and not exists (select 1 from journal_positions p where p.arrival = j.arrival) \
         and not exists (select 1 from refused_entries r where r.arrival = j.arrival \
         and r.stream_id = j.stream_id and r.entity_seq = j.entity_seq) order by j.arrival limit 1)",
    );
});

/// Entries without a position that are called refused, from one on. Wherever the sequencer is: one that is called refused
/// while its number is a hole is passed by.
#[derive(Clone, Copy)]
struct ReadRefused {
    arrival: i64,
    stream: Uuid,
    entity_seq: i64,
}

impl ReadRefused {
    const FIRST: Self = Self {
        arrival: i64::MIN,
        stream: Uuid::nil(),
        entity_seq: i64::MIN,
    };

    /// With that one again: so that none is left out, whatever numbers somebody writes.
    fn from(row: &Pending) -> Self {
        Self {
            arrival: row.arrival,
            stream: row.stream_id,
            entity_seq: row.entity_seq,
        }
    }
}

statement!(ReadRefused, ReadRefused, PendingTypes, |self, out| {
    pending(&mut out, "");
    out.push_sql(
        "from refused_entries r join journal j on j.stream_id = r.stream_id and j.entity_seq = r.entity_seq \
         and j.arrival = r.arrival where (r.arrival, r.stream_id, r.entity_seq) >= (",
    );
    out.push_bind_param::<BigInt, _>(&self.arrival)?;
    out.push_sql(", ");
    out.push_bind_param::<SqlUuid, _>(&self.stream)?;
    out.push_sql(", ");
    out.push_bind_param::<BigInt, _>(&self.entity_seq)?;
    out.push_sql(
        ") and not exists (select 1 from journal_positions p \
         where p.stream_id = r.stream_id and p.entity_seq = r.entity_seq) \
         order by r.arrival, r.stream_id, r.entity_seq limit ",
    );
    out.push_bind_param::<BigInt, _>(&PAGE_ROWS)?;
});

/// The sequencer's mark, the last arrival that was given out, and the greatest that has a position; the next position that the
/// sequencer's head says, how many there are below it, and the last of all.
struct ReadMarks;

type Marks = (
    Option<i64>,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);
type MarkTypes = (
    Nullable<BigInt>,
    BigInt,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Nullable<BigInt>,
    Nullable<BigInt>,
);

statement!(ReadMarks, ReadMarks, MarkTypes, |self, out| {
    out.push_sql(
        "select s.low_arrival, a.last_value, (select max(arrival) from journal_positions), s.next_position, ",
    );
    out.push_sql(PLACED);
    out.push_sql(
        ", (select max(position) from journal_positions) \
         from journal_arrival a left join sequencer_head s on true",
    );
});

impl PgStore {
    /// Age in seconds of the oldest entry that the tree does not hold, sequenced or not; 0 where it holds all. Raises the
    /// alarm where the sequencer is kept from finding one.
    ///
    /// # Errors
    /// The database could not be read.
    pub async fn oldest_pending_entry_age(&self) -> Result<f64, StoreError> {
        let read = self.inner.reader.scan("read audit lag", |connection| {
            async move { ReadPending.load::<Pending>(connection).await }.boxed()
        });
        let ring = &self.inner.keys;
        let pending = read.await?;
        let now = self.clock().now();
        let unjudged = pending
            .iter()
            .filter(|row| !row.claimed().is_authentic(ring));
        let known = &self.inner.tree.known_since;
        let known = known.of(unjudged.map(Pending::key), now);
        let waiting = pending.iter().map(|row| row.since(ring));
        let hidden = self.oldest_called_refused().await?;
        let own = self.oldest_own_entry_age().await?;
        self.judge_marks().await?;
        let Some(oldest) = waiting.chain(known).chain(hidden).min() else {
            return Ok(own);
        };
        let age = self.clock().now() - oldest;
        let age = age.to_std().unwrap_or_default().as_secs_f64();
        Ok(age.max(own))
    }

    /// Raises the alarm where the sequencer's mark, or a position, is beyond what arrived, or the next position is not the one
    /// behind the last that there is.
    async fn judge_marks(&self) -> Result<(), StoreError> {
        let read = self
            .inner
            .reader
            .scan("read sequencer marks", |connection| {
                async move { ReadMarks.load::<Marks>(connection).await }.boxed()
            });
        for (low, given, arrived, next, placed, last) in read.await? {
            let fault = HeadFault::of(low, given, arrived)
                .or_else(|| HeadFault::of_positions(next?, placed?, last));
            if let Some(fault) = fault {
                fault.report(self.inner.observer.as_ref());
            }
        }
        Ok(())
    }

    /// Since when the oldest entry waits that is called refused, and is ours all the same.
    async fn oldest_called_refused(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let ring = &self.inner.keys;
        let (mut at, mut oldest) = (ReadRefused::FIRST, None);
        for _ in 0..MAX_PAGES {
            let read = self
                .inner
                .reader
                .scan("read refused entries", |connection| {
                    async move { at.load::<Pending>(connection).await }.boxed()
                });
            let rows = read.await?;
            let ours = rows.iter().filter(|row| !row.claimed().is_forged(ring));
            oldest = ours.map(|row| row.since(ring)).chain(oldest).min();
            match rows.last() {
                Some(last) if rows.len() >= PAGE => at = ReadRefused::from(last),
                Some(_) | None => return Ok(oldest),
            }
        }
        self.inner.observer.verification_failed("entry", 1);
        if UNJUDGED.due().is_some() {
            tracing::error!(
                count = MAX_PAGES * PAGE,
                "more entries than this are refused: it is not known whether one behind them is ours"
            );
        }
        Ok(oldest)
    }
}
