//! The baseline's script: what the service wrote for a sample payment, as a `pgbench` script that
//! writes the same for ever new payments, in one database transaction per state change.
//!
//! What has to differ from payment to payment (ids, keys, trace ids) is computed in SQL from a few
//! variables; everything else is a constant of the prepared statement, which spares the baseline the
//! transport of it. Ids rise with time, as UUIDv7 do, so that both sides write at the end of their
//! indexes; idempotency keys and trace ids are random on both sides.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};

use crate::sample::{Column, Row, Sample, TableRows};

/// Variable given to pgbench: the first id's leading 64 bits, with the four low digits zero.
pub const FIRST_ID: &str = "first_id";
/// Ids of one payment differ in their last three digits before the random part.
const MAX_IDS: usize = 4_096;

/// Variables of one payment. `n` counts the payments of a client and is kept between them: pgbench has
/// no clock, and a client makes about one a few milliseconds.
const VARIABLES: &str = "\
\\set n :n + 1
\\set id :first_id + :n * 65536 + 28672
\\set tail -9223372036854775807 + random(0, 4611686018427387902)
\\set other -9223372036854775807 + random(0, 4611686018427387902)
";

/// The script.
///
/// # Errors
/// Where the sample lacks what a payment writes.
pub fn render(sample: &Sample) -> anyhow::Result<String> {
    let mut script = Script {
        sample,
        ids: Vec::new(),
        text: VARIABLES.to_owned(),
    };
    script.text.push_str("begin;\n");
    for table in &sample.accepted {
        for row in &table.rows {
            script.insert(table, row)?;
        }
    }
    script.text.push_str("commit;\nbegin;\n");
    for table in &sample.finished {
        let before = sample
            .accepted
            .iter()
            .find(|before| before.table == table.table);
        let before = before.context("a table is missing from the sample")?;
        for row in &table.rows {
            let old = before
                .rows
                .iter()
                .find(|old| before.key_of(old) == table.key_of(row));
            match old {
                Some(old) if old == row => {}
                Some(old) => script.update(table, old, row)?,
                None => script.insert(table, row)?,
            }
        }
    }
    script.text.push_str("commit;\n");
    Ok(script.text)
}

struct Script<'a> {
    sample: &'a Sample,
    /// Ids of the sample, in the order in which they were met.
    ids: Vec<&'a str>,
    text: String,
}

impl<'a> Script<'a> {
    fn insert(&mut self, table: &'a TableRows, row: &'a Row) -> anyhow::Result<()> {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for (column, value) in table
            .columns
            .iter()
            .zip(row)
            .filter(|(column, _)| !column.generated)
        {
            names.push(column.name.as_str());
            values.push(self.value(column, value.as_deref())?);
        }
        let (names, values) = (names.join(", "), values.join(", "));
        writeln!(
            self.text,
            "insert into {} ({names}) values ({values});",
            table.table
        )?;
        Ok(())
    }

    /// Guarded by the version where there is one, as the service's own update is.
    fn update(&mut self, table: &'a TableRows, old: &'a Row, new: &'a Row) -> anyhow::Result<()> {
        let mut changes = Vec::new();
        let mut conditions = Vec::new();
        for ((column, old), new) in table.columns.iter().zip(old).zip(new) {
            if old != new {
                let value = self.value(column, new.as_deref())?;
                changes.push(format!("{} = {value}", column.name));
            }
            if column.key || column.name == "version" {
                let value = self.value(column, old.as_deref())?;
                conditions.push(format!("{} = {value}", column.name));
            }
        }
        let (changes, conditions) = (changes.join(", "), conditions.join(" and "));
        writeln!(
            self.text,
            "update {} set {changes} where {conditions};",
            table.table
        )?;
        Ok(())
    }

    fn value(&mut self, column: &Column, value: Option<&'a str>) -> anyhow::Result<String> {
        let Some(value) = value else {
            return Ok("null".to_owned());
        };
        let kind = column.kind.as_str();
        Ok(if kind == "uuid" {
            format!("({})::uuid", self.id(value)?)
        } else if kind == "timestamp with time zone" {
            "now()".to_owned()
        } else if kind == "bytea" && column.name == "trace_id" {
            format!("decode({}, 'hex')", random_digits())
        } else if value == self.sample.order.idempotency_key {
            format!("({})::uuid::text", random_digits())
        } else if value == self.sample.order.merchant_reference {
            format!("'order-' || {}", self.id(value)?)
        } else {
            format!("{}::{kind}", literal(value))
        })
    }

    /// 32 digits that stand for an id of the sample.
    fn id(&mut self, id: &'a str) -> anyhow::Result<String> {
        let at = self
            .ids
            .iter()
            .position(|known| *known == id)
            .unwrap_or_else(|| {
                self.ids.push(id);
                self.ids.len() - 1
            });
        ensure!(at < MAX_IDS, "the sample has too many ids");
        // The time of a UUIDv7 begins with a zero until the year 2527.
        Ok(format!(
            "'0' || to_hex(:id::bigint + {at}) || to_hex(:tail::bigint)"
        ))
    }
}

/// 32 random digits, the same throughout one payment.
fn random_digits() -> String {
    "to_hex(:other::bigint) || to_hex(:tail::bigint)".to_owned()
}

/// A literal without colons, since pgbench takes a colon and a letter for a variable.
fn literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains([':', '\n']) {
        let escaped = quoted
            .replace('\\', "\\\\")
            .replace(':', "\\003A")
            .replace('\n', "\\000A");
        format!("U&'{escaped}'")
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Order;

    fn column(name: &str, kind: &str, key: bool) -> Column {
        Column {
            name: name.to_owned(),
            kind: kind.to_owned(),
            key,
            generated: false,
        }
    }

    fn payments(version: &str, state: &str, order: &Order) -> TableRows {
        let text = |value: &str| Some(value.to_owned());
        TableRows {
            table: "payments".to_owned(),
            columns: vec![
                column("payment_id", "uuid", true),
                column("version", "bigint", false),
                column("state", "text", false),
                column("merchant_reference", "text", false),
                column("metadata", "jsonb", false),
                column("next_action", "bytea", false),
            ],
            rows: vec![vec![
                text("0199a2b4-0000-7000-8000-000000000001"),
                text(version),
                text(state),
                text(&order.merchant_reference),
                text("{\"it's\":\"a:b\"}"),
                None,
            ]],
        }
    }

    #[test]
    fn inserts_what_was_accepted_and_updates_what_changed() {
        let order = Order::new();
        let accepted = vec![payments("1", "PENDING", &order)];
        let finished = vec![payments("2", "CAPTURED", &order)];
        let script = render(&Sample {
            order,
            accepted,
            finished,
        })
        .unwrap();
        let id = |at| format!("'0' || to_hex(:id::bigint + {at}) || to_hex(:tail::bigint)");
        let expected = format!(
            "{VARIABLES}begin;\n\
             insert into payments (payment_id, version, state, merchant_reference, metadata, next_action) \
             values (({})::uuid, '1'::bigint, 'PENDING'::text, 'order-' || {}, \
             U&'{{\"it''s\"\\003A\"a\\003Ab\"}}'::jsonb, null);\n\
             commit;\nbegin;\n\
             update payments set version = '2'::bigint, state = 'CAPTURED'::text \
             where payment_id = ({})::uuid and version = '1'::bigint;\n\
             commit;\n",
            id(0),
            id(1),
            id(0)
        );
        assert_eq!(script, expected);
    }
}
