//! What verification reads, in batches that are each of one moment.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{LoggedRow, Placed, PositionRow, TreeEnd, TreePage};
use quittance_evidence::note::VerifierKey;
use uuid::Uuid;

use super::VerifyProgress;
use super::long::{Range, readable_time};
use super::rows::Rows;
use super::segments::{SEGMENTS, Segment, Segments};
use super::tree::{BySize, TreePart, notes_from};
use crate::connection::Use;
use crate::failure;
use crate::keys::KeyRing;
use crate::pool::Reading;
use crate::schema::{journal_positions, sequencer_head};
use crate::statement::statement;
use crate::store::PgStore;

/// Entries of one batch. An entry has at most 64 KiB, and commonly 1 KiB.
pub(super) const BATCH: i64 = 1_024;
/// The same.
pub(super) const BATCH_ENTRIES: usize = 1_024;
/// Positions of one page.
pub(super) const POSITIONS: i64 = 4_096;
/// How often a batch is read again where the database failed.
const MAX_TRIES: u32 = 5;
/// Pause before each of them, times its number.
const PAUSE: Duration = Duration::from_millis(500);

/// The advisory lock of whoever verifies; any number that nothing else locks.
const CLAIM: i64 = 0x7175_6974_7665_7269;

#[diesel::declare_sql_function]
extern "SQL" {
    #[sql_name = "pg_try_advisory_lock"]
    fn try_advisory_lock(key: BigInt) -> Bool;

    #[sql_name = "pg_advisory_unlock"]
    fn advisory_unlock(key: BigInt) -> Bool;
}

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

/// Positions from one on, with what the journal has for each. Where somebody dropped a key and repeated entries, one row more than
/// [`POSITIONS`] shows it, whatever more there are.
struct ReadPositions {
    from: i64,
}

type PositionTypes = (
    BigInt,
    BigInt,
    SqlUuid,
    SqlUuid,
    BigInt,
    Nullable<BigInt>,
    Nullable<SqlUuid>,
    Nullable<Binary>,
);

type PositionTuple = (
    i64,
    i64,
    Uuid,
    Uuid,
    i64,
    Option<i64>,
    Option<Uuid>,
    Option<Vec<u8>>,
);

impl QueryFragment<Pg> for ReadPositions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "select p.position, p.arrival, p.entry_id, p.stream_id, p.entity_seq, \
             j.arrival, j.entry_id, substr(j.leaf_hash, 1, 33) \
             from (select * from journal_positions where position >= ",
        );
        out.push_bind_param::<BigInt, _>(&self.from)?;
        out.push_sql(" order by position limit ");
        out.push_bind_param::<BigInt, _>(&POSITIONS)?;
        out.push_sql(
            ") p left join journal j on j.stream_id = p.stream_id and j.entity_seq = p.entity_seq \
             order by p.position limit ",
        );
        out.push_bind_param::<BigInt, _>(&(POSITIONS + 1))?;
        Ok(())
    }
}

impl QueryId for ReadPositions {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for ReadPositions {
    type SqlType = PositionTypes;
}

/// How far the reading of a segment is.
pub(super) struct Cursor {
    stream: Uuid,
    entity_seq: i64,
    /// Whether nothing of it was read yet.
    first: bool,
    /// From which payment on none is compared.
    payments_from: Uuid,
}

impl Cursor {
    pub(super) fn at(segment: Segment) -> Self {
        Self {
            stream: segment.from,
            entity_seq: i64::MIN,
            first: true,
            payments_from: segment.from,
        }
    }
}

/// The last arrival that was given out. Sequences know no snapshots: it is never below that of a row that was read before.
struct ReadLastArrival;

statement!(ReadLastArrival, ReadLastArrival, BigInt, |self, out| {
    out.push_sql("select last_value from journal_arrival");
});

/// Entries, and the payments of the streams that end among them, of one moment.
pub(super) struct Batch {
    pub(super) rows: Vec<LoggedRow>,
    pub(super) low_arrival: i64,
    /// The last arrival that was given out, at that moment or after.
    pub(super) given: i64,
    /// Whether it is the segment's last.
    pub(super) complete: bool,
    /// Streams below end in it, or before.
    pub(super) below: Option<Uuid>,
    pub(super) stored: Rows,
}

/// Positions, and the sequencer's head and the tree of the same moment.
pub(super) struct PositionPage {
    pub(super) rows: Vec<PositionRow>,
    pub(super) head: i64,
    pub(super) tree: TreePage,
    /// Where nothing comes behind it: what is stored beyond the log.
    pub(super) end: Option<TreeEnd>,
}

/// A connection of a verification's own: it is busy for as long as that runs, and takes none from callers.
pub(super) struct Verifying {
    store: PgStore,
    connection: Option<AsyncPgConnection>,
}

impl Verifying {
    pub(super) async fn connect(store: &PgStore) -> Result<Self, StoreError> {
        let mut verifying = Self {
            store: store.clone(),
            connection: None,
        };
        verifying.ready().await?;
        Ok(verifying)
    }

