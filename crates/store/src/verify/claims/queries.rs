//! What is read of operator actions. Each column is cut behind the longest that the service
//! writes: whoever wrote more has changed it, and does not fill the memory.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use super::PAGE;
use crate::statement::statement;
use crate::verify::long::readable_time;

/// Where a page of ids begins: behind one, or with the very first, which may be the least that there is.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::verify) struct Behind {
    last: Option<Uuid>,
}

impl Behind {
    /// Behind this id.
    pub(in crate::verify) fn id(last: Uuid) -> Self {
        Self { last: Some(last) }
    }

    /// The condition. Its text is always the same, since statements are prepared once.
    pub(in crate::verify) fn push<'b>(
        &'b self,
        column: &str,
        out: &mut AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()> {
        out.push_sql("(");
        out.push_sql(column);
        out.push_sql(" >= coalesce(");
        out.push_bind_param::<Nullable<SqlUuid>, _>(&self.last)?;
        out.push_sql(", '00000000-0000-0000-0000-000000000000') and ");
        out.push_sql(column);
        out.push_sql(" is distinct from ");
        out.push_bind_param::<Nullable<SqlUuid>, _>(&self.last)?;
        out.push_sql(")");
        Ok(())
    }
}

/// Id, payment and transaction; tenant and kind; when it was opened, closed and by what; the bytes of the entry that closed it.
type ActionTypes = (
    (SqlUuid, SqlUuid, SqlUuid),
    (Text, Text),
    (Timestamptz, Nullable<Timestamptz>, Nullable<SqlUuid>),
    Nullable<Binary>,
);

pub(super) type ActionTuple = (
    (Uuid, Uuid, Uuid),
    (String, String),
    (DateTime<Utc>, Option<DateTime<Utc>>, Option<Uuid>),
    Option<Vec<u8>>,
);

/// Operator actions by the entries that opened them, each with the later entry of its stream by which it was closed.
pub(super) struct ReadActions {
    pub(super) entries: Vec<Uuid>,
    /// Most rows.
    pub(super) most: i64,
}

statement!(ReadActions, ReadActions, ActionTypes, |self, out| {
    out.push_sql(
        "select a.action_id, a.payment_id, a.transaction_id, left(a.tenant_id, 65), left(a.kind, 64), ",
    );
    out.push_sql(&readable_time("a.opened_at"));
    out.push_sql(", case when a.closed_at is not null then ");
    out.push_sql(&readable_time("a.closed_at"));
    out.push_sql(
        " end, a.closed_by, \
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
    pub(super) after: Behind,
}

statement!(
    ReadOpenings,
    ReadOpenings,
    (SqlUuid, SqlUuid, Bool),
    |self, out| {
        out.push_sql(
        "select a.action_id, a.payment_id, exists (select from journal o where o.stream_id = a.payment_id \
         and o.entry_id = a.action_id) from operator_actions a where ",
        );
        self.after.push("a.action_id", &mut out)?;
        out.push_sql(" order by a.action_id limit ");
        out.push_bind_param::<BigInt, _>(&PAGE)?;
    }
);
