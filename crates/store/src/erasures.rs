//! Erasing customers: nothing more under the key, then no key.

mod asking;
mod said;
mod unnamed;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::erasure::{Erasure, ErasureDone, ErasureStep, SWEPT_AGAIN_AFTER};
use quittance_domain::ids::{CustomerId, ErasureId, TenantId};
use quittance_domain::ports::StoreError;
use uuid::Uuid;

use self::said::Asked;
pub(crate) use self::said::{ReadSaid, SaidRow, asked, closed, done, erased, undecided};
use crate::payment_row::ReadAs as _;
use crate::store::PgStore;
use crate::warning::Thinned;

static FORGED: Thinned = Thinned::new();

const CLAIM: &str = "\
    with due as materialized ( \
        select erasure_id from erasures \
        where next_step_at <= now() and (claimed_until is null or claimed_until <= now()) \
        order by next_step_at limit 1 for update skip locked \
    ) \
    update erasures e set claimed_until = now() + make_interval(secs => $1) \
    from due where e.erasure_id = due.erasure_id \
    returning e.erasure_id, e.tenant_id, e.customer_id, e.requested_at, e.open_payments, \
        e.finished_at is not null as closed";

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

/// Closed once the time is over after which it is looked at for the last time; until then it is due again when it is.
const CLOSE: &str = "\
    update erasures set open_payments = 0, claimed_until = null, \
        payments = case when swept.ended then $2 end, finished_at = case when swept.ended then now() end, \
        next_step_at = case when not swept.ended then swept.due end \
    from (select due, due <= now() as ended from \
        (select coalesce($3, now()) + make_interval(secs => $4) as due) d) swept \
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
    /// Whether the row says that nothing more is to be done.
    #[diesel(sql_type = Bool)]
    closed: bool,
}

impl ErasureRow {
    /// With what the log says of its end: the row is not believed.
    fn into_erasure(self, done: Option<ErasureDone>) -> Result<Erasure, StoreError> {
        let open = u64::try_from(self.open_payments).at("erasures.open_payments")?;
        Ok(Erasure {
            id: ErasureId(self.erasure_id),
            tenant: TenantId::parse(self.tenant_id).at("erasures.tenant_id")?,
            customer: CustomerId(self.customer_id),
            requested_at: self.requested_at,
            open_payments: if done.is_some() { 0 } else { open },
            done,
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
    pub(crate) async fn claim_due_erasure(
        &self,
        lease: Duration,
    ) -> Result<Option<Erasure>, StoreError> {
        let lease = lease.as_secs_f64();
        let claimed = self.inner.reader.write("claim erasure", |connection, _| {
            let query = diesel::sql_query(CLAIM).bind::<Double, _>(lease);
            async move { query.get_result::<ErasureRow>(connection).await.optional() }.boxed()
        });
        let claimed = claimed.await?;
        claimed.map(|row| row.into_erasure(None)).transpose()
    }

    /// Destroys the key, unless something still needs it, or the log does not say that it was asked for. Taken again after
    /// the key is gone, it finds the same.
    pub(crate) async fn erase_customer(
        &self,
        claimed: &Erasure,
        again_in: Duration,
    ) -> Result<ErasureStep, StoreError> {
        let (id, customer) = (claimed.id.0, claimed.customer.0);
        let said = self.said_of(vec![customer]).await?;
        let Some(asked) = asked(&said, id, &self.inner.keys) else {
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
            0 => ended(count(row.payments)?, &asked),
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
        recorded_at: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        let payments = i64::try_from(payments).unwrap_or(i64::MAX);
        let closed = self.inner.reader.write("close erasure", |connection, _| {
            let query = diesel::sql_query(CLOSE)
                .bind::<SqlUuid, _>(id.0)
                .bind::<BigInt, _>(payments)
                .bind::<Nullable<Timestamptz>, _>(recorded_at)
                .bind::<Double, _>(SWEPT_AGAIN_AFTER.as_secs_f64());
            async move { query.execute(connection).await }.boxed()
        });
        closed.await.map(drop)
    }
}

fn ended(payments: u64, asked: &Asked) -> ErasureStep {
    match asked.done {
        Some(done) => ErasureStep::Swept {
            payments,
            recorded_at: done.at,
        },
        None => ErasureStep::Erased {
            payments,
            behind: asked.head,
        },
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
