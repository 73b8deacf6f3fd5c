//! What becomes of a payment at Stripe whose customer never returns, is declined, or whose answer is lost: told by signed
//! events, in a world where Stripe is played.

use quittance_proto::v1::{
    DeclineCode, OperatorActionKind, Payment, PaymentState, RetryAdvice, TransactionOrigin,
};
use serde_json::{Value, json};

use crate::harness::played_stripe::{
    BROKEN, DECLINED, PlayedStripeWorld, REDIRECTED, UNHEARD, charge,
};
use crate::harness::{Amounts as _, Cases as _, Keyed as _, SiteOptions, confirm, purchase, sync};

async fn waiting(world: &PlayedStripeWorld) -> (Payment, Value) {
    let payment = world.client.create(purchase(REDIRECTED, 900)).await;
    assert_eq!(payment.state(), PaymentState::RequiresAction);
    let action = payment.next_action.as_ref().unwrap();
    assert!(action.redirect_url.starts_with("https://hooks.stripe.com/"));
    let intent = world.stripe.intent(&payment.payment_id);
    (payment, intent)
}

/// What passes, or fails, at the issuer's page.
fn ends(passed: bool) -> [(&'static str, Value); 4] {
    let (status, received) = if passed {
        ("succeeded", 900)
    } else {
        ("requires_payment_method", 0)
    };
    let error = json!({"type": "card_error", "code": "payment_intent_authentication_failure"});
    [
        ("status", json!(status)),
        ("amount_received", json!(received)),
        ("next_action", Value::Null),
        (
            "last_payment_error",
            if passed { Value::Null } else { error },
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_customer_who_never_returns_to_stripe_s_caller_is_completed_by_webhook() {
    let world = PlayedStripeWorld::start().await;
    for (event, kind, passed, state) in [
        ("evt_1", "succeeded", true, PaymentState::Captured),
        ("evt_2", "payment_failed", false, PaymentState::Declined),
    ] {
        let (payment, intent) = waiting(&world).await;
        let intent = world.stripe.becomes(&intent, &ends(passed));
        let kind = format!("payment_intent.{kind}");
        assert_eq!(world.tell(event, &kind, &intent).await, "APPLIED");
        let after = world.until(&payment, state).await;
        assert_eq!(after.next_action, None);
        let captured = if passed { 900 } else { 0 };
        assert_eq!(after.captured(), captured);
        // What was asked of the customer is told late.
        let (late, asked) = (format!("{event}_late"), "payment_intent.requires_action");
        let mut before = intent.clone();
        before["status"] = json!("requires_action");
        before["client_secret"] = json!("pi_secret");
        before["next_action"] = json!({"type": "use_stripe_sdk", "use_stripe_sdk": {}});
        assert_eq!(world.tell(&late, asked, &before).await, "IGNORED");
        assert_eq!(world.now(&payment).await.state(), state);
    }
}

/// The customer confirms after the webhook was there: the answer tells nothing new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s41_a_customer_who_returns_after_stripe_s_webhook_finds_the_payment_done() {
    let world = PlayedStripeWorld::start().await;
    let (payment, intent) = waiting(&world).await;
    let intent = world.stripe.becomes(&intent, &ends(true));
    let told = world.tell("evt_1", "payment_intent.succeeded", &intent);
    assert_eq!(told.await, "APPLIED");
    world.until(&payment, PaymentState::Captured).await;
    let late = world.client.refused(confirm(&payment, "passed")).await;
    assert_eq!(late.code, tonic::Code::FailedPrecondition);
    let after = world.now(&payment).await;
    assert_eq!((after.captured(), after.transactions.len()), (900, 1));

    // And the other way round.
    let (payment, intent) = waiting(&world).await;
    let intent = world.stripe.becomes(&intent, &ends(true));
    let answer = world.client.ok(confirm(&payment, "passed")).await;
    let confirmed = answer.message.payment.unwrap();
    assert_eq!(confirmed.state(), PaymentState::Captured);
    let told = world.tell("evt_2", "payment_intent.succeeded", &intent);
    assert_eq!(told.await, "IGNORED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_customer_who_never_returns_leaves_a_payment_that_stripe_lets_expire() {
    let world = PlayedStripeWorld::start().await;
    let (payment, intent) = waiting(&world).await;
    let canceled = [
        ("status", json!("canceled")),
        ("cancellation_reason", json!("automatic")),
        ("next_action", Value::Null),
    ];
    let intent = world.stripe.becomes(&intent, &canceled);
    for (event, expected) in [("evt_1", "APPLIED"), ("evt_2", "IGNORED")] {
        let told = world.tell(event, "payment_intent.canceled", &intent).await;
        assert_eq!(told, expected);
    }
    let after = world.until(&payment, PaymentState::Expired).await;
    assert_eq!((after.captured(), after.next_action), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_what_its_customer_has_left_is_canceled_at_stripe() {
    let options = SiteOptions::default()
        .recovering()
        .with("payments.retries.abandoned_after_seconds", 1);
    let world = PlayedStripeWorld::start_with(options).await;
    let (payment, _) = waiting(&world).await;
    let voided = world.until(&payment, PaymentState::Voided).await;
    let void = voided.transactions.last().unwrap();
    assert_eq!(void.origin(), TransactionOrigin::Service);
    let intent = world.stripe.intent(&payment.payment_id);
    assert_eq!(intent["status"], "canceled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_after_a_soft_decline_at_stripe_a_new_key_can_succeed() {
    let world = PlayedStripeWorld::start().await;
    let poor = purchase(&format!("{DECLINED}insufficient_funds"), 900).key("first");
    let declined = world.client.create(poor).await;
    assert_eq!(declined.state(), PaymentState::Declined);
    let decline = declined.decline.unwrap();
    assert_eq!(decline.code(), DeclineCode::InsufficientFunds);
    assert_eq!(decline.retry_advice(), RetryAdvice::RetryLater);
    let again = world
        .client
        .create(purchase("pm_card_visa", 900).key("second"));
    assert_eq!(again.await.state(), PaymentState::Captured);
}

/// Declined for good: nobody is asked again, however often the caller asks.
async fn never_retried(reasons: &[&str], code: DeclineCode) {
    let world = PlayedStripeWorld::start_with(SiteOptions::default().recovering()).await;
    for (number, reason) in reasons.iter().enumerate() {
        let request = purchase(&format!("{DECLINED}{reason}"), 900).key(reason);
        let declined = world.client.create(request.clone()).await;
        let decline = declined.decline.as_ref().unwrap();
        assert_eq!(decline.code(), code, "{reason}");
        assert_eq!(decline.retry_advice(), RetryAdvice::DoNotRetry, "{reason}");
        assert_eq!(decline.provider_code, *reason);
        assert!(world.client.ok(request).await.replayed());
        let synced = world.client.ok(sync(&declined)).await.message.payment;
        assert_eq!(synced.unwrap().version, declined.version);
        assert_eq!(world.stripe.posts(), number + 1, "asked once");
    }
    let due = "select count(*) from transactions where next_step_at is not null";
    assert_eq!(world.db.number(due).await, 0, "nothing is due");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_a_hard_decline_at_stripe_is_never_retried_by_itself() {
    never_retried(&["lost_card", "stolen_card"], DeclineCode::CardLostOrStolen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_fraud_block_at_stripe_ends_the_payment() {
    let blocked = ["fraudulent", "merchant_blacklist"];
    never_retried(&blocked, DeclineCode::FraudSuspected).await;
}

/// The replay of a 500 never changes, so it is looked up; or Stripe tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_what_no_answer_of_stripe_s_told_is_told_by_its_webhook() {
    let world = PlayedStripeWorld::start().await;
    for (token, event) in [(BROKEN, "evt_1"), (UNHEARD, "evt_2")] {
        let pending = world.client.create(purchase(token, 900)).await;
        assert_eq!(pending.state(), PaymentState::Pending, "{token}");
        let intent = world.stripe.intent(&pending.payment_id);
        // The charge's event tells nothing which the intent's does not tell better.
        let (name, object) = (format!("{event}_charge"), charge(&intent));
        let charged = world.tell(&name, "charge.succeeded", &object);
        assert_eq!(charged.await, "IGNORED");
        let told = world.tell(event, "payment_intent.succeeded", &intent);
        assert_eq!(told.await, "APPLIED");
        let paid = world.until(&pending, PaymentState::Captured).await;
        assert_eq!(paid.captured(), 900);
        assert_eq!(intent["id"], paid.provider_reference.as_str());
    }
    assert_eq!(world.stripe.posts(), 2, "each was asked for once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s60_an_event_of_stripe_s_with_another_amount_or_currency_waits_for_a_person() {
    let world = PlayedStripeWorld::start().await;
    for (event, name, value) in [
        ("evt_1", "amount_received", json!(899)),
        ("evt_2", "currency", json!("usd")),
    ] {
        let (payment, intent) = waiting(&world).await;
        let mut intent = world.stripe.becomes(&intent, &ends(true));
        intent[name] = value;
        let told = world.tell(event, "payment_intent.succeeded", &intent);
        assert_eq!(told.await, "APPLIED");
        let after = world.now(&payment).await;
        assert_eq!((after.captured(), after.state()), (0, payment.state()));
        let case = after.transactions[0].open_operator_action();
        assert_eq!(case, OperatorActionKind::AmountMismatch, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s50_the_same_event_of_stripe_s_again_is_acknowledged_and_changes_nothing() {
    let world = PlayedStripeWorld::start().await;
    let (payment, intent) = waiting(&world).await;
    let intent = world.stripe.becomes(&intent, &ends(true));
    for _ in 0..3 {
        let told = world.tell("evt_1", "payment_intent.succeeded", &intent);
        assert_eq!(told.await, "APPLIED");
    }
    let paid = world.until(&payment, PaymentState::Captured).await;
    let told = world.tell("evt_2", "payment_intent.succeeded", &intent);
    assert_eq!(told.await, "IGNORED", "another event about the same");
    let after = world.now(&payment).await;
    assert_eq!((after.captured(), after.version), (900, paid.version));
    let stored = "select count(*) from webhook_inbox";
    assert_eq!(world.db.number(stored).await, 2);
}

async fn why_dead(world: &PlayedStripeWorld, event: &str, kind: &str, object: &Value) -> String {
    assert_eq!(world.tell(event, kind, object).await, "DEAD");
    let why = "select reason from webhook_inbox where event_id = $1";
    world.db.row(why, &[&event]).await.get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_an_event_of_stripe_s_about_an_unknown_payment_is_tried_again_and_given_up() {
    let options = SiteOptions::default().with("webhooks.max_attempts", 2);
    let world = PlayedStripeWorld::start_with(options).await;
    let (payment, mut unknown) = waiting(&world).await;
    unknown["metadata"]["quittance_payment"] = json!(uuid::Uuid::now_v7().to_string());
    let why = why_dead(&world, "evt_1", "payment_intent.processing", &unknown).await;
    assert_eq!(why, "UNKNOWN_PAYMENT");
    let tries = "select attempts::bigint from webhook_inbox";
    assert_eq!(world.db.number(tries).await, 2);
    assert_eq!(world.now(&payment).await.version, payment.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s55_an_unknown_type_of_event_at_stripe_is_acknowledged_and_kept_as_a_dead_letter() {
    let world = PlayedStripeWorld::start().await;
    let (payment, intent) = waiting(&world).await;
    let why = why_dead(&world, "evt_1", "payment_intent.celebrated", &intent).await;
    assert_eq!(why, "UNEXPECTED");
    assert_eq!(world.now(&payment).await.version, payment.version);
}
