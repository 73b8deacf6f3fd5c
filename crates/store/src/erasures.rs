//! Erasing customers: nothing more under the key, then no key.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::erasure::{Erasure, ErasureDone, ErasureStep, NewErasure};
use quittance_domain::ids::{ErasureId, TenantId};
use quittance_domain::ports::StoreError;
use uuid::Uuid;

use crate::payment_row::ReadAs as _;
use crate::store::PgStore;

/// Whoever erases at the same moment waits for the row, and then finds it taken. Due once every process has forgotten
/// the key: it may have looked just before, and remembers it for one period; whatever it began then ends within
/// another.
const REQUEST: &str = "\
    with known as ( \
        update customers set erasing_since = now() \
        where tenant_id = $1 and reference_mac = $2 and erasing_since is null \
        returning customer_id \
    ) \
    insert into erasures (erasure_id, tenant_id, reference_mac, customer_id, next_step_at) \
    select $3, $1, $2, customer_id, now() + make_interval(secs => 2 * $4) from known";

const COLUMNS: &str = "\
    select erasure_id, tenant_id, requested_at, open_payments, payments, finished_at from erasures";

const CLAIM: &str = "\
    with due as materialized ( \
        select erasure_id from erasures \
        where next_step_at <= now() and (claimed_until is null or claimed_until <= now()) \
        order by next_step_at limit 1 for update skip locked \
    ) \
    update erasures e set claimed_until = now() + make_interval(secs => $1) \
    from due where e.erasure_id = due.erasure_id \
    returning e.erasure_id, e.tenant_id, e.requested_at, e.open_payments, e.payments, e.finished_at";

/// A command that is accepted meanwhile waits for this lock, or was before it and is counted.
const LOCK_PAYMENTS: &str = "\
    select p.payment_id from payments p \
    join erasures e on e.customer_id = p.customer_id where e.erasure_id = $1 \
    order by p.payment_id for update of p";

/// A webhook that waits to be applied again may hold what the customer is called, and is needed yet.
const COUNT: &str = "\
    select count(*) as payments, count(*) filter (where exists ( \
        select from transactions t \
        where t.payment_id = p.payment_id and t.state in ('PENDING', 'REQUIRES_ACTION')) \
        or exists ( \
        select from webhook_inbox w \
        where w.body is not null and w.payment_ids is not null and w.next_step_at is not null \
            and w.payment_ids @> array[p.payment_id])) as open \
    from payments p join erasures e on e.customer_id = p.customer_id where e.erasure_id = $1";

const WAIT: &str = "\
    update erasures set open_payments = $2, claimed_until = null, \
        next_step_at = now() + make_interval(secs => $3) \
    where erasure_id = $1 and finished_at is null";

/// The token is under the ring's key: it goes by itself.
const WIPE_TOKENS: &str = "\
    update payments p set provider_token = null from erasures e \
    where e.customer_id = p.customer_id and e.erasure_id = $1 and p.provider_token is not null";

const DESTROY: &str = "\
    delete from customers c using erasures e \
    where c.customer_id = e.customer_id and e.erasure_id = $1";

/// Bodies of webhooks are under the ring's key, too. Those that come just now, and are still to be applied, are wiped when
/// they were.
const WIPE_WEBHOOKS: &str = "\
    update webhook_inbox w set body = null, wiped_at = now() \
    where w.body is not null and w.payment_ids is not null and w.next_step_at is null \
        and w.payment_ids && array( \
            select p.payment_id from payments p join erasures e on e.customer_id = p.customer_id \
            where e.erasure_id = $1)";

const CLOSE: &str = "\
    update erasures set open_payments = 0, payments = $2, finished_at = now(), \
        next_step_at = null, claimed_until = null \
    where erasure_id = $1 and finished_at is null";

#[derive(QueryableByName)]
struct ErasureRow {
    #[diesel(sql_type = SqlUuid)]
    erasure_id: Uuid,
    #[diesel(sql_type = Text)]
    tenant_id: String,
    #[diesel(sql_type = Timestamptz)]
    requested_at: DateTime<Utc>,
    #[diesel(sql_type = BigInt)]
    open_payments: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    payments: Option<i64>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    finished_at: Option<DateTime<Utc>>,
}

impl TryFrom<ErasureRow> for Erasure {
    type Error = StoreError;

    fn try_from(row: ErasureRow) -> Result<Self, StoreError> {
        let payments = row.payments.map(u64::try_from).transpose();
        let payments = payments.at("erasures.payments")?;
        let done = row.finished_at.zip(payments);
        Ok(Self {
            id: ErasureId(row.erasure_id),
            tenant: TenantId::parse(row.tenant_id).at("erasures.tenant_id")?,
            requested_at: row.requested_at,
            open_payments: u64::try_from(row.open_payments).at("erasures.open_payments")?,
            done: done.map(|(at, payments)| ErasureDone { at, payments }),
        })
    }
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    payments: i64,
    #[diesel(sql_type = BigInt)]
    open: i64,
}

