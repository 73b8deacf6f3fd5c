//! The one statement that writes a batch of changes.
//!
//! Every row hangs on the guarded write of its payment: a new payment on its idempotency record, an
//! old one on its version. The statement commits by itself, so a change is written whole or not at
//! all, and its answer says which were. It takes one array per column, hence it is prepared once per
//! connection, whatever the size of the batch.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Uuid as SqlUuid};
use quittance_domain::payment::PaymentState;
use uuid::Uuid;

use crate::rows::{
    ActionColumns, AttemptInserts, AttemptUpdates, ChangeRows, ClosingColumns, JournalColumns,
    KeyColumns, KeyRow, PaymentInserts, PaymentUpdates, PaymentWrite, TransactionInserts,
    TransactionUpdates,
};

/// Columns of a source that no table has: they only steer the statement.
const STEERING: [&str; 2] = ["keyed", "appended"];

/// Everything that a batch writes, one source per table and kind of write.
#[derive(Default)]
pub(crate) struct BatchStatement<'a> {
    new_keys: KeyColumns<'a>,
    later_keys: KeyColumns<'a>,
    payment_inserts: PaymentInserts<'a>,
    payment_updates: PaymentUpdates<'a>,
    transaction_inserts: TransactionInserts<'a>,
    transaction_updates: TransactionUpdates<'a>,
    attempt_inserts: AttemptInserts<'a>,
    attempt_updates: AttemptUpdates<'a>,
    closings: ClosingColumns<'a>,
    actions: ActionColumns<'a>,
    entries: JournalColumns<'a>,
}

