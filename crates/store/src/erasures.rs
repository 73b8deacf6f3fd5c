//! Erasing customers: nothing more under the key, then no key.

mod said;
mod unnamed;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Binary, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::erasure::{Erasure, ErasureDone, ErasureStep, NewErasure};
use quittance_domain::ids::{CustomerId, ErasureId, TenantId};
use quittance_domain::ports::StoreError;
use quittance_domain::text::Sensitive;
use uuid::Uuid;

pub(crate) use self::said::{ReadSaid, SaidRow, done, erased};
use crate::payment_row::ReadAs as _;
use crate::schema::customers;
use crate::store::PgStore;
use crate::warning::Thinned;

static FORGED: Thinned = Thinned::new();

/// Whoever erases at the same moment waits for the row, and then finds it taken. Due once every process has forgotten
/// the key: it may have looked just before, and remembers it for one period; whatever it began then ends within
/// another.
const REQUEST: &str = "\
    with known as ( \
        update customers set erasing_since = now() \
        where tenant_id = $1 and customer_id = $2 and erasing_since is null \
        returning reference_mac \
    ) \
    insert into erasures (erasure_id, tenant_id, reference_mac, customer_id, next_step_at) \
    select $3, $1, reference_mac, $2, now() + make_interval(secs => 2 * $4) from known";

const COLUMNS: &str = "\
    select erasure_id, tenant_id, customer_id, requested_at, open_payments, payments, finished_at from erasures";

const CLAIM: &str = "\
    with due as materialized ( \
        select erasure_id from erasures \
        where next_step_at <= now() and (claimed_until is null or claimed_until <= now()) \
        order by next_step_at limit 1 for update skip locked \
    ) \
    update erasures e set claimed_until = now() + make_interval(secs => $1) \
    from due where e.erasure_id = due.erasure_id \
    returning e.erasure_id, e.tenant_id, e.customer_id, e.requested_at, e.open_payments, e.payments, e.finished_at";

/// A command that is accepted meanwhile waits for this lock, or was before it and is counted.
const LOCK_PAYMENTS: &str = "\
    select payment_id from payments where customer_id = $1 order by payment_id for update";

/// A webhook that waits to be applied again may hold what the customer is called, and is needed yet.
const COUNT: &str = "\
    select count(*) as payments, count(*) filter (where exists ( \
        select from transactions t \
        where t.payment_id = p.payment_id and t.state in ('PENDING', 'REQUIRES_ACTION')) \
        or exists ( \
        select from webhook_inbox w \
        where w.body is not null and w.payment_ids is not null and w.next_step_at is not null \
            and w.payment_ids @> array[p.payment_id])) as open \
    from payments p where p.customer_id = $1";

const WAIT: &str = "\
    update erasures set open_payments = $2, claimed_until = null, \
        next_step_at = now() + make_interval(secs => $3) \
    where erasure_id = $1 and finished_at is null";

/// The token is under the ring's key: it goes by itself.
const WIPE_TOKENS: &str = "\
    update payments set provider_token = null where customer_id = $1 and provider_token is not null";

const DESTROY: &str = "delete from customers where customer_id = $1";

/// Bodies of webhooks are under the ring's key, too. Those that come just now, and are still to be applied, are wiped when
/// they were.
const WIPE_WEBHOOKS: &str = "\
    update webhook_inbox w set body = null, wiped_at = now() \
    where w.body is not null and w.payment_ids is not null and w.next_step_at is null \
        and w.payment_ids && array(select payment_id from payments where customer_id = $1)";

/// Those that name no payment, and mention the customer.
const WIPE_UNNAMED: &str = "\
    update webhook_inbox set body = null, wiped_at = now() \
    where webhook_id = any($1) and body is not null and next_step_at is null";

