//! What is done at Stripe by others than us, told by signed events: refunds in the dashboard, and payments that bear our
//! names.

use quittance_proto::v1::{
    OperatorActionKind, Payment, PaymentState, TransactionKind, TransactionOrigin, TransactionState,
};
use serde_json::{Value, json};

use crate::harness::played_stripe::{PlayedStripeWorld, charge};
use crate::harness::stripe::StripeWorld;
use crate::harness::{Amounts as _, Cases as _, eventually, purchase};

const OPEN_CASES: &str = "select count(*) from operator_actions where closed_at is null";

async fn paid(world: &StripeWorld) -> Payment {
    let payment = world.client.create(purchase("pm_card_visa", 900)).await;
    assert_eq!(payment.state(), PaymentState::Captured);
    payment
}

/// As the dashboard makes it.
fn refund(payment: &Payment, id: &str) -> Value {
    json!({
        "id": id, "object": "refund", "status": "succeeded", "amount": 200, "currency": "eur",
        "payment_intent": payment.provider_reference, "charge": "ch_paid", "metadata": null,
        "balance_transaction": "txn_1",
    })
}

fn kept(state: &str) -> (String, Option<String>) {
    (state.to_owned(), None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s51_two_alike_refunds_in_stripes_dashboard_are_two_however_often_each_is_told() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let payment = paid(&world).await;
    for (id, created, updated) in [("re_a", "evt_a1", "evt_a2"), ("re_b", "evt_b1", "evt_b2")] {
        let refund = refund(&payment, id);
        for _ in 0..2 {
            world.tell(created, "refund.created", false, &refund).await;
        }
        assert_eq!(world.kept(created).await, kept("APPLIED"));
        world.tell(updated, "refund.updated", false, &refund).await;
        assert_eq!(world.kept(updated).await, kept("IGNORED"));
    }
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        (payment.state(), payment.refunded()),
        (PaymentState::PartiallyRefunded, 400)
    );
    let theirs = payment.transactions.iter();
    let theirs = theirs.filter(|row| row.origin() == TransactionOrigin::Provider);
    assert_eq!(theirs.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_payment_at_stripe_with_our_names_is_a_case_and_not_ours() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let payment = paid(&world).await;
    let copy = json!({
        "id": "pi_copied", "status": "succeeded", "amount": 900, "amount_capturable": 0,
        "amount_received": 900, "currency": "eur", "capture_method": "automatic",
        "metadata": {
            "quittance_payment": payment.payment_id,
            "quittance_transaction": payment.transactions[0].transaction_id,
        },
    });
    for (event, state) in [("evt_c1", "APPLIED"), ("evt_c2", "IGNORED")] {
        world
            .tell(event, "payment_intent.succeeded", false, &copy)
            .await;
        assert_eq!(world.kept(event).await, kept(state));
    }
    // A third one, while the case about the second is open.
    let mut third = copy;
    third["id"] = json!("pi_third");
    world
        .tell("evt_c3", "payment_intent.succeeded", false, &third)
        .await;
    assert_eq!(world.kept("evt_c3").await, kept("APPLIED"));
    assert_eq!(world.db.number(OPEN_CASES).await, 2);
    let now = world.client.payment(&payment.payment_id).await;
    assert_eq!(now.provider_reference, payment.provider_reference);
    assert_eq!(now.captured(), 900);
    let case = now.transactions[0].open_operator_action();
    assert_eq!(case, OperatorActionKind::ContradictingFact);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_what_is_done_to_another_payment_at_stripe_with_our_names_is_not_done_to_ours() {
    let world = PlayedStripeWorld::start().await;
    let payment = world.client.create(purchase("pm_card_visa", 900)).await;
    let copy = world.stripe.copy(&payment.payment_id);
    let told = world.tell("evt_1", "payment_intent.succeeded", &copy).await;
    assert_eq!(told, "APPLIED", "a case");
    // Whoever sees it refunds the copy in the dashboard.
    let returned = world.stripe.refund(&copy, 900);
    let mut canceled = copy.clone();
    canceled["status"] = json!("canceled");
    canceled["cancellation_reason"] = json!("requested_by_customer");
    let mut captured = copy.clone();
    captured["capture_method"] = json!("manual");
    for (event, kind, object) in [
        ("evt_2", "refund.created", &returned),
        ("evt_3", "charge.refunded", &charge(&copy)),
        ("evt_4", "payment_intent.canceled", &canceled),
        ("evt_5", "payment_intent.succeeded", &captured),
    ] {
        let told = world.tell(event, kind, object).await;
        assert!(["APPLIED", "IGNORED"].contains(&told.as_str()), "{kind}");
        let now = world.now(&payment).await;
        assert_eq!(now.provider_reference, payment.provider_reference, "{kind}");
        assert_eq!(
            (now.state(), now.captured(), now.refunded()),
            (PaymentState::Captured, 900, 0),
            "{kind}"
        );
        assert_eq!(now.transactions.len(), 1, "{kind}");
    }
    let ours = world.client.ok(crate::harness::refund(&payment, 300)).await;
    assert_eq!(ours.message.payment.unwrap().refunded(), 300);
    let intent = world.stripe.intent(&payment.payment_id);
    assert_eq!(world.stripe.refunds(&intent).len(), 1);

    // A third one is another case, and so is a dispute of the second.
    let cases = world.db.number(OPEN_CASES).await;
    let third = world.stripe.copy(&payment.payment_id);
    let told = world
        .tell("evt_6", "payment_intent.succeeded", &third)
        .await;
    assert_eq!(told, "APPLIED");
    let stands = [("needs_response", &[-900][..], 1_900_000_000)];
    let disputed = world.stripe.dispute(&copy, &stands).remove(0);
    let told = world
        .tell("evt_7", "charge.dispute.created", &disputed)
        .await;
    assert_eq!(told, "APPLIED");
    assert_eq!(world.db.number(OPEN_CASES).await, cases + 2);
    assert!(!world.now(&payment).await.disputed);
}

/// As an endpoint of an older version is told of it: that there was a refund, and not which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s51_refunds_that_stripe_does_not_name_are_asked_for_and_booked_once_each() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let payment = paid(&world).await;
    // One of ours, and two in the dashboard that look alike.
    let ours = crate::harness::refund(&payment, 100);
    world.client.ok(ours).await;
    let intent = payment.provider_reference.as_str();
    let charge = json!({
        "id": "ch_refunded", "object": "charge", "status": "succeeded", "payment_intent": intent,
        "amount_refunded": 300, "metadata": {},
    });
    let form = [("payment_intent", intent), ("amount", "200")];
    let mut made = Vec::new();
    for (refunded, created) in [("evt_1", "evt_2"), ("evt_3", "evt_4")] {
        made.push(world.post("/v1/refunds", &form).await);
        world
            .tell(refunded, "charge.refunded", false, &charge)
            .await;
        assert_eq!(world.kept(refunded).await, kept("APPLIED"));
        // Told by its own event as well.
        let refund = made.last().unwrap();
        world.tell(created, "refund.created", false, refund).await;
        assert_eq!(world.kept(created).await, kept("IGNORED"));
    }
    world.tell("evt_5", "charge.refunded", false, &charge).await;
    assert_eq!(world.kept("evt_5").await, kept("IGNORED"));
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        (payment.state(), payment.refunded()),
        (PaymentState::PartiallyRefunded, 500)
    );
    let theirs = payment.transactions.iter();
    let theirs = theirs.filter(|row| row.origin() == TransactionOrigin::Provider);
    let mut named: Vec<_> = theirs.map(|row| row.provider_reference.as_str()).collect();
    named.sort_unstable();
    let mut expected: Vec<_> = made.iter().map(|it| it["id"].as_str().unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(named, expected);
}

/// A refund of ours that Stripe made, and its payment intent.
async fn refunded(world: &PlayedStripeWorld) -> (Payment, Value) {
    let payment = world.client.create(purchase("pm_card_visa", 900)).await;
    assert_eq!(payment.state(), PaymentState::Captured);
    let answer = world
        .client
        .ok(crate::harness::refund(&payment, 300))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(answer.refunded(), 300);
    let intent = world.stripe.intent(&payment.payment_id);
    (payment, intent)
}

fn is_taken_back(payment: &Payment) {
    assert_eq!(
        (payment.state(), payment.refunded()),
        (PaymentState::Captured, 0)
    );
    let refund = payment.transactions.last().unwrap();
    assert_eq!(refund.kind(), TransactionKind::Refund);
    assert_eq!(refund.state(), TransactionState::Reversed);
    assert_eq!(payment.transactions.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_refund_that_fails_later_at_stripe_gives_its_amount_back() {
    let world = PlayedStripeWorld::start().await;
    let (payment, intent) = refunded(&world).await;
    let refund = world.stripe.refunds(&intent).remove(0);
    // What contradicts the outcome is asked for again, and Stripe does not confirm it: a forgery could not either.
    let mut failed = refund.clone();
    failed["status"] = json!("failed");
    assert_eq!(
        world.tell("evt_early", "refund.failed", &failed).await,
        "IGNORED"
    );
    assert_eq!(world.now(&payment).await.refunded(), 300);

    let failed = world.stripe.fail(&refund);
    assert_eq!(
        world.tell("evt_failed", "refund.failed", &failed).await,
        "APPLIED"
    );
    is_taken_back(&world.now(&payment).await);
    // Its amount can be refunded again.
    let again = crate::harness::refund(&payment, 900);
    let again = world.client.ok(again).await.message.payment.unwrap();
    assert_eq!(
        (again.state(), again.refunded()),
        (PaymentState::Refunded, 900)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_events_of_a_refund_at_stripe_told_backwards_end_as_in_order() {
    for backwards in [false, true] {
        let world = PlayedStripeWorld::start().await;
        let (payment, intent) = refunded(&world).await;
        let succeeded = world.stripe.refunds(&intent).remove(0);
        let failed = world.stripe.fail(&succeeded);
        let charge = charge(&intent);
        let mut events = vec![
            ("evt_1", "payment_intent.succeeded", &intent),
            ("evt_2", "refund.created", &succeeded),
            ("evt_3", "charge.refunded", &charge),
            ("evt_4", "refund.updated", &succeeded),
            ("evt_5", "refund.failed", &failed),
            ("evt_6", "charge.refund.updated", &failed),
        ];
        if backwards {
            events.reverse();
        }
        for (id, kind, object) in events {
            let state = world.tell(id, kind, object).await;
            assert!(
                ["APPLIED", "IGNORED"].contains(&state.as_str()),
                "{kind}: {state}"
            );
        }
        is_taken_back(&world.now(&payment).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_refund_in_the_dashboard_that_fails_untold_is_found_by_asking_beside_an_inquiry() {
    let world = PlayedStripeWorld::start().await;
    let payment = world.client.create(purchase("pm_card_visa", 900)).await;
    let intent = world.stripe.intent(&payment.payment_id);
    let returned = world.stripe.refund(&intent, 300);
    let told = world.tell("evt_1", "refund.created", &returned).await;
    assert_eq!(told, "APPLIED");
    // An issuer may ask for months.
    let asked: [(&str, &[i64], i64); 1] = [("warning_needs_response", &[], 4_070_908_800)];
    let inquiry = world.stripe.dispute(&intent, &asked).remove(0);
    let told = world
        .tell("evt_2", "charge.dispute.created", &inquiry)
        .await;
    assert_eq!(told, "APPLIED");
    let now = world.now(&payment).await;
    assert_eq!((now.refunded(), now.disputed), (300, true));

    world.stripe.fail(&returned);
    let synced = world.client.ok(crate::harness::sync(&payment)).await;
    let synced = synced.message.payment.unwrap();
    assert_eq!(
        (synced.state(), synced.refunded()),
        (PaymentState::Captured, 0)
    );
    let mut all = synced.transactions.iter();
    let refund = all.find(|row| row.kind() == TransactionKind::Refund);
    assert_eq!(refund.unwrap().state(), TransactionState::Reversed);
}

/// As where a key had expired, and the same request was executed anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_a_refund_of_ours_that_stripe_made_twice_is_a_case() {
    let world = PlayedStripeWorld::start().await;
    let (payment, intent) = refunded(&world).await;
    let mut again = world.stripe.refunds(&intent).remove(0);
    let told = world.tell("evt_1", "refund.updated", &again).await;
    assert_eq!(told, "IGNORED");
    again["id"] = json!("re_again");
    let told = world.tell("evt_2", "refund.created", &again).await;
    assert_eq!(told, "APPLIED");
    let told = world.tell("evt_3", "refund.updated", &again).await;
    assert_eq!(told, "IGNORED", "once");
    let now = world.now(&payment).await;
    assert_eq!(now.refunded(), 300);
    let refund = now.transactions.last().unwrap();
    let case = refund.open_operator_action();
    assert_eq!(case, OperatorActionKind::ContradictingFact);
}

/// Whose payment an event is about, which refunds there are, how a dispute stands, and what it is about: each is a question
/// of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_whatever_a_webhook_has_stripe_asked_it_is_left_alone_as_long_as_it_says() {
    let world = PlayedStripeWorld::start().await;
    let payment = world.client.create(purchase("pm_card_visa", 900)).await;
    let intent = world.stripe.intent(&payment.payment_id);
    let returned = world.stripe.refund(&intent, 300);
    let stands = [1_900_000_000, 1_900_086_400, 1_900_172_800];
    let stands = stands.map(|due| ("needs_response", &[-900][..], due));
    let disputed = world.stripe.dispute(&intent, &stands);
    let told = world.tell("evt_0", "charge.dispute.created", &disputed[0]);
    assert_eq!(told.await, "APPLIED");
    let (charge, dispute) = (charge(&intent), "charge.dispute.updated");
    for (event, kind, object, (path, answered), (asked, honoured)) in [
        (
            "evt_1",
            "refund.created",
            &returned,
            ("/v1/payment_intents/", 0),
            (600, 600),
        ),
        (
            "evt_2",
            "charge.refunded",
            &charge,
            ("/v1/refunds?", 0),
            (700, 700),
        ),
        // For longer than payments.retries.max_retry_after_seconds.
        (
            "evt_3",
            "charge.refunded",
            &charge,
            ("/v1/refunds?", 0),
            (7_200, 3_600),
        ),
        (
            "evt_4",
            dispute,
            &disputed[1],
            ("/v1/disputes/", 1),
            (800, 800),
        ),
        (
            "evt_5",
            dispute,
            &disputed[2],
            ("/v1/disputes/", 0),
            (900, 900),
        ),
    ] {
        world.stripe.asks_to_wait(path, answered, asked);
        world.deliver(event, kind, object).await;
        let waits = eventually("a webhook waits", async || {
            let sql = "select extract(epoch from next_step_at - received_at)::float8 \
                       from webhook_inbox where event_id = $1 and state = 'PARKED'";
            let rows = world.db.rows(sql, &[&event]).await;
            rows.first().map(|row| row.get::<_, f64>(0))
        })
        .await;
        let honoured = f64::from(honoured);
        // The rest is the webhook's own wait, and what it took to be looked at.
        assert!(
            (honoured..honoured + 100.0).contains(&waits),
            "{event}: {waits}"
        );
    }
}
