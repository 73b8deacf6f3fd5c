//! The inbox of webhooks: stored once, claimed, and closed; and whether a transaction went through an account.

use std::collections::HashSet;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Double, Integer, Nullable, Text, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{
    EventId, PaymentId, ProviderAccount, TenantId, TransactionId, WebhookId,
};
use quittance_domain::ports::{Named, SentThrough, StoreError};
use quittance_domain::text::Sensitive;
use quittance_domain::webhook::{
    ClaimedWebhook, InboxBacklog, InboxClaim, NewWebhook, Receipt, WebhookReason, WebhookState,
    WebhookVerdict,
};
use uuid::Uuid;

use crate::keys::KeyRing;
use crate::outbox::at_most;
use crate::payment_row::ReadAs as _;
use crate::sealing::{self, Place};
use crate::store::PgStore;

/// Most webhooks that one claim takes, whatever it asks for.
pub const MAX_INBOX_CLAIM: usize = 1_000;

/// One statement for all events of a delivery, so that it is acknowledged after one commit. A second delivery of an event
/// waits for the first to commit, then changes nothing. Always in the same order, so that two deliveries that have
/// events in common do not wait for each other.
const RECEIVE: &str = "\
    insert into webhook_inbox \
        (webhook_id, provider_account, event_id, body, state, reason, next_step_at, finished_at) \
    select n.webhook_id, n.provider_account, n.event_id, n.body, n.state, n.reason, \
        case when n.reason is null then now() end, case when n.reason is not null then now() end \
    from unnest($1, $2, $3, $4, $5, $6) as n (webhook_id, provider_account, event_id, body, state, reason) \
    order by n.provider_account, n.event_id \
    on conflict on constraint webhook_inbox_event_key do nothing \
    returning webhook_id";

/// Claims what is due, and waits for nobody: account by account, so that an account whose provider is slow has no more
/// than its places, and what waits of it is not looked at for another's. The accounts of what waits are found by an index,
/// one step each. `now()` is the database's clock.
const CLAIM: &str = "\
    with recursive accounts (name) as ( \
        (select provider_account from webhook_inbox where next_step_at is not null \
         order by provider_account limit 1) \
        union all \
        select (select w.provider_account from webhook_inbox w \
                where w.next_step_at is not null and w.provider_account > a.name \
                order by w.provider_account limit 1) \
        from accounts a where a.name is not null \
    ), free as materialized ( \
        select a.name, $2 - coalesce(b.places, 0) as places \
        from accounts a left join unnest($3, $4) as b (name, places) on b.name = a.name \
        where a.name is not null and coalesce(b.places, 0) < $2 \
    ), due as materialized ( \
        select d.webhook_id, d.next_step_at \
        from free f \
        cross join lateral ( \
            select w.webhook_id, w.next_step_at from webhook_inbox w \
            where w.provider_account = f.name and w.next_step_at <= now() \
                and (w.claimed_until is null or w.claimed_until <= now()) \
            order by w.next_step_at \
            limit f.places \
            for update of w skip locked \
        ) d \
    ), chosen as materialized ( \
        select webhook_id from due order by next_step_at limit $1 \
    ) \
    update webhook_inbox w \
    set claimed_until = now() + make_interval(secs => $5), attempts = w.attempts + 1 \
    from chosen \
    where w.webhook_id = chosen.webhook_id \
    returning w.webhook_id, w.provider_account, w.body, w.attempts, w.attempts - w.attempts_before as tries, \
        extract(epoch from now() - w.received_at)::double precision as age";

