//! Our side of a reconciliation: transactions that move money, by account and time.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{
    PaymentId, ProviderAccount, ProviderReference, TenantId, TransactionId,
};
use quittance_domain::money::Currency;
use quittance_domain::ports::StoreError;
use quittance_domain::reconciliation::{Booked, BookedRange, SettledKind, StreamHead};
use quittance_domain::transaction::{TransactionKind, TransactionState};
use uuid::Uuid;

use crate::payment_row::ReadAs as _;
use crate::store::PgStore;

/// What of a transaction is compared; of a dispute its own amount, which may be in another currency than the payment's.
const SELECTED: &str = "\
    select p.tenant_id, t.payment_id, t.transaction_id, t.kind, t.state, \
           coalesce(t.dispute_amount, t.amount) as amount, \
           coalesce(t.dispute_currency, p.currency) as currency, \
           t.provider_reference, t.created_at, t.updated_at \
    from transactions t join payments p on p.payment_id = t.payment_id \
    where t.provider_account = $1 \
        and t.kind in ('PURCHASE', 'CAPTURE', 'REFUND', 'CHARGEBACK', 'CHARGEBACK_REVERSAL')";

/// `created_at >= $2` is what the index is asked for; the rest is where the page before ended.
const IN_RANGE: &str = "\
    and t.created_at >= $2 and t.created_at < $3 \
        and (t.created_at, t.transaction_id) > ($2, $4) \
    order by t.created_at, t.transaction_id limit $5";

const OF_PAYMENTS: &str = "\
    and t.payment_id = any ($2) order by t.payment_id, t.transaction_id";

const HEAD: &str = "\
    select entity_seq, leaf_hash from journal where stream_id = $1 order by entity_seq desc limit 1";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    tenant_id: String,
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    transaction_id: Uuid,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = BigInt)]
    amount: i64,
    #[diesel(sql_type = Text)]
    currency: String,
    #[diesel(sql_type = Nullable<Text>)]
    provider_reference: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    updated_at: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct HeadRow {
    #[diesel(sql_type = BigInt)]
    entity_seq: i64,
    #[diesel(sql_type = Binary)]
    leaf_hash: Vec<u8>,
}

fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(column.to_owned())
}

impl TryFrom<Row> for Booked {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let kind = TransactionKind::from_name(&row.kind);
        let kind = kind.ok_or_else(|| corrupt("transactions.kind"))?;
        let state = TransactionState::from_name(&row.state);
        let reference = row.provider_reference.map(ProviderReference::parse);
        Ok(Self {
            tenant: TenantId::parse(row.tenant_id).at("payments.tenant_id")?,
            payment: PaymentId(row.payment_id),
            transaction: TransactionId(row.transaction_id),
            kind: SettledKind::of(kind).ok_or_else(|| corrupt("transactions.kind"))?,
            opens: kind.opens(),
            state: state.ok_or_else(|| corrupt("transactions.state"))?,
            amount: row.amount,
            currency: Currency::parse(&row.currency).at("payments.currency")?,
            provider_reference: reference
                .transpose()
                .at("transactions.provider_reference")?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl PgStore {
    pub(crate) async fn read_booked(
        &self,
        range: &BookedRange,
        limit: usize,
    ) -> Result<Vec<Booked>, StoreError> {
        let (from, after) = match range.after {
            Some((at, transaction)) => (at, transaction.0),
            None => (range.from, Uuid::nil()),
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.scan("read bookings", |connection| {
            let query = diesel::sql_query(format!("{SELECTED} {IN_RANGE}"))
                .bind::<Text, _>(range.account.as_str().to_owned())
                .bind::<Timestamptz, _>(from)
                .bind::<Timestamptz, _>(range.to)
                .bind::<SqlUuid, _>(after)
                .bind::<BigInt, _>(limit);
            async move { query.load::<Row>(connection).await }.boxed()
        });
        read.await?.into_iter().map(Booked::try_from).collect()
    }

    pub(crate) async fn read_booked_of(
        &self,
        account: &ProviderAccount,
        payments: &[PaymentId],
    ) -> Result<Vec<Booked>, StoreError> {
        let ids: Vec<_> = payments.iter().map(|payment| payment.0).collect();
        let read = self
            .inner
            .reader
            .scan("read bookings of payments", |connection| {
                let query = diesel::sql_query(format!("{SELECTED} {OF_PAYMENTS}"))
                    .bind::<Text, _>(account.as_str().to_owned())
                    .bind::<Array<SqlUuid>, _>(ids.clone());
                async move { query.load::<Row>(connection).await }.boxed()
            });
        read.await?.into_iter().map(Booked::try_from).collect()
    }

    pub(crate) async fn read_stream_head(
        &self,
        stream: Uuid,
    ) -> Result<Option<StreamHead>, StoreError> {
        let read = self.inner.reader.read("read stream head", |connection| {
            let query = diesel::sql_query(HEAD).bind::<SqlUuid, _>(stream);
            async move { query.get_result::<HeadRow>(connection).await.optional() }.boxed()
        });
        let head = read.await?.map(|row| {
            let leaf_hash = row.leaf_hash.try_into();
            Ok(StreamHead {
                entity_seq: u64::try_from(row.entity_seq).at("journal.entity_seq")?,
                leaf_hash: leaf_hash.map_err(|_| corrupt("journal.leaf_hash"))?,
            })
        });
        head.transpose()
    }
}
