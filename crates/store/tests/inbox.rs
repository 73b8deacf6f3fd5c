//! The inbox of webhooks: stored once and encrypted, claimed by one at a time, closed by whoever holds the claim.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use quittance_domain::ids::{EventId, PaymentId, ProviderAccount, WebhookId};
use quittance_domain::ports::{Commit, Named, SentThrough, Store};
use quittance_domain::text::Sensitive;
use quittance_domain::webhook::{
    Inbox, InboxBacklog, InboxClaim, NewWebhook, Receipt, Replay, StoredBody, WebhookFilter,
    WebhookReason, WebhookState, WebhookVerdict, Wiped,
};
use quittance_store::MAX_INBOX_CLAIM;
use quittance_test_support::{Story, TestDb};
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(60);
const BODY: &[u8] = b"what the provider said";

fn account(name: &str) -> ProviderAccount {
    ProviderAccount::parse(name).unwrap()
}

fn webhook(at: &str, event: &str) -> NewWebhook {
    NewWebhook {
        id: WebhookId(Uuid::now_v7()),
        account: account(at),
        event: EventId::parse(event).unwrap(),
        body: Sensitive::new(BODY.to_vec()),
        dead: None,
    }
}

/// Whatever account they are of.
fn all(limit: usize) -> InboxClaim {
    InboxClaim {
        limit,
        per_account: limit,
        busy: Vec::new(),
        lease: LEASE,
    }
}

const fn parked(seconds: u64) -> WebhookVerdict {
    WebhookVerdict::Parked {
        reason: WebhookReason::UnknownPayment,
        again_in: Duration::from_secs(seconds),
        free: false,
    }
}

#[tokio::test]
async fn s50_an_event_is_stored_once_for_each_account_and_encrypted() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let twice = futures::join!(
        store.receive(vec![webhook("sandbox", "evt_1")]),
        store.receive(vec![webhook("sandbox", "evt_1")])
    );
    let mut receipts = [twice.0.unwrap(), twice.1.unwrap()].concat();
    receipts.sort_by_key(|receipt| *receipt == Receipt::KnownEvent);
    assert_eq!(receipts, [Receipt::Stored, Receipt::KnownEvent]);
    for (at, event) in [("other", "evt_1"), ("sandbox", "evt_2")] {
        let receipt = store.receive(vec![webhook(at, event)]).await;
        assert_eq!(receipt, Ok(vec![Receipt::Stored]));
    }
    let readable = "select count(*) from webhook_inbox where position('provider' in encode(body, 'escape')) > 0";
    let client = db.client().await;
    let readable: i64 = client.query_one(readable, &[]).await.unwrap().get(0);
    assert_eq!(readable, 0);
    let claimed = store.claim_webhooks(&all(MAX_INBOX_CLAIM)).await.unwrap();
    assert_eq!(claimed.len(), 3);
    for webhook in claimed {
        assert_eq!(webhook.body.unwrap().expose(), BODY);
        assert_eq!(webhook.attempt, 1);
    }
}

/// The answer to a provider waits for one insert, however many events a delivery tells.
#[tokio::test]
async fn s50_the_events_of_a_delivery_are_stored_in_one_transaction_and_each_is_known_by_itself() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store.receive(vec![webhook("adyen", "b")]).await.unwrap();
    let mut unreadable = webhook("adyen", "d");
    unreadable.dead = Some(WebhookReason::Unreadable);
    let delivery = ["c", "b", "a", "c"].map(|event| webhook("adyen", event));
    let ids = delivery.clone().map(|webhook| webhook.id);
    let delivery = [delivery.to_vec(), vec![unreadable]].concat();
    let receipts = store.receive(delivery.clone()).await.unwrap();
    let (new, known) = (Receipt::Stored, Receipt::KnownEvent);
    assert_eq!(receipts, [new, known, new, known, new]);
    let (first, _) = store.webhook(ids[0]).await.unwrap().unwrap();
    assert_eq!(first.event.as_str(), "c", "of two of one event, the first");
    let client = db.client().await;
    let commits = "select count(*), count(distinct xmin::text) from webhook_inbox \
                   where event_id in ('a', 'c', 'd')";
    let row = client.query_one(commits, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (3, 1));
    let waits = InboxBacklog {
        waiting: 3,
        dead: 1,
    };
    assert_eq!(store.inbox_backlog().await, Ok(waits));
    let again = store.receive(delivery).await;
    assert_eq!(again, Ok(vec![known; 5]));
    assert_eq!(store.receive(Vec::new()).await, Ok(Vec::new()));
}

