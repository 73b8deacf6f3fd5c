//! Notifications: made from the journal, claimed in the order of their payment, and closed.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use quittance_domain::ids::{EndpointId, EntryId, NotificationId, PaymentId, TenantId};
use quittance_domain::notification::{
    AttemptLog, ClaimedNotification, NotificationCause, NotificationClaim, NotificationVerdict,
    Planned,
};
use quittance_domain::ports::StoreError;
use uuid::Uuid;

use crate::endpoints::DestinationRow;
use crate::payment_row::ReadAs as _;
use crate::store::PgStore;

/// Most notifications that one claim takes, whatever it asks for.
pub const MAX_NOTIFICATION_CLAIM: usize = 1_000;

/// Makes notifications of the next entries, and moves the cursor: both or neither, so that nothing is lost and nothing
/// made twice, whenever a process dies. Whoever holds the row is the only one; the others pass.
///
/// The row is read as it is now, everything else as of the statement's beginning: positions below that head are all
/// visible, and so is every endpoint that was made before their entries were. Where no endpoint is, the cursor goes
/// along with the head, and nothing is read. Nothing vouches for that head: it counts no further than there are positions, or
/// the cursor would leave out for good what comes below it.
///
/// What an earlier one of its payment waits before is due with that, not now: a claim looks at everything that is due,
/// and would look at it in vain all the while that the receiver is down. One that is read just while it is closed was
/// claimed, so was due: then this one is due as well, and waits by what the claim asks.
///
/// The limits keep the planner to the order of the steps (a range, its entries, each by its key): of tables that grow it
/// often has no statistics, and then would rather read all of the journal for each entry.
///
/// Whoever wants every event about chargebacks wants those about what they return, too: the issuer can take it once more.
/// Whoever wants those about payments wants that of a confirmation, which has a name of its own.
///
/// What an endpoint is not told because it is off is a dead letter from the beginning, so that nothing piles up meanwhile.
const PLAN: &str = "\
    with held as materialized ( \
        select next_position from notification_cursor for update skip locked \
    ), served as materialized ( \
        select exists (select from notification_endpoints where state <> 'DELETED') as there \
    ), head as materialized ( \
        select coalesce(( \
            select max(p.position) from journal_positions p where p.position < s.next_position), -1) + 1 as next_position \
        from sequencer_head s \
    ), range as materialized ( \
        select h.next_position as low, s.next_position as head, v.there as served, \
               greatest(h.next_position, \
                   case when v.there then least(h.next_position + $1, s.next_position) else s.next_position end \
               ) as high \
        from held h, head s, served v \
    ), made as ( \
        insert into notification_deliveries \
            (endpoint_id, tenant_id, position, entry_id, payment_id, entity_seq, event_type, state, cause, ended_at, \
             next_attempt_at) \
        select n.endpoint_id, n.tenant_id, p.position, p.entry_id, j.payment_id, j.entity_seq, j.event_type, \
               case when n.state = 'ENABLED' then 'PENDING' else 'DEAD' end, \
               case when n.state <> 'ENABLED' then 'ENDPOINT_CLOSED' end, \
               case when n.state <> 'ENABLED' then now() end, \
               case when n.state = 'ENABLED' then coalesce(( \
                   select e.next_attempt_at from notification_deliveries e \
                   where e.endpoint_id = n.endpoint_id and e.payment_id = j.payment_id \
                       and e.entity_seq < j.entity_seq and e.state = 'PENDING' \
                   order by e.entity_seq limit 1), now()) end \
        from range r \
        cross join lateral ( \
            select * from journal_positions p \
            where r.served and p.position >= r.low and p.position < r.high \
            order by p.position limit $1 \
        ) p \
        join notification_endpoints n on n.tenant_id = p.tenant_id and n.state <> 'DELETED' \
        cross join lateral ( \
            select * from journal j \
            where j.stream_id = p.stream_id and j.entity_seq = p.entity_seq and j.payment_id = j.stream_id \
            limit 1 \
        ) j \
        where (cardinality(n.event_types) = 0 or j.event_type = any (n.event_types) \
                 or split_part(j.event_type, '.', 1) || '.*' = any (n.event_types) \
                 or split_part(j.event_type, '.', 1) = 'chargeback_reversal' and 'chargeback.*' = any (n.event_types) \
                 or split_part(j.event_type, '.', 1) = 'confirm' and 'payment.*' = any (n.event_types)) \
        order by p.position \
        on conflict on constraint notification_deliveries_event_key do nothing \
        returning 1 \
    ), moved as ( \
        update notification_cursor c set next_position = r.high from range r where r.high > r.low returning 1 \
    ) \
    select r.high, r.head, r.served, (select count(*) from made) as made, (select count(*) from moved) as moved from range r";

