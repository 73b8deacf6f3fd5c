//! The sequencer's statements. Each has a type of its own, so that it is prepared once.

use std::collections::BTreeSet;

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::AstPass;
use diesel::sql_types::{Array, BigInt, Binary, Double, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use super::authentic::{CLAIMED_COLUMNS, CLAIMED_TENANT, Judged};
use super::seal::{SEALED_PARTS, Sealing};
use crate::statement::statement;

/// The head, as its new holder finds it.
#[derive(Queryable)]
pub(super) struct Head {
    pub(super) fence: i64,
    pub(super) next_position: i64,
    pub(super) low_arrival: i64,
    /// The last arrival that was given out.
    pub(super) given: i64,
}

/// Takes the lease where it has run out; raises the fence.
pub(super) struct Acquire {
    pub(super) holder: Uuid,
    /// Who it was before: one that lost its connection need not wait for its own lease.
    pub(super) before: Uuid,
    pub(super) lease_seconds: f64,
}

statement!(
    Acquire,
    Acquire,
    (BigInt, BigInt, BigInt, BigInt),
    |self, out| {
        out.push_sql("update sequencer_head set fence = fence + 1, holder = ");
        out.push_bind_param::<SqlUuid, _>(&self.holder)?;
        out.push_sql(", lease_until = clock_timestamp() + make_interval(secs => ");
        out.push_bind_param::<Double, _>(&self.lease_seconds)?;
        out.push_sql(") where holder is null or lease_until < clock_timestamp() or holder = ");
        out.push_bind_param::<SqlUuid, _>(&self.before)?;
        out.push_sql(" returning fence, next_position, low_arrival, (select last_value from journal_arrival)");
    }
);

/// Gives the lease back.
pub(super) struct Release {
    pub(super) holder: Uuid,
    pub(super) fence: i64,
}

statement!(Release, Release, BigInt, |self, out| {
    out.push_sql("update sequencer_head set holder = null where holder = ");
    out.push_bind_param::<SqlUuid, _>(&self.holder)?;
    out.push_sql(" and fence = ");
    out.push_bind_param::<BigInt, _>(&self.fence)?;
});

/// SQL: how many entries have a position, of a row `s` of `sequencer_head`. Nothing vouches for that row, and any holder of the
/// application's role can insert a position, however large: counted is up to the last position below the one that the row names.
pub(crate) const PLACED: &str = "coalesce((select max(p.position) from journal_positions p where p.position < s.next_position), -1) + 1";

/// Reads how many entries have a position.
pub(crate) struct ReadHead;

statement!(ReadHead, ReadHead, BigInt, |self, out| {
    out.push_sql("select ");
    out.push_sql(PLACED);
    out.push_sql(" from sequencer_head s");
});

/// A run of arrivals without a position below one that has one; empty (`from` > `to`) for the last.
#[derive(Queryable)]
pub(super) struct Gap {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) below: i64,
}

/// Finds the holes among the arrivals from `low` on.
pub(super) struct FirstGaps {
    pub(super) low: i64,
}

statement!(
    FirstGaps,
    FirstGaps,
    (BigInt, BigInt, BigInt),
    |self, out| {
        out.push_sql(
            "select previous + 1, arrival - 1, arrival from (\
             select arrival, lag(arrival) over (order by arrival) as previous, \
                    lead(arrival) over (order by arrival) as following \
             from (select ",
        );
        out.push_bind_param::<BigInt, _>(&self.low)?;
        out.push_sql(
        "::bigint - 1 as arrival union all select arrival from journal_positions where arrival >= ",
    );
        out.push_bind_param::<BigInt, _>(&self.low)?;
        out.push_sql(
        ") known) pairs where previous is not null and (arrival > previous + 1 or following is null)",
    );
    }
);

/// The transactions that may be writing to the journal, by their virtual ids.
pub(super) struct JournalWriters;

statement!(JournalWriters, JournalWriters, Text, |self, out| {
    // Also whoever writes to a partition of it directly. Whoever inserts holds this very lock, whatever
    // stronger ones beside it; readers, and what vacuums or analyzes for hours, never do.
    out.push_sql(
        "select distinct virtualtransaction from pg_locks \
         where locktype = 'relation' \
           and database = (select oid from pg_database where datname = current_database()) \
           and relation in (select relid from pg_partition_tree('journal'::regclass)) \
           and mode = 'RowExclusiveLock' and granted \
           and pid is distinct from pg_backend_pid()",
    );
});

