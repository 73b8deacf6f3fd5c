//! Which of several servers verifies the log, and when.

use std::time::Duration;

use diesel::sql_types::{BigInt, Double};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ports::StoreError;

use crate::store::PgStore;

/// Takes the next verification where it is due. One that is yet to begin was not begun by us: it is due as well.
const CLAIM: &str = "\
    update verification_schedule set started_at = now(), finished_at = null, mismatches = null \
    where started_at <= now() - make_interval(secs => $1) or started_at > now() + interval '5 minutes'";
const FINISH: &str = "update verification_schedule set finished_at = now(), mismatches = $1";

impl PgStore {
    /// Takes the scheduled verification, where the last one began at least so long ago: then this process has to do it,
    /// and no other will for as long.
    pub async fn claim_verification(&self, every: Duration) -> Result<bool, StoreError> {
        let claim = self.inner.reader.read("claim verification", |connection| {
            let query = diesel::sql_query(CLAIM).bind::<Double, _>(every.as_secs_f64());
            async move { query.execute(connection).await }.boxed()
        });
        Ok(claim.await? == 1)
    }

    /// Notes that the scheduled verification came to its end.
    pub async fn finish_verification(&self, mismatches: u64) -> Result<(), StoreError> {
        let mismatches = i64::try_from(mismatches).unwrap_or(i64::MAX);
        let finish = self.inner.reader.read("finish verification", |connection| {
            let query = diesel::sql_query(FINISH).bind::<BigInt, _>(mismatches);
            async move { query.execute(connection).await }.boxed()
        });
        finish.await?;
        Ok(())
    }
}
