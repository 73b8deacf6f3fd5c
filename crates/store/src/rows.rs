//! The rows that a change writes, and the same rows turned into columns: PostgreSQL takes one array
//! per column (`unnest`), so that one prepared statement serves a batch of any size.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Integer, Nullable, SmallInt, SqlType, Text, Timestamptz,
    Uuid as SqlUuid,
};
use uuid::Uuid;

/// A value of a column: its SQL type, and how it is lent to the statement without a copy.
pub(crate) trait Column {
    /// The SQL type of one value.
    type Sql: SqlType;
    /// What is bound.
    type Bound<'a>: std::fmt::Debug
    where
        Self: 'a;

    /// Lends the value.
    fn bound(&self) -> Self::Bound<'_>;
}

/// Implements [`Column`] for a type and for its `Option`.
macro_rules! column {
    ($($rust:ty => $sql:ty, $bound:ty, |$value:ident| $lend:expr;)+) => {$(
        impl Column for $rust {
            type Sql = $sql;
            type Bound<'a> = $bound;
            fn bound(&self) -> Self::Bound<'_> { let $value = self; $lend }
        }
        impl Column for Option<$rust> {
            type Sql = Nullable<$sql>;
            type Bound<'a> = Option<$bound>;
            fn bound(&self) -> Self::Bound<'_> { self.as_ref().map(|$value| $lend) }
        }
    )+};
}

column! {
    Uuid => SqlUuid, Uuid, |value| *value;
    String => Text, &'a str, |value| value.as_str();
    &'static str => Text, &'static str, |value| *value;
    Vec<u8> => Binary, &'a [u8], |value| value.as_slice();
    [u8; 32] => Binary, &'a [u8], |value| value.as_slice();
    bool => Bool, bool, |value| *value;
    i16 => SmallInt, i16, |value| *value;
    i32 => Integer, i32, |value| *value;
    i64 => BigInt, i64, |value| *value;
    DateTime<Utc> => Timestamptz, DateTime<Utc>, |value| *value;
}

/// Declares a row, and its columns as arrays that a statement binds as
/// `(select * from unnest($1, $2, …) as s(first, second, …))`.
macro_rules! rows {
    ($($(#[$doc:meta])* $row:ident as $columns:ident { $($field:ident: $ty:ty),+ $(,)? })+) => {$(
        $(#[$doc])*
        pub(crate) struct $row { $(pub(crate) $field: $ty),+ }

        #[doc = concat!("Many [`", stringify!($row), "`]s, one array a column.")]
        #[derive(Default)]
        pub(crate) struct $columns<'a> { $($field: Vec<<$ty as Column>::Bound<'a>>),+ }

        impl<'a> $columns<'a> {
            /// The columns' names, in order.
            pub(crate) const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            /// Adds a row.
            pub(crate) fn push(&mut self, row: &'a $row) {
                $(self.$field.push(row.$field.bound());)+
            }

            /// Writes the table expression `unnest(…) as s(…)`.
            pub(crate) fn walk<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
                let mut separator = "unnest(";
                $(
                    out.push_sql(separator);
                    out.push_bind_param::<Array<<$ty as Column>::Sql>, _>(&self.$field)?;
                    separator = ", ";
                )+
                let _ = separator;
                let mut separator = ") as s (";
                for name in Self::NAMES {
                    out.push_sql(separator);
                    out.push_sql(name);
                    separator = ", ";
                }
                out.push_sql(")");
                Ok(())
            }
        }
    )+};
}

