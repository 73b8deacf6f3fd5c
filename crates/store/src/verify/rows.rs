//! The payments of a batch and their transactions, as they are stored.

use std::collections::{BTreeMap, BTreeSet};

use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Binary, Bool, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::payment::MAX_RECORDED_TRANSACTIONS;
use quittance_domain::ports::StoreError;
use quittance_domain::text::Sensitive;
use quittance_domain::verification::{
    StoredCustomer, StoredPayment, StoredTransaction, UnjudgedErasure,
};
use uuid::Uuid;

use super::long::{
    LongPayment, Range, ReadLongPayments, ReadLongTransactions, is_transaction_readable, unreadable,
};
use super::read::{BATCH, BATCH_ENTRIES};
use crate::erasures::{ReadSaid, SaidRow, closed, done, erased, undecided};
use crate::keys::KeyRing;
use crate::payment_row::{PaymentRow, TransactionRow};
use crate::schema::{customers, payments, transactions};
use crate::sealing::{CustomerKey, Place, open};

/// Most payments that are compared with one batch: a batch ends at most as many streams as it has entries, so more than
/// that are payments without entries, of which this many are named.
pub(super) const MAX_PAYMENTS: i64 = 4 * BATCH;
/// Most transactions that are read with one batch: each has an entry, and only the first stream that ends in a batch has
/// entries before it. More than that were put in.
const MAX_TRANSACTIONS: usize = BATCH_ENTRIES + MAX_RECORDED_TRANSACTIONS;

type PaymentColumns = (PaymentRow, i16, Option<Vec<u8>>, CustomerColumns);

/// The customer, and the customer's row: its key, its tenant, the MAC of its reference, and whether it is being erased.
type CustomerColumns = (
    Option<Uuid>,
    Option<Vec<u8>>,
    Option<String>,
    Option<Vec<u8>>,
    Option<bool>,
);

/// What is stored about the payments of some streams.
pub(super) struct Rows {
    payments: Vec<PaymentColumns>,
    long_payments: Vec<LongPayment>,
    /// What the log says of erasures of their customers.
    erasures: Vec<SaidRow>,
    transactions: Vec<TransactionRow>,
    long_transactions: Vec<(Uuid, Uuid, bool)>,
}

impl Rows {
    /// Reads them, in one moment where the transaction is.
    pub(super) async fn read(
        connection: &mut AsyncPgConnection,
        range: Range,
    ) -> QueryResult<Self> {
        let long_payments: Vec<LongPayment> = ReadLongPayments(range).load(connection).await?;
        let ids: Vec<Uuid> = long_payments.iter().map(|row| row.id).collect();
        let payments = read_payments(connection, range, ids).await?;
        let erasures = read_erasures(connection, &payments).await?;
        let long_transactions: Vec<(Uuid, Uuid, bool)> =
            ReadLongTransactions(range).load(connection).await?;
        let transactions = read_transactions(connection, range).await?;
        Ok(Self {
            payments,
            long_payments,
            erasures,
            transactions,
            long_transactions,
        })
    }
}

async fn read_payments(
    connection: &mut AsyncPgConnection,
    range: Range,
    long: Vec<Uuid>,
) -> QueryResult<Vec<PaymentColumns>> {
    let mut read = payments::table
        .left_join(customers::table.on(payments::customer_id.eq(customers::customer_id.nullable())))
        .select((
            PaymentRow::as_select(),
            payments::currency_exponent,
            payments::provider_token,
            (
                payments::customer_id,
                sql::<Nullable<Binary>>("substr(customers.data_key, 1, 1025)"),
                sql::<Nullable<Text>>("left(customers.tenant_id, 1024)"),
                sql::<Nullable<Binary>>("substr(customers.reference_mac, 1, 33)"),
                sql::<Nullable<Bool>>("customers.erasing_since is not null"),
            ),
        ))
        .into_boxed::<Pg>()
        .filter(payments::payment_id.ge(range.from))
        .order(payments::payment_id)
        // With those that are too long as many as were measured, so that none is read that was not.
        .limit(MAX_PAYMENTS - i64::try_from(long.len()).unwrap_or(MAX_PAYMENTS));
    if let Some(below) = range.below {
        read = read.filter(payments::payment_id.lt(below));
    }
    if !long.is_empty() {
        read = read.filter(payments::payment_id.ne_all(long));
    }
    read.load(connection).await
}

