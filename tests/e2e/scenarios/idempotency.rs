//! The same request again: the same payment, and never a second charge.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use quittance_proto::v1::PaymentState;
use tonic::Code;

use crate::harness::{
    Amounts as _, CreateRequest as _, Keyed as _, SiteOptions, World, authorization, capture,
    eventually, purchase, refund, sync, void,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s26_the_same_key_and_body_give_the_same_transaction_for_every_command() {
    let world = World::start().await;
    let create = authorization("tok_approve", 1000)
        .meta("x", "1")
        .meta("y", "2");
    let first = world.client.ok(create.clone()).await;
    let payment = first.message.payment.clone().unwrap();
    let again = world.client.ok(create.clone()).await;
    assert!(!first.replayed() && again.replayed());
    assert_eq!(again.message, first.message);

    let request = capture(&payment, 600);
    let first = world.client.ok(request.clone()).await;
    let again = world.client.ok(request).await;
    assert!(!first.replayed() && again.replayed());
    assert_eq!(again.message.transaction, first.message.transaction);

    let request = void(&payment);
    let first = world.client.ok(request.clone()).await;
    // What is left is nothing now, so a new void would be refused; the old one is answered.
    let again = world.client.ok(request).await;
    assert!(!first.replayed() && again.replayed());
    assert_eq!(again.message.transaction, first.message.transaction);

    let request = refund(&payment, 600);
    let first = world.client.ok(request.clone()).await;
    let again = world.client.ok(request).await;
    assert!(!first.replayed() && again.replayed());
    assert_eq!(again.message.transaction, first.message.transaction);

    // The replay of the creation shows the payment as it is now.
    let replay = world.client.ok(create).await.message;
    let now = replay.payment.unwrap();
    assert_eq!(
        (now.captured(), now.refunded(), now.voided()),
        (600, 600, 400)
    );
    let counts = world.books().counts;
    assert_eq!(
        (
            counts.authorizations,
            counts.captures,
            counts.voids,
            counts.refunds
        ),
        (1, 1, 1, 1)
    );
    assert_eq!(counts.replays, 0, "replays never reach the provider");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s27_a_different_body_under_a_used_key_is_refused_and_the_field_is_named() {
    let world = World::start().await;
    let original = purchase("tok_approve", 1000)
        .merchant_reference("order")
        .key("k");
    let payment = world.client.create(original.clone()).await;
    let before = world.db.volume().await;

    let mut described = original.clone();
    described.description = "other".to_owned();
    let mut another_token = original.clone();
    another_token
        .payment_method
        .as_mut()
        .unwrap()
        .provider_token = "tok_fraud".to_owned();
    let mut manual = original.clone();
    manual.capture_method = quittance_proto::v1::CaptureMethod::Manual.into();
    let amount = purchase("tok_approve", 1001)
        .merchant_reference("order")
        .key("k");
    for (request, field) in [
        (amount, "amount.minor_units"),
        (original.clone().currency("USD"), "amount.currency_code"),
        (
            original.clone().merchant_reference("order2"),
            "merchant_reference",
        ),
        (original.clone().meta("a", "b"), "metadata"),
        (described, "description"),
        (another_token, "payment_method.provider_token"),
        (manual, "capture_method"),
    ] {
        let failure = world.client.refused(request).await;
        failure.is(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
        assert!(
            failure.metadata.values().any(|value| value == field),
            "{field}: {failure:?}"
        );
        assert!(!failure.retryable() && failure.money_may_have_moved());
    }

    world.client.ok(refund(&payment, 10).key("r")).await;
    let failure = world.client.refused(refund(&payment, 11).key("r")).await;
    failure.is(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
    assert!(failure.money_may_have_moved());
    assert_ne!(world.db.volume().await, before, "the refund");
    assert_eq!(world.books().counts.refunds, 1);
    assert_eq!(world.books().counts.purchases, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s28_a_key_belongs_to_one_rpc() {
    let world = World::start().await;
    let payment = world
        .client
        .create(authorization("tok_approve", 1000).key("k"))
        .await;
    let before = world.db.volume().await;
    for failure in [
        world.client.refused(capture(&payment, 100).key("k")).await,
        world.client.refused(void(&payment).key("k")).await,
        world.client.refused(refund(&payment, 100).key("k")).await,
    ] {
        failure.is(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
        assert!(failure.money_may_have_moved());
    }
    assert_eq!(world.db.volume().await, before);
    world.client.ok(capture(&payment, 100).key("c")).await;
    let failure = world
        .client
        .refused(purchase("tok_approve", 100).key("c"))
        .await;
    failure.is(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(world.books().counts.authorizations, 1);
    assert_eq!(world.books().counts.purchases, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s29_a_hundred_identical_requests_at_once_are_one_charge() {
    let world = World::start().await;
    let request = purchase("tok_approve?latency_ms=50", 700).key("once");
    let other = world.replica().await;
    let clients: Vec<_> = (0..4)
        .map(|number| match number % 2 {
            0 => world.client.reconnected(),
            _ => other.client.reconnected(),
        })
        .collect();
    // On a machine that is busy a call may be told to come back: then it does.
    let refused = AtomicUsize::new(0);
    let (refused, request) = (&refused, &request);
    let calls = (0..100).map(|number| {
        let client = &clients[number % 4];
        eventually("the call is answered", async || {
            match client.call(request.clone()).await {
                Ok(answer) => Some(answer),
                Err(failure) => {
                    assert!(failure.retryable(), "{failure:?}");
                    refused.fetch_add(1, Ordering::Relaxed);
                    None
                }
            }
        })
    });
    let answers = join_all(calls).await;
    let payment = answers[0].message.payment.clone().unwrap();
    for answer in &answers {
        let same = answer.message.payment.as_ref().unwrap();
        assert_eq!(same, &payment, "all hundred answers are equal");
        assert_eq!(
            same.state(),
            PaymentState::Captured,
            "a replay waits for the first call"
        );
    }
    // Whoever is refused after it was accepted is answered by a replay, too.
    let first = answers.iter().filter(|answer| !answer.replayed()).count();
    let none_refused = refused.load(Ordering::Relaxed) == 0;
    assert!(first == 1 || first == 0 && !none_refused, "{first}");
    let books = world.books();
    assert_eq!(
        (books.counts.operations, books.currencies["EUR"].captured),
        (1, 700)
    );
    assert_eq!(world.db.number("select count(*) from payments").await, 1);
    assert!(other.server.shutdown().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s30_a_request_repeated_a_year_later_is_the_same_payment() {
    let world = World::start().await;
    let request = purchase("tok_approve", 900).key("of last year");
    let paid = world.client.create(request.clone()).await;
    for age in [
        "update idempotency_records set created_at = created_at - interval '1 year'",
        "update transactions set created_at = created_at - interval '1 year', \
         updated_at = updated_at - interval '1 year', execute_before = execute_before - interval '1 year'",
        "update payments set created_at = created_at - interval '1 year', \
         updated_at = updated_at - interval '1 year'",
    ] {
        world.db.execute(age, &[]).await;
    }
    let again = world.client.ok(request.clone()).await;
    assert!(again.replayed());
    let again = again.message.payment.unwrap();
    assert_eq!(
        (&again.payment_id, again.state(), again.version),
        (&paid.payment_id, paid.state(), paid.version)
    );
    let other = purchase("tok_approve", 901).key("of last year");
    let refused = world.client.call(other).await.unwrap_err();
    assert_eq!(refused.code, Code::AlreadyExists);
    assert_eq!(world.books().counts.operations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s31_tenants_do_not_share_keys() {
    let world = World::start().await;
    let stranger = world.other_tenant().await;
    let request = purchase("tok_approve", 300).key("shared");
    let ours = world.client.ok(request.clone()).await;
    let theirs = stranger.ok(request).await;
    assert!(!ours.replayed() && !theirs.replayed());
    let (ours, theirs) = (
        ours.message.payment.unwrap(),
        theirs.message.payment.unwrap(),
    );
    assert_ne!(ours.payment_id, theirs.payment_id);
    assert_ne!(ours.tenant_id, theirs.tenant_id);
    assert_eq!(world.books().counts.purchases, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_a_decline_replays() {
    let world = World::start().await;
    let request = purchase("tok_fraud", 300);
    let first = world.client.ok(request.clone()).await;
    let again = world.client.ok(request).await;
    assert!(again.replayed());
    assert_eq!(again.message, first.message);
    assert_eq!(
        again.message.payment.unwrap().state(),
        PaymentState::Declined
    );
    assert_eq!(world.books().counts.operations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_two_replicas_and_one_key_are_one_charge() {
    let world = World::start().await;
    let other = world.replica().await;
    for round in 0..5 {
        let request = purchase("tok_approve?latency_ms=20", 100).key(&format!("round-{round}"));
        let calls = (0..10).map(|number| {
            let client = if number % 2 == 0 {
                &world.client
            } else {
                &other.client
            };
            client.ok(request.clone())
        });
        let answers = join_all(calls).await;
        let ids: std::collections::HashSet<_> = answers
            .iter()
            .map(|a| a.message.payment.as_ref().unwrap().payment_id.clone())
            .collect();
        assert_eq!(ids.len(), 1);
        assert_eq!(
            answers.iter().filter(|answer| !answer.replayed()).count(),
            1
        );
    }
    assert_eq!(world.books().counts.purchases, 5);
    assert!(other.server.shutdown().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_of_an_unresolved_payment_is_the_same_pending_payment() {
    let world = World::start_with(SiteOptions::impatient()).await;
    let request = purchase("tok_timeout_after_charge", 900);
    let pending = world.client.create(request.clone()).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let replay = world
        .client
        .within(Duration::from_secs(5))
        .ok(request.clone())
        .await;
    assert!(replay.replayed());
    let replay = replay.message.payment.unwrap();
    assert_eq!(
        (&replay.payment_id, replay.state()),
        (&pending.payment_id, PaymentState::Pending)
    );
    world.client.ok(sync(&pending)).await;
    let paid = world.client.create(request).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(
        world.charged(&paid.transactions[0].transaction_id).charges,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_its_key_unused() {
    let world = World::start().await;
    let bad = purchase("tok_approve", 0).key("k");
    world
        .client
        .refused(bad)
        .await
        .is(Code::InvalidArgument, "AMOUNT_OUT_OF_RANGE");
    let stranger = world.client.with_key("qk_0123456789abcdef_unknown");
    let failure = stranger.refused(purchase("tok_approve", 5).key("k")).await;
    failure.is(Code::Unauthenticated, "INVALID_CREDENTIALS");
    let paid = world.client.ok(purchase("tok_approve", 5).key("k")).await;
    assert!(!paid.replayed());

    let payment = paid.message.payment.unwrap();
    let failure = world.client.refused(refund(&payment, 6).key("r")).await;
    failure.is(Code::FailedPrecondition, "AMOUNT_EXCEEDS_REFUNDABLE");
    assert!(
        !world
            .client
            .ok(refund(&payment, 5).key("r"))
            .await
            .replayed()
    );
}
