//! Notifications as they are listed, with the log of their attempts; and the port, which hands on to those who know.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::change::JournalEntry;
use quittance_domain::ids::{EndpointId, EntryId, NotificationId, PaymentId, TenantId};
use quittance_domain::notification::{
    AttemptLog, ClaimedNotification, Destination, Endpoint, EndpointChange, NotificationCause,
    NotificationClaim, NotificationCount, NotificationFilter, NotificationState,
    NotificationVerdict, Outbox, Planned, Pruned, Replay, Replayed, StoredAttempt,
    StoredNotification,
};
use quittance_domain::ports::StoreError;
use uuid::Uuid;

use crate::payment_row::ReadAs as _;
use crate::store::PgStore;

/// Most attempts that are shown of one notification: the newest.
const MAX_ATTEMPTS_SHOWN: i64 = 100;

const LIST: &str = "\
    select notification_id, endpoint_id, tenant_id, position, entry_id, event_type, payment_id, entity_seq, state, \
           attempts, cause, http_status, created_at, next_attempt_at, ended_at \
    from notification_deliveries \
    where ($1 is null or tenant_id = $1) and ($2 is null or endpoint_id = $2) \
        and ($3 is null or payment_id = $3) and ($4 is null or state = $4) \
        and ($5 is null or (position, notification_id) < ($5, $6)) \
        and ($7 is null or notification_id = $7) \
    order by position desc, notification_id desc limit $8";

const ATTEMPTS: &str = "\
    select number, started_at, latency_ms, http_status, cause from notification_attempts \
    where notification_id = $1 order by number desc limit $2";

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    notification_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    endpoint_id: Uuid,
    #[diesel(sql_type = Text)]
    tenant_id: String,
    #[diesel(sql_type = BigInt)]
    position: i64,
    #[diesel(sql_type = SqlUuid)]
    entry_id: Uuid,
    #[diesel(sql_type = Text)]
    event_type: String,
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = BigInt)]
    entity_seq: i64,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Nullable<Text>)]
    cause: Option<String>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    http_status: Option<i16>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    next_attempt_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    ended_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for StoredNotification {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: NotificationId(row.notification_id),
            endpoint: EndpointId(row.endpoint_id),
            tenant: TenantId::parse(row.tenant_id).at("notification_deliveries.tenant_id")?,
            position: u64::try_from(row.position).at("notification_deliveries.position")?,
            entry: EntryId(row.entry_id),
            event_type: row.event_type,
            payment: PaymentId(row.payment_id),
            entity_seq: u64::try_from(row.entity_seq).at("notification_deliveries.entity_seq")?,
            state: NotificationState::from_name(&row.state).at("notification_deliveries.state")?,
            attempts: u32::try_from(row.attempts).at("notification_deliveries.attempts")?,
            cause: cause(row.cause.as_deref())?,
            http_status: status(row.http_status)?,
            created_at: row.created_at,
            next_attempt_at: row.next_attempt_at,
            ended_at: row.ended_at,
        })
    }
}

#[derive(QueryableByName)]
struct AttemptRow {
    #[diesel(sql_type = Integer)]
    number: i32,
    #[diesel(sql_type = Timestamptz)]
    started_at: DateTime<Utc>,
    #[diesel(sql_type = Integer)]
    latency_ms: i32,
    #[diesel(sql_type = Nullable<SmallInt>)]
    http_status: Option<i16>,
    #[diesel(sql_type = Nullable<Text>)]
    cause: Option<String>,
}

impl TryFrom<AttemptRow> for StoredAttempt {
    type Error = StoreError;

    fn try_from(row: AttemptRow) -> Result<Self, StoreError> {
        let latency = u64::try_from(row.latency_ms).at("notification_attempts.latency_ms")?;
        Ok(Self {
            number: u32::try_from(row.number).at("notification_attempts.number")?,
            log: AttemptLog {
                started_at: row.started_at,
                latency: Duration::from_millis(latency),
                http_status: status(row.http_status)?,
            },
            cause: cause(row.cause.as_deref())?,
        })
    }
}

fn cause(name: Option<&str>) -> Result<Option<NotificationCause>, StoreError> {
    let cause = name.map(|name| NotificationCause::from_name(name).at("notifications.cause"));
    cause.transpose()
}

fn status(status: Option<i16>) -> Result<Option<u16>, StoreError> {
    let status = status.map(|status| u16::try_from(status).at("notifications.http_status"));
    status.transpose()
}