rows! {
    /// A row of `idempotency_records`.
    KeyRow as KeyColumns {
        tenant_id: String,
        idempotency_key: String,
        command: &'static str,
        fingerprint: Vec<u8>,
        payment_id: Uuid,
        transaction_id: Uuid,
        created_at: DateTime<Utc>,
    }
    /// A new row of `payments`. `metadata` is JSON; `keyed` (no column) where an idempotency record
    /// has to be written first.
    PaymentInsert as PaymentInserts {
        keyed: bool,
        payment_id: Uuid,
        tenant_id: String,
        version: i64,
        state: &'static str,
        disputed: bool,
        expired: bool,
        livemode: bool,
        amount: i64,
        currency: &'static str,
        currency_exponent: i16,
        authorized: i64,
        captured: i64,
        capture_pending: i64,
        voided: i64,
        void_pending: i64,
        refunded: i64,
        refund_pending: i64,
        charged_back: i64,
        excess: i64,
        method_kind: &'static str,
        provider_token: Option<Vec<u8>>,
        brand: String,
        last4: String,
        expiry_month: Option<i16>,
        expiry_year: Option<i16>,
        capture_method: &'static str,
        merchant_reference: String,
        description: String,
        return_url: String,
        initiator: &'static str,
        mandate_reference: String,
        metadata: String,
        customer_id: Option<Uuid>,
        customer_sealed: Option<Vec<u8>>,
        provider_account: String,
        routed: bool,
        provider_reference: Option<String>,
        named_by_operator: bool,
        next_action: Option<Vec<u8>>,
        decline_code: Option<&'static str>,
        decline_provider_code: Option<String>,
        failure_cause: Option<&'static str>,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
        expires_at: Option<DateTime<Utc>>,
        last_leaf_hash: [u8; 32],
    }
    /// The columns of `payments` that change, guarded by `version - 1`.
    PaymentUpdate as PaymentUpdates {
        payment_id: Uuid,
        version: i64,
        state: &'static str,
        disputed: bool,
        expired: bool,
        authorized: i64,
        captured: i64,
        capture_pending: i64,
        voided: i64,
        void_pending: i64,
        refunded: i64,
        refund_pending: i64,
        charged_back: i64,
        excess: i64,
        livemode: bool,
        provider_account: String,
        routed: bool,
        provider_reference: Option<String>,
        named_by_operator: bool,
        next_action: Option<Vec<u8>>,
        decline_code: Option<&'static str>,
        decline_provider_code: Option<String>,
        failure_cause: Option<&'static str>,
        updated_at: DateTime<Utc>,
        expires_at: Option<DateTime<Utc>>,
        last_leaf_hash: [u8; 32],
    }
    /// A new row of `transactions`.
    TransactionInsert as TransactionInserts {
        payment_id: Uuid,
        transaction_id: Uuid,
        kind: &'static str,
        origin: &'static str,
        state: &'static str,
        amount: i64,
        provider_account: String,
        provider_reference: Option<String>,
        decline_code: Option<&'static str>,
        decline_provider_code: Option<String>,
        failure_cause: Option<&'static str>,
        reason: String,
        final_capture: bool,
        attempts: i32,
        ever_unknown: bool,
        retries: i32,
        resolved_by_operator: bool,
        open_case: Option<String>,
        request: Option<Vec<u8>>,
        execute_before: DateTime<Utc>,
        lease_until: Option<DateTime<Utc>>,
        next_step_at: Option<DateTime<Utc>>,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
        dispute_reason: Option<String>,
        dispute_due_at: Option<DateTime<Utc>>,
        dispute_amount: Option<i64>,
        dispute_currency: Option<&'static str>,
        contradictions: String,
        left_alone: String,
    }
    /// The columns of `transactions` that change.
    TransactionUpdate as TransactionUpdates {
        payment_id: Uuid,
        transaction_id: Uuid,
        state: &'static str,
        amount: i64,
        provider_account: String,
        provider_reference: Option<String>,
        decline_code: Option<&'static str>,
        decline_provider_code: Option<String>,
        failure_cause: Option<&'static str>,
        attempts: i32,
        ever_unknown: bool,
        retries: i32,
        resolved_by_operator: bool,
        open_case: Option<String>,
        request: Option<Vec<u8>>,
        execute_before: DateTime<Utc>,
        lease_until: Option<DateTime<Utc>>,
        next_step_at: Option<DateTime<Utc>>,
        updated_at: DateTime<Utc>,
        dispute_reason: Option<String>,
        dispute_due_at: Option<DateTime<Utc>>,
        dispute_amount: Option<i64>,
        dispute_currency: Option<&'static str>,
        contradictions: String,
        left_alone: String,
    }
    /// A new row of `attempts`.
    AttemptInsert as AttemptInserts {
        payment_id: Uuid,
        transaction_id: Uuid,
        number: i32,
        attempt_id: Uuid,
        tenant_id: String,
        operation: &'static str,
        provider_account: String,
        digest_salt: Vec<u8>,
        request_digest: Vec<u8>,
        started_at: DateTime<Utc>,
        ended_at: Option<DateTime<Utc>>,
        latency_micros: Option<i64>,
        outcome: Option<&'static str>,
        cause: Option<&'static str>,
        http_status: Option<i16>,
        response: Option<Vec<u8>>,
        response_digest: Option<Vec<u8>>,
    }
    /// The columns of `attempts` that its end writes.
    AttemptUpdate as AttemptUpdates {
        payment_id: Uuid,
        transaction_id: Uuid,
        number: i32,
        ended_at: Option<DateTime<Utc>>,
        latency_micros: Option<i64>,
        outcome: Option<&'static str>,
        cause: Option<&'static str>,
        http_status: Option<i16>,
        response: Option<Vec<u8>>,
        response_digest: Option<Vec<u8>>,
    }
    /// A row of `operator_actions`.
    ActionRow as ActionColumns {
        action_id: Uuid,
        payment_id: Uuid,
        transaction_id: Uuid,
        tenant_id: String,
        kind: &'static str,
        opened_at: DateTime<Utc>,
    }
    /// The end of the open cases of a kind about a transaction.
    ClosingRow as ClosingColumns {
        payment_id: Uuid,
        transaction_id: Uuid,
        kind: &'static str,
        closed_at: DateTime<Utc>,
        closed_by: Uuid,
    }
    /// A row of `journal`; `appended` (no column) where it comes with no change of a payment.
    JournalRow as JournalColumns {
        appended: bool,
        stream_id: Uuid,
        entity_seq: i64,
        entry_id: Uuid,
        tenant_id: Option<String>,
        payment_id: Option<Uuid>,
        transaction_id: Option<Uuid>,
        event_type: String,
        result: &'static str,
        cause: Option<String>,
        actor: String,
        source: String,
        provider_account: Option<String>,
        trace_id: Option<Vec<u8>>,
        occurred_at: DateTime<Utc>,
        leaf: Vec<u8>,
        leaf_hash: [u8; 32],
        mac: Vec<u8>,
        mac_key_id: String,
    }
}

/// Everything that one change writes.
pub(crate) struct ChangeRows {
    pub(crate) key: Option<KeyRow>,
    pub(crate) payment: Option<PaymentWrite>,
    pub(crate) transaction_inserts: Vec<TransactionInsert>,
    pub(crate) transaction_updates: Vec<TransactionUpdate>,
    pub(crate) attempt_insert: Option<AttemptInsert>,
    pub(crate) attempt_update: Option<AttemptUpdate>,
    pub(crate) closings: Vec<ClosingRow>,
    pub(crate) action: Option<ActionRow>,
    pub(crate) entry: JournalRow,
}

/// How the payment itself is written.
pub(crate) enum PaymentWrite {
    /// It is new.
    Insert(Box<PaymentInsert>),
    /// It moves on from the version before.
    Update(Box<PaymentUpdate>),
}
