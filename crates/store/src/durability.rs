//! What a database must be like before payments are trusted to it.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::config::StoreStartError;
use crate::connection::{Connector, Use};
use crate::migrations;
use crate::store::PgStore;

/// The oldest major version of PostgreSQL that is supported.
pub const MINIMUM_POSTGRES: u32 = 15;
/// Furthest that the database's clock may be from ours, in seconds: leases and due times use it.
pub const MAX_CLOCK_DIFFERENCE_SECONDS: i64 = 5;
/// Looks at both clocks when a server starts, of which the quickest counts.
const CLOCK_LOOKS: u32 = 3;
/// Settings that, when off, lose commits that were acknowledged.
const DURABLE: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];

#[derive(QueryableByName)]
struct Value {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct Moment {
    #[diesel(sql_type = Timestamptz)]
    moment: DateTime<Utc>,
}

fn refused(error: &diesel::result::Error) -> StoreStartError {
    StoreStartError::Database(error.to_string())
}

async fn value(connection: &mut AsyncPgConnection, sql: &str) -> Result<String, StoreStartError> {
    let row: Result<Value, _> = diesel::sql_query(sql).get_result(connection).await;
    row.map(|row| row.value).map_err(|error| refused(&error))
}

/// Refuses servers that are too old.
pub(crate) async fn check_version(
    connection: &mut AsyncPgConnection,
) -> Result<(), StoreStartError> {
    let number = value(
        connection,
        "select current_setting('server_version_num') as value",
    )
    .await?;
    let number: u32 = number.parse().unwrap_or(0);
    if number / 10_000 >= MINIMUM_POSTGRES {
        return Ok(());
    }
    let found = value(
        connection,
        "select current_setting('server_version') as value",
    )
    .await?;
    Err(StoreStartError::Version { found })
}

impl Connector {
    /// Refuses a login that may not act as the application role.
    pub(crate) async fn check_role(&self) -> Result<(), StoreStartError> {
        use diesel_async::SimpleAsyncConnection as _;
        let mut connection = self
            .connect(Use::Migrate)
            .await
            .map_err(|error| StoreStartError::Connect(error.to_string()))?;
        let Some(role) = self.role() else {
            return Ok(());
        };
        let set = format!("set role \"{}\"", role.replace('"', "\"\""));
        let set = connection.batch_execute(&set).await;
        set.map_err(|_| StoreStartError::Role {
            role: role.to_owned(),
        })
    }
}

impl PgStore {
    /// Refuses a database that is too old, lacks migrations, has a clock of its own, or does not keep
    /// what it acknowledged (this last unless `allow_unsafe`).
    pub async fn check_durability(&self, allow_unsafe: bool) -> Result<(), StoreStartError> {
        let connection = self.inner.connector.connect(Use::Read).await;
        let mut connection =
            connection.map_err(|error| StoreStartError::Connect(error.to_string()))?;
        check_version(&mut connection).await?;
        check_migrations(&mut connection).await?;
        check_clock(&mut connection).await?;
        for setting in DURABLE {
            let sql = format!("select current_setting('{setting}') as value");
            if value(&mut connection, &sql).await? != "off" {
                continue;
            }
            if !allow_unsafe {
                return Err(StoreStartError::NotDurable { setting });
            }
            tracing::warn!(
                setting,
                "the database may lose committed payments: a setting is off"
            );
        }
        Ok(())
    }
}

async fn check_migrations(connection: &mut AsyncPgConnection) -> Result<(), StoreStartError> {
    let exists =
        "select coalesce(to_regclass('public.__diesel_schema_migrations')::text, '') as value";
    let run: Vec<Value> = if value(connection, exists).await?.is_empty() {
        Vec::new()
    } else {
        let sql = "select version as value from public.__diesel_schema_migrations";
        let run = diesel::sql_query(sql).load(connection).await;
        run.map_err(|error| refused(&error))?
    };
    let versions = migrations::versions();
    let mut missing = versions
        .iter()
        .filter(|(_, version)| run.iter().all(|run| run.value != *version));
    let Some((first, _)) = missing.next() else {
        return Ok(());
    };
    Err(StoreStartError::PendingMigrations {
        count: 1 + missing.count(),
        first: first.clone(),
    })
}

/// One look at both clocks.
struct Look {
    /// How far they are apart, as far as this look tells.
    difference: TimeDelta,
    /// By how much that may be wrong: half of the time that the look took.
    uncertainty: TimeDelta,
}

async fn look(connection: &mut AsyncPgConnection) -> Result<Look, StoreStartError> {
    let before = Utc::now();
    let row: Result<Moment, _> = diesel::sql_query("select clock_timestamp() as moment")
        .get_result(connection)
        .await;
    let theirs = row.map_err(|error| refused(&error))?.moment;
    let uncertainty = (Utc::now() - before) / 2;
    let difference = (theirs - (before + uncertainty)).abs();
    Ok(Look {
        difference,
        uncertainty,
    })
}

/// Refuses a database whose clock is too far from ours. The quickest of a few looks counts: one that was held up does not
/// tell a difference of clocks from its own delay.
async fn check_clock(connection: &mut AsyncPgConnection) -> Result<(), StoreStartError> {
    let mut best = look(connection).await?;
    for _ in 1..CLOCK_LOOKS {
        let next = look(connection).await?;
        if next.uncertainty < best.uncertainty {
            best = next;
        }
    }
    let difference = best.difference;
    if difference <= TimeDelta::seconds(MAX_CLOCK_DIFFERENCE_SECONDS) {
        return Ok(());
    }
    let seconds = difference.to_std().unwrap_or_default().as_secs_f64();
    Err(StoreStartError::Clock {
        seconds,
        max: MAX_CLOCK_DIFFERENCE_SECONDS,
    })
}
