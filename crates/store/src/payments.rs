//! Reading payments with their transactions.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::ids::{PaymentId, TenantId};
use quittance_domain::payment::PaymentRecord;
use quittance_domain::ports::{PaymentFilter, StoreError};
use uuid::Uuid;

use crate::payment_row::{CustomerRow, PaymentRow, TransactionRow};
use crate::schema::{customers, payments, transactions};
use crate::sealing::CustomerKey;
use crate::store::PgStore;

/// How far a payment's id may lie from its time of creation, both being made in one step: a margin for
/// using times to look only at the partitions concerned.
const ID_TIME_MARGIN: chrono::TimeDelta = chrono::TimeDelta::days(1);

type Joined = (PaymentRow, Option<CustomerRow>, Option<TransactionRow>);

impl PgStore {
    pub(crate) async fn read_payment(
        &self,
        tenant: &TenantId,
        id: PaymentId,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        let read = self.inner.reader.read("read payment", |connection| {
            // One statement, so that payment and transactions are of one moment.
            let query = payments::table
                .left_join(
                    transactions::table.on(transactions::payment_id.eq(payments::payment_id)),
                )
                .left_join(
                    customers::table
                        .on(payments::customer_id.eq(customers::customer_id.nullable())),
                )
                .filter(payments::payment_id.eq(id.0))
                .filter(payments::tenant_id.eq(tenant.as_str().to_owned()))
                .order((transactions::created_at, transactions::transaction_id))
                .select((
                    PaymentRow::as_select(),
                    Option::<CustomerRow>::as_select(),
                    Option::<TransactionRow>::as_select(),
                ));
            async move { query.load::<Joined>(connection).await }.boxed()
        });
        let (mut payment, mut rows) = (None, Vec::new());
        for (row, customer, transaction) in read.await? {
            payment.get_or_insert((row, customer));
            rows.extend(transaction);
        }
        let Some((payment, customer)) = payment else {
            return Ok(None);
        };
        let keys = &*self.inner.keys;
        let customer =
            customer.map(|row| CustomerKey::unwrap(keys, row.customer_id, &row.data_key));
        let customer = customer.transpose()?;
        let payment = payment.into_payment(keys, customer.as_ref())?;
        let transactions = rows
            .into_iter()
            .map(|row| row.into_transaction(Some((keys, customer.as_ref()))))
            .collect::<Result<_, _>>()?;
        Ok(Some(PaymentRecord {
            payment,
            transactions,
        }))
    }

    pub(crate) async fn read_payments(
        &self,
        tenant: &TenantId,
        filter: &PaymentFilter,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<Vec<PaymentRecord>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.read("list payments", |connection| {
            let query = listed(tenant, filter, after).limit(limit);
            async move {
                // Two statements, of one moment.
                let mut transaction = connection.build_transaction().repeatable_read().read_only();
                transaction
                    .run(async |connection| {
                        let payments: Vec<PaymentRow> = query.load(connection).await?;
                        let ids = payments.iter().map(PaymentRow::id).collect();
                        Ok((payments, transactions_of(connection, ids).await?))
                    })
                    .await
            }
            .boxed()
        });
        let (payments, transactions) = read.await?;
        self.records(payments, transactions)
    }

    /// Joins payments, in their order, with their transactions. Requests and customers are not opened:
    /// nothing is decided upon a list.
    fn records(
        &self,
        payments: Vec<PaymentRow>,
        transactions: Vec<TransactionRow>,
    ) -> Result<Vec<PaymentRecord>, StoreError> {
        let mut of_payment = std::collections::HashMap::<Uuid, Vec<_>>::new();
        for row in transactions {
            of_payment
                .entry(row.payment_id())
                .or_default()
                .push(row.into_transaction(None)?);
        }
        let records = payments.into_iter().map(|row| {
            let transactions = of_payment.remove(&row.id()).unwrap_or_default();
            let payment = row.into_payment(&self.inner.keys, None)?;
            Ok(PaymentRecord {
                payment,
                transactions,
            })
        });
        records.collect()
    }
}

async fn transactions_of(
    connection: &mut AsyncPgConnection,
    payments: Vec<Uuid>,
) -> QueryResult<Vec<TransactionRow>> {
    transactions::table
        .filter(transactions::payment_id.eq_any(payments))
        .order((
            transactions::payment_id,
            transactions::created_at,
            transactions::transaction_id,
        ))
        .select(TransactionRow::as_select())
        .load(connection)
        .await
}

type Listed = diesel::helper_types::IntoBoxed<
    'static,
    diesel::helper_types::Select<
        payments::table,
        diesel::helper_types::AsSelect<PaymentRow, diesel::pg::Pg>,
    >,
    diesel::pg::Pg,
>;

fn listed(tenant: &TenantId, filter: &PaymentFilter, after: Option<PaymentId>) -> Listed {
    let mut query = payments::table
        .select(PaymentRow::as_select())
        .into_boxed::<diesel::pg::Pg>()
        .filter(payments::tenant_id.eq(tenant.as_str().to_owned()))
        .order(payments::payment_id.desc());
    if let Some(after) = after {
        query = query.filter(payments::payment_id.lt(after.0));
    }
    if !filter.states.is_empty() {
        let states: Vec<_> = filter.states.iter().map(|state| state.name()).collect();
        query = query.filter(payments::state.eq_any(states));
    }
    if let Some(from) = filter.created_from {
        let floor = uuid_floor(from - ID_TIME_MARGIN);
        query = query
            .filter(payments::created_at.ge(from))
            .filter(payments::payment_id.ge(floor));
    }
    if let Some(to) = filter.created_to {
        let ceiling = uuid_floor(to + ID_TIME_MARGIN);
        query = query
            .filter(payments::created_at.lt(to))
            .filter(payments::payment_id.lt(ceiling));
    }
    if let Some(account) = &filter.provider_account {
        query = query.filter(payments::provider_account.eq(account.as_str().to_owned()));
    }
    if let Some(reference) = &filter.merchant_reference {
        query = query.filter(payments::merchant_reference.eq(reference.clone()));
        if !reference.is_empty() {
            // Says that the partial index holds what is looked for.
            query = query.filter(payments::merchant_reference.ne(""));
        }
    }
    query
}

/// The smallest UUID whose first 48 bits are this moment in milliseconds (RFC 9562, `UUIDv7`).
pub(crate) fn uuid_floor(moment: DateTime<Utc>) -> Uuid {
    let millis = u128::try_from(moment.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128((millis & ((1 << 48) - 1)) << 80)
}
