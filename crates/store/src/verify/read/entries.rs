//! Entries, with what hangs on them, as batches that are each of one moment.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{LoggedRow, Placed};
use uuid::Uuid;

use super::{BATCH, Verifying, head};
use crate::statement::statement;
use crate::verify::long::{Range, readable_time};
use crate::verify::rows::Rows;
use crate::verify::segments::Segment;

/// Entries in the order of their streams, behind one of them or from it on, each with its position. Where somebody dropped a key
/// and gave entries several, one row more than [`BATCH`] shows it, whatever more there are. Each column is cut behind the longest that the service
/// writes: whoever wrote more has changed it, and does not fill the memory.
struct ReadEntries {
    stream: Uuid,
    entity_seq: i64,
    /// With that one: the first of a segment may have the lowest number that there is.
    inclusive: bool,
    /// Below this stream; the greatest id where there is no end, which no stream has.
    to: Option<Uuid>,
}

type EntryTypes = (
    SqlUuid,
    BigInt,
    SqlUuid,
    Nullable<Text>,
    Nullable<SqlUuid>,
    Nullable<SqlUuid>,
    (Text, Text, Nullable<Text>, Text, Text, Nullable<Text>),
    Nullable<Binary>,
    Timestamptz,
    (Binary, Binary, Binary, Text),
    BigInt,
    (
        Nullable<BigInt>,
        Nullable<SqlUuid>,
        Nullable<SqlUuid>,
        Nullable<BigInt>,
        Nullable<Text>,
    ),
    Bool,
);

type EntryTuple = (
    Uuid,
    i64,
    Uuid,
    Option<String>,
    Option<Uuid>,
    Option<Uuid>,
    (
        String,
        String,
        Option<String>,
        String,
        String,
        Option<String>,
    ),
    Option<Vec<u8>>,
    DateTime<Utc>,
    (Vec<u8>, Vec<u8>, Vec<u8>, String),
    i64,
    (
        Option<i64>,
        Option<Uuid>,
        Option<Uuid>,
        Option<i64>,
        Option<String>,
    ),
    bool,
);

impl QueryFragment<Pg> for ReadEntries {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "select j.stream_id, j.entity_seq, j.entry_id, left(j.tenant_id, 1024), j.payment_id, j.transaction_id, \
             left(j.event_type, 1024), left(j.result, 1024), left(j.cause, 1024), left(j.actor, 1024), \
             left(j.source, 1024), left(j.provider_account, 1024), substr(j.trace_id, 1, 17), ",
        );
        out.push_sql(&readable_time("j.occurred_at"));
        out.push_sql(
            ", substr(j.leaf, 1, 65536), substr(j.leaf_hash, 1, 33), substr(j.mac, 1, 33), left(j.mac_key_id, 1024), \
             j.arrival, p.position, p.entry_id, p.stream_id, p.entity_seq, left(p.tenant_id, 1024), \
             p.position is null and exists (select from refused_entries r where r.arrival = j.arrival \
             and r.stream_id = j.stream_id and r.entity_seq = j.entity_seq) \
             from (select * from journal where stream_id >= ",
        );
        out.push_bind_param::<SqlUuid, _>(&self.stream)?;
        let from = if self.inclusive { ">=" } else { ">" };
        out.push_sql(" and (stream_id, entity_seq) ");
        out.push_sql(from);
        out.push_sql(" (");
        out.push_bind_param::<SqlUuid, _>(&self.stream)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.entity_seq)?;
        out.push_sql(") and ");
        match &self.to {
            Some(to) => {
                out.push_sql("stream_id < ");
                out.push_bind_param::<SqlUuid, _>(to)?;
            }
            None => out.push_sql("true"),
        }
        out.push_sql(" order by stream_id, entity_seq limit ");
        out.push_bind_param::<BigInt, _>(&BATCH)?;
        out.push_sql(
            ") j left join journal_positions p on p.arrival = j.arrival order by j.stream_id, j.entity_seq limit ",
        );
        out.push_bind_param::<BigInt, _>(&(BATCH + 1))?;
        Ok(())
    }
}

impl QueryId for ReadEntries {
    type QueryId = Self;
    // Four texts: with an end and without, and from the first entry on or behind one.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for ReadEntries {
    type SqlType = EntryTypes;
}

/// How far the reading of a segment is.
#[derive(Clone, Copy)]
pub(in crate::verify) struct Cursor {
    stream: Uuid,
    entity_seq: i64,
    /// Whether nothing of it was read yet.
    first: bool,
    /// From which payment on none is compared.
    payments_from: Uuid,
}