/// What the log says of erasures of the customers.
async fn read_erasures(
    connection: &mut AsyncPgConnection,
    payments: &[PaymentColumns],
) -> QueryResult<Vec<SaidRow>> {
    let customers = payments.iter().filter_map(|(.., customer)| customer.0);
    let customers: BTreeSet<Uuid> = customers.collect();
    if customers.is_empty() {
        return Ok(Vec::new());
    }
    let read = ReadSaid::of(customers.into_iter().collect());
    read.load(connection).await
}

/// Transactions without their requests, which may be long and are compared with nothing.
async fn read_transactions(
    connection: &mut AsyncPgConnection,
    range: Range,
) -> QueryResult<Vec<TransactionRow>> {
    let mut read = transactions::table
        .select((
            transactions::payment_id,
            transactions::transaction_id,
            transactions::kind,
            transactions::origin,
            transactions::state,
            transactions::amount,
            transactions::provider_account,
            transactions::provider_reference,
            transactions::decline_code,
            transactions::decline_provider_code,
            transactions::failure_cause,
            transactions::reason,
            transactions::final_capture,
            transactions::attempts,
            transactions::ever_unknown,
            transactions::open_case,
            sql::<Nullable<Binary>>("null::bytea"),
            transactions::execute_before,
            transactions::lease_until,
            transactions::next_step_at,
            transactions::created_at,
            transactions::updated_at,
            transactions::retries,
            transactions::resolved_by_operator,
            transactions::dispute_reason,
            transactions::dispute_due_at,
            transactions::dispute_amount,
            transactions::dispute_currency,
            transactions::contradictions,
            transactions::left_alone,
        ))
        .into_boxed::<Pg>()
        .filter(transactions::payment_id.ge(range.from))
        .filter(sql::<Bool>(&is_transaction_readable()))
        .order(transactions::payment_id)
        .limit(i64::try_from(MAX_TRANSACTIONS).map_or(i64::MAX, |most| most + 1));
    if let Some(below) = range.below {
        read = read.filter(transactions::payment_id.lt(below));
    }
    read.load(connection).await
}

/// The payments of a batch, for comparing.
pub(super) struct StoredPayments {
    /// In the order of their ids.
    pub(super) payments: Vec<StoredPayment>,
    /// Transactions of payments that are not there.
    pub(super) orphans: Vec<(PaymentId, TransactionId)>,
    /// Behind this one they were not read, since there are too many.
    pub(super) cut: Option<Uuid>,
    /// From this one on transactions were not read, since there are more than entries can be about.
    pub(super) transactions_cut: Option<PaymentId>,
}

impl Rows {
    /// Reads and opens what the payments hold: not in the database's transaction, and on a thread that may take long.
    pub(super) fn into_payments(self, ring: &KeyRing) -> StoredPayments {
        let measured = self.payments.len() + self.long_payments.len();
        let many = i64::try_from(measured).is_ok_and(|count| count >= MAX_PAYMENTS);
        let mut rows: Vec<(Uuid, StoredTransaction)> = self
            .transactions
            .into_iter()
            .map(|row| (row.payment_id(), stored_transaction(row)))
            .collect();
        rows.extend(self.long_transactions.into_iter().map(long_transaction));
        rows.sort_by_key(|(payment, _)| *payment);
        let cut = rows.get(MAX_TRANSACTIONS).map(|(payment, _)| *payment);
        rows.retain(|(payment, _)| cut.is_none_or(|cut| *payment < cut));
        let mut rows = rows.into_iter().peekable();
        let whole = self.payments.into_iter();
        let said = Said {
            asked: erased(&self.erasures, ring),
            done: done(&self.erasures, ring),
            closed: closed(&self.erasures, ring),
            undecided: undecided(&self.erasures, ring),
        };
        let whole = whole.map(|columns| stored_payment(columns, &said, ring));
        let long = self.long_payments.into_iter().map(LongPayment::stored);
        let mut payments: Vec<StoredPayment> = whole.chain(long).collect();
        payments.sort_by_key(|payment| payment.id.0);
        let mut orphans = Vec::new();
        for payment in &mut payments {
            let id = payment.id.0;
            while let Some((of, row)) = rows.next_if(|(of, _)| *of < id) {
                orphans.push((PaymentId(of), row.id));
            }
            let mut own = Vec::new();
            while let Some((_, row)) = rows.next_if(|(of, _)| *of == id) {
                own.push(row);
            }
            payment.transactions = cut.is_none_or(|cut| id < cut).then_some(own);
        }
        if !many {
            orphans.extend(rows.map(|(of, row)| (PaymentId(of), row.id)));
        }
        let last = payments.last().map(|payment| payment.id.0);
        StoredPayments {
            payments,
            orphans,
            cut: last.filter(|_| many),
            transactions_cut: cut.map(PaymentId),
        }
    }
}