/// An entry of the journal.
#[derive(Queryable)]
pub(crate) struct Arrived {
    pub(crate) arrival: i64,
    pub(crate) entry_id: Uuid,
    pub(crate) stream_id: Uuid,
    pub(crate) entity_seq: i64,
    pub(crate) tenant_id: Option<String>,
    pub(crate) leaf: Vec<u8>,
    pub(crate) mac: Vec<u8>,
    pub(crate) mac_key_id: String,
}

/// Reads what became visible: after what was seen, at most `limit`; and in holes, the first `hole_limit` at most.
/// Numbers that were not given out yet are not looked at: one that somebody made up, however large, hides
/// nothing.
pub(super) struct ReadArrivals<'a> {
    pub(super) sealing: &'a Sealing,
    pub(super) after: i64,
    pub(super) limit: i64,
    pub(super) hole_limit: i64,
    pub(super) from: Vec<i64>,
    pub(super) to: Vec<i64>,
}

type ArrivedTypes = (
    BigInt,
    SqlUuid,
    SqlUuid,
    BigInt,
    Nullable<Text>,
    Binary,
    Binary,
    Text,
);

/// The columns of an [`Arrived`].
fn arrived(out: &mut AstPass<'_, '_, Pg>, before: &'static str) {
    out.push_sql(before);
    out.push_sql("j.arrival, j.entry_id, j.stream_id, j.entity_seq, ");
    out.push_sql(CLAIMED_TENANT);
    out.push_sql(", ");
    out.push_sql(CLAIMED_COLUMNS);
}

statement!(
    ReadArrivals<'_>,
    ReadArrivals<'static>,
    ArrivedTypes,
    |self, out| {
        arrived(&mut out, "(select ");
        out.push_sql(" from journal j where j.arrival > ");
        out.push_bind_param::<BigInt, _>(&self.after)?;
        out.push_sql(" and j.arrival <= (select last_value from journal_arrival)");
        out.push_sql(" order by j.arrival limit ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        arrived(&mut out, ") union all (select ");
        out.push_sql(" from unnest(");
        out.push_bind_param::<Array<BigInt>, _>(&self.from)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<BigInt>, _>(&self.to)?;
        // Per hole by the index, whatever the planner thinks of a limit. What this sequencer refused fills no hole, and is
        // refused once; what others say that it refused is judged.
        out.push_sql(
            ") as h (first, last) cross join lateral (\
         select * from journal j where j.arrival between h.first and h.last \
         and not exists (select 1 from refused_entries r where r.arrival = j.arrival \
         and r.stream_id = j.stream_id and r.entity_seq = j.entity_seq and r.seal = sha256(",
        );
        out.push_bind_param::<Binary, _>(self.sealing.secret())?;
        out.push_sql(SEALED_PARTS);
        out.push_sql(")) order by j.arrival limit ");
        out.push_bind_param::<BigInt, _>(&self.hole_limit)?;
        out.push_sql(") j order by j.arrival limit ");
        out.push_bind_param::<BigInt, _>(&self.hole_limit)?;
        out.push_sql(")");
    }
);

/// Which of some entries, given with their arrivals, have their position under another one.
pub(super) struct PlacedElsewhere {
    arrivals: Vec<i64>,
    streams: Vec<Uuid>,
    numbers: Vec<i64>,
}

impl PlacedElsewhere {
    pub(super) fn new(judged: &Judged<'_>) -> Self {
        let mut columns = Columns::default();
        judged.authentic().for_each(|(row, _)| columns.push(row));
        Self {
            arrivals: columns.arrivals,
            streams: columns.streams,
            numbers: columns.numbers,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }
}

statement!(
    PlacedElsewhere,
    PlacedElsewhere,
    (SqlUuid, BigInt),
    |self, out| {
        out.push_sql("select s.stream_id, s.entity_seq from unnest(");
        out.push_bind_param::<Array<BigInt>, _>(&self.arrivals)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.streams)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<BigInt>, _>(&self.numbers)?;
        // Per entry by the index, whatever the planner thinks of how many there are.
        out.push_sql(
            ") as s (arrival, stream_id, entity_seq) cross join lateral (select from journal_positions p \
             where p.stream_id = s.stream_id and p.entity_seq = s.entity_seq and p.arrival <> s.arrival limit 1) p",
        );
    }
);

/// What the head must be, and what it becomes.
#[allow(clippy::struct_field_names, reason = "the fence is the number's name")]
pub(super) struct Fence {
    pub(super) holder: Uuid,
    pub(super) fence: i64,
    pub(super) expected: i64,
    pub(super) next: i64,
    pub(super) low: i64,
    pub(super) lease_seconds: f64,
}

/// Rows as columns: what a position or a refusal says of its entry.
#[derive(Default)]
struct Columns {
    arrivals: Vec<i64>,
    entries: Vec<Uuid>,
    streams: Vec<Uuid>,
    numbers: Vec<i64>,
}

impl Columns {
    fn push(&mut self, row: &Arrived) {
        self.arrivals.push(row.arrival);
        self.entries.push(row.entry_id);
        self.streams.push(row.stream_id);
        self.numbers.push(row.entity_seq);
    }

    fn walk<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param::<Array<BigInt>, _>(&self.arrivals)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.entries)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.streams)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<BigInt>, _>(&self.numbers)?;
        out.push_sql(", ");
        Ok(())
    }
}

