//! Connections for reads.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use quittance_domain::ports::StoreError;
use tokio::time::Instant;

use crate::connection::{Connector, Use};
use crate::failure::{self, Failure, read_error};
use crate::observer::StoreObserver;
use crate::warning::Thinned;

/// How often a query is made again on another connection, where one was lost under it.
const MAX_RETRIES: u32 = 2;

static NO_CONNECTION: Thinned = Thinned::new();
static NO_ANSWER: Thinned = Thinned::new();

/// How long a query may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// It finds rows by key: where it takes long, the database is away.
    Key,
    /// It looks through many rows, and may take as long as any statement while the database answers others.
    Scan,
}

/// A bounded pool of connections, and the one way to read through it; and to write what is no payment.
#[derive(Clone)]
pub(crate) struct Reader {
    pool: Pool<AsyncPgConnection>,
    /// In which a call is answered: waiting for a connection and for the database together.
    unavailable_after: Duration,
    statement_timeout: Duration,
    observer: Arc<dyn StoreObserver>,
}

/// What a query does with its connection.
pub(crate) type Reading<'c, T> = BoxFuture<'c, Result<T, diesel::result::Error>>;

/// A connection that goes back to the pool only where its query has ended: on one that was left in the
/// middle, by its time limit or because the caller went away, an answer may still come.
struct Lent(Option<Object<AsyncPgConnection>>);

impl Lent {
    fn give_back(mut self) {
        self.0 = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

impl Reader {
    pub(crate) fn new(
        connector: &Connector,
        size: usize,
        unavailable_after: Duration,
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
            unavailable_after,
            statement_timeout,
            observer,
        }
    }

    /// Takes a connection, and waits for one no longer than until the deadline.
    async fn connection(&self, deadline: Instant) -> Result<Object<AsyncPgConnection>, StoreError> {
        let error = match tokio::time::timeout_at(deadline, self.pool.get()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "none became free in time".to_owned(),
        };
        if let Some(count) = NO_CONNECTION.due() {
            tracing::warn!(%error, count, "no connection to the database");
        }
        Err(StoreError::Unavailable)
    }

    /// Reads by key, answered within `unavailable_after` in all. Reads change nothing, so one whose
    /// connection is lost is made again.
    pub(crate) async fn read<T, F>(&self, summary: &'static str, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection) -> Reading<'c, T>,
    {
        self.retrying(summary, Patience::Key, |connection, _| query(connection))
            .await
    }

    /// Reads what may take long: it is answered within `unavailable_after` where the database is away.
    pub(crate) async fn scan<T, F>(&self, summary: &'static str, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection) -> Reading<'c, T>,
    {
        self.retrying(summary, Patience::Scan, |connection, _| query(connection))
            .await
    }

    /// Writes a row by itself. Where the connection is lost the query is made again, and told how long
    /// ago the first one began: that one may have written the row, so the query must know it again.
    pub(crate) async fn write<T, F>(&self, summary: &'static str, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection, Option<Duration>) -> Reading<'c, T>,
    {
        self.retrying(summary, Patience::Key, query).await
    }

    /// As [`Self::write`], for what may take long.
    pub(crate) async fn write_slowly<T, F>(
        &self,
        summary: &'static str,
        query: F,
    ) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection, Option<Duration>) -> Reading<'c, T>,
    {
        self.retrying(summary, Patience::Scan, query).await
    }

    async fn retrying<T, F>(
        &self,
        summary: &'static str,
        patience: Patience,
        query: F,
    ) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection, Option<Duration>) -> Reading<'c, T>,
    {
        let started = Instant::now();
        let result = self.attempts(started, patience, query).await;
        self.observer
            .operation(summary, started.elapsed().as_secs_f64(), result.is_ok());
        result
    }

    async fn attempts<T, F>(
        &self,
        started: Instant,
        patience: Patience,
        query: F,
    ) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection, Option<Duration>) -> Reading<'c, T>,
    {
        let mut retries = 0;
        loop {
            let mut lent = Lent(Some(
                self.connection(started + self.unavailable_after).await?,
            ));
            // Always there: it is taken out when it is given back or dropped.
            let Some(connection) = lent.0.as_deref_mut() else {
                return Err(StoreError::Unavailable);
            };
            let since = (retries > 0).then(|| started.elapsed());
            let running = query(connection, since);
            let Some(result) = self.patiently(started, patience, running).await else {
                if let Some(count) = NO_ANSWER.due() {
                    tracing::warn!(count, "the database does not answer");
                }
                return Err(StoreError::Unavailable);
            };
            let error = match result {
                Ok(value) => {
                    lent.give_back();
                    return Ok(value);
                }
                Err(error) => error,
            };
            let lost = matches!(failure::classify(&error), Failure::Lost | Failure::Doubtful);
            if !lost {
                lent.give_back();
            }
            if !lost || retries == MAX_RETRIES {
                return Err(read_error(&error));
            }
            retries += 1;
        }
    }

    /// A query's result, or `None` where its time is up.
    async fn patiently<T>(
        &self,
        started: Instant,
        patience: Patience,
        mut running: Reading<'_, T>,
    ) -> Option<Result<T, diesel::result::Error>> {
        let away = started + self.unavailable_after;
        let limit = match patience {
            Patience::Key => away.min(started + self.statement_timeout),
            Patience::Scan => {
                // Half of the time to be patient, half to find out whether the database answers at all.
                let half = started + self.unavailable_after / 2;
                if let Ok(result) = tokio::time::timeout_at(half, &mut running).await {
                    return Some(result);
                }
                let answers = self.answers(away);
                tokio::pin!(answers);
                tokio::select! {
                    biased;
                    result = &mut running => return Some(result),
                    answers = &mut answers => if !answers { return None },
                }
                started + self.statement_timeout
            }
        };
        tokio::time::timeout_at(limit, running).await.ok()
    }

    /// Whether the database answers on some connection by then.
    async fn answers(&self, deadline: Instant) -> bool {
        let Ok(connection) = self.connection(deadline).await else {
            return false;
        };
        let mut lent = Lent(Some(connection));
        let Some(connection) = lent.0.as_deref_mut() else {
            return false;
        };
        let answer = tokio::time::timeout_at(deadline, connection.batch_execute("select 1")).await;
        let answers = matches!(answer, Ok(Ok(())));
        if answers {
            lent.give_back();
        }
        answers
    }
}
