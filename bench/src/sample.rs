//! The rows that the service writes for one payment: after it was accepted, and after its outcome.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio_postgres::Client;

use crate::load::{Clients, Order, SLOW};

/// What a payment writes, in the order of the service's own statement.
///
/// Positions in the log are not among it: the sequencer gives them after the commit, and pgbench is
/// spared that work.
pub const TABLES: [&str; 5] = [
    "idempotency_records",
    "payments",
    "transactions",
    "attempts",
    "journal",
];
/// How long it may take until the accepted payment is seen.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as SQL names it.
    pub kind: String,
    /// Whether it is part of the primary key.
    pub key: bool,
    /// Whether the database gives it its value.
    pub generated: bool,
}

/// A row: the text form of each column's value, `None` for null.
pub type Row = Vec<Option<String>>;

/// The rows of one payment in one table, sorted by primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRows {
    /// The table.
    pub table: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Row>,
}

impl TableRows {
    /// The primary key of a row.
    pub fn key_of<'a>(&'a self, row: &'a Row) -> Vec<&'a Option<String>> {
        let cells = self.columns.iter().zip(row);
        cells
            .filter(|(column, _)| column.key)
            .map(|(_, value)| value)
            .collect()
    }
}

/// One payment, twice.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its idempotency key and order id.
    pub order: Order,
    /// Its rows after the first commit.
    pub accepted: Vec<TableRows>,
    /// Its rows after the second commit.
    pub finished: Vec<TableRows>,
}

impl Sample {
    /// Makes a payment that takes a while, and reads its rows while it is under way and afterwards.
    ///
    /// # Errors
    /// Where the payment fails, or does not write what is expected of it.
    pub async fn take(clients: &Clients, database: &mut Client) -> anyhow::Result<Self> {
        let order = Order::new();
        let payment = {
            let (clients, order) = (clients.clone(), order.clone());
            tokio::spawn(async move { clients.pay(0, &order, SLOW).await })
        };
        let accepted = accepted(database, &order, &payment).await?;
        if let Err(failure) = payment.await? {
            bail!("the sample payment was not captured: {failure}");
        }
        let finished = read(database, &order).await?;
        for (stage, entries) in [(&accepted, 1), (&finished, 2)] {
            for table in stage {
                let expected = if table.table == "journal" { entries } else { 1 };
                let (found, table) = (table.rows.len(), &table.table);
                ensure!(
                    found == expected,
                    "{found} rows of {table} instead of {expected}"
                );
            }
        }
        Ok(Self {
            order,
            accepted,
            finished,
        })
    }
}

async fn accepted(
    database: &mut Client,
    order: &Order,
    payment: &tokio::task::JoinHandle<Result<(), String>>,
) -> anyhow::Result<Vec<TableRows>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let over = payment.is_finished();
        let rows = read(database, order).await?;
        let written = rows.iter().all(|table| !table.rows.is_empty());
        // The outcome may be committed before the payment is known to be over.
        let outcome = rows
            .iter()
            .any(|table| table.table == "journal" && table.rows.len() > 1);
        if written && !outcome && !over {
            return Ok(rows);
        }
        ensure!(!over, "the sample payment ended before its rows were read");
        ensure!(
            Instant::now() < deadline,
            "the sample payment was not accepted"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// The rows of one moment.
async fn read(database: &mut Client, order: &Order) -> anyhow::Result<Vec<TableRows>> {
    let moment = database
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let mut tables = Vec::new();
    for table in TABLES {
        let columns = columns(&moment, table).await?;
        let list: Vec<_> = columns
            .iter()
            .map(|column| format!("{}::text", column.name))
            .collect();
        let keys: Vec<_> = columns
            .iter()
            .filter(|column| column.key)
            .map(|column| column.name.as_str())
            .collect();
        let query = format!(
            "select {} from {table} where payment_id = \
             (select payment_id from payments where merchant_reference = $1) order by {}",
            list.join(", "),
            keys.join(", ")
        );
        let rows = moment
            .query(&query, &[&order.merchant_reference])
            .await
            .context(table)?;
        let cells = |row: &tokio_postgres::Row| (0..row.len()).map(|at| row.try_get(at)).collect();
        let rows = rows.iter().map(cells).collect::<Result<_, _>>()?;
        tables.push(TableRows {
            table: table.to_owned(),
            columns,
            rows,
        });
    }
    moment.commit().await?;
    Ok(tables)
}

async fn columns(
    moment: &tokio_postgres::Transaction<'_>,
    table: &str,
) -> anyhow::Result<Vec<Column>> {
    const QUERY: &str = "
        select a.attname::text, format_type(a.atttypid, a.atttypmod),
               coalesce(a.attnum = any(i.indkey), false),
               a.attidentity <> '' or coalesce(pg_get_expr(d.adbin, d.adrelid) like 'nextval(%', false)
        from pg_attribute a
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
        where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped
        order by a.attnum";
    let rows = moment.query(QUERY, &[&table]).await?;
    let column = |row: &tokio_postgres::Row| {
        Ok(Column {
            name: row.try_get(0)?,
            kind: row.try_get(1)?,
            key: row.try_get(2)?,
            generated: row.try_get(3)?,
        })
    };
    rows.iter().map(column).collect()
}
