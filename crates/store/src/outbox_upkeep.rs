//! What is removed of notifications in time, and what is counted of them.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::notification::{NotificationCount, Pruned};
use quittance_domain::ports::StoreError;

use crate::outbox::{at_most, count};
use crate::store::PgStore;

const PRUNE_DELIVERED: &str = "\
    delete from notification_deliveries where notification_id in ( \
        select notification_id from notification_deliveries \
        where state = 'DELIVERED' and ended_at < now() - make_interval(secs => $1) \
        order by ended_at limit $2 for update skip locked)";

const PRUNE_DEAD: &str = "\
    delete from notification_deliveries where notification_id in ( \
        select notification_id from notification_deliveries \
        where state = 'DEAD' and ended_at < now() - make_interval(secs => $1) \
        order by ended_at limit $2 for update skip locked)";

const PRUNE_OF_DELETED_ENDPOINTS: &str = "\
    delete from notification_deliveries where notification_id in ( \
        select d.notification_id from notification_endpoints n \
        cross join lateral ( \
            select d.notification_id from notification_deliveries d \
            where d.endpoint_id = n.endpoint_id and d.state = 'DEAD' \
            limit $2 for update of d skip locked \
        ) d \
        where n.state = 'DELETED' and n.updated_at < now() - make_interval(secs => $1) \
        limit $2)";

/// A deleted endpoint changes no more, so that its last change was its deletion.
const PRUNE_DELETED_ENDPOINTS: &str = "\
    delete from notification_endpoints where endpoint_id in ( \
        select n.endpoint_id from notification_endpoints n \
        where n.state = 'DELETED' and n.updated_at < now() - make_interval(secs => $1) \
            and not exists (select from notification_deliveries d where d.endpoint_id = n.endpoint_id) \
        limit $2 for update of n skip locked)";

const COUNT_WAITING: &str =
    "select count(*) as number from notification_deliveries where state = 'PENDING'";

const COUNT_DEAD: &str =
    "select count(*) as number from notification_deliveries where state = 'DEAD'";

const COUNT_UNPLANNED: &str = "\
    select greatest(s.next_position - c.next_position, 0) as number from sequencer_head s, notification_cursor c";

#[derive(QueryableByName)]
struct CountedRow {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

impl PgStore {
    pub(crate) async fn prune(
        &self,
        which: Pruned,
        keep: Duration,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let text = match which {
            Pruned::Delivered => PRUNE_DELIVERED,
            Pruned::Dead => PRUNE_DEAD,
            Pruned::OfDeletedEndpoints => PRUNE_OF_DELETED_ENDPOINTS,
            Pruned::DeletedEndpoints => PRUNE_DELETED_ENDPOINTS,
        };
        let (keep, limit) = (keep.as_secs_f64(), at_most(limit));
        let pruned = self
            .inner
            .reader
            .write_slowly("remove notifications", |connection, _| {
                let query = diesel::sql_query(text)
                    .bind::<Double, _>(keep)
                    .bind::<BigInt, _>(limit);
                async move { query.execute(connection).await }.boxed()
            });
        Ok(u64::try_from(pruned.await?).unwrap_or(u64::MAX))
    }

    pub(crate) async fn count_outbox(&self, what: NotificationCount) -> Result<u64, StoreError> {
        let text = match what {
            NotificationCount::Waiting => COUNT_WAITING,
            NotificationCount::Dead => COUNT_DEAD,
            NotificationCount::Unplanned => COUNT_UNPLANNED,
        };
        let read = self.inner.reader.scan("count notifications", |connection| {
            let query = diesel::sql_query(text);
            async move { query.get_result::<CountedRow>(connection).await }.boxed()
        });
        Ok(count(read.await?.number))
    }
}
