//! Reading payments with their transactions.

use std::time::Instant;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::ids::{PaymentId, TenantId};
use quittance_domain::payment::PaymentRecord;
use quittance_domain::ports::{PaymentFilter, PaymentPage, StoreError};
use quittance_domain::text::Sensitive;
use uuid::Uuid;

use crate::payment_row::{CustomerRow, PaymentRow, ReadAs as _, TransactionRow};
use crate::schema::{customers, payments, transactions};
use crate::sealing::{CustomerKey, Place, open};
use crate::store::PgStore;

/// How far a payment's id may lie from its time of creation, both being made in one step: a margin for
/// using times to look only at the partitions concerned.
const ID_TIME_MARGIN: chrono::TimeDelta = chrono::TimeDelta::days(1);

/// Most transactions that one page of payments shows, over all its payments: a page ends early where they
/// would be more, but for those of its first payment.
pub const MAX_TRANSACTIONS_PER_PAGE: usize = 10_000;
/// How often a payment that changes while it is read is read again, before it is read in a transaction.
const MAX_OPTIMISTIC_READS: u32 = 2;

/// A payment and its customer.
type OwnRow = (PaymentRow, Option<CustomerRow>);
/// Its transactions, each with the payment's version at that moment.
type Parts = Vec<(i64, TransactionRow)>;

impl PgStore {
    pub(crate) async fn read_payment(
        &self,
        tenant: &TenantId,
        id: PaymentId,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        let since = Instant::now();
        let read = self.inner.reader.read("read payment", |connection| {
            let tenant = tenant.as_str().to_owned();
            async move { payment_of_one_moment(connection, &tenant, id.0).await }.boxed()
        });
        let Some(((payment, customer), rows)) = read.await? else {
            return Ok(None);
        };
        let keys = &*self.inner.keys;
        let erased = customer
            .as_ref()
            .map_or(payment.has_customer(), |row| row.erasing_since.is_some());
        let customer =
            customer.map(|row| CustomerKey::unwrap(keys, row.customer_id, &row.data_key));
        let customer = customer.transpose()?;
        if let Some(customer) = &customer {
            self.inner.customers.remember(id.0, customer, since);
        }
        let mut payment = payment.into_payment(keys, customer.as_ref())?;
        payment.customer_erased = erased;
        let transactions = rows
            .into_iter()
            .map(|(_, row)| row.into_transaction(Some((keys, customer.as_ref()))))
            .collect::<Result<_, _>>()?;
        Ok(Some(PaymentRecord {
            payment,
            transactions,
        }))
    }

    /// The token of a payment's method: only what prepares a request again needs it.
    pub(crate) async fn read_method_token(
        &self,
        id: PaymentId,
    ) -> Result<Option<Sensitive<String>>, StoreError> {
        const COLUMN: &str = "payments.provider_token";
        let read = self.inner.reader.read("read method token", |connection| {
            let query = payments::table
                .filter(payments::payment_id.eq(id.0))
                .select(payments::provider_token);
            async move { query.first::<Option<Vec<u8>>>(connection).await.optional() }.boxed()
        });
        let Some(sealed) = read.await?.flatten() else {
            return Ok(None);
        };
        let place = Place::new("payments", "provider_token", id.0);
        let plain = open(&self.inner.keys, None, place, &sealed)?;
        let token = std::str::from_utf8(&plain).at(COLUMN)?;
        Ok(Some(Sensitive::new(token.to_owned())))
    }