/// The number of the attempt is the fence: whoever claimed it later counts.
///
/// What is finished, and about a payment of a customer that is erased or being erased, keeps no body; nor does what told
/// nothing and names no payment: it cannot be replayed, and an erasure would not find it. The lock on the
/// customers makes an erasure that ends just now wait, and then find the row; or this finds no customer any more.
const CLOSE: &str = "\
    with about as materialized ( \
        select p.payment_id, p.customer_id from webhook_inbox w \
        join payments p on p.payment_id = any(coalesce(nullif($6, '{}'), w.payment_ids)) \
        where w.webhook_id = $1 and p.customer_id is not null \
    ), known as materialized ( \
        select c.customer_id from customers c \
        where c.customer_id in (select customer_id from about) and c.erasing_since is null \
        for key share \
    ), erased as materialized ( \
        select exists ( \
            select from about where customer_id not in (select customer_id from known)) and $5 is null \
        or $3 = 'IGNORED' and $6 = '{}' and exists ( \
            select from webhook_inbox w where w.webhook_id = $1 and w.payment_ids is null) as yes \
    ) \
    update webhook_inbox w \
    set state = $3, reason = $4, claimed_until = null, attempts_before = w.attempts_before + $7, \
        next_step_at = now() + make_interval(secs => $5), \
        finished_at = case when $5 is null then now() end, \
        payment_ids = coalesce(nullif($6, '{}'), w.payment_ids), \
        body = case when not erased.yes then w.body end, \
        wiped_at = case when erased.yes then now() end \
    from erased \
    where w.webhook_id = $1 and w.attempts = $2 and w.next_step_at is not null \
    returning extract(epoch from now() - w.received_at)::double precision as age";

/// Both counts are of what a partial index holds.
const BACKLOG: &str = "\
    select (select count(*) from webhook_inbox where next_step_at is not null) as waiting, \
           (select count(*) from webhook_inbox where state = 'DEAD') as dead";

const SENT_THROUGH: &str = "\
    select p.tenant_id, exists ( \
        select from attempts a \
        where a.payment_id = $1 and a.provider_account = $3 and a.transaction_id = coalesce($2, ( \
            select t.transaction_id from transactions t \
            where t.payment_id = $1 and t.kind in ('PURCHASE', 'AUTHORIZATION') limit 1)) \
    ) as through \
    from payments p where p.payment_id = $1";

/// By the unique index over account and event, so it costs payments nothing. What is finished and was about nothing that is
/// handled, though it is an event that names payments, is about somebody else's.
const PAYMENT_OF_EVENT: &str = "\
    select payment_ids[1] as payment_id, state = 'DEAD' and reason = 'UNEXPECTED' as of_others \
    from webhook_inbox where provider_account = $1 and event_id = $2";

/// What is stored of webhooks, column by column.
#[derive(Default)]
struct NewRows {
    ids: Vec<Uuid>,
    accounts: Vec<String>,
    events: Vec<String>,
    bodies: Vec<Vec<u8>>,
    states: Vec<&'static str>,
    reasons: Vec<Option<&'static str>>,
}

impl NewRows {
    fn seal(ring: &KeyRing, webhooks: &[NewWebhook]) -> Result<Self, StoreError> {
        let mut rows = Self::default();
        for webhook in webhooks {
            let id = webhook.id.0;
            let state = match webhook.dead {
                Some(_) => WebhookState::Dead,
                None => WebhookState::Received,
            };
            rows.ids.push(id);
            rows.accounts.push(webhook.account.as_str().to_owned());
            rows.events.push(webhook.event.as_str().to_owned());
            let body = sealing::seal(ring, None, place(id), webhook.body.expose())?;
            rows.bodies.push(body);
            rows.states.push(state.name());
            rows.reasons.push(webhook.dead.map(WebhookReason::name));
        }
        Ok(rows)
    }
}

#[derive(QueryableByName)]
struct StoredRow {
    #[diesel(sql_type = SqlUuid)]
    webhook_id: Uuid,
}

#[derive(QueryableByName)]
struct ClaimedRow {
    #[diesel(sql_type = SqlUuid)]
    webhook_id: Uuid,
    #[diesel(sql_type = Text)]
    provider_account: String,
    #[diesel(sql_type = Binary)]
    body: Vec<u8>,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    tries: i32,
    #[diesel(sql_type = Double)]
    age: f64,
}