impl PgStore {
    pub(crate) async fn store_erasure(
        &self,
        new: NewErasure,
    ) -> Result<Option<Erasure>, StoreError> {
        let (tenant, reference) = (new.tenant.as_str(), new.reference.expose());
        let mac = self.inner.keys.customer_reference_mac(tenant, reference);
        let remembered = self.inner.customers.remembered_for().as_secs_f64();
        let id = new.id.0;
        // Made again after a lost connection it changes nothing, and what is there is read.
        let written = self.inner.reader.write("request erasure", |connection, _| {
            let query = diesel::sql_query(REQUEST)
                .bind::<Text, _>(tenant.to_owned())
                .bind::<Binary, _>(mac.to_vec())
                .bind::<SqlUuid, _>(id)
                .bind::<Double, _>(remembered);
            async move { query.execute(connection).await }.boxed()
        });
        written.await?;
        let read = self.inner.reader.read("find erasure", |connection| {
            let text = format!(
                "{COLUMNS} where tenant_id = $1 and reference_mac = $2 order by requested_at desc limit 1"
            );
            let query = diesel::sql_query(text)
                .bind::<Text, _>(tenant.to_owned())
                .bind::<Binary, _>(mac.to_vec());
            async move { query.get_result::<ErasureRow>(connection).await.optional() }.boxed()
        });
        read.await?.map(Erasure::try_from).transpose()
    }

    pub(crate) async fn read_erasure(
        &self,
        tenant: &TenantId,
        id: ErasureId,
    ) -> Result<Option<Erasure>, StoreError> {
        let read = self.inner.reader.read("read erasure", |connection| {
            let text = format!("{COLUMNS} where tenant_id = $1 and erasure_id = $2");
            let query = diesel::sql_query(text)
                .bind::<Text, _>(tenant.as_str().to_owned())
                .bind::<SqlUuid, _>(id.0);
            async move { query.get_result::<ErasureRow>(connection).await.optional() }.boxed()
        });
        read.await?.map(Erasure::try_from).transpose()
    }

    pub(crate) async fn claim_due_erasure(
        &self,
        lease: Duration,
    ) -> Result<Option<Erasure>, StoreError> {
        let lease = lease.as_secs_f64();
        let claimed = self.inner.reader.write("claim erasure", |connection, _| {
            let query = diesel::sql_query(CLAIM).bind::<Double, _>(lease);
            async move { query.get_result::<ErasureRow>(connection).await.optional() }.boxed()
        });
        claimed.await?.map(Erasure::try_from).transpose()
    }

    /// Destroys the key, unless something still needs it. Taken again after the key is gone, it finds the same.
    pub(crate) async fn erase_customer(
        &self,
        id: ErasureId,
        again_in: Duration,
    ) -> Result<ErasureStep, StoreError> {
        let wait = again_in.as_secs_f64();
        let erased = self
            .inner
            .reader
            .write_slowly("erase customer", |connection, _| {
                async move {
                    connection
                        .transaction(async |connection| erase(connection, id.0, wait).await)
                        .await
                }
                .boxed()
            });
        let row = erased.await?;
        let count = |count: i64| u64::try_from(count).at("payments");
        Ok(match row.open {
            0 => ErasureStep::Erased {
                payments: count(row.payments)?,
            },
            open => ErasureStep::Waits {
                open_payments: count(open)?,
            },
        })
    }

    pub(crate) async fn finish_erasure(
        &self,
        id: ErasureId,
        payments: u64,
    ) -> Result<(), StoreError> {
        let payments = i64::try_from(payments).unwrap_or(i64::MAX);
        let closed = self.inner.reader.write("close erasure", |connection, _| {
            let query = diesel::sql_query(CLOSE)
                .bind::<SqlUuid, _>(id.0)
                .bind::<BigInt, _>(payments);
            async move { query.execute(connection).await }.boxed()
        });
        closed.await.map(drop)
    }
}

async fn erase(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    wait_seconds: f64,
) -> QueryResult<CountRow> {
    let statement = |text: &'static str| diesel::sql_query(text).bind::<SqlUuid, _>(id);
    statement(LOCK_PAYMENTS).execute(connection).await?;
    // A statement of its own: it sees what was committed while the lock was waited for.
    let count: CountRow = statement(COUNT).get_result(connection).await?;
    if count.open > 0 {
        statement(WAIT)
            .bind::<BigInt, _>(count.open)
            .bind::<Double, _>(wait_seconds)
            .execute(connection)
            .await?;
        return Ok(count);
    }
    statement(WIPE_TOKENS).execute(connection).await?;
    statement(DESTROY).execute(connection).await?;
    // Behind the lock on the customer: whoever closes a webhook about them has done so, or finds no customer.
    statement(WIPE_WEBHOOKS).execute(connection).await?;
    Ok(count)
}
