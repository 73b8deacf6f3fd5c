//! Rows that are longer than the service writes them, or hold what no program reads.
//!
//! Columns are only as long as somebody left them, and checks can be dropped. So it is asked first which rows are too long,
//! or have times or metadata that cannot be read, such as `infinity`: those are not read, and reported as unreadable.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Bool, SmallInt, Timestamptz, Uuid as SqlUuid};
use quittance_domain::ids::PaymentId;
use quittance_domain::verification::{StoredCustomer, StoredPayment};
use uuid::Uuid;

use super::rows::MAX_PAYMENTS;

/// Most bytes of a payment's columns: what a customer has to do has 128 KiB at most, metadata about as many.
const MAX_PAYMENT: i64 = 512 * 1_024;
/// Most bytes of the columns of all payments of a batch. The longest metadata, in every one of them, are fewer.
const MAX_PAYMENTS_BYTES: i64 = 128 * 1_024 * 1_024;
/// Most bytes of a transaction's columns, without its request, which is not read.
const MAX_TRANSACTION: i64 = 16 * 1_024;
/// How a row is told to be unreadable that is longer.
const TOO_LONG: &str = "a row that is longer than the service writes one";
/// How one is told to be unreadable that has a time or metadata which cannot be read.
const ODD: &str = "a row with a time or with metadata that the service never writes";

/// The times that are read: years of four digits. What is outside, `infinity` and years before Christ among it, is read
/// as the nearest: no entry is of these two times, so it differs from whatever is expected.
const TIMES: [&str; 2] = ["0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"];

/// A time that is not null, as it can be read.
pub(crate) fn readable_time(column: &str) -> String {
    let [first, last] = TIMES;
    format!("least(greatest({column}, '{first}'), '{last}')")
}

/// The condition that a row's times can be read: those that are never null, and those that may be.
fn are_readable(times: &[&str], nullable: &[&str]) -> String {
    let [first, last] = TIMES;
    let readable = |column: &&str| format!("({column} between '{first}' and '{last}')");
    let or_null =
        |column: &&str| format!("coalesce({column} between '{first}' and '{last}', true)");
    let all: Vec<String> = times
        .iter()
        .map(readable)
        .chain(nullable.iter().map(or_null))
        .collect();
    all.join(" and ")
}

const PAYMENT_TIMES: (&[&str], &[&str]) = (&["created_at", "updated_at"], &["expires_at"]);
const TRANSACTION_TIMES: (&[&str], &[&str]) = (
    &["execute_before", "created_at", "updated_at"],
    &["lease_until", "next_step_at", "dispute_due_at"],
);
/// The condition that metadata are an object of texts: JSON can hold numbers and depths that no program reads.
const METADATA: &str = "coalesce(jsonb_typeof(metadata) = 'object' \
     and not metadata @? 'strict $.* ? (@.type() != \"string\")', false)";

/// The columns of payments that can be long, beside the metadata.
const LONG_PAYMENT_COLUMNS: &[&str] = &[
    "tenant_id",
    "state",
    "currency",
    "method_kind",
    "provider_token",
    "brand",
    "last4",
    "capture_method",
    "merchant_reference",
    "description",
    "return_url",
    "initiator",
    "mandate_reference",
    "customer_sealed",
    "provider_account",
    "provider_reference",
    "next_action",
    "decline_code",
    "decline_provider_code",
    "failure_cause",
    "last_leaf_hash",
];

/// The columns of transactions that can be long, but for the request.
const LONG_TRANSACTION_COLUMNS: &[&str] = &[
    "kind",
    "origin",
    "state",
    "provider_account",
    "provider_reference",
    "decline_code",
    "decline_provider_code",
    "failure_cause",
    "reason",
    "open_case",
    "dispute_reason",
    "dispute_currency",
    "contradictions",
    "left_alone",
];

/// The tables whose rows are measured before they are read, and what is measured of them. A test compares that with the
/// database's catalogue.
pub fn measured_columns() -> [(&'static str, &'static [&'static str]); 2] {
    [
        ("payments", LONG_PAYMENT_COLUMNS),
        ("transactions", LONG_TRANSACTION_COLUMNS),
    ]
}

fn bytes_of(columns: &[&str]) -> String {
    let bytes: Vec<String> = columns
        .iter()
        .map(|column| format!("coalesce(octet_length({column}), 0)::bigint"))
        .collect();
    bytes.join(" + ")
}

/// Streams from one on, and below another where there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) from: Uuid,
    pub(super) below: Option<Uuid>,
}

impl Range {
    pub(super) fn walk<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("payment_id >= ");
        out.push_bind_param::<SqlUuid, _>(&self.from)?;
        if let Some(below) = &self.below {
            out.push_sql(" and payment_id < ");
            out.push_bind_param::<SqlUuid, _>(below)?;
        }
        Ok(())
    }
}