/// A database that refuses one of them keeps none: the delivery comes again as a whole.
#[tokio::test]
async fn s59_of_a_delivery_that_cannot_be_stored_whole_nothing_is_kept() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let client = db.client().await;
    let refuse = "alter table webhook_inbox add constraint refused check (event_id <> 'b')";
    client.batch_execute(refuse).await.unwrap();
    let delivery = ["a", "b", "c"].map(|event| webhook("adyen", event));
    let refused = store.receive(delivery.to_vec()).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(store.inbox_backlog().await, Ok(InboxBacklog::default()));
}

/// Two deliveries with events in common, told in opposite orders, would wait for each other.
#[tokio::test]
async fn s50_deliveries_that_cross_each_other_store_each_event_once() {
    let db = TestDb::new().await;
    let (one, other) = (db.store().await, db.store().await);
    let client = db.client().await;
    for round in 0..20 {
        let events: Vec<_> = (0..60).map(|number| format!("{round}-{number}")).collect();
        let forward = events.iter().map(|event| webhook("adyen", event));
        let backward = events.iter().rev().map(|event| webhook("adyen", event));
        let both = futures::join!(
            one.receive(forward.collect()),
            other.receive(backward.collect())
        );
        let receipts = [both.0.unwrap(), both.1.unwrap()].concat();
        let stored = receipts.iter().filter(|it| **it == Receipt::Stored);
        assert_eq!(stored.count(), 60, "each once");
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let deadlocks: i64 = client.query_one(deadlocks, &[]).await.unwrap().get(0);
    assert_eq!(deadlocks, 0);
}

#[tokio::test]
async fn a_webhook_is_claimed_by_one_at_a_time_and_closed_by_whoever_claimed_it_last() {
    let db = TestDb::new().await;
    let (one, other) = (db.store().await, db.store().await);
    one.receive(vec![webhook("sandbox", "evt_1")])
        .await
        .unwrap();
    let claim = all(9);
    let both = futures::join!(one.claim_webhooks(&claim), other.claim_webhooks(&claim));
    let (mut first, second) = (both.0.unwrap(), both.1.unwrap());
    assert_eq!(first.len() + second.len(), 1);
    first.extend(second);
    // Whoever claimed it is taken for dead.
    let client = db.client().await;
    let lapse = "update webhook_inbox set claimed_until = now() - interval '1 second'";
    client.batch_execute(lapse).await.unwrap();
    let again = other.claim_webhooks(&all(9)).await.unwrap();
    assert_eq!(again[0].attempt, 2);
    let stale = one
        .close_webhook(&first[0], WebhookVerdict::Ignored, &[])
        .await;
    assert_eq!(stale, Ok(None), "the claim was lost");
    let closed = other
        .close_webhook(&again[0], WebhookVerdict::Applied, &[])
        .await;
    assert!(
        closed
            .unwrap()
            .is_some_and(|age| (0.0..60.0).contains(&age))
    );
    let twice = other
        .close_webhook(&again[0], WebhookVerdict::Applied, &[])
        .await;
    assert_eq!(twice, Ok(None), "once");
    assert!(one.claim_webhooks(&all(9)).await.unwrap().is_empty());
}

#[tokio::test]
async fn i12_an_account_has_no_more_places_than_its_share_however_much_waits_of_it() {
    let db = TestDb::new().await;
    let store = db.store().await;
    // What waits of the slow one was there first.
    for number in 0..9 {
        let event = format!("evt_{number}");
        store.receive(vec![webhook("slow", &event)]).await.unwrap();
    }
    for at in ["quick", "sandbox"] {
        store.receive(vec![webhook(at, "evt_1")]).await.unwrap();
    }
    let claim = async |limit, busy: usize| {
        let claim = InboxClaim {
            per_account: 4,
            busy: vec![(account("slow"), busy), (account("gone"), 4)],
            ..all(limit)
        };
        let claimed = store.claim_webhooks(&claim).await.unwrap();
        let names = claimed.iter().map(|one| one.account.as_str().to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    assert_eq!(claim(2, 0).await, ["slow", "slow"], "the oldest first");
    assert_eq!(claim(9, 2).await, ["quick", "sandbox", "slow", "slow"]);
    assert!(claim(9, 4).await.is_empty());
    assert_eq!(claim(9, 3).await, ["slow"]);
}

#[tokio::test]
async fn a_parked_webhook_waits_its_time_and_a_dead_letter_for_ever() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store
        .receive(vec![webhook("sandbox", "evt_1")])
        .await
        .unwrap();
    let mut unreadable = webhook("sandbox", "evt_2");
    unreadable.dead = Some(WebhookReason::Unreadable);
    store.receive(vec![unreadable]).await.unwrap();
    let claimed = store.claim_webhooks(&all(9)).await.unwrap();
    assert_eq!(claimed.len(), 1, "dead from the beginning");
    let parking = store.close_webhook(&claimed[0], parked(3_600), &[]).await;
    assert!(parking.unwrap().is_some());
    assert!(store.claim_webhooks(&all(9)).await.unwrap().is_empty());
    let expected = InboxBacklog {
        waiting: 1,
        dead: 1,
    };
    assert_eq!(store.inbox_backlog().await, Ok(expected));
    let client = db.client().await;
    let later = "update webhook_inbox set next_step_at = now() where state = 'PARKED'";
    client.batch_execute(later).await.unwrap();
    let claimed = store.claim_webhooks(&all(9)).await.unwrap();
    let dead = WebhookVerdict::Dead {
        reason: WebhookReason::UnknownPayment,
    };
    store.close_webhook(&claimed[0], dead, &[]).await.unwrap();
    let expected = InboxBacklog {
        waiting: 0,
        dead: 2,
    };
    assert_eq!(store.inbox_backlog().await, Ok(expected));
}

#[tokio::test]
async fn a_body_that_somebody_changed_is_not_opened_and_holds_nobody_up() {
    let db = TestDb::new().await;
    let store = db.store().await;
    store
        .receive(vec![webhook("sandbox", "evt_1")])
        .await
        .unwrap();
    store
        .receive(vec![webhook("sandbox", "evt_2")])
        .await
        .unwrap();
    let client = db.client().await;
    let swap =
        "update webhook_inbox set body = (select body from webhook_inbox where event_id = 'evt_2')";
    client.batch_execute(swap).await.unwrap();
    let mut claimed = store.claim_webhooks(&all(9)).await.unwrap();
    claimed.sort_by_key(|webhook| webhook.id);
    let opened: Vec<_> = claimed
        .iter()
        .map(|webhook| webhook.body.is_some())
        .collect();
    assert_eq!(opened, [false, true], "a body is bound to its row");
}

#[tokio::test]
async fn i9_who_sent_a_transaction_is_known_by_its_attempts() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (_, change) = Story::accept("acme", "key-1", 1_000);
    let (payment, transaction) = (change.payment.id, change.subject().unwrap());
    let through = change.payment.provider_account.clone();
    let tenant = change.payment.tenant.clone();
    assert_eq!(store.commit(change).await, Ok(Commit::Committed));
    let elsewhere = account("elsewhere");
    assert_eq!(
        store
            .sent_through(payment, Some(transaction), &through)
            .await,
        Ok(SentThrough::Yes(tenant))
    );
    for (payment, transaction, account, expected) in [
        (payment, transaction, &elsewhere, SentThrough::No),
        (
            payment,
            quittance_domain::ids::TransactionId(Uuid::now_v7()),
            &through,
            SentThrough::No,
        ),
        (
            PaymentId(Uuid::now_v7()),
            transaction,
            &through,
            SentThrough::UnknownPayment,
        ),
    ] {
        let sent = store
            .sent_through(payment, Some(transaction), account)
            .await;
        assert_eq!(sent, Ok(expected));
    }
}

#[tokio::test]
async fn s43_the_payment_of_an_event_is_known_once_it_was_looked_at() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let (at, event) = (account("sandbox"), EventId::parse("evt_1").unwrap());
    let named = async || store.payment_of_event(&at, &event).await;
    assert_eq!(named().await, Ok(Named::NotFound), "it has not come");
    store
        .receive(vec![webhook("sandbox", "evt_1")])
        .await
        .unwrap();
    assert_eq!(named().await, Ok(Named::NotFound), "nobody looked at it");
    let claimed = store.claim_webhooks(&all(9)).await.unwrap().remove(0);
    let payment = PaymentId(Uuid::now_v7());
    store
        .close_webhook(&claimed, WebhookVerdict::Ignored, &[payment])
        .await
        .unwrap();
    assert_eq!(named().await, Ok(Named::Ours(payment)));
    let elsewhere = store.payment_of_event(&account("elsewhere"), &event).await;
    assert_eq!(elsewhere, Ok(Named::NotFound));
    // Of what is known not to be ours, nobody has to wait for more.
    let mut foreign = webhook("sandbox", "evt_2");
    foreign.dead = Some(WebhookReason::Unexpected);
    store.receive(vec![foreign]).await.unwrap();
    let event = EventId::parse("evt_2").unwrap();
    let named = store.payment_of_event(&at, &event).await;
    assert_eq!(named, Ok(Named::NotOurs));
}