impl<'a> BatchStatement<'a> {
    /// Lays the rows of several changes out as columns.
    ///
    /// Keys and payments are each taken in their own order, so that two replicas that lock the same
    /// rows lock them in the same order.
    pub(crate) fn new(changes: &[&'a ChangeRows]) -> Self {
        let mut statement = Self::default();
        let mut sorted = changes.to_vec();
        sorted.sort_by_key(|change| (change.entry.stream_id, change.entry.entity_seq));
        for change in &sorted {
            statement.push(change);
        }
        sorted.retain(|change| change.key.is_some());
        sorted.sort_by_key(|change| {
            change
                .key
                .as_ref()
                .map(|key| (key.tenant_id.as_str(), key.idempotency_key.as_str()))
        });
        for change in sorted {
            if let Some(key) = &change.key {
                statement.push_key(key, change.payment.as_ref());
            }
        }
        statement
    }

    fn push_key(&mut self, key: &'a KeyRow, payment: Option<&PaymentWrite>) {
        match payment {
            Some(PaymentWrite::Insert(_)) => self.new_keys.push(key),
            Some(PaymentWrite::Update(_)) | None => self.later_keys.push(key),
        }
    }

    fn push(&mut self, change: &'a ChangeRows) {
        match &change.payment {
            Some(PaymentWrite::Insert(row)) => self.payment_inserts.push(row),
            Some(PaymentWrite::Update(row)) => self.payment_updates.push(row),
            None => {}
        }
        change
            .transaction_inserts
            .iter()
            .for_each(|row| self.transaction_inserts.push(row));
        change
            .transaction_updates
            .iter()
            .for_each(|row| self.transaction_updates.push(row));
        change
            .attempt_insert
            .iter()
            .for_each(|row| self.attempt_inserts.push(row));
        change
            .attempt_update
            .iter()
            .for_each(|row| self.attempt_updates.push(row));
        change
            .closings
            .iter()
            .for_each(|row| self.closings.push(row));
        change.action.iter().for_each(|row| self.actions.push(row));
        self.entries.push(&change.entry);
    }
}

/// `first, second, …` of a source's columns, steering columns left out.
fn target_columns(names: &[&str]) -> String {
    let columns: Vec<_> = names
        .iter()
        .copied()
        .filter(|name| !STEERING.contains(name))
        .collect();
    columns.join(", ")
}

/// `s.first, s.second, …`, as they are selected from a source.
fn source_columns(names: &[&str]) -> String {
    let columns = names.iter().filter(|name| !STEERING.contains(name));
    let columns: Vec<_> = columns
        .map(|name| match *name {
            // The driver has no array of JSON documents made without parsing them first.
            "metadata" => "s.metadata::jsonb".to_owned(),
            name => format!("s.{name}"),
        })
        .collect();
    columns.join(", ")
}

/// `first = s.first, …` of a source's columns but those that find the row.
fn assignments(names: &[&str], keys: &[&str]) -> String {
    let columns = names.iter().filter(|name| !keys.contains(name));
    let columns: Vec<_> = columns.map(|name| format!("{name} = s.{name}")).collect();
    columns.join(", ")
}

/// A condition on a source's row: that its payment was written by this statement.
///
/// `is true` keeps the planner from making a join of it: with arrays of unknown length it would choose
/// a nested loop, which is quadratic; the subplan is hashed.
const WRITTEN: &str = "(s.payment_id in (select payment_id from written)) is true";

/// Writes `name as (insert into table (…) select … from source where condition tail),`.
macro_rules! insert {
    ($out:ident, $name:literal, $table:literal, $source:expr, $columns:ident, $rest:expr) => {{
        $out.push_sql(concat!($name, " as (\n    insert into ", $table, " ("));
        $out.push_sql(&target_columns($columns::NAMES));
        $out.push_sql(")\n    select ");
        $out.push_sql(&source_columns($columns::NAMES));
        $out.push_sql("\n    from ");
        $source.walk($out.reborrow())?;
        $out.push_sql($rest);
    }};
}

/// Writes `name as (update table t set … from source where condition`.
macro_rules! update {
    ($out:ident, $name:literal, $table:literal, $source:expr, $columns:ident, $keys:expr, $also:expr, $rest:expr) => {{
        $out.push_sql(concat!($name, " as (\n    update ", $table, " t set "));
        $out.push_sql(&assignments($columns::NAMES, $keys));
        $out.push_sql($also);
        $out.push_sql("\n    from ");
        $source.walk($out.reborrow())?;
        $out.push_sql($rest);
    }};
}

impl BatchStatement<'_> {
    /// Keys, payments, and which of these were written.
    fn walk_payments<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("with ");
        insert!(
            out,
            "new_keys",
            "idempotency_records",
            self.new_keys,
            KeyColumns,
            "\n    on conflict (tenant_id, idempotency_key) do nothing\n    returning payment_id\n), "
        );
        insert!(
            out,
            "inserted",
            "payments",
            self.payment_inserts,
            PaymentInserts,
            "\n    where not s.keyed or s.payment_id in (select payment_id from new_keys)\
             \n    returning payment_id\n), "
        );
        update!(
            out,
            "updated",
            "payments",
            self.payment_updates,
            PaymentUpdates,
            &["payment_id"],
            &format!(
                // Only a payment whose opening is not known yet may still be sent elsewhere, for which the token is needed.
                ", provider_token = case when s.state = '{}' then t.provider_token end",
                PaymentState::Pending.name()
            ),
            "\n    where t.payment_id = s.payment_id and t.version = s.version - 1\
             \n    returning t.payment_id\n), "
        );
        out.push_sql(
            "written as (\n    select payment_id from inserted union all select payment_id from updated\n), ",
        );
        Ok(())
    }

    /// What hangs on a payment.
    fn walk_parts<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let gate = format!("\n    where {WRITTEN}\n), ");
        // A key that is taken aborts the statement: a version was won already, and must be given back.
        insert!(
            out,
            "later_keys",
            "idempotency_records",
            self.later_keys,
            KeyColumns,
            &gate
        );
        insert!(
            out,
            "new_transactions",
            "transactions",
            self.transaction_inserts,
            TransactionInserts,
            &gate
        );
        let same = "t.payment_id = s.payment_id and t.transaction_id = s.transaction_id";
        update!(
            out,
            "old_transactions",
            "transactions",
            self.transaction_updates,
            TransactionUpdates,
            &["payment_id", "transaction_id"],
            // Whoever had claimed the next step has taken it, or was overtaken.
            ", claimed_until = null",
            &format!("\n    where {same} and {WRITTEN}\n), ")
        );
        Ok(())
    }

    /// What hangs on a payment's transactions.
    fn walk_attempts_and_cases<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let gate = format!("\n    where {WRITTEN}\n), ");
        let same = "t.payment_id = s.payment_id and t.transaction_id = s.transaction_id";
        insert!(
            out,
            "new_attempts",
            "attempts",
            self.attempt_inserts,
            AttemptInserts,
            &gate
        );
        update!(
            out,
            "old_attempts",
            "attempts",
            self.attempt_updates,
            AttemptUpdates,
            &["payment_id", "transaction_id", "number"],
            "",
            &format!("\n    where {same} and t.number = s.number and {WRITTEN}\n), ")
        );
        // A case that the same change opens is not seen by this, and stays open.
        update!(
            out,
            "closings",
            "operator_actions",
            self.closings,
            ClosingColumns,
            &["payment_id", "transaction_id", "kind"],
            "",
            &format!(
                "\n    where {same} and t.kind = s.kind and t.closed_at is null and {WRITTEN}\n), "
            )
        );
        insert!(
            out,
            "actions",
            "operator_actions",
            self.actions,
            ActionColumns,
            &gate
        );
        Ok(())
    }

    /// The journal: entries of payments that were written, and entries that come alone. Those follow upon an entry that the
    /// writer keeps in mind; where the database has lost it, as one that was set back, they are not written.
    fn walk_journal<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let (target, source) = (
            target_columns(JournalColumns::NAMES),
            source_columns(JournalColumns::NAMES),
        );
        out.push_sql("entries as materialized (\n    select * from ");
        self.entries.walk(out.reborrow())?;
        out.push_sql(&format!(
            "\n), recorded as (\n    insert into journal ({target})\n    select {source}\n    from entries s\
             \n    where not s.appended and (s.stream_id in (select payment_id from written)) is true\
             \n), appended as (\n    insert into journal ({target})\n    select {source}\n    from entries s\
             \n    where s.appended and (s.entity_seq = 1 or exists (\
             select from journal p where p.stream_id = s.stream_id and p.entity_seq = s.entity_seq - 1 \
             and position(convert_to('\"prev_leaf_hash\":\"' || encode(p.leaf_hash, 'hex') || '\"', 'UTF8') in s.leaf) > 0))\
             \n    on conflict (stream_id, entity_seq) do nothing\n    returning stream_id\
             \n)\nselect payment_id from written union all select stream_id from appended",
        ));
        Ok(())
    }
}

