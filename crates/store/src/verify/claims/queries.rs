//! What is read of attempts, idempotency records and operator actions. Each column is cut behind the longest that the service
//! writes: whoever wrote more has changed it, and does not fill the memory.

use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use super::{MAX_RECORDS, PAGE};
use crate::statement::statement;

/// The attempts of some entries, in the same order.
pub(super) struct ReadAttempts {
    pub(super) payments: Vec<Uuid>,
    pub(super) transactions: Vec<Uuid>,
    pub(super) numbers: Vec<i32>,
    /// One byte more than is opened: a longer answer does not open.
    pub(super) cut: i32,
    /// Most rows: one more than attempts, which shows where somebody dropped a key and repeated some.
    pub(super) most: i64,
}

pub(super) type AttemptTypes = (
    BigInt,
    Nullable<SqlUuid>,
    Nullable<Binary>,
    Nullable<Binary>,
    Nullable<Binary>,
    Nullable<Binary>,
    (Nullable<SqlUuid>, Nullable<Binary>),
    Bool,
);

pub(super) type AttemptTuple = (
    i64,
    Option<Uuid>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    (Option<Uuid>, Option<Vec<u8>>),
    bool,
);

statement!(ReadAttempts, ReadAttempts, AttemptTypes, |self, out| {
    out.push_sql(
        "select c.place, a.attempt_id, substr(a.request_digest, 1, 33), substr(a.response_digest, 1, 33), \
         substr(a.digest_salt, 1, 256), substr(a.response, 1, ",
    );
    out.push_bind_param::<Integer, _>(&self.cut)?;
    out.push_sql(
        "), p.customer_id, substr(k.data_key, 1, 256), \
         exists (select from attempts b join transactions t on t.payment_id = b.payment_id \
         and t.transaction_id = b.transaction_id where b.payment_id = c.payment_id \
         and b.transaction_id = c.transaction_id and c.number = 1 and b.number > t.attempts) \
         from unnest(",
    );
    out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.transactions)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<Integer>, _>(&self.numbers)?;
    out.push_sql(
        ") with ordinality c (payment_id, transaction_id, number, place) \
         left join attempts a on a.payment_id = c.payment_id and a.transaction_id = c.transaction_id \
         and a.number = c.number \
         left join payments p on p.payment_id = c.payment_id \
         left join customers k on k.customer_id = p.customer_id order by c.place limit ",
    );
    out.push_bind_param::<BigInt, _>(&self.most)?;
});

/// The idempotency records of some payments.
pub(super) struct ReadRecords {
    pub(super) payments: Vec<Uuid>,
}

statement!(
    ReadRecords,
    ReadRecords,
    (Text, Text, SqlUuid, SqlUuid),
    |self, out| {
        out.push_sql(
            "select left(tenant_id, 65), left(idempotency_key, 256), payment_id, transaction_id \
         from idempotency_records where payment_id = any(",
        );
        out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
        out.push_sql(") order by payment_id limit ");
        out.push_bind_param::<BigInt, _>(&MAX_RECORDS)?;
    }
);

pub(super) type ActionTypes = (
    SqlUuid,
    SqlUuid,
    SqlUuid,
    Text,
    Nullable<SqlUuid>,
    Nullable<Binary>,
);

pub(super) type ActionTuple = (Uuid, Uuid, Uuid, String, Option<Uuid>, Option<Vec<u8>>);

/// Operator actions by the entries that opened them, each with the later entry of its stream by which it was closed.
pub(super) struct ReadActions {
    pub(super) entries: Vec<Uuid>,
    /// Most rows.
    pub(super) most: i64,
}

statement!(ReadActions, ReadActions, ActionTypes, |self, out| {
    out.push_sql(
        "select a.action_id, a.payment_id, a.transaction_id, left(a.kind, 64), a.closed_by, \
         (select substr(c.leaf, 1, 65536) from journal o join journal c on c.stream_id = o.stream_id \
         and c.entity_seq > o.entity_seq where o.stream_id = a.payment_id and o.entry_id = a.action_id \
         and c.entry_id = a.closed_by limit 1) \
         from operator_actions a where a.action_id = any(",
    );
    out.push_bind_param::<Array<SqlUuid>, _>(&self.entries)?;
    // There is one of each.
    out.push_sql(") order by a.action_id limit ");
    out.push_bind_param::<BigInt, _>(&self.most)?;
});

pub(super) type LeftOpenTuple = (Uuid, i64, Option<String>);

/// Transactions whose cases were closed, with the number of the entry that did, and their kind: those with one that is still
/// open.
pub(super) struct ReadLeftOpen {
    pub(super) payments: Vec<Uuid>,
    pub(super) transactions: Vec<Uuid>,
    /// Of which kind the closed cases are; null for every kind.
    pub(super) kinds: Vec<Option<String>>,
    pub(super) numbers: Vec<i64>,
}

statement!(
    ReadLeftOpen,
    ReadLeftOpen,
    (SqlUuid, BigInt, Nullable<Text>),
    |self, out| {
        out.push_sql("select c.transaction_id, c.number, c.kind from unnest(");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.transactions)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Text>>, _>(&self.kinds)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<BigInt>, _>(&self.numbers)?;
        out.push_sql(
        ") c (payment_id, transaction_id, kind, number) where exists (select from operator_actions a \
         join journal o on o.stream_id = a.payment_id and o.entry_id = a.action_id and o.entity_seq < c.number \
         where a.payment_id = c.payment_id and a.transaction_id = c.transaction_id and a.closed_at is null \
         and (c.kind is null or a.kind = c.kind))",
    );
    }
);

/// Operator actions behind one, with whether the entry that opened each is there.
pub(super) struct ReadOpenings {
    pub(super) after: Uuid,
}

statement!(
    ReadOpenings,
    ReadOpenings,
    (SqlUuid, SqlUuid, Bool),
    |self, out| {
        out.push_sql(
        "select a.action_id, a.payment_id, exists (select from journal o where o.stream_id = a.payment_id \
         and o.entry_id = a.action_id) from operator_actions a where a.action_id > ",
    );
        out.push_bind_param::<SqlUuid, _>(&self.after)?;
        out.push_sql(" order by a.action_id limit ");
        out.push_bind_param::<BigInt, _>(&PAGE)?;
    }
);