impl Cursor {
    pub(in crate::verify) fn at(segment: Segment) -> Self {
        Self {
            stream: segment.from,
            entity_seq: i64::MIN,
            first: true,
            payments_from: segment.from,
        }
    }

    /// Reads on from here, in one moment.
    pub(in crate::verify) async fn read(
        self,
        connection: &mut AsyncPgConnection,
        segment: Segment,
    ) -> QueryResult<Batch> {
        let mut transaction = connection.build_transaction().repeatable_read().read_only();
        transaction
            .run(async |connection| {
                let entries = ReadEntries {
                    stream: self.stream,
                    entity_seq: self.entity_seq,
                    inclusive: self.first,
                    to: segment.to,
                };
                read_batch(connection, entries, self.payments_from).await
            })
            .await
    }

    /// Goes on behind a batch that was read from here.
    pub(in crate::verify) fn pass(&mut self, batch: &Batch) {
        if let Some(last) = batch.rows.last() {
            (self.stream, self.entity_seq, self.first) = (last.stream_id, last.entity_seq, false);
        }
        self.payments_from = batch.below.unwrap_or(self.payments_from);
    }
}

/// The last arrival that was given out. Sequences know no snapshots: it is never below that of a row that was read before.
struct ReadLastArrival;

statement!(ReadLastArrival, ReadLastArrival, BigInt, |self, out| {
    out.push_sql("select last_value from journal_arrival");
});

/// Entries, and the payments of the streams that end among them, of one moment.
pub(in crate::verify) struct Batch {
    pub(in crate::verify) rows: Vec<LoggedRow>,
    pub(in crate::verify) low_arrival: i64,
    /// The last arrival that was given out, at that moment or after.
    pub(in crate::verify) given: i64,
    /// Whether it is the segment's last.
    pub(in crate::verify) complete: bool,
    /// Streams below end in it, or before.
    pub(in crate::verify) below: Option<Uuid>,
    pub(in crate::verify) stored: Rows,
}

impl Verifying {
    /// The next batch of a segment.
    pub(in crate::verify) async fn batch(
        &mut self,
        at: &mut Cursor,
        segment: Segment,
    ) -> Result<Batch, StoreError> {
        let from = *at;
        let batch = self
            .read(|connection| from.read(connection, segment).boxed())
            .await?;
        at.pass(&batch);
        Ok(batch)
    }
}

async fn read_batch(
    connection: &mut AsyncPgConnection,
    entries: ReadEntries,
    payments_from: Uuid,
) -> QueryResult<Batch> {
    let to = entries.to;
    let rows: Vec<EntryTuple> = entries.load(connection).await?;
    let rows: Vec<LoggedRow> = rows.into_iter().map(logged_row).collect();
    let (_, low_arrival) = head(connection).await?;
    let given = ReadLastArrival.load::<i64>(connection).await?;
    let given = given.into_iter().max().unwrap_or(0);
    let complete = i64::try_from(rows.len()).is_ok_and(|rows| rows < BATCH);
    // The last stream may go on behind the batch.
    let below = if complete {
        to
    } else {
        rows.last().map(|row| row.stream_id)
    };
    let range = Range {
        from: payments_from,
        below,
    };
    Ok(Batch {
        rows,
        low_arrival,
        given,
        complete,
        below,
        stored: Rows::read(connection, range).await?,
    })
}

fn logged_row(row: EntryTuple) -> LoggedRow {
    let (
        stream_id,
        entity_seq,
        entry_id,
        tenant_id,
        payment_id,
        transaction_id,
        (event_type, result, cause, actor, source, provider_account),
        trace_id,
        occurred_at,
        (leaf, leaf_hash, mac, mac_key_id),
        arrival,
        (position, placed_entry, placed_stream, placed_seq, placed_tenant),
        refused,
    ) = row;
    let placed = match (position, placed_entry, placed_stream, placed_seq) {
        (Some(position), Some(entry_id), Some(stream_id), Some(entity_seq)) => Some(Placed {
            position,
            entry_id,
            stream_id,
            entity_seq,
            tenant_id: placed_tenant,
        }),
        // Their columns are not null: there is no such position.
        _ => None,
    };
    LoggedRow {
        stream_id,
        entity_seq,
        entry_id,
        tenant_id,
        payment_id,
        transaction_id,
        event_type,
        result,
        cause,
        actor,
        source,
        provider_account,
        trace_id,
        occurred_at,
        leaf,
        leaf_hash,
        mac,
        mac_key_id,
        arrival,
        refused,
        placed,
    }
}
