//! Sending dead letters again.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::TenantId;
use quittance_domain::notification::{EndpointState, NotificationState, Replay, Replayed};
use quittance_domain::ports::StoreError;

use crate::outbox::{at_most, count};
use crate::store::PgStore;

const REPLAY_ONE: &str = "\
    with found as ( \
        select d.notification_id, d.state, n.state as endpoint_state \
        from notification_deliveries d join notification_endpoints n on n.endpoint_id = d.endpoint_id \
        where d.notification_id = $1 and d.tenant_id = $2 \
    ), again as ( \
        update notification_deliveries d \
        set state = 'PENDING', failures = 0, attempts_before = d.attempts, next_attempt_at = now(), ended_at = null \
        from found f \
        where d.notification_id = f.notification_id and d.state = 'DEAD' and f.endpoint_state = 'ENABLED' \
        returning 1 \
    ) \
    select state, endpoint_state, (select count(*) from again) as again from found";

const REPLAY_ALL: &str = "\
    with found as ( \
        select endpoint_id, state from notification_endpoints \
        where endpoint_id = $1 and tenant_id = $2 and state <> 'DELETED' \
    ), dead as materialized ( \
        select d.notification_id from found f \
        join notification_deliveries d on d.endpoint_id = f.endpoint_id \
        where f.state = 'ENABLED' and d.state = 'DEAD' \
        order by d.position limit $3 \
        for update of d skip locked \
    ), again as ( \
        update notification_deliveries d \
        set state = 'PENDING', failures = 0, attempts_before = d.attempts, next_attempt_at = now(), ended_at = null \
        from dead where d.notification_id = dead.notification_id and d.state = 'DEAD' \
        returning 1 \
    ) \
    select 'DEAD' as state, state as endpoint_state, (select count(*) from again) as again from found";

#[derive(QueryableByName)]
struct ReplayedRow {
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Text)]
    endpoint_state: String,
    #[diesel(sql_type = BigInt)]
    again: i64,
}

impl PgStore {
    pub(crate) async fn replay(
        &self,
        tenant: &TenantId,
        replay: Replay,
        limit: usize,
    ) -> Result<Replayed, StoreError> {
        let limit = at_most(limit);
        let (text, id) = match replay {
            Replay::One(id) => (REPLAY_ONE, id.0),
            Replay::Endpoint(id) => (REPLAY_ALL, id.0),
        };
        let replayed = self
            .inner
            .reader
            .write("replay notifications", |connection, again| {
                let query = diesel::sql_query(text)
                    .bind::<SqlUuid, _>(id)
                    .bind::<Text, _>(tenant.as_str().to_owned());
                async move {
                    let row = match replay {
                        Replay::One(_) => query.get_result::<ReplayedRow>(connection).await,
                        Replay::Endpoint(_) => {
                            let query = query.bind::<BigInt, _>(limit);
                            query.get_result::<ReplayedRow>(connection).await
                        }
                    };
                    Ok(row.optional()?.map(|row| (row, again.is_some())))
                }
                .boxed()
            });
        let Some((row, repeated)) = replayed.await? else {
            return Ok(Replayed::NotFound);
        };
        let pending = row.state == NotificationState::Pending.name();
        Ok(if row.state == NotificationState::Delivered.name() {
            Replayed::NotDead
        } else if pending && repeated {
            // Pending by this very call, whose answer was lost.
            Replayed::Again(1)
        } else if pending {
            Replayed::NotDead
        } else if row.endpoint_state == EndpointState::Enabled.name() {
            Replayed::Again(count(row.again))
        } else {
            Replayed::EndpointClosed
        })
    }
}
