//! The customer has to act, and never comes back to the caller.

use quittance_proto::v1::{Payment, PaymentState};
use quittance_sandbox::SandboxHandle;

use crate::harness::site::SANDBOX_KEY;
use crate::harness::webhooks::Hooks;
use crate::harness::{Amounts as _, SiteOptions, World, eventually, purchase, void};

/// The customer finishes at the provider, and the caller hears nothing of it.
async fn finishes(sandbox: &SandboxHandle, payment: &Payment, challenge: &str) {
    let transaction = &payment.transactions[0].transaction_id;
    let (base_url, reference) = (sandbox.base_url(), &payment.provider_reference);
    let body = serde_json::json!({
        "reference": transaction, "parameters": { "challenge": challenge },
    });
    let answer = reqwest::Client::new()
        .post(format!("{base_url}/v1/payments/{reference}/confirm"))
        .bearer_auth(SANDBOX_KEY)
        .header("idempotency-key", format!("customer-{transaction}"))
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

async fn waiting(world: &World) -> Payment {
    let waiting = world
        .client
        .create(purchase("tok_requires_action", 700))
        .await;
    assert_eq!(waiting.state(), PaymentState::RequiresAction);
    assert_eq!(
        waiting.transactions[0].next_retry_time, None,
        "it waits for the customer"
    );
    waiting
}

async fn until(world: &World, payment: &Payment, state: PaymentState) -> Payment {
    eventually(&format!("the payment is {state:?}"), async || {
        let payment = world.client.payment(&payment.payment_id).await;
        (payment.state() == state).then_some(payment)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_customer_who_never_returns_is_completed_by_webhook() {
    let hooks = Hooks::start().await;
    for (challenge, ends) in [
        ("passed", PaymentState::Captured),
        ("failed", PaymentState::Declined),
    ] {
        let payment = waiting(&hooks.world).await;
        finishes(&hooks.sandbox, &payment, challenge).await;
        let event = hooks.event_about(&payment.transactions[0].transaction_id);
        hooks.tell(&event, "APPLIED").await;
        let after = until(&hooks.world, &payment, ends).await;
        assert_eq!(after.next_action, None);
    }
    hooks.everything_agrees().await;
}

/// Looks at what waits for the customer soon, and often.
fn looking(most: i64) -> SiteOptions {
    SiteOptions::default()
        .recovering()
        .with("payments.retries.awaiting_customer.first_ms", 50)
        .with("payments.retries.awaiting_customer.max_ms", 100)
        .with("payments.retries.awaiting_customer.max_steps", most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_customer_who_never_returns_is_found_by_recovery_when_the_webhook_is_lost() {
    let world = World::start_with(looking(10_000)).await;
    for (challenge, ends) in [
        ("passed", PaymentState::Captured),
        ("failed", PaymentState::Declined),
    ] {
        let payment = waiting(&world).await;
        finishes(&world.sandbox, &payment, challenge).await;
        until(&world, &payment, ends).await;
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s07_what_waits_for_a_customer_ends_by_proof_alone() {
    let world = World::start_with(looking(2)).await;
    let payment = waiting(&world).await;
    eventually("recovery looks at it no more", async || {
        let due = "select count(*) from transactions where next_step_at is not null";
        (world.db.number(due).await == 0).then_some(())
    })
    .await;
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        after.state(),
        PaymentState::RequiresAction,
        "time proves nothing"
    );
    let cases = "select count(*) from operator_actions";
    assert_eq!(
        world.db.number(cases).await,
        0,
        "it was left by its customer"
    );
    let voided = world.client.ok(void(&after)).await.message.payment.unwrap();
    assert_eq!(
        (voided.state(), voided.captured()),
        (PaymentState::Voided, 0)
    );
    world.everything_agrees().await;
}