/// Keyed digests of what the requests said of the customer.
const WIPE_FINGERPRINTS: &str = "select quittance_wipe_fingerprints($1)";

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
    #[diesel(sql_type = SqlUuid)]
    customer_id: Uuid,
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
            customer: CustomerId(row.customer_id),
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
    pub(crate) async fn customer_to_erase(
        &self,
        tenant: &TenantId,
        reference: &Sensitive<String>,
    ) -> Result<Option<CustomerId>, StoreError> {
        let (tenant, reference) = (tenant.as_str(), reference.expose());
        let mac = self.inner.keys.customer_reference_mac(tenant, reference);
        let read = self
            .inner
            .reader
            .read("find customer to erase", |connection| {
                let query = customers::table
                    .filter(customers::tenant_id.eq(tenant.to_owned()))
                    .filter(customers::reference_mac.eq(mac.to_vec()))
                    .filter(customers::erasing_since.is_null())
                    .select(customers::customer_id);
                async move { query.first::<Uuid>(connection).await.optional() }.boxed()
            });
        Ok(read.await?.map(CustomerId))
    }

    pub(crate) async fn store_erasure(
        &self,
        new: NewErasure,
    ) -> Result<Option<Erasure>, StoreError> {
        let (tenant, reference) = (new.tenant.as_str(), new.reference.expose());
        let mac = self.inner.keys.customer_reference_mac(tenant, reference);
        let remembered = self.inner.customers.remembered_for().as_secs_f64();
        let id = new.id.0;
        if let Some(customer) = new.customer {
            // Made again after a lost connection it changes nothing, and what is there is read.
            let written = self.inner.reader.write("request erasure", |connection, _| {
                let query = diesel::sql_query(REQUEST)
                    .bind::<Text, _>(tenant.to_owned())
                    .bind::<SqlUuid, _>(customer.0)
                    .bind::<SqlUuid, _>(id)
                    .bind::<Double, _>(remembered);
                async move { query.execute(connection).await }.boxed()
            });
            written.await?;
        }
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

    /// Destroys the key, unless something still needs it, or the log does not say that it was asked for. Taken again after
    /// the key is gone, it finds the same.
    pub(crate) async fn erase_customer(
        &self,
        claimed: &Erasure,
        again_in: Duration,
    ) -> Result<ErasureStep, StoreError> {
        let (id, customer) = (claimed.id.0, claimed.customer.0);
        let read = self
            .inner
            .reader
            .read("read erasure's entries", |connection| {
                let read = ReadSaid::of(vec![customer]);
                async move { read.load::<SaidRow>(connection).await }.boxed()
            });
        let Some(asked) = said::asked(&read.await?, id, &self.inner.keys) else {
            self.report_forged_erasure(claimed.id);
            return Ok(ErasureStep::NotAsked);
        };
        // Before the key is gone, which opens what the customer is known by; and not while it has to wait anyway.
        let counting = self.inner.reader.scan("count open payments", |connection| {
            let query = diesel::sql_query(COUNT).bind::<SqlUuid, _>(customer);
            async move { query.get_result::<CountRow>(connection).await }.boxed()
        });
        let mentioned = match counting.await?.open {
            0 => Some(self.unnamed_bodies_about(customer).await?),
            _ => None,
        };
        let due = Arc::new(Due {
            id,
            customer,
            wait_seconds: again_in.as_secs_f64(),
            mentioned,
        });
        let erased = self
            .inner
            .reader
            .write_slowly("erase customer", |connection, _| {
                let due = Arc::clone(&due);
                async move {
                    connection
                        .transaction(async |connection| erase(connection, &due).await)
                        .await
                }
                .boxed()
            });
        let row = erased.await?;
        let count = |count: i64| u64::try_from(count).at("payments");
        Ok(match row.open {
            0 => ErasureStep::Erased {
                payments: count(row.payments)?,
                behind: (!asked.done).then_some(asked.head),
            },
            open => ErasureStep::Waits {
                open_payments: count(open)?,
            },
        })
    }

    fn report_forged_erasure(&self, id: ErasureId) {
        self.inner.observer.verification_failed("erasure", 1);
        if FORGED.due().is_some() {
            tracing::error!(
                audit.erasure_id = %id,
                "an erasure is stored that the log does not say was asked for: nothing is erased"
            );
        }
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

/// A customer who is to be erased now.
struct Due {
    id: Uuid,
    customer: Uuid,
    /// How long it is waited where payments hold it up.
    wait_seconds: f64,
    /// Webhooks that name no payment, and mention the customer; `None` where they were not looked for.
    mentioned: Option<Vec<Uuid>>,
}

async fn erase(connection: &mut AsyncPgConnection, due: &Due) -> QueryResult<CountRow> {
    let statement = |text: &'static str| diesel::sql_query(text).bind::<SqlUuid, _>(due.customer);
    statement(LOCK_PAYMENTS).execute(connection).await?;
    // A statement of its own: it sees what was committed while the lock was waited for.
    let mut count: CountRow = statement(COUNT).get_result(connection).await?;
    let Some(mentioned) = due.mentioned.as_ref().filter(|_| count.open == 0) else {
        // What held it up a moment ago may not any more: next time.
        count.open = count.open.max(1);
        diesel::sql_query(WAIT)
            .bind::<SqlUuid, _>(due.id)
            .bind::<BigInt, _>(count.open)
            .bind::<Double, _>(due.wait_seconds)
            .execute(connection)
            .await?;
        return Ok(count);
    };
    statement(WIPE_TOKENS).execute(connection).await?;
    diesel::sql_query(WIPE_FINGERPRINTS)
        .bind::<SqlUuid, _>(due.id)
        .execute(connection)
        .await?;
    statement(DESTROY).execute(connection).await?;
    // Behind the lock on the customer: whoever closes a webhook about them has done so, or finds no customer.
    statement(WIPE_WEBHOOKS).execute(connection).await?;
    diesel::sql_query(WIPE_UNNAMED)
        .bind::<Array<SqlUuid>, _>(mentioned)
        .execute(connection)
        .await?;
    Ok(count)
}
