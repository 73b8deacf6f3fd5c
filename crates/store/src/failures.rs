//! Summaries of failed attempts.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{PaymentId, TenantId};
use quittance_domain::ports::{FailureSummary, StoreError};
use uuid::Uuid;

use crate::store::PgStore;

/// An attempt fails when it did not get what it asked for. What a provider declined has its reason
/// on the transaction.
const SUMMARY: &str = "\
    with made as ( \
        select * from attempts \
        where started_at >= $1 and started_at < $2 and ($3 is null or tenant_id = $3) \
    ), totals as ( \
        select provider_account, operation, count(*) as attempts from made group by 1, 2 \
    ), failed as ( \
        select coalesce(m.cause, t.decline_code, m.outcome) as cause, \
               m.provider_account, m.operation, m.latency_micros, m.payment_id \
        from made m \
        left join transactions t on m.outcome = 'DECLINED' \
            and t.payment_id = m.payment_id and t.transaction_id = m.transaction_id \
        where m.outcome in ('DECLINED', 'FAILED', 'NOT_SENT', 'UNKNOWN') \
    ) \
    select f.cause, f.provider_account, f.operation, count(*) as failures, t.attempts, \
           percentile_cont(array[0.5, 0.95, 0.99]) \
               within group (order by f.latency_micros / 1e6) as latency, \
           (array_agg(distinct f.payment_id order by f.payment_id desc))[1:3] as examples \
    from failed f \
    join totals t on t.provider_account = f.provider_account and t.operation = f.operation \
    group by f.cause, f.provider_account, f.operation, t.attempts \
    order by failures desc, f.cause, f.provider_account, f.operation \
    limit $4";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    cause: String,
    #[diesel(sql_type = Text)]
    provider_account: String,
    #[diesel(sql_type = Text)]
    operation: String,
    #[diesel(sql_type = BigInt)]
    failures: i64,
    #[diesel(sql_type = BigInt)]
    attempts: i64,
    #[diesel(sql_type = Array<Double>)]
    latency: Vec<f64>,
    #[diesel(sql_type = Array<SqlUuid>)]
    examples: Vec<Uuid>,
}

impl PgStore {
    pub(crate) async fn read_failures(
        &self,
        tenant: Option<&TenantId>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        limit: usize,
    ) -> Result<Vec<FailureSummary>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        let read = self.inner.reader.scan("summarize failures", |connection| {
            let query = diesel::sql_query(SUMMARY)
                .bind::<Timestamptz, _>(from)
                .bind::<Timestamptz, _>(to)
                .bind::<Nullable<Text>, _>(tenant.clone())
                .bind::<BigInt, _>(limit);
            async move { query.load::<Row>(connection).await }.boxed()
        });
        read.await?.into_iter().map(summary).collect()
    }
}

fn summary(row: Row) -> Result<FailureSummary, StoreError> {
    let corrupt = || StoreError::Corrupt("attempts".to_owned());
    Ok(FailureSummary {
        cause: row.cause,
        provider_account: row.provider_account,
        operation: row.operation,
        failures: u64::try_from(row.failures).map_err(|_| corrupt())?,
        attempts: u64::try_from(row.attempts).map_err(|_| corrupt())?,
        latency: row.latency.try_into().map_err(|_| corrupt())?,
        examples: row.examples.into_iter().map(PaymentId).collect(),
    })
}
