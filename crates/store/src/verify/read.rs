//! What verification reads, in batches that are each of one moment.

mod entries;
mod positions;

use std::sync::Arc;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;
use quittance_domain::verification::Linked;
use uuid::Uuid;

use super::VerifyProgress;
use super::segments::{SEGMENTS, Segments};
use super::tree::{notes_from, stored};
use crate::connection::Use;
use crate::failure;
use crate::keys::KeyRing;
use crate::pool::Reading;
use crate::schema::{journal_positions, sequencer_head};
use crate::store::PgStore;
pub(super) use entries::{Batch, Cursor};
pub(super) use positions::PositionPage;

/// Entries of one batch. An entry has at most 64 KiB, and commonly 1 KiB.
pub(super) const BATCH: i64 = 1_024;
/// The same.
pub(super) const BATCH_ENTRIES: usize = 1_024;
/// Positions of one page.
pub(super) const POSITIONS: i64 = 4_096;
/// How often a batch is read again where the database failed.
const MAX_TRIES: u32 = 5;
/// Pause before each of them, times its number.
const PAUSE: Duration = Duration::from_millis(500);

/// The advisory lock of whoever verifies; any number that nothing else locks.
const CLAIM: i64 = 0x7175_6974_7665_7269;

#[diesel::declare_sql_function]
extern "SQL" {
    #[sql_name = "pg_try_advisory_lock"]
    fn try_advisory_lock(key: BigInt) -> Bool;

    #[sql_name = "pg_advisory_unlock"]
    fn advisory_unlock(key: BigInt) -> Bool;
}

/// A connection of a verification's own: it is busy for as long as that runs, and takes none from callers.
pub(super) struct Verifying {
    store: PgStore,
    connection: Option<AsyncPgConnection>,
}

impl Verifying {
    pub(super) async fn connect(store: &PgStore) -> Result<Self, StoreError> {
        let mut verifying = Self {
            store: store.clone(),
            connection: None,
        };
        verifying.ready().await?;
        Ok(verifying)
    }

    async fn ready(&mut self) -> Result<&mut AsyncPgConnection, StoreError> {
        let connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let connecting = self.store.inner.connector.connect(Use::Verify).await;
            connecting.map_err(|_| StoreError::Unavailable)?
        };
        Ok(self.connection.insert(connection))
    }

    /// What MACs are verified under.
    pub(super) fn keys(&self) -> &KeyRing {
        &self.store.inner.keys
    }

    /// Reads of one moment, again where the database fails; a connection that failed is left.
    pub(super) async fn read<T, F>(&mut self, query: F) -> Result<T, StoreError>
    where
        F: for<'c> Fn(&'c mut AsyncPgConnection) -> Reading<'c, T>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let failed = match self.ready().await {
                Ok(connection) => match query(connection).await {
                    Ok(value) => return Ok(value),
                    Err(error) => failure::read_error(&error),
                },
                Err(error) => error,
            };
            self.connection = None;
            if tries == MAX_TRIES || failed != StoreError::Unavailable {
                return Err(failed);
            }
            tokio::time::sleep(PAUSE * tries).await;
        }
    }

    /// Makes this the one verification, for as long as the connection lives. False where there is another.
    pub(super) async fn claim(&mut self) -> Result<bool, StoreError> {
        self.read(|connection| {
            async move {
                diesel::select(try_advisory_lock(CLAIM))
                    .get_result(connection)
                    .await
            }
            .boxed()
        })
        .await
    }

    /// Lets another verification begin. Where the database does not hear it, it lets go once it sees the connection closed.
    pub(super) async fn release(mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _released: Result<bool, _> = diesel::select(advisory_unlock(CLAIM))
                .get_result(&mut connection)
                .await;
        }
    }

    /// How many entries have a position.
    pub(super) async fn entries(&mut self) -> Result<u64, StoreError> {
        let head = self.read(|connection| head(connection).boxed()).await?;
        Ok(u64::try_from(head.0).unwrap_or_default())
    }

    /// Cuts the streams so that each segment has about as many entries.
    pub(super) async fn segments(
        &mut self,
        resume: VerifyProgress,
        total: u64,
    ) -> Result<Segments, StoreError> {
        let from = if resume.begun {
            resume.streams_from
        } else {
            Some(Uuid::nil())
        };
        // None smaller than a batch.
        let least = u64::try_from(BATCH).unwrap_or(1);
        let step = (total / SEGMENTS).max(least);
        let at: Vec<i64> = (1..SEGMENTS)
            .filter_map(|number| i64::try_from(number * step).ok())
            .collect();
        let most_cuts = i64::try_from(SEGMENTS).unwrap_or(i64::MAX);
        let cuts = self
            .read(|connection| {
                let query = journal_positions::table
                    .filter(journal_positions::position.eq_any(at.clone()))
                    .select(journal_positions::stream_id)
                    .limit(most_cuts);
                async move { query.load::<Uuid>(connection).await }.boxed()
            })
            .await?;
        Ok(Segments::new(from, cuts))
    }

    /// The notes of checkpoints of at least so many entries, as they are now.
    pub(super) async fn notes_from(&mut self, size: u64) -> Result<Vec<String>, StoreError> {
        self.read(|connection| notes_from(connection, size).boxed())
            .await
    }

    /// Of which of these sizes the service stored one of a kind, now.
    pub(super) async fn stored(
        &mut self,
        kind: &Linked,
        sizes: &[u64],
    ) -> Result<Vec<u64>, StoreError> {
        let keys = Arc::clone(&self.store.inner.keys);
        self.read(|connection| {
            let (keys, kind, sizes) = (Arc::clone(&keys), kind.clone(), sizes.to_vec());
            async move { stored(connection, &keys, &kind, &sizes).await }.boxed()
        })
        .await
    }
}

/// `next_position` and `low_arrival`. One that was deleted counts as nothing: then every entry lacks its position.
async fn head(connection: &mut AsyncPgConnection) -> QueryResult<(i64, i64)> {
    let head = sequencer_head::table
        .select((sequencer_head::next_position, sequencer_head::low_arrival))
        .first(connection)
        .await;
    Ok(head.optional()?.unwrap_or((0, i64::MAX)))
}