/// What waits for an endpoint that is not on. What is under way ends first.
const CLOSE_ALL: &str = "\
    with closed as materialized ( \
        select d.notification_id \
        from notification_endpoints n \
        cross join lateral ( \
            select d.notification_id from notification_deliveries d \
            where d.endpoint_id = n.endpoint_id and d.state = 'PENDING' \
                and (d.claimed_until is null or d.claimed_until <= now()) \
            limit $1 \
            for update of d skip locked \
        ) d \
        where n.state <> 'ENABLED' \
        limit $1 \
    ) \
    update notification_deliveries d \
    set state = 'DEAD', cause = 'ENDPOINT_CLOSED', next_attempt_at = null, claimed_until = null, ended_at = now() \
    from closed c where d.notification_id = c.notification_id";

/// Claims what is due, endpoint by endpoint, so that the queue of one is not in the way of another's; and of the places
/// that are free, gives first to those endpoints that have the fewest. A notification that an earlier one of its
/// payment waits before is not taken.
const CLAIM: &str = "\
    with free as materialized ( \
        select n.endpoint_id, coalesce(b.places, 0) as busy \
        from notification_endpoints n \
        left join unnest($3, $4) as b (endpoint_id, places) on b.endpoint_id = n.endpoint_id \
        where n.state = 'ENABLED' and coalesce(b.places, 0) < $2 \
    ), due as materialized ( \
        select f.endpoint_id, f.busy, d.notification_id, d.next_attempt_at, d.position \
        from free f \
        cross join lateral ( \
            select d.notification_id, d.next_attempt_at, d.position from notification_deliveries d \
            where d.endpoint_id = f.endpoint_id and d.state = 'PENDING' and d.next_attempt_at <= now() \
                and (d.claimed_until is null or d.claimed_until <= now()) \
                and not exists ( \
                    select from notification_deliveries e \
                    where e.endpoint_id = d.endpoint_id and e.payment_id = d.payment_id \
                        and e.entity_seq < d.entity_seq and e.state = 'PENDING') \
            order by d.next_attempt_at, d.position \
            limit $2 - f.busy \
            for update of d skip locked \
        ) d \
    ), chosen as materialized ( \
        select notification_id from ( \
            select notification_id, next_attempt_at, \
                   busy + row_number() over (partition by endpoint_id order by next_attempt_at, position) as turn \
            from due \
        ) t order by turn, next_attempt_at limit $1 \
    ), claimed as ( \
        update notification_deliveries d \
        set claimed_until = now() + make_interval(secs => $5), attempts = d.attempts + 1 \
        from chosen c where d.notification_id = c.notification_id \
        returning d.* \
    ) \
    select c.notification_id, c.tenant_id, c.entry_id, c.payment_id, c.attempts, \
           c.attempts - c.attempts_before as tries, c.failures, \
           n.endpoint_id, n.url, n.secret, \
           case when n.previous_secret_until > now() then n.previous_secret end as previous_secret, \
           case when n.previous_secret_until > now() then n.older_secret end as older_secret \
    from claimed c join notification_endpoints n on n.endpoint_id = c.endpoint_id \
    order by c.position, c.endpoint_id";