/// Finds payments that are too long, each by itself or all together, or cannot be read. What compresses well is as long as it is read.
pub(super) struct ReadLongPayments(pub(super) Range);

type LongPaymentTypes = (SqlUuid, BigInt, Binary, Timestamptz, SmallInt, Bool);

/// A payment that is not read: what tells that it is there, and how old.
#[derive(Queryable)]
pub(super) struct LongPayment {
    pub(super) id: Uuid,
    version: i64,
    last_leaf_hash: Vec<u8>,
    updated_at: DateTime<Utc>,
    currency_exponent: i16,
    /// Whether it is short, and cannot be read for another reason.
    odd: bool,
}

impl QueryFragment<Pg> for ReadLongPayments {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let bytes = bytes_of(LONG_PAYMENT_COLUMNS);
        out.push_sql("select payment_id, version, last_leaf_hash, ");
        out.push_sql(&readable_time("updated_at"));
        out.push_sql(", currency_exponent, odd from (select *, sum(bytes) filter (where bytes <= ");
        out.push_bind_param::<BigInt, _>(&MAX_PAYMENT)?;
        out.push_sql(") over (order by payment_id) as total, bytes <= ");
        out.push_bind_param::<BigInt, _>(&MAX_PAYMENT)?;
        out.push_sql(" and not (");
        out.push_sql(&are_readable(PAYMENT_TIMES.0, PAYMENT_TIMES.1));
        // What is too long is not looked into.
        out.push_sql(" and case when bytes <= ");
        out.push_bind_param::<BigInt, _>(&MAX_PAYMENT)?;
        out.push_sql(" then ");
        out.push_sql(METADATA);
        out.push_sql(" else true end) as odd from (select payment_id, version, substr(last_leaf_hash, 1, 33) as last_leaf_hash, ");
        out.push_sql("updated_at, currency_exponent, created_at, expires_at, metadata, (");
        out.push_sql(&bytes);
        out.push_sql(" + case when pg_column_size(metadata) > ");
        out.push_bind_param::<BigInt, _>(&MAX_PAYMENT)?;
        out.push_sql(
            " then pg_column_size(metadata) else octet_length(metadata::text) end)::bigint as bytes from payments where ",
        );
        self.0.walk(&mut out)?;
        out.push_sql(" order by payment_id limit ");
        out.push_bind_param::<BigInt, _>(&MAX_PAYMENTS)?;
        out.push_sql(") p) p where odd or bytes > ");
        out.push_bind_param::<BigInt, _>(&MAX_PAYMENT)?;
        out.push_sql(" or total > ");
        out.push_bind_param::<BigInt, _>(&MAX_PAYMENTS_BYTES)?;
        out.push_sql(" order by payment_id");
        Ok(())
    }
}

impl QueryId for ReadLongPayments {
    type QueryId = Self;
    // Two texts: with an end and without.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for ReadLongPayments {
    type SqlType = LongPaymentTypes;
}

/// The condition that a transaction is not too long, and that its times can be read.
pub(super) fn is_transaction_readable() -> String {
    format!(
        "{} and {}",
        is_transaction_short(),
        are_readable(TRANSACTION_TIMES.0, TRANSACTION_TIMES.1)
    )
}

fn is_transaction_short() -> String {
    format!(
        "{} <= {MAX_TRANSACTION}",
        bytes_of(LONG_TRANSACTION_COLUMNS)
    )
}

/// Finds transactions that are too long or cannot be read, with whether they are short; as many as will do to name them.
pub(super) struct ReadLongTransactions(pub(super) Range);

impl QueryFragment<Pg> for ReadLongTransactions {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select payment_id, transaction_id, ");
        out.push_sql(&is_transaction_short());
        out.push_sql(" from transactions where ");
        self.0.walk(&mut out)?;
        out.push_sql(" and not (");
        out.push_sql(&is_transaction_readable());
        out.push_sql(") order by payment_id limit ");
        out.push_bind_param::<BigInt, _>(&MAX_PAYMENTS)?;
        Ok(())
    }
}

impl QueryId for ReadLongTransactions {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for ReadLongTransactions {
    type SqlType = (SqlUuid, SqlUuid, Bool);
}

/// Why a row is not read.
pub(super) fn unreadable(short: bool) -> String {
    let why = if short { ODD } else { TOO_LONG };
    why.to_owned()
}

impl LongPayment {
    /// The payment, of which nothing can be said but that it is there.
    pub(super) fn stored(self) -> StoredPayment {
        StoredPayment {
            id: PaymentId(self.id),
            version: self.version,
            last_leaf_hash: self.last_leaf_hash,
            updated_at: self.updated_at,
            currency_exponent: self.currency_exponent,
            customer: StoredCustomer::Held,
            payment: Err(unreadable(self.odd)),
            transactions: None,
        }
    }
}