#[tokio::test]
async fn i12_bodies_are_wiped_in_bounded_batches_and_by_one_replica_each() {
    let db = TestDb::new().await;
    let (one, other) = (db.store().await, db.store().await);
    for number in 0..5 {
        let event = format!("evt_{number}");
        one.receive(vec![webhook("sandbox", &event)]).await.unwrap();
    }
    for claimed in one.claim_webhooks(&all(9)).await.unwrap() {
        let verdict = WebhookVerdict::Applied;
        one.close_webhook(&claimed, verdict, &[]).await.unwrap();
    }
    one.receive(vec![webhook("sandbox", "evt_waiting")])
        .await
        .unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!(one.wipe_webhooks(Wiped::Done, day, 9).await, Ok(0));
    let none = Duration::ZERO;
    assert_eq!(one.wipe_webhooks(Wiped::Dead, none, 9).await, Ok(0));
    assert_eq!(one.wipe_webhooks(Wiped::Done, none, 2).await, Ok(2));
    let both = futures::join!(
        one.wipe_webhooks(Wiped::Done, none, 9),
        other.wipe_webhooks(Wiped::Done, none, 9)
    );
    assert_eq!(both.0.unwrap() + both.1.unwrap(), 3, "each once");
    let listed = one.list_webhooks(&WebhookFilter::default(), None, 9).await;
    let listed = listed.unwrap();
    assert_eq!(listed.len(), 6, "the rows stay");
    let whole = listed.iter().filter(|one| one.wiped_at.is_none());
    let whole: Vec<_> = whole.map(|webhook| webhook.event.as_str()).collect();
    assert_eq!(whole, ["evt_waiting"]);
    for webhook in &listed {
        let (_, body) = one.webhook(webhook.id).await.unwrap().unwrap();
        assert_eq!(body == StoredBody::Wiped, webhook.wiped_at.is_some());
    }
    // What is wiped is still known.
    let again = one.receive(vec![webhook("sandbox", "evt_0")]).await;
    assert_eq!(again, Ok(vec![Receipt::KnownEvent]));
}