impl QueryFragment<Pg> for BatchStatement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.walk_payments(&mut out)?;
        self.walk_parts(&mut out)?;
        self.walk_attempts_and_cases(&mut out)?;
        self.walk_journal(&mut out)
    }
}

impl QueryId for BatchStatement<'_> {
    type QueryId = BatchStatement<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for BatchStatement<'_> {
    /// The payment or named stream whose change was written.
    type SqlType = SqlUuid;
}

/// Finds the entries that the journal holds at some places.
pub(crate) struct EntriesAt {
    pub(crate) streams: Vec<Uuid>,
    pub(crate) numbers: Vec<i64>,
}

impl QueryFragment<Pg> for EntriesAt {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("select j.entry_id from unnest(");
        out.push_bind_param::<Array<SqlUuid>, _>(&self.streams)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<BigInt>, _>(&self.numbers)?;
        out.push_sql(
            ") as s (stream_id, entity_seq) \
             join journal j on j.stream_id = s.stream_id and j.entity_seq = s.entity_seq",
        );
        Ok(())
    }
}

impl QueryId for EntriesAt {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for EntriesAt {
    type SqlType = SqlUuid;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of this text is a change of the commit path: look at its plan and measure it.
    #[test]
    fn the_statement_is_the_one_that_was_measured() {
        let statement = BatchStatement::default();
        let sql = diesel::debug_query::<Pg, _>(&statement).to_string();
        let sql = sql.split(" -- binds").next().unwrap_or_default();
        insta::assert_snapshot!(sql);
    }

    #[test]
    fn its_text_does_not_depend_on_the_batch_so_that_it_is_prepared_once() {
        assert!(
            BatchStatement::default()
                .is_safe_to_cache_prepared(&Pg)
                .unwrap()
        );
        assert!(<BatchStatement<'_> as QueryId>::query_id().is_some());
    }
}
