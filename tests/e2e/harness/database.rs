//! Looks behind the API, straight into the database.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

/// A connection as the superuser, which may see and do everything.
pub struct Database {
    client: Client,
}

impl Database {
    pub async fn connect(url: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        // Ends with the client; an error then is seen by whoever uses the client.
        tokio::spawn(connection);
        Self { client }
    }

    pub async fn rows(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.client
            .query(sql, values)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    pub async fn row(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Row {
        self.client
            .query_one(sql, values)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) {
        self.client
            .execute(sql, values)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Statements without values, in one go.
    pub async fn batch(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// Makes everything that was accepted older by an interval of PostgreSQL's (`1 hour`).
    pub async fn age(&self, by: &str) {
        for sql in [
            "update payments set created_at = created_at - $1::text::interval, \
             updated_at = updated_at - $1::text::interval",
            "update transactions set created_at = created_at - $1::text::interval, \
             updated_at = updated_at - $1::text::interval, \
             execute_before = execute_before - $1::text::interval",
        ] {
            self.execute(sql, &[&by]).await;
        }
    }

    /// Has erasures be due soon, as if a commit could take no time: servers of tests wait for their database for as long as it
    /// takes, and an erasure for as long as that.
    pub async fn erase_soon(&self) {
        let sql = "\
            create function erase_soon() returns trigger language plpgsql as $$ begin \
            new.next_step_at := least(new.next_step_at, now() + interval '400 ms'); return new; end $$; \
            create trigger erase_soon before insert on erasures for each row \
            when (new.requested_at = now() and new.next_step_at is not null) execute function erase_soon()";
        self.batch(sql).await;
    }

    /// A number that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        self.row(sql, &[]).await.get(0)
    }

    /// How much of everything is stored: grows with every commit. Without what the server puts on record
    /// by itself from time to time (that it started, how many calls it refused).
    pub async fn volume(&self) -> Volume {
        let row = self
            .row(
                "select (select count(*) from payments), (select count(*) from transactions), \
                 (select count(*) from attempts), (select count(*) from idempotency_records), \
                 (select count(*) from journal where payment_id is not null or event_type like 'audit.%'), (select count(*) from operator_actions), \
                 (select count(*) from customers), (select coalesce(sum(version), 0)::bigint from payments)",
                &[],
            )
            .await;
        Volume((0..row.len()).map(|column| row.get(column)).collect())
    }

    /// Where values are stored that a key seals: `table.column (n rows)`. They begin with a version, the length of the key's
    /// id, and the id.
    pub async fn sealed_under(&self, key_id: &str) -> Vec<String> {
        let columns = self
            .rows(
                "select c.relname::text, a.attname::text from pg_class c \
                 join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid \
                 where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition \
                 and a.atttypid = 'bytea'::regtype and not a.attisdropped order by 1, 2",
                &[],
            )
            .await;
        assert!(columns.len() > 5, "the columns were not found");
        let mut prefix = vec![1, u8::try_from(key_id.len()).unwrap()];
        prefix.extend_from_slice(key_id.as_bytes());
        let length = i32::try_from(prefix.len()).unwrap();
        let mut places = Vec::new();
        for column in columns {
            let (table, column): (String, String) = (column.get(0), column.get(1));
            let sql = format!(
                "select count(*) from \"{table}\" where substring(\"{column}\" from 1 for $1) = $2"
            );
            let found: i64 = self.row(&sql, &[&length, &prefix]).await.get(0);
            if found > 0 {
                places.push(format!("{table}.{column} ({found} rows)"));
            }
        }
        places
    }

    /// Where a text is stored, in plain or as the hexadecimal form of bytes: `table (n rows)`.
    pub async fn places_of(&self, text: &str) -> Vec<String> {
        let tables = self
            .rows(
                "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition",
                &[],
            )
            .await;
        assert!(tables.len() > 5, "the tables were not found");
        let mut places = Vec::new();
        let (plain, bytes) = (format!("%{text}%"), format!("%{}%", hex::encode(text)));
        for table in tables {
            let table: String = table.get(0);
            let sql = format!(
                "select count(*) from \"{table}\" t where t::text ilike $1 or t::text ilike $2"
            );
            let found: i64 = self.row(&sql, &[&plain, &bytes]).await.get(0);
            if found > 0 {
                places.push(format!("{table} ({found} rows)"));
            }
        }
        places
    }
}

/// Numbers of stored rows; equal only if nothing was stored in between.
#[derive(Debug, PartialEq, Eq)]
pub struct Volume(Vec<i64>);