/// The number of the attempt is the fence. What waits behind it becomes due with it, or right now: so that nobody looks
/// at it in vain meanwhile.
const CLOSE: &str = "\
    with closed as ( \
        update notification_deliveries \
        set state = $3, cause = $4, http_status = $5::smallint, claimed_until = null, \
            failures = failures + case when $3 = 'DELIVERED' then 0 else 1 end, \
            next_attempt_at = case when $3 = 'PENDING' then now() + make_interval(secs => $6) end, \
            ended_at = case when $3 <> 'PENDING' then now() end \
        where notification_id = $1 and attempts = $2 and state = 'PENDING' and claimed_until is not null \
        returning notification_id, endpoint_id, payment_id, entity_seq, created_at, next_attempt_at \
    ), logged as ( \
        insert into notification_attempts (notification_id, number, started_at, latency_ms, http_status, cause) \
        select notification_id, $2, $7, $8, $5::smallint, $4 from closed \
    ), behind as ( \
        update notification_deliveries d set next_attempt_at = coalesce(c.next_attempt_at, now()) \
        from closed c \
        where d.endpoint_id = c.endpoint_id and d.payment_id = c.payment_id and d.entity_seq > c.entity_seq \
            and d.state = 'PENDING' \
    ) \
    select extract(epoch from now() - created_at)::double precision as age from closed";

/// The claim is shortened rather than given up, so that the place in the order of what is due stays. Made again after a lost
/// connection it may count twice.
const POSTPONE: &str = "\
    update notification_deliveries \
    set claimed_until = now() + make_interval(secs => $3), attempts_before = least(attempts_before + 1, attempts) \
    where notification_id = $1 and attempts = $2 and state = 'PENDING' and claimed_until is not null";

#[derive(QueryableByName)]
struct PlannedRow {
    #[diesel(sql_type = BigInt)]
    high: i64,
    #[diesel(sql_type = BigInt)]
    head: i64,
    #[diesel(sql_type = BigInt)]
    made: i64,
    #[diesel(sql_type = Bool)]
    served: bool,
}

#[derive(QueryableByName)]
struct ClaimedRow {
    #[diesel(sql_type = SqlUuid)]
    notification_id: Uuid,
    #[diesel(sql_type = Text)]
    tenant_id: String,
    #[diesel(sql_type = SqlUuid)]
    entry_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    payment_id: Uuid,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    tries: i32,
    #[diesel(sql_type = Integer)]
    failures: i32,
    #[diesel(sql_type = SqlUuid)]
    endpoint_id: Uuid,
    #[diesel(embed)]
    destination: DestinationRow,
}

#[derive(QueryableByName)]
struct ClosedRow {
    #[diesel(sql_type = Double)]
    age: f64,
}

pub(crate) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

impl PgStore {
    fn opened(&self, row: &ClaimedRow) -> Result<ClaimedNotification, StoreError> {
        // What does not open is one notification's misfortune, not that of those claimed with it.
        let destination = row
            .destination
            .open(&self.inner.keys, &row.tenant_id)
            .unwrap_or(None);
        Ok(ClaimedNotification {
            id: NotificationId(row.notification_id),
            endpoint: EndpointId(row.endpoint_id),
            tenant: TenantId::parse(row.tenant_id.as_str())
                .at("notification_deliveries.tenant_id")?,
            entry: EntryId(row.entry_id),
            payment: PaymentId(row.payment_id),
            attempt: u32::try_from(row.attempts).at("notification_deliveries.attempts")?,
            tries: u32::try_from(row.tries).at("notification_deliveries.attempts_before")?,
            failures: u32::try_from(row.failures).at("notification_deliveries.failures")?,
            destination,
        })
    }

    pub(crate) async fn plan(&self, limit: usize) -> Result<Planned, StoreError> {
        let limit = at_most(limit);
        let planned = self
            .inner
            .reader
            .write_slowly("plan notifications", |connection, _| {
                let query = diesel::sql_query(PLAN).bind::<BigInt, _>(limit);
                async move { query.get_result::<PlannedRow>(connection).await.optional() }.boxed()
            });
        // Without a row, another process is at it.
        let elsewhere = Planned {
            served: true,
            ..Planned::default()
        };
        Ok(planned.await?.map_or(elsewhere, |row| Planned {
            made: count(row.made),
            next: count(row.high),
            more: row.high < row.head,
            served: row.served,
        }))
    }

