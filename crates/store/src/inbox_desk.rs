//! The inbox as operators see it: listed, read, replayed; and the wiping of bodies that nobody needs any more.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{
    BigInt, Binary, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{EventId, ProviderAccount, WebhookId};
use quittance_domain::ports::StoreError;
use quittance_domain::text::Sensitive;
use quittance_domain::webhook::{
    Replay, StoredBody, StoredWebhook, WebhookFilter, WebhookReason, WebhookState, Wiped,
};
use uuid::Uuid;

use crate::inbox::place;
use crate::payment_row::ReadAs as _;
use crate::sealing;
use crate::store::PgStore;

/// Most bodies that are wiped by one statement, whatever it is asked for.
pub const MAX_WIPED: usize = 1_000;

const COLUMNS: &str = "webhook_id, provider_account, event_id, state, reason, attempts, received_at, next_step_at, \
                       finished_at, wiped_at";

/// Also what is claimed just now: its claim is as it was, and whoever holds it says what became of it.
const REPLAY: &str = "\
    update webhook_inbox \
    set state = 'RECEIVED', reason = null, finished_at = null, next_step_at = now(), attempts_before = attempts \
    where webhook_id = $1 and state in ('PARKED', 'DEAD') and body is not null";

#[derive(QueryableByName)]
struct StoredRow {
    #[diesel(sql_type = SqlUuid)]
    webhook_id: Uuid,
    #[diesel(sql_type = Text)]
    provider_account: String,
    #[diesel(sql_type = Text)]
    event_id: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Timestamptz)]
    received_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    next_step_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    finished_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    wiped_at: Option<DateTime<Utc>>,
}

#[derive(QueryableByName)]
struct RowWithBody {
    #[diesel(embed)]
    stored: StoredRow,
    #[diesel(sql_type = Nullable<Binary>)]
    body: Option<Vec<u8>>,
}

impl TryFrom<StoredRow> for StoredWebhook {
    type Error = StoreError;

    fn try_from(row: StoredRow) -> Result<Self, StoreError> {
        let reason = row
            .reason
            .map(|name| WebhookReason::from_name(&name).at("webhook_inbox.reason"));
        Ok(Self {
            id: WebhookId(row.webhook_id),
            account: ProviderAccount::parse(row.provider_account)
                .at("webhook_inbox.provider_account")?,
            event: EventId::parse(row.event_id).at("webhook_inbox.event_id")?,
            state: WebhookState::from_name(&row.state).at("webhook_inbox.state")?,
            reason: reason.transpose()?,
            attempts: u32::try_from(row.attempts).at("webhook_inbox.attempts")?,
            received_at: row.received_at,
            next_step_at: row.next_step_at,
            finished_at: row.finished_at,
            wiped_at: row.wiped_at,
        })
    }
}

/// Webhooks in one state. Its name is written into the statement, where the partial indexes can answer to it.
fn listed_in(state: WebhookState) -> String {
    format!(
        "select {COLUMNS} from webhook_inbox where state = '{}' \
         and ($1 is null or webhook_id < $1) and ($2 is null or provider_account = $2) \
         and ($3 is null or reason = $3) order by webhook_id desc limit $4",
        state.name()
    )
}

/// One statement: replicas that wipe at once pass over each other's rows.
fn wipe(which: Wiped) -> String {
    let states = match which {
        Wiped::Done => "state in ('APPLIED', 'IGNORED')",
        Wiped::Dead => "state = 'DEAD'",
        Wiped::Unnamed => "state = 'DEAD' and payment_ids is null",
    };
    format!(
        "with old as materialized ( \
             select webhook_id from webhook_inbox \
             where body is not null and {states} and finished_at < now() - make_interval(secs => $1) \
             order by finished_at limit $2 \
             for update skip locked \
         ) \
         update webhook_inbox w set body = null, wiped_at = now() from old where w.webhook_id = old.webhook_id"
    )
}

impl PgStore {
    pub(crate) async fn read_webhooks(
        &self,
        filter: &WebhookFilter,
        before: Option<WebhookId>,
        limit: usize,
    ) -> Result<Vec<StoredWebhook>, StoreError> {
        let states = match filter.states.as_slice() {
            [] => WebhookState::ALL,
            some => some,
        };
        let mut found: Vec<StoredWebhook> = Vec::new();
        for state in states {
            found.extend(self.webhooks_in(*state, filter, before, limit).await?);
            found.sort_unstable_by_key(|webhook| std::cmp::Reverse(webhook.id));
            found.dedup_by_key(|webhook| webhook.id);
            found.truncate(limit);
        }
        Ok(found)
    }

    async fn webhooks_in(
        &self,
        state: WebhookState,
        filter: &WebhookFilter,
        before: Option<WebhookId>,
        limit: usize,
    ) -> Result<Vec<StoredWebhook>, StoreError> {
        let account = filter
            .account
            .as_ref()
            .map(|account| account.as_str().to_owned());
        let reason = filter.reason.map(|reason| reason.name().to_owned());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = self.inner.reader.scan("list webhooks", |connection| {
            let query = diesel::sql_query(listed_in(state))
                .bind::<Nullable<SqlUuid>, _>(before.map(|id| id.0))
                .bind::<Nullable<Text>, _>(account.clone())
                .bind::<Nullable<Text>, _>(reason.clone())
                .bind::<BigInt, _>(limit);
            async move { query.load::<StoredRow>(connection).await }.boxed()
        });
        let rows = read.await?.into_iter();
        rows.map(StoredWebhook::try_from).collect()
    }

    pub(crate) async fn read_webhook(
        &self,
        id: WebhookId,
    ) -> Result<Option<(StoredWebhook, StoredBody)>, StoreError> {
        let sql = format!("select {COLUMNS}, body from webhook_inbox where webhook_id = $1");
        let read = self.inner.reader.read("read webhook", |connection| {
            let query = diesel::sql_query(sql.clone()).bind::<SqlUuid, _>(id.0);
            async move { query.get_result::<RowWithBody>(connection).await.optional() }.boxed()
        });
        let Some(RowWithBody { stored, body }) = read.await? else {
            return Ok(None);
        };
        let body = match body {
            None => StoredBody::Wiped,
            Some(sealed) => match sealing::open(&self.inner.keys, None, place(id.0), &sealed) {
                Ok(body) => StoredBody::Kept(Sensitive::new(body.to_vec())),
                Err(_) => StoredBody::NotOpened,
            },
        };
        Ok(Some((stored.try_into()?, body)))
    }

    pub(crate) async fn take_up_again(&self, id: WebhookId) -> Result<Replay, StoreError> {
        // Made again after a lost connection it finds the webhook received or already applied, and says so.
        let written = self.inner.reader.write("replay webhook", |connection, _| {
            let query = diesel::sql_query(REPLAY).bind::<SqlUuid, _>(id.0);
            async move { query.execute(connection).await }.boxed()
        });
        Ok(match written.await? {
            0 => Replay::NotReplayable,
            _ => Replay::Due,
        })
    }

    pub(crate) async fn wipe_bodies(
        &self,
        which: Wiped,
        kept_for: Duration,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let limit = i64::try_from(limit.min(MAX_WIPED)).unwrap_or(i64::MAX);
        let seconds = kept_for.as_secs_f64();
        let wiped = self
            .inner
            .reader
            .write_slowly("wipe webhooks", |connection, _| {
                let query = diesel::sql_query(wipe(which))
                    .bind::<Double, _>(seconds)
                    .bind::<BigInt, _>(limit);
                async move { query.execute(connection).await }.boxed()
            });
        wiped.await
    }
}