    async fn ready(&mut self) -> Result<&mut AsyncPgConnection, StoreError> {
        let connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let connecting = self.store.inner.connector.connect(Use::Verify).await;
            connecting.map_err(|_| StoreError::Unavailable)?
        };
        Ok(self.connection.insert(connection))
    }

    /// What MACs are verified under.
    pub(super) fn keys(&self) -> &KeyRing {
        &self.store.inner.keys
    }

    /// Reads of one moment, again where the database fails; a connection that failed is left.
    pub(super) async fn read<T, F>(&mut self, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection) -> Reading<'c, T>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let failed = match self.ready().await {
                Ok(connection) => match query(connection).await {
                    Ok(value) => return Ok(value),
                    Err(error) => failure::read_error(&error),
                },
                Err(error) => error,
            };
            self.connection = None;
            if tries == MAX_TRIES || failed != StoreError::Unavailable {
                return Err(failed);
            }
            tokio::time::sleep(PAUSE * tries).await;
        }
    }

    /// Makes this the one verification, for as long as the connection lives. False where there is another.
    pub(super) async fn claim(&mut self) -> Result<bool, StoreError> {
        self.read(|connection| {
            async move {
                diesel::select(try_advisory_lock(CLAIM))
                    .get_result(connection)
                    .await
            }
            .boxed()
        })
        .await
    }

    /// Lets another verification begin. Where the database does not hear it, it lets go once it sees the connection closed.
    pub(super) async fn release(mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _released: Result<bool, _> = diesel::select(advisory_unlock(CLAIM))
                .get_result(&mut connection)
                .await;
        }
    }

    /// How many entries have a position.
    pub(super) async fn entries(&mut self) -> Result<u64, StoreError> {
        let head = self.read(|connection| head(connection).boxed()).await?;
        Ok(u64::try_from(head.0).unwrap_or_default())
    }

    /// Cuts the streams so that each segment has about as many entries.
    pub(super) async fn segments(
        &mut self,
        resume: VerifyProgress,
        total: u64,
    ) -> Result<Segments, StoreError> {
        let from = if resume.begun {
            resume.streams_from
        } else {
            Some(Uuid::nil())
        };
        // None smaller than a batch.
        let least = u64::try_from(BATCH).unwrap_or(1);
        let step = (total / SEGMENTS).max(least);
        let at: Vec<i64> = (1..SEGMENTS)
            .filter_map(|number| i64::try_from(number * step).ok())
            .collect();
        let most_cuts = i64::try_from(SEGMENTS).unwrap_or(i64::MAX);
        let cuts = self
            .read(|connection| {
                let query = journal_positions::table
                    .filter(journal_positions::position.eq_any(at.clone()))
                    .select(journal_positions::stream_id)
                    .limit(most_cuts);
                async move { query.load::<Uuid>(connection).await }.boxed()
            })
            .await?;
        Ok(Segments::new(from, cuts))
    }

    /// The next batch of a segment.
    pub(super) async fn batch(
        &mut self,
        at: &mut Cursor,
        segment: Segment,
    ) -> Result<Batch, StoreError> {
        let (stream, entity_seq, from) = (at.stream, at.entity_seq, at.payments_from);
        let inclusive = at.first;
        let batch = self
            .read(|connection| {
                async move {
                    let mut transaction =
                        connection.build_transaction().repeatable_read().read_only();
                    transaction
                        .run(async |connection| {
                            let entries = ReadEntries {
                                stream,
                                entity_seq,
                                inclusive,
                                to: segment.to,
                            };
                            read_batch(connection, entries, from).await
                        })
                        .await
                }
                .boxed()
            })
            .await?;
        if let Some(last) = batch.rows.last() {
            (at.stream, at.entity_seq, at.first) = (last.stream_id, last.entity_seq, false);
        }
        at.payments_from = batch.below.unwrap_or(at.payments_from);
        Ok(batch)
    }

    /// The notes of checkpoints of at least so many entries, as they are now.
    pub(super) async fn notes_from(&mut self, size: u64) -> Result<Vec<String>, StoreError> {
        self.read(|connection| notes_from(connection, size).boxed())
            .await
    }

    /// Of which of these sizes the service stored one of a kind, now.
    pub(super) async fn stored(
        &mut self,
        kind: BySize,
        sizes: &[u64],
    ) -> Result<Vec<u64>, StoreError> {
        let keys = Arc::clone(&self.store.inner.keys);
        let sizes: Vec<u64> = sizes.to_vec();
        self.read(|connection| {
            let (keys, sizes) = (Arc::clone(&keys), sizes.clone());
            async move { kind.stored(connection, &keys, &sizes).await }.boxed()
        })
        .await
    }

    /// The positions from one on, and what is stored about the part of the tree that they are; `tree` is how large the
    /// tree is that was rebuilt so far.
    pub(super) async fn positions(
        &mut self,
        from: i64,
        tree: u64,
        witnesses: &Arc<[VerifierKey]>,
    ) -> Result<PositionPage, StoreError> {
        let keys = Arc::clone(&self.store.inner.keys);
        self.read(|connection| {
            let (keys, witnesses) = (Arc::clone(&keys), Arc::clone(witnesses));
            async move {
                let mut transaction = connection.build_transaction().repeatable_read().read_only();
                transaction
                    .run(async |connection| {
                        let rows: Vec<PositionTuple> =
                            ReadPositions { from }.load(connection).await?;
                        let (head, _) = head(connection).await?;
                        let last = i64::try_from(rows.len()).is_ok_and(|rows| rows < POSITIONS);
                        let rows: Vec<PositionRow> = rows.into_iter().map(position_row).collect();
                        let to = rows.last().map(|row| row.position.saturating_add(1));
                        let part = TreePart::new(tree, to.and_then(|to| u64::try_from(to).ok()));
                        let end = if last {
                            Some(part.end(connection, &witnesses).await?)
                        } else {
                            None
                        };
                        let tree = part.page(connection, &keys, &witnesses).await?;
                        Ok(PositionPage {
                            rows,
                            head,
                            tree,
                            end,
                        })
                    })
                    .await
            }
            .boxed()
        })
        .await
    }
}

/// `next_position` and `low_arrival`. One that was deleted counts as nothing: then every entry lacks its position.
async fn head(connection: &mut AsyncPgConnection) -> QueryResult<(i64, i64)> {
    let head = sequencer_head::table
        .select((sequencer_head::next_position, sequencer_head::low_arrival))
        .first(connection)
        .await;
    Ok(head.optional()?.unwrap_or((0, i64::MAX)))
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

fn position_row(row: PositionTuple) -> PositionRow {
    let (position, arrival, entry_id, stream_id, entity_seq, found_arrival, found_entry, hash) =
        row;
    let found = match (found_arrival, found_entry, hash) {
        (Some(arrival), Some(entry), Some(hash)) => Some((arrival, entry, hash)),
        _ => None,
    };
    PositionRow {
        position,
        arrival,
        entry_id,
        stream_id,
        entity_seq,
        found,
    }
}
