//! What is read of attempts. Each column is cut behind the longest that the service writes: whoever wrote more has changed
//! it, and does not fill the memory.

use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::statement::statement;
use crate::verify::claims::{Behind, PAGE};
use crate::verify::long::readable_time;

/// Most attempts of the payments of a chunk: each has an entry, and a payment has a few thousand entries at most.
pub(super) const MAX_ATTEMPTS: i64 = 65_536;

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

/// Place; id, tenant, operation, account and begin; end, outcome, cause and latency; digests, salt and answer; the customer
/// and their key.
type AttemptTypes = (
    BigInt,
    (
        Nullable<SqlUuid>,
        Nullable<Text>,
        Nullable<Text>,
        Nullable<Text>,
        Nullable<Timestamptz>,
    ),
    (
        Nullable<Timestamptz>,
        Nullable<Text>,
        Nullable<Text>,
        Nullable<BigInt>,
    ),
    (
        Nullable<Binary>,
        Nullable<Binary>,
        Nullable<Binary>,
        Nullable<Binary>,
    ),
    (Nullable<SqlUuid>, Nullable<Binary>),
);

type Bytes = Option<Vec<u8>>;

pub(super) type AttemptTuple = (
    i64,
    (
        Option<Uuid>,
        Option<String>,
        Option<String>,
        Option<String>,
        Option<DateTime<Utc>>,
    ),
    (
        Option<DateTime<Utc>>,
        Option<String>,
        Option<String>,
        Option<i64>,
    ),
    (Bytes, Bytes, Bytes, Bytes),
    (Option<Uuid>, Bytes),
);

statement!(ReadAttempts, ReadAttempts, AttemptTypes, |self, out| {
    out.push_sql(
        "select c.place, a.attempt_id, left(a.tenant_id, 65), left(a.operation, 64), left(a.provider_account, 1024), ",
    );
    out.push_sql(&readable_time("a.started_at"));
    out.push_sql(", case when a.ended_at is not null then ");
    out.push_sql(&readable_time("a.ended_at"));
    out.push_sql(
        " end, left(a.outcome, 64), left(a.cause, 64), a.latency_micros, \
         substr(a.request_digest, 1, 33), substr(a.response_digest, 1, 33), \
         substr(a.digest_salt, 1, 256), substr(a.response, 1, ",
    );
    out.push_bind_param::<Integer, _>(&self.cut)?;
    out.push_sql("), p.customer_id, substr(k.data_key, 1, 256) from unnest(");
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

/// Which attempts, by their places in the list, a later entry than this one ended. Entries are found by their text: whether
/// the service wrote them is looked at where the entry itself is checked.
pub(super) struct ReadEndedAgain {
    pub(super) payments: Vec<Uuid>,
    pub(super) transactions: Vec<Uuid>,
    pub(super) numbers: Vec<i32>,
    /// Numbers of the entries that ended them.
    pub(super) entries: Vec<i64>,
}

statement!(ReadEndedAgain, ReadEndedAgain, BigInt, |self, out| {
    out.push_sql("select c.place from unnest(");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.transactions)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<Integer>, _>(&self.numbers)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<BigInt>, _>(&self.entries)?;
    out.push_sql(
        ") with ordinality c (payment_id, transaction_id, number, entity_seq, place) where exists (select from journal j \
         where j.stream_id = c.payment_id and j.transaction_id = c.transaction_id and j.entity_seq > c.entity_seq \
         and position(('\"attempt\":' || c.number || ',')::bytea in j.leaf) > 0 \
         and position('\"attempt_outcome\":'::bytea in j.leaf) > 0)",
    );
});

pub(super) type KeyTuple = (Uuid, Uuid, i32, bool);

/// Which attempts some payments have.
pub(super) struct ReadKeys {
    pub(super) payments: Vec<Uuid>,
}

statement!(
    ReadKeys,
    ReadKeys,
    (SqlUuid, SqlUuid, Integer, Bool),
    |self, out| {
        out.push_sql(
            "select payment_id, transaction_id, number, \
             ended_at is not null or outcome is not null or latency_micros is not null \
             from attempts where payment_id = any(",
        );
        out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
        out.push_sql(") limit ");
        out.push_bind_param::<BigInt, _>(&MAX_ATTEMPTS)?;
    }
);

/// Which attempts, by their places in the list, no entry of their payments is about, or none that ends them where they have
/// ended.
pub(super) struct ReadUnspoken {
    pub(super) payments: Vec<Uuid>,
    pub(super) transactions: Vec<Uuid>,
    pub(super) numbers: Vec<i32>,
    pub(super) ended: Vec<bool>,
}

statement!(ReadUnspoken, ReadUnspoken, BigInt, |self, out| {
    out.push_sql("select c.place from unnest(");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.transactions)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<Integer>, _>(&self.numbers)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<Bool>, _>(&self.ended)?;
    out.push_sql(
        ") with ordinality c (payment_id, transaction_id, number, ended, place) left join ( \
         select j.stream_id, j.transaction_id, \
         substring(encode(substr(j.leaf, 1, 65536), 'escape') from '\"attempt\":([0-9]{1,9}),')::int as number, \
         bool_or(position('\"attempt_outcome\":'::bytea in j.leaf) > 0) as ended \
         from journal j where j.stream_id = any(",
    );
    out.push_bind_param::<Array<SqlUuid>, _>(&self.payments)?;
    out.push_sql(
        ") group by 1, 2, 3) s on s.stream_id = c.payment_id and s.transaction_id = c.transaction_id \
         and s.number = c.number and (s.ended or not c.ended) where s.stream_id is null order by c.place",
    );
});

/// Payments behind one that have attempts, with whether an entry of theirs is about one.
pub(super) struct ReadAttempted {
    pub(super) after: Behind,
}

statement!(
    ReadAttempted,
    ReadAttempted,
    (SqlUuid, Bool),
    |self, out| {
        out.push_sql(
            "select a.payment_id, exists (select from journal j where j.stream_id = a.payment_id \
         and position('\"attempt\":'::bytea in j.leaf) > 0) \
         from (select distinct payment_id from attempts where ",
        );
        self.after.push("payment_id", &mut out)?;
        out.push_sql(" order by payment_id limit ");
        out.push_bind_param::<BigInt, _>(&PAGE)?;
        out.push_sql(") a order by a.payment_id");
    }
);