fn long_transaction(
    (payment, transaction, short): (Uuid, Uuid, bool),
) -> (Uuid, StoredTransaction) {
    let row = StoredTransaction {
        id: TransactionId(transaction),
        row: Err(unreadable(short)),
    };
    (payment, row)
}

fn stored_payment(
    (row, currency_exponent, token, customer): PaymentColumns,
    said: &Said,
    ring: &KeyRing,
) -> StoredPayment {
    let id = row.id();
    let (version, updated_at) = (row.version(), row.updated_at());
    let last_leaf_hash = row.last_leaf_hash().to_vec();
    let place = Place::new("payments", "provider_token", id);
    let closed = customer.0.is_some_and(|id| said.closed.contains(&id));
    let customer = match stored_customer(&row, customer, said, ring) {
        // One that was wiped, put back from a backup, or committed when nobody looked for it any more.
        StoredCustomer::Erased if closed && token.is_some() => {
            StoredCustomer::Differs("payments.provider_token")
        }
        stored => stored,
    };
    let token = token.map(|sealed| open(ring, None, place, &sealed));
    let payment = match token.transpose() {
        Ok(_) => row.into_payment(ring, None),
        Err(error) => Err(error),
    };
    StoredPayment {
        id: PaymentId(id),
        version,
        last_leaf_hash,
        updated_at,
        currency_exponent,
        customer,
        payment: payment.map_err(column),
        transactions: None,
    }
}

/// What the log says of customers.
struct Said {
    /// Their data is to be erased, or was.
    asked: BTreeSet<Uuid>,
    /// It was.
    done: BTreeSet<Uuid>,
    /// It was, and nobody looks for more of it.
    closed: BTreeSet<Uuid>,
    /// Whether it was is not known here.
    undecided: BTreeMap<Uuid, UnjudgedErasure>,
}

fn stored_customer(
    row: &PaymentRow,
    (id, key, tenant, reference_mac, erasing): CustomerColumns,
    said: &Said,
    ring: &KeyRing,
) -> StoredCustomer {
    let Some(id) = id else {
        return StoredCustomer::None;
    };
    if !row.is_of_customer(id) {
        return StoredCustomer::Unreadable("payments.customer_id");
    }
    let Some(key) = key else {
        return match said.undecided.get(&id) {
            _ if said.asked.contains(&id) => StoredCustomer::Erased,
            Some(unjudged) => StoredCustomer::Unjudged(unjudged.clone()),
            None => StoredCustomer::Unreadable("customers.data_key"),
        };
    };
    // A key that was destroyed, put back from a backup.
    if said.done.contains(&id) {
        return StoredCustomer::Differs("customers.data_key");
    }
    let opened = CustomerKey::unwrap(ring, id, &key)
        .map_err(|_| "customers.data_key")
        .and_then(|key| {
            let reference = row.customer_reference(ring, Some(&key));
            reference.map_err(|_| "payments.customer_sealed")
        });
    let reference = match opened {
        Ok(reference) => reference,
        Err(column) => return StoredCustomer::Unreadable(column),
    };
    // By these an erasure finds the customer; while it is asked for, nothing is stored any more.
    if tenant.as_deref() != Some(row.tenant()) {
        return StoredCustomer::Differs("customers.tenant_id");
    }
    let mac = reference_mac.unwrap_or_default();
    let is_its = |reference: &Sensitive<String>| {
        ring.verify_customer_reference(row.tenant(), reference.expose(), &mac)
    };
    if !reference.as_ref().is_some_and(is_its) {
        return StoredCustomer::Differs("customers.reference_mac");
    }
    if let Some(unjudged) = said.undecided.get(&id) {
        return StoredCustomer::Unjudged(unjudged.clone());
    }
    if erasing.unwrap_or_default() != said.asked.contains(&id) {
        return StoredCustomer::Differs("customers.erasing_since");
    }
    StoredCustomer::Held
}

fn stored_transaction(row: TransactionRow) -> StoredTransaction {
    StoredTransaction {
        id: row.id(),
        row: row.into_transaction(None).map_err(column),
    }
}

/// The column that cannot be read.
fn column(error: StoreError) -> String {
    match error {
        StoreError::Corrupt(column) => column,
        other => other.to_string(),
    }
}
