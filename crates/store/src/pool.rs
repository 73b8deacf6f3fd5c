//! Connections for reads.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use quittance_domain::ports::StoreError;
use tokio::time::Instant;

use crate::connection::{Connector, Use};
use crate::failure::{self, Failure, read_error};
use crate::observer::StoreObserver;

/// How often a query is made again on another connection, where one was lost under it.
const MAX_RETRIES: u32 = 2;

/// A bounded pool of connections, and the one way to read through it; and to write what is no payment.
#[derive(Clone)]
pub(crate) struct Reader {
    pool: Pool<AsyncPgConnection>,
    checkout_timeout: Duration,
    statement_timeout: Duration,
    observer: Arc<dyn StoreObserver>,
}

/// What a query does with its connection.
pub(crate) type Reading<'c, T> = BoxFuture<'c, Result<T, diesel::result::Error>>;

impl Reader {
    pub(crate) fn new(
        connector: &Connector,
        size: usize,
        checkout_timeout: Duration,
        observer: Arc<dyn StoreObserver>,
    ) -> Self {
        let statement_timeout = connector.client_timeout();
        let connector = connector.clone();
        let mut manager = ManagerConfig::default();
        // A query per checkout would double the round trips; whether the connection is closed is
        // known without one.
        manager.recycling_method = RecyclingMethod::Fast;
        manager.custom_setup = Box::new(move |_url| {
            let connector = connector.clone();
            async move { connector.connect(Use::Read).await }.boxed()
        });
        // The connector knows the URL; the manager's stays empty, so that it cannot be printed.
        let manager = AsyncDieselConnectionManager::new_with_config("", manager);
        let pool = Pool::builder(manager).max_size(size).build();
        // Building fails only where timeouts are set without a runtime, and none are.
        let pool =
            pool.unwrap_or_else(|_| unreachable!("a pool without timeouts needs no runtime"));
        Self {
            pool,
            checkout_timeout,
            statement_timeout,
            observer,
        }
    }

    /// Takes a connection, and waits for one no longer than the checkout timeout.
    async fn connection(&self) -> Result<Object<AsyncPgConnection>, StoreError> {
        match tokio::time::timeout(self.checkout_timeout, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                tracing::warn!(%error, "no connection to the database");
                Err(StoreError::Unavailable)
            }
            Err(_) => Err(StoreError::Unavailable),
        }
    }

    /// Reads. Reads change nothing, so one whose connection is lost is made again.
    pub(crate) async fn read<T, F>(&self, summary: &'static str, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection) -> Reading<'c, T>,
    {
        self.retrying(summary, |connection, _| query(connection))
            .await
    }

    /// Writes a row by itself. Where the connection is lost the query is made again, and told how long
    /// ago the first one began: that one may have written the row, so the query must know it again.
    pub(crate) async fn write<T, F>(&self, summary: &'static str, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection, Option<Duration>) -> Reading<'c, T>,
    {
        self.retrying(summary, query).await
    }

    async fn retrying<T, F>(&self, summary: &'static str, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection, Option<Duration>) -> Reading<'c, T>,
    {
        let started = Instant::now();
        let result = self.attempts(started, query).await;
        self.observer
            .operation(summary, started.elapsed().as_secs_f64(), result.is_ok());
        result
    }

    async fn attempts<T, F>(&self, started: Instant, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection, Option<Duration>) -> Reading<'c, T>,
    {
        let mut retries = 0;
        loop {
            let mut connection = self.connection().await?;
            let since = (retries > 0).then(|| started.elapsed());
            let running = query(&mut connection, since);
            let result = tokio::time::timeout(self.statement_timeout, running).await;
            let Ok(result) = result else {
                // An answer may still come on it, so it must not be used again.
                drop(Object::take(connection));
                return Err(StoreError::Unavailable);
            };
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let lost = matches!(failure::classify(&error), Failure::Lost | Failure::Doubtful);
            if !lost || retries == MAX_RETRIES {
                return Err(read_error(&error));
            }
            drop(Object::take(connection));
            retries += 1;
        }
    }
}