    /// Lists a tenant's payments, newest first, those after `after` (exclusive) of an earlier page: at most
    /// `limit`, and fewer where their transactions would be more than [`MAX_TRANSACTIONS_PER_PAGE`].
    pub(crate) async fn payment_page(
        &self,
        tenant: &TenantId,
        filter: &PaymentFilter,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<PaymentPage, StoreError> {
        let budget = MAX_TRANSACTIONS_PER_PAGE;
        self.bounded_page(tenant, filter, after, limit, budget)
            .await
    }

    async fn bounded_page(
        &self,
        tenant: &TenantId,
        filter: &PaymentFilter,
        after: Option<PaymentId>,
        limit: usize,
        budget: usize,
    ) -> Result<PaymentPage, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.scan("list payments", |connection| {
            let query = listed(tenant, filter, after).limit(limit);
            async move {
                // Two statements, of one moment.
                let mut transaction = connection.build_transaction().repeatable_read().read_only();
                transaction
                    .run(async |connection| {
                        let payments: Vec<PaymentRow> = query.load(connection).await?;
                        let parts = transactions_of(connection, &payments, budget).await?;
                        Ok((payments, parts))
                    })
                    .await
            }
            .boxed()
        });
        let (mut payments, parts) = read.await?;
        let ended_early = parts.complete < payments.len();
        payments.truncate(parts.complete);
        let payments = self.records(payments, parts.rows)?;
        Ok(PaymentPage {
            payments,
            ended_early,
        })
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

/// Reads a payment and its transactions by two statements, sent together. The version shows whether they
/// are of one moment: it changes with everything else.
async fn payment_of_one_moment(
    connection: &mut AsyncPgConnection,
    tenant: &str,
    id: Uuid,
) -> QueryResult<Option<(OwnRow, Parts)>> {
    for _ in 0..MAX_OPTIMISTIC_READS {
        let (mut first, mut second) = (&*connection, &*connection);
        let (payment, parts) = futures::try_join!(
            own_row(&mut first, tenant, id),
            parts_of(&mut second, tenant, id)
        )?;
        let Some(payment) = payment else {
            return Ok(None);
        };
        let version = payment.0.version();
        // None at all: the second statement came first, before the payment did.
        if !parts.is_empty() && parts.iter().all(|(other, _)| *other == version) {
            return Ok(Some((payment, parts)));
        }
    }
    let mut transaction = connection.build_transaction().repeatable_read().read_only();
    transaction
        .run(async |connection| {
            let mut connection = &*connection;
            let Some(payment) = own_row(&mut connection, tenant, id).await? else {
                return Ok(None);
            };
            let parts = parts_of(&mut connection, tenant, id).await?;
            Ok(Some((payment, parts)))
        })
        .await
}

async fn own_row(
    connection: &mut &AsyncPgConnection,
    tenant: &str,
    id: Uuid,
) -> QueryResult<Option<OwnRow>> {
    payments::table
        .left_join(customers::table.on(payments::customer_id.eq(customers::customer_id.nullable())))
        .filter(payments::payment_id.eq(id))
        .filter(payments::tenant_id.eq(tenant))
        .select((PaymentRow::as_select(), Option::<CustomerRow>::as_select()))
        .first(connection)
        .await
        .optional()
}

async fn parts_of(
    connection: &mut &AsyncPgConnection,
    tenant: &str,
    id: Uuid,
) -> QueryResult<Parts> {
    transactions::table
        .inner_join(payments::table.on(payments::payment_id.eq(transactions::payment_id)))
        .filter(transactions::payment_id.eq(id))
        .filter(payments::payment_id.eq(id))
        .filter(payments::tenant_id.eq(tenant))
        .order((transactions::created_at, transactions::transaction_id))
        .select((payments::version, TransactionRow::as_select()))
        .load(connection)
        .await
}

/// The transactions of some payments.
struct PageParts {
    rows: Vec<TransactionRow>,
    /// Of how many of the payments, from the first on, these are all.
    complete: usize,
}

/// Reads the transactions of these payments, `budget` at most, but always all of the first one's.
async fn transactions_of(
    connection: &mut AsyncPgConnection,
    payments: &[PaymentRow],
    budget: usize,
) -> QueryResult<PageParts> {
    let ids: Vec<Uuid> = payments.iter().map(PaymentRow::id).collect();
    // In the order of the page; one more than there is room for, to see whether they are all.
    let query = transactions::table
        .filter(transactions::payment_id.eq_any(ids))
        .order((
            transactions::payment_id.desc(),
            transactions::created_at,
            transactions::transaction_id,
        ))
        .limit(i64::try_from(budget).map_or(i64::MAX, |budget| budget.saturating_add(1)))
        .select(TransactionRow::as_select());
    let mut rows: Vec<TransactionRow> = query.load(connection).await?;
    let cut = rows.last().filter(|_| rows.len() > budget);
    let Some(cut) = cut.map(TransactionRow::payment_id) else {
        let complete = payments.len();
        return Ok(PageParts { rows, complete });
    };
    let complete = payments.iter().position(|payment| payment.id() == cut);
    if let Some(complete) = complete.filter(|complete| *complete > 0) {
        rows.retain(|row| row.payment_id() != cut);
        return Ok(PageParts { rows, complete });
    }
    let rows = transactions::table
        .filter(transactions::payment_id.eq(cut))
        .order((transactions::created_at, transactions::transaction_id))
        .select(TransactionRow::as_select())
        .load(connection)
        .await?;
    Ok(PageParts { rows, complete: 1 })
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

#[cfg(test)]
mod tests {
    use quittance_domain::ports::{Commit, Store as _};
    use quittance_test_support::{Story, TestDb, tenant};

    use super::*;

    #[tokio::test]
    async fn a_page_ends_early_where_its_transactions_are_too_many_but_never_empty() {
        let db = TestDb::new().await;
        let mut config = crate::StoreConfig::new(
            db.url(),
            crate::KeyRing::new([("test".to_owned(), [1; 32])]).unwrap(),
        );
        // No limit is the subject here.
        config.unavailable_after = std::time::Duration::from_secs(60);
        config.statement_timeout = config.unavailable_after;
        let pg = PgStore::connect(config, std::sync::Arc::new(crate::Unobserved));
        let pg = pg.await.unwrap();
        // Oldest first: 1, 5, 2 and 2 transactions.
        let mut ids = Vec::new();
        for (number, captures) in [0, 4, 1, 1].into_iter().enumerate() {
            let (mut story, accepted) = Story::accept("acme", &format!("key-{number}"), 1_000);
            assert_eq!(pg.commit(accepted).await, Ok(Commit::Committed));
            pg.commit(story.authorized()).await.unwrap();
            for capture in 0..captures {
                let key = format!("key-{number}-{capture}");
                pg.commit(story.capture(&key, 1)).await.unwrap();
                pg.commit(story.captured()).await.unwrap();
            }
            ids.push(story.payment.id);
        }
        let (acme, filter) = (tenant("acme"), PaymentFilter::default());
        let mut pages = Vec::new();
        let mut after = None;
        loop {
            let page = pg.bounded_page(&acme, &filter, after, 10, 3).await.unwrap();
            let sizes = page.payments.iter().map(|record| record.transactions.len());
            pages.push(sizes.collect::<Vec<_>>());
            after = page.payments.last().map(|record| record.payment.id);
            if !page.ended_early {
                break;
            }
        }
        // The largest is shown whole, alone.
        assert_eq!(pages, [vec![2], vec![2], vec![5], vec![1]]);
        let page = pg.bounded_page(&acme, &filter, None, 10, 10).await.unwrap();
        assert!(!page.ended_early);
        let listed: Vec<_> = page
            .payments
            .iter()
            .map(|record| record.payment.id)
            .collect();
        ids.reverse();
        assert_eq!(listed, ids);
        let exactly = pg.bounded_page(&acme, &filter, None, 2, 4).await.unwrap();
        assert_eq!((exactly.payments.len(), exactly.ended_early), (2, false));
    }
}
