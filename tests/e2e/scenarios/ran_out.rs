//! Authorizations that run out at the provider, of which no webhook ever tells.

use quittance_proto::v1::{Payment, PaymentState, TransactionState};
use serde_json::json;

use crate::harness::played_stripe::{HELD, OVERDUE, PlayedStripeWorld};
use crate::harness::{Amounts as _, Keyed as _, SiteOptions, authorization, capture, eventually};

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
    let intent = world.stripe.intent(&payment.payment_id);
    let canceled = [
        ("status", json!("canceled")),
        ("cancellation_reason", json!("automatic")),
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