impl PgStore {
    async fn notifications(
        &self,
        tenant: Option<&TenantId>,
        filter: &NotificationFilter,
        only: Option<NotificationId>,
        before: Option<(u64, NotificationId)>,
        limit: usize,
    ) -> Result<Vec<StoredNotification>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let position = before.map(|(position, _)| i64::try_from(position).unwrap_or(i64::MAX));
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        let read = self.inner.reader.scan("list notifications", |connection| {
            let query = diesel::sql_query(LIST)
                .bind::<Nullable<Text>, _>(tenant.clone())
                .bind::<Nullable<SqlUuid>, _>(filter.endpoint.map(|id| id.0))
                .bind::<Nullable<SqlUuid>, _>(filter.payment.map(|id| id.0))
                .bind::<Nullable<Text>, _>(filter.state.map(NotificationState::name))
                .bind::<Nullable<BigInt>, _>(position)
                .bind::<Nullable<SqlUuid>, _>(before.map(|(_, id)| id.0))
                .bind::<Nullable<SqlUuid>, _>(only.map(|id| id.0))
                .bind::<BigInt, _>(limit);
            async move { query.load::<Row>(connection).await }.boxed()
        });
        let rows = read.await?.into_iter();
        rows.map(StoredNotification::try_from).collect()
    }

    async fn attempts_of(&self, id: NotificationId) -> Result<Vec<StoredAttempt>, StoreError> {
        let read = self
            .inner
            .reader
            .read("list notification attempts", |connection| {
                let query = diesel::sql_query(ATTEMPTS)
                    .bind::<SqlUuid, _>(id.0)
                    .bind::<BigInt, _>(MAX_ATTEMPTS_SHOWN);
                async move { query.load::<AttemptRow>(connection).await }.boxed()
            });
        let rows = read.await?.into_iter().rev();
        rows.map(StoredAttempt::try_from).collect()
    }
}

#[async_trait]
impl Outbox for PgStore {
    async fn change_endpoint(
        &self,
        tenant: &TenantId,
        change: EndpointChange,
        entry: JournalEntry,
    ) -> Result<bool, StoreError> {
        self.change_on_record(tenant, change, entry).await
    }

    async fn list_endpoints(
        &self,
        tenant: Option<&TenantId>,
        after: Option<EndpointId>,
        limit: usize,
    ) -> Result<Vec<Endpoint>, StoreError> {
        self.read_endpoints(tenant, None, after, limit).await
    }

    async fn endpoint(
        &self,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<Option<Endpoint>, StoreError> {
        let found = self.read_endpoints(Some(tenant), Some(id), None, 1).await?;
        Ok(found.into_iter().next())
    }

    async fn destination(
        &self,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<Option<Destination>, StoreError> {
        self.read_destination(tenant, id).await
    }

    async fn plan_notifications(&self, limit: usize) -> Result<Planned, StoreError> {
        self.plan(limit).await
    }

    async fn close_notifications(&self, limit: usize) -> Result<u64, StoreError> {
        self.close_waiting(limit).await
    }

    async fn prune_notifications(
        &self,
        which: Pruned,
        keep: Duration,
        limit: usize,
    ) -> Result<u64, StoreError> {
        self.prune(which, keep, limit).await
    }

    async fn claim_notifications(
        &self,
        claim: &NotificationClaim,
    ) -> Result<Vec<ClaimedNotification>, StoreError> {
        self.claim_outbox(claim).await
    }

    async fn close_notification(
        &self,
        claimed: &ClaimedNotification,
        attempt: AttemptLog,
        verdict: NotificationVerdict,
    ) -> Result<Option<f64>, StoreError> {
        self.close_claimed_notification(claimed, attempt, verdict)
            .await
    }

    async fn postpone_notification(
        &self,
        claimed: &ClaimedNotification,
        after: Duration,
    ) -> Result<(), StoreError> {
        self.postpone(claimed, after).await
    }

    async fn list_notifications(
        &self,
        tenant: Option<&TenantId>,
        filter: &NotificationFilter,
        before: Option<(u64, NotificationId)>,
        limit: usize,
    ) -> Result<Vec<StoredNotification>, StoreError> {
        self.notifications(tenant, filter, None, before, limit)
            .await
    }

    async fn notification(
        &self,
        tenant: &TenantId,
        id: NotificationId,
    ) -> Result<Option<(StoredNotification, Vec<StoredAttempt>)>, StoreError> {
        let every = NotificationFilter::default();
        let found = self.notifications(Some(tenant), &every, Some(id), None, 1);
        let Some(found) = found.await?.into_iter().next() else {
            return Ok(None);
        };
        Ok(Some((found, self.attempts_of(id).await?)))
    }

    async fn replay_notifications(
        &self,
        tenant: &TenantId,
        replay: Replay,
        limit: usize,
    ) -> Result<Replayed, StoreError> {
        self.replay(tenant, replay, limit).await
    }

    async fn count_notifications(&self, what: NotificationCount) -> Result<u64, StoreError> {
        self.count_outbox(what).await
    }
}