/// Moves the head, appends positions and puts refusals on record, all or nothing; answers how many positions
/// were appended, and with no row at all where the fence does not hold.
pub(super) struct Assign<'a> {
    fence: Fence,
    placed: Columns,
    tenants: Vec<Option<&'a str>>,
    refused: Columns,
    reasons: Vec<&'static str>,
    seals: Vec<Vec<u8>>,
}

impl<'a> Assign<'a> {
    pub(super) fn new(fence: Fence, judged: &Judged<'a>, sealing: &Sealing) -> Self {
        let (mut placed, mut refused) = (Columns::default(), Columns::default());
        let tenants = judged.authentic().map(|(row, _)| {
            placed.push(row);
            row.tenant_id.as_deref()
        });
        let tenants = tenants.collect();
        let (mut reasons, mut seals) = (Vec::new(), Vec::new());
        // Each once: a statement cannot seal a row twice, whatever constraint somebody has dropped.
        let mut known = BTreeSet::new();
        for (row, refusal) in judged.refused() {
            if known.insert((row.arrival, row.stream_id, row.entity_seq)) {
                refused.push(row);
                reasons.push(refusal.name());
                seals.push(sealing.seal(row));
            }
        }
        Self {
            fence,
            placed,
            tenants,
            refused,
            reasons,
            seals,
        }
    }
}

statement!(Assign<'_>, Assign<'static>, BigInt, |self, out| {
    out.push_sql("with head as (update sequencer_head set next_position = ");
    out.push_bind_param::<BigInt, _>(&self.fence.next)?;
    out.push_sql(", low_arrival = ");
    out.push_bind_param::<BigInt, _>(&self.fence.low)?;
    out.push_sql(", lease_until = clock_timestamp() + make_interval(secs => ");
    out.push_bind_param::<Double, _>(&self.fence.lease_seconds)?;
    out.push_sql(") where holder = ");
    out.push_bind_param::<SqlUuid, _>(&self.fence.holder)?;
    out.push_sql(" and fence = ");
    out.push_bind_param::<BigInt, _>(&self.fence.fence)?;
    out.push_sql(" and next_position = ");
    out.push_bind_param::<BigInt, _>(&self.fence.expected)?;
    out.push_sql(
        " returning true), placed as (insert into journal_positions \
         (position, arrival, entry_id, stream_id, entity_seq, tenant_id) select ",
    );
    out.push_bind_param::<BigInt, _>(&self.fence.expected)?;
    out.push_sql(
        "::bigint + s.number - 1, s.arrival, s.entry_id, s.stream_id, s.entity_seq, s.tenant_id from unnest(",
    );
    self.placed.walk(&mut out)?;
    out.push_bind_param::<Array<Nullable<Text>>, _>(&self.tenants)?;
    out.push_sql(
        ") with ordinality as s (arrival, entry_id, stream_id, entity_seq, tenant_id, number) \
         where exists (select 1 from head) returning position), \
         refused as (insert into refused_entries \
         (arrival, entry_id, stream_id, entity_seq, reason, seal) \
         select r.arrival, r.entry_id, r.stream_id, r.entity_seq, r.reason, r.seal from unnest(",
    );
    self.refused.walk(&mut out)?;
    out.push_bind_param::<Array<Text>, _>(&self.reasons)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<Binary>, _>(&self.seals)?;
    out.push_sql(
        ") as r (arrival, entry_id, stream_id, entity_seq, reason, seal) \
         where exists (select 1 from head) \
         on conflict (arrival, stream_id, entity_seq) do update set seal = excluded.seal) \
         select count(*) from placed having exists (select 1 from head)",
    );
});
