//! Bringing the schema up to date, and making partitions ahead.

use std::time::Duration;

use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel_async::AsyncPgConnection;
use diesel_async::RunQueryDsl;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;

use crate::config::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_STATEMENT_TIMEOUT, DatabaseTls, StoreStartError,
};
use crate::connection::{Connector, Use};
use crate::durability::check_version;
use crate::store::PgStore;

pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");
/// Months of partitions that there are at least: this one and the next ones.
const MONTHS_AHEAD: i32 = 3;
/// Held while migrating: replicas that start together take turns.
const LOCK: &str = "select pg_advisory_lock(hashtext('quittance_migrate'))";
/// How often partitions are made ahead.
pub(crate) const PARTITION_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// The embedded migrations as (name, version), oldest first: what the database records is the version.
pub(crate) fn versions() -> Vec<(String, String)> {
    let migrations = MigrationSource::<Pg>::migrations(&MIGRATIONS).unwrap_or_default();
    let version = |migration: &dyn Migration<Pg>| {
        (
            migration.name().to_string(),
            migration.name().version().as_owned().to_string(),
        )
    };
    let mut versions: Vec<_> = migrations
        .iter()
        .map(|migration| version(migration.as_ref()))
        .collect();
    versions.sort_unstable();
    versions
}

impl PgStore {
    /// Runs the migrations that the database lacks, as the owner of the schema; several may try at once.
    /// Returns the versions that were run.
    pub async fn migrate(url: &str, tls: &DatabaseTls) -> Result<Vec<String>, StoreStartError> {
        // No timeout of the server's: a migration takes what it takes.
        let connector = Connector::of_url(
            url,
            tls,
            None,
            DEFAULT_STATEMENT_TIMEOUT,
            DEFAULT_CONNECT_TIMEOUT,
        )?;
        let mut connection = connector
            .connect(Use::Migrate)
            .await
            .map_err(|error| StoreStartError::Connect(error.to_string()))?;
        check_version(&mut connection).await?;
        let failed = |error: String| StoreStartError::Migration(error);
        diesel::sql_query(LOCK)
            .execute(&mut connection)
            .await
            .map_err(|error| failed(error.to_string()))?;
        // diesel's harness is synchronous. The lock goes with the connection.
        let run = tokio::task::spawn_blocking(move || {
            let mut wrapped = AsyncConnectionWrapper::<AsyncPgConnection>::from(connection);
            let run = wrapped.run_pending_migrations(MIGRATIONS);
            run.map(|run| run.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        });
        run.await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)
    }

    /// Makes this month's partitions and those of the months ahead; returns how many were new.
    pub async fn create_partitions(&self) -> Result<i32, StoreError> {
        use diesel::sql_types::{Date, Integer};
        diesel::define_sql_function! {
            /// See the migration that creates it.
            fn quittance_create_partitions(from_month: Date, months: Integer) -> Integer;
        }
        let created = self
            .inner
            .reader
            .write_slowly("create partitions", |connection, _| {
                let today = self.clock().now().date_naive();
                let query = diesel::select(quittance_create_partitions(today, MONTHS_AHEAD));
                async move { query.get_result(connection).await }.boxed()
            });
        created.await
    }

    /// Makes partitions ahead for as long as the store runs.
    pub(crate) async fn keep_partitions(self) {
        let mut stop = self.inner.stop.subscribe();
        loop {
            match self.create_partitions().await {
                Ok(0) => {}
                Ok(created) => tracing::info!(created, "partitions made ahead"),
                // Rows then go to the default partition; nothing is refused.
                Err(error) => tracing::warn!(%error, "partitions could not be made ahead"),
            }
            tokio::select! {
                () = tokio::time::sleep(PARTITION_INTERVAL) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}