    pub(crate) async fn close_waiting(&self, limit: usize) -> Result<u64, StoreError> {
        let limit = at_most(limit);
        let closed = self
            .inner
            .reader
            .write_slowly("close notifications", |connection, _| {
                let query = diesel::sql_query(CLOSE_ALL).bind::<BigInt, _>(limit);
                async move { query.execute(connection).await }.boxed()
            });
        Ok(u64::try_from(closed.await?).unwrap_or(u64::MAX))
    }

    pub(crate) async fn claim_outbox(
        &self,
        claim: &NotificationClaim,
    ) -> Result<Vec<ClaimedNotification>, StoreError> {
        let limit = at_most(claim.limit.min(MAX_NOTIFICATION_CLAIM));
        let per_endpoint = at_most(claim.per_endpoint);
        let endpoints: Vec<Uuid> = claim.busy.iter().map(|(id, _)| id.0).collect();
        let places: Vec<i64> = claim.busy.iter().map(|(_, busy)| at_most(*busy)).collect();
        let lease = claim.lease.as_secs_f64();
        let claimed = self
            .inner
            .reader
            .write_slowly("claim notifications", |connection, _| {
                let query = diesel::sql_query(CLAIM)
                    .bind::<BigInt, _>(limit)
                    .bind::<BigInt, _>(per_endpoint)
                    .bind::<Array<SqlUuid>, _>(endpoints.clone())
                    .bind::<Array<BigInt>, _>(places.clone())
                    .bind::<Double, _>(lease);
                async move { query.load::<ClaimedRow>(connection).await }.boxed()
            });
        let rows = claimed.await?;
        rows.iter().map(|row| self.opened(row)).collect()
    }

    pub(crate) async fn close_claimed_notification(
        &self,
        claimed: &ClaimedNotification,
        attempt: AttemptLog,
        verdict: NotificationVerdict,
    ) -> Result<Option<f64>, StoreError> {
        let id = claimed.id.0;
        let number = i32::try_from(claimed.attempt).unwrap_or(i32::MAX);
        let again_in = match verdict {
            NotificationVerdict::Again { after, .. } => Some(after.as_secs_f64()),
            NotificationVerdict::Delivered | NotificationVerdict::Dead { .. } => None,
        };
        let latency = i32::try_from(attempt.latency.as_millis()).unwrap_or(i32::MAX);
        let closed = self
            .inner
            .reader
            .write("close notification", |connection, _| {
                let query = diesel::sql_query(CLOSE)
                    .bind::<SqlUuid, _>(id)
                    .bind::<Integer, _>(number)
                    .bind::<Text, _>(verdict.state().name())
                    .bind::<Nullable<Text>, _>(verdict.cause().map(NotificationCause::name))
                    .bind::<Nullable<Integer>, _>(attempt.http_status.map(i32::from))
                    .bind::<Nullable<Double>, _>(again_in)
                    .bind::<Timestamptz, _>(attempt.started_at)
                    .bind::<Integer, _>(latency);
                async move { query.get_result::<ClosedRow>(connection).await.optional() }.boxed()
            });
        Ok(closed.await?.map(|row| row.age.max(0.0)))
    }

    pub(crate) async fn postpone(
        &self,
        claimed: &ClaimedNotification,
        after: Duration,
    ) -> Result<(), StoreError> {
        let (id, after) = (claimed.id.0, after.as_secs_f64());
        let number = i32::try_from(claimed.attempt).unwrap_or(i32::MAX);
        let postponed = self
            .inner
            .reader
            .write("postpone notification", |connection, _| {
                let query = diesel::sql_query(POSTPONE)
                    .bind::<SqlUuid, _>(id)
                    .bind::<Integer, _>(number)
                    .bind::<Double, _>(after);
                async move { query.execute(connection).await }.boxed()
            });
        postponed.await.map(|_| ())
    }
}

#[cfg(test)]
mod tests;
