//! Authorizations that run out at the provider, of which no webhook ever tells.

use quittance_proto::v1::{Payment, PaymentState, TransactionState};
use serde_json::json;

use crate::harness::played_stripe::{HELD, OVERDUE, PlayedStripeWorld, REDIRECTED};
use crate::harness::webhooks::now;
use crate::harness::{
    Amounts as _, Keyed as _, SiteOptions, authorization, capture, eventually, void,
};

async fn world() -> PlayedStripeWorld {
    let options = SiteOptions::default()
        .recovering()
        .with("payments.retries.release_refused.first_ms", 200)
        .with("payments.retries.release_refused.max_ms", 500)
        .with("payments.retries.release_refused.max_steps", 1_000);
    PlayedStripeWorld::start_with(options).await
}

async fn authorized(world: &PlayedStripeWorld, method: &str) -> Payment {
    let payment = world.client.create(authorization(method, 900)).await;
    assert_eq!(payment.state(), PaymentState::Authorized);
    assert!(payment.expire_time.is_some());
    payment
}

/// Stripe lets go of it, and tells nobody.
fn runs_out(world: &PlayedStripeWorld, payment: &Payment) {
    canceled(world, payment, "automatic");
}

fn canceled(world: &PlayedStripeWorld, payment: &Payment, reason: &str) {
    let intent = world.stripe.intent(&payment.payment_id);
    let canceled = [
        ("status", json!("canceled")),
        ("cancellation_reason", json!(reason)),
        ("amount_capturable", json!(0)),
    ];
    let _ = world.stripe.becomes(&intent, &canceled);
}

async fn looks(world: &PlayedStripeWorld) -> i64 {
    let sql = "select count(*) from journal where event_type = 'payment.looked_up'";
    world.db.number(sql).await
}

async fn told(world: &PlayedStripeWorld) -> i64 {
    let sql = "select count(*) from webhook_inbox";
    world.db.number(sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s40_an_authorization_that_runs_out_at_stripe_without_a_webhook_is_found_expired() {
    let world = world().await;
    let payment = authorized(&world, OVERDUE).await;
    // Its time has passed, and Stripe still holds it: so it stays.
    eventually("Stripe was asked", async || {
        (looks(&world).await > 1).then_some(())
    })
    .await;
    assert_eq!(world.now(&payment).await.state(), PaymentState::Authorized);
    runs_out(&world, &payment);
    let expired = world.until(&payment, PaymentState::Expired).await;
    assert_eq!(expired.captured(), 0);
    assert_eq!(told(&world).await, 0);
    let due = "select count(*) from transactions where next_step_at is not null";
    assert_eq!(world.db.number(due).await, 0, "nothing is left to ask");
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s40_a_capture_that_stripe_refuses_has_it_asked_about_the_authorization() {
    let world = world().await;
    let payment = authorized(&world, HELD).await;
    runs_out(&world, &payment);
    let refused = world.client.ok(capture(&payment, 900).key("capture")).await;
    let refused = refused.message.payment.unwrap();
    let row = refused.transactions.last().unwrap();
    assert_eq!(row.state(), TransactionState::Failed);
    world.until(&payment, PaymentState::Expired).await;
    assert_eq!((looks(&world).await, told(&world).await), (0, 0));
    world.everything_agrees().await;
}

/// The webhook does not say until when it holds: Stripe is asked, so that it is looked after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s40_an_authorization_that_stripe_tells_by_webhook_is_looked_after_as_any_other() {
    let world = world().await;
    let payment = world.client.create(authorization(REDIRECTED, 900)).await;
    assert_eq!(payment.state(), PaymentState::RequiresAction);
    let made = [
        ("status", json!("requires_capture")),
        ("amount_capturable", json!(900)),
        ("next_action", json!(null)),
        (
            "latest_charge",
            json!({
                "id": "ch_1", "object": "charge", "status": "succeeded",
                "payment_method_details": {"card": {"capture_before": now() - 1}},
            }),
        ),
    ];
    let intent = world.stripe.intent(&payment.payment_id);
    let mut intent = world.stripe.becomes(&intent, &made);
    intent["latest_charge"] = json!("ch_1");
    let kind = "payment_intent.amount_capturable_updated";
    assert_eq!(world.tell("evt_1", kind, &intent).await, "APPLIED");
    let authorized = world.now(&payment).await;
    assert_eq!(authorized.state(), PaymentState::Authorized);
    assert!(authorized.expire_time.is_some());
    runs_out(&world, &payment);
    world.until(&payment, PaymentState::Expired).await;
    world.everything_agrees().await;
}

/// Nor is it told that somebody canceled it in the dashboard: whoever voids it learns it from the refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_void_of_what_was_canceled_in_stripe_s_dashboard_is_done() {
    let world = world().await;
    let payment = authorized(&world, HELD).await;
    canceled(&world, &payment, "requested_by_customer");
    let voided = world.client.ok(void(&payment)).await.message.payment;
    let voided = voided.unwrap();
    assert_eq!(voided.state(), PaymentState::Voided);
    let row = voided.transactions.last().unwrap();
    assert_eq!(row.state(), TransactionState::Succeeded);
    assert_eq!(told(&world).await, 0);
    world.everything_agrees().await;
}