impl ClaimedRow {
    /// A body that does not open is one webhook's misfortune, not that of those claimed with it.
    fn open(self, ring: &KeyRing) -> Result<ClaimedWebhook, StoreError> {
        let opened = sealing::open(ring, None, place(self.webhook_id), &self.body);
        Ok(ClaimedWebhook {
            id: WebhookId(self.webhook_id),
            account: ProviderAccount::parse(self.provider_account)
                .at("webhook_inbox.provider_account")?,
            body: opened.ok().map(|body| Sensitive::new(body.to_vec())),
            attempt: u32::try_from(self.attempts).at("webhook_inbox.attempts")?,
            tries: u32::try_from(self.tries).at("webhook_inbox.attempts_before")?,
            age: Duration::try_from_secs_f64(self.age.max(0.0)).unwrap_or_default(),
        })
    }
}

#[derive(QueryableByName)]
struct ClosedRow {
    #[diesel(sql_type = Double)]
    age: f64,
}

#[derive(QueryableByName)]
struct BacklogRow {
    #[diesel(sql_type = BigInt)]
    waiting: i64,
    #[diesel(sql_type = BigInt)]
    dead: i64,
}

#[derive(QueryableByName)]
struct SenderRow {
    #[diesel(sql_type = Text)]
    tenant_id: String,
    #[diesel(sql_type = Bool)]
    through: bool,
}

#[derive(QueryableByName)]
struct AboutRow {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    payment_id: Option<Uuid>,
    #[diesel(sql_type = Bool)]
    of_others: bool,
}

pub(crate) const fn place(webhook: Uuid) -> Place {
    Place::new("webhook_inbox", "body", webhook)
}

impl PgStore {
    pub(crate) async fn store_webhooks(
        &self,
        webhooks: Vec<NewWebhook>,
    ) -> Result<Vec<Receipt>, StoreError> {
        let rows = NewRows::seal(&self.inner.keys, &webhooks)?;
        // Made again after a lost connection it finds its own rows, and answers that the events are known: they are.
        let written = self.inner.reader.write("store webhook", |connection, _| {
            let query = diesel::sql_query(RECEIVE)
                .bind::<Array<SqlUuid>, _>(rows.ids.clone())
                .bind::<Array<Text>, _>(rows.accounts.clone())
                .bind::<Array<Text>, _>(rows.events.clone())
                .bind::<Array<Binary>, _>(rows.bodies.clone())
                .bind::<Array<Text>, _>(rows.states.clone())
                .bind::<Array<Nullable<Text>>, _>(rows.reasons.clone());
            async move { query.load::<StoredRow>(connection).await }.boxed()
        });
        let written: HashSet<_> = written.await?.iter().map(|row| row.webhook_id).collect();
        let receipts = rows.ids.iter().map(|id| {
            if written.contains(id) {
                Receipt::Stored
            } else {
                Receipt::KnownEvent
            }
        });
        Ok(receipts.collect())
    }

    pub(crate) async fn claim_inbox(
        &self,
        claim: &InboxClaim,
    ) -> Result<Vec<ClaimedWebhook>, StoreError> {
        let limit = at_most(claim.limit.min(MAX_INBOX_CLAIM));
        let per_account = at_most(claim.per_account);
        let busy = claim.busy.iter();
        let (accounts, places): (Vec<_>, Vec<_>) = busy
            .map(|(account, places)| (account.as_str().to_owned(), at_most(*places)))
            .unzip();
        let lease = claim.lease.as_secs_f64();
        let claimed = self
            .inner
            .reader
            .write_slowly("claim webhooks", |connection, _| {
                let query = diesel::sql_query(CLAIM)
                    .bind::<BigInt, _>(limit)
                    .bind::<BigInt, _>(per_account)
                    .bind::<Array<Text>, _>(accounts.clone())
                    .bind::<Array<BigInt>, _>(places.clone())
                    .bind::<Double, _>(lease);
                async move { query.load::<ClaimedRow>(connection).await }.boxed()
            });
        let rows = claimed.await?.into_iter();
        rows.map(|row| row.open(&self.inner.keys)).collect()
    }