#[tokio::test]
async fn a_replayed_webhook_is_due_at_once_and_its_fence_goes_on() {
    let db = TestDb::new().await;
    let store = db.store().await;
    let new = webhook("sandbox", "evt_1");
    let id = new.id;
    store.receive(vec![new]).await.unwrap();
    assert_eq!(store.replay_webhook(id).await, Ok(Replay::NotReplayable));
    let first = store.claim_webhooks(&all(9)).await.unwrap().remove(0);
    let dead = WebhookVerdict::Dead {
        reason: WebhookReason::UnknownPayment,
    };
    store.close_webhook(&first, dead, &[]).await.unwrap();
    assert_eq!(store.replay_webhook(id).await, Ok(Replay::Due));
    let (stored, _) = store.webhook(id).await.unwrap().unwrap();
    assert_eq!(
        (stored.state, stored.reason, stored.attempts),
        (WebhookState::Received, None, 1)
    );
    let second = store.claim_webhooks(&all(9)).await.unwrap().remove(0);
    assert_eq!((second.attempt, second.tries), (2, 1));
    let stale = store.close_webhook(&first, dead, &[]).await;
    assert_eq!(stale, Ok(None), "the first claim is over");
    let closed = store.close_webhook(&second, parked(3_600), &[]).await;
    assert!(closed.unwrap().is_some());
    assert_eq!(store.replay_webhook(id).await, Ok(Replay::Due));
    let third = store.claim_webhooks(&all(9)).await.unwrap().remove(0);
    assert_eq!((third.attempt, third.tries), (3, 1));
}