    pub(crate) async fn close_claimed(
        &self,
        claimed: &ClaimedWebhook,
        verdict: WebhookVerdict,
        about: &[PaymentId],
    ) -> Result<Option<f64>, StoreError> {
        let payments: Vec<Uuid> = about.iter().map(|payment| payment.0).collect();
        let (id, state) = (claimed.id.0, verdict.state().name());
        let reason = verdict.reason().map(|reason| reason.name().to_owned());
        let (again_in, free) = match verdict {
            WebhookVerdict::Parked { again_in, free, .. } => (Some(again_in.as_secs_f64()), free),
            WebhookVerdict::Applied | WebhookVerdict::Ignored | WebhookVerdict::Dead { .. } => {
                (None, false)
            }
        };
        let attempt = i32::try_from(claimed.attempt).unwrap_or(i32::MAX);
        let closed = self.inner.reader.write("close webhook", |connection, _| {
            let query = diesel::sql_query(CLOSE)
                .bind::<SqlUuid, _>(id)
                .bind::<Integer, _>(attempt)
                .bind::<Text, _>(state)
                .bind::<Nullable<Text>, _>(reason.clone())
                .bind::<Nullable<Double>, _>(again_in)
                .bind::<Array<SqlUuid>, _>(payments.clone())
                .bind::<Integer, _>(i32::from(free));
            async move { query.get_result::<ClosedRow>(connection).await.optional() }.boxed()
        });
        Ok(closed.await?.map(|row| row.age.max(0.0)))
    }

    pub(crate) async fn count_inbox(&self) -> Result<InboxBacklog, StoreError> {
        let read = self.inner.reader.scan("count webhooks", |connection| {
            let query = diesel::sql_query(BACKLOG);
            async move { query.get_result::<BacklogRow>(connection).await }.boxed()
        });
        let row = read.await?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(InboxBacklog {
            waiting: count(row.waiting),
            dead: count(row.dead),
        })
    }

    pub(crate) async fn find_sender(
        &self,
        payment: PaymentId,
        transaction: Option<TransactionId>,
        account: &ProviderAccount,
    ) -> Result<SentThrough, StoreError> {
        let account = account.as_str();
        let read = self.inner.reader.read("find sender", |connection| {
            let query = diesel::sql_query(SENT_THROUGH)
                .bind::<SqlUuid, _>(payment.0)
                .bind::<Nullable<SqlUuid>, _>(transaction.map(|transaction| transaction.0))
                .bind::<Text, _>(account.to_owned());
            async move { query.get_result::<SenderRow>(connection).await.optional() }.boxed()
        });
        Ok(match read.await? {
            None => SentThrough::UnknownPayment,
            Some(row) if row.through => {
                SentThrough::Yes(TenantId::parse(row.tenant_id).at("payments.tenant_id")?)
            }
            Some(_) => SentThrough::No,
        })
    }

    /// The payment that the webhook with this event is about.
    pub(crate) async fn find_payment_of_event(
        &self,
        account: &ProviderAccount,
        event: &EventId,
    ) -> Result<Named, StoreError> {
        let (account, event) = (account.as_str(), event.as_str());
        let read = self
            .inner
            .reader
            .read("find payment of event", |connection| {
                let query = diesel::sql_query(PAYMENT_OF_EVENT)
                    .bind::<Text, _>(account.to_owned())
                    .bind::<Text, _>(event.to_owned());
                async move { query.get_result::<AboutRow>(connection).await.optional() }.boxed()
            });
        Ok(match read.await? {
            Some(AboutRow {
                payment_id: Some(payment),
                ..
            }) => Named::Ours(PaymentId(payment)),
            Some(row) if row.of_others => Named::NotOurs,
            Some(_) | None => Named::NotFound,
        })
    }
}
