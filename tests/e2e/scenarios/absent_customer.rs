//! The customer has to act, and never comes back to the caller.

use quittance_proto::v1::{
    ListOperatorActionsRequest, OperatorActionKind, Payment, PaymentState, TransactionOrigin,
    TransactionState,
};
use quittance_sandbox::SandboxHandle;
use quittance_server::auth::Role;
use tonic::Code;

use crate::harness::process::ServerProcess;
use crate::harness::site::{SANDBOX_KEY, TENANT};
use crate::harness::webhooks::{Hooks, Post, SECRET};
use crate::harness::{Amounts as _, SiteOptions, World, confirm, eventually, purchase, sync, void};

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

/// How long a payment waits for its customer before it is released. Seconds; 0: for ever.
const ABANDONED_AFTER: &str = "payments.retries.abandoned_after_seconds";

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
    let patient = looking(2).with(ABANDONED_AFTER, 0);
    let world = World::start_with(patient).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_what_its_customer_has_left_is_released_at_the_provider() {
    // Recovery itself would look again in an hour.
    let options = SiteOptions::default().recovering().with(ABANDONED_AFTER, 1);
    let world = World::start_with(options).await;
    let payment = waiting(&world).await;
    let voided = until(&world, &payment, PaymentState::Voided).await;
    assert_eq!((voided.captured(), voided.next_action), (0, None));
    let [opening, void] = voided.transactions.as_slice() else {
        panic!("{:?}", voided.transactions);
    };
    assert_eq!(opening.failure.as_ref().unwrap().cause, "VOIDED");
    assert_eq!(void.origin(), TransactionOrigin::Service);
    assert_eq!(void.state(), TransactionState::Succeeded);
    let entries = world.client.entries_of(&payment.payment_id).await;
    let accepted = entries.iter().find(|it| it.event_type == "void.accepted");
    let accepted = accepted.unwrap();
    assert_eq!(accepted.actor.as_ref().unwrap().r#type, "system");
    let ends = entries.last().unwrap();
    assert_eq!(ends.event_type, "void.succeeded", "the provider's word");
    // The customer is too late.
    let confirmed = world.client.refused(confirm(&payment, "passed")).await;
    assert_eq!(confirmed.code, Code::FailedPrecondition);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_what_the_customer_finished_is_not_abandoned_however_late_it_is_heard_of() {
    let world = World::start_with(SiteOptions::default()).await;
    let payment = waiting(&world).await;
    finishes(&world.sandbox, &payment, "passed").await;
    let long_ago =
        "update transactions set updated_at = now() - interval '2 days', next_step_at = now()";
    world.db.execute(long_ago, &[]).await;
    let recovering = SiteOptions::default().recovering().settings;
    let _recovery = ServerProcess::start(&world, recovering).await;
    let paid = until(&world, &payment, PaymentState::Captured).await;
    assert_eq!(paid.transactions.len(), 1, "nothing was voided");
    world.everything_agrees().await;
}

/// The provider has named the payment, so that its lookup finds it waiting for the customer: who has come back already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_confirmation_that_could_not_be_sent_is_sent_once_the_provider_is_back() {
    let options = SiteOptions::default()
        .recovering()
        .with("payments.retries.unreachable.first_ms", 50)
        .with("payments.retries.unreachable.max_ms", 200);
    let world = World::start_with(options).await;
    let payment = waiting(&world).await;
    world.sandbox.pause_accepting().await;
    let answer = world.client.ok(confirm(&payment, "passed")).await;
    let pending = answer.message.payment.unwrap();
    assert_eq!(pending.state(), PaymentState::Pending);
    let refused =
        "select count(*) from attempts where operation = 'confirm' and outcome = 'NOT_SENT'";
    // Recovery may have tried it again by now.
    assert!(world.db.number(refused).await >= 1);
    world.sandbox.resume().await.unwrap();
    until(&world, &payment, PaymentState::Captured).await;
    assert_eq!(world.books().counts.purchases, 1);
    let back = "select count(*) from journal \
                where event_type = 'payment.requires_action' and entity_seq > \
                (select entity_seq from journal where event_type = 'confirm.accepted')";
    assert_eq!(
        world.db.number(back).await,
        0,
        "the customer is not asked again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_an_older_challenge_does_not_replace_a_confirmation_that_waits_to_be_sent() {
    let hooks = Hooks::start().await;
    let refused = "tok_requires_action?confirm.status=429&confirm.times=1";
    let payment = hooks.client.create(purchase(refused, 700)).await;
    let transaction = &payment.transactions[0].transaction_id;
    let url = format!("{}/v1/operations/{transaction}", hooks.sandbox.base_url());
    let asked = reqwest::Client::new().get(url).bearer_auth(SANDBOX_KEY);
    let operation: serde_json::Value = asked.send().await.unwrap().json().await.unwrap();
    assert_eq!(operation["status"], "requires_action");
    let answer = hooks.client.ok(confirm(&payment, "passed")).await;
    let pending = answer.message.payment.unwrap();
    assert_eq!(pending.state(), PaymentState::Pending);

    let id = "evt_00000000000000000000000000000001";
    let event = serde_json::json!({
        "id": id, "type": "payment.authorized", "created_at": operation["created_at"],
        "payment_id": operation["payment_id"], "payment_reference": payment.payment_id,
        "operation": operation,
    });
    let body = serde_json::to_vec(&event).unwrap();
    hooks.deliver(&Post::signed(id, &body, SECRET)).await;
    hooks.until(id, "IGNORED").await;
    let due = "update transactions set next_step_at = now()";
    hooks.db.execute(due, &[]).await;
    let paid = hooks.client.ok(sync(&payment)).await.message.payment;
    assert_eq!(paid.unwrap().state(), PaymentState::Captured);
}

/// Releases what its customer has left, and again soon where the provider refuses: at most `most` times.
fn releasing(most: i64) -> SiteOptions {
    SiteOptions::default()
        .recovering()
        .with(ABANDONED_AFTER, 1)
        .with("payments.retries.release_refused.first_ms", 50)
        .with("payments.retries.release_refused.max_ms", 100)
        .with("payments.retries.release_refused.max_steps", most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_release_that_the_provider_refuses_is_asked_for_again() {
    let world = World::start_with(releasing(10)).await;
    world.arm("void", 422, 2).await;
    let payment = waiting(&world).await;
    let voided = until(&world, &payment, PaymentState::Voided).await;
    let voids: Vec<_> = voided.transactions[1..]
        .iter()
        .map(|void| (void.origin(), void.state()))
        .collect();
    let of_service = |state| (TransactionOrigin::Service, state);
    assert_eq!(
        voids,
        [
            of_service(TransactionState::Failed),
            of_service(TransactionState::Failed),
            of_service(TransactionState::Succeeded),
        ],
        "each is a transaction of its own"
    );
    let cases = "select count(*) from operator_actions";
    assert_eq!(world.db.number(cases).await, 0);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_release_that_the_provider_refuses_for_good_is_shown_to_a_person() {
    let world = World::start_with(releasing(3)).await;
    world.arm("void", 422, 1_000).await;
    let payment = waiting(&world).await;
    let operator = world
        .as_role(TENANT, &[Role::PaymentsRead, Role::Admin])
        .await;
    let case = eventually("a person is asked", async || {
        let request = ListOperatorActionsRequest::default();
        let open = operator.ok(request).await.message.operator_actions;
        open.into_iter().next()
    })
    .await;
    assert_eq!(case.kind(), OperatorActionKind::RecoveryExhausted);
    let opening = &payment.transactions[0].transaction_id;
    assert_eq!(case.transaction_id, *opening);
    let stuck = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        stuck.state(),
        PaymentState::RequiresAction,
        "time proves nothing"
    );
    assert_eq!(stuck.transactions.len(), 4, "three releases were refused");
    let entries = world.client.entries_of(&payment.payment_id).await;
    let told = entries.last().unwrap();
    assert_eq!(told.event_type, "payment.recovery_exhausted");
    assert_eq!(told.details["releases_refused"], "3");
    // Whoever releases it closes the case: the caller, as soon as the provider lets it.
    world.disarm().await;
    let voided = world.client.ok(void(&stuck)).await.message.payment.unwrap();
    assert_eq!(voided.state(), PaymentState::Voided);
    let open = "select count(*) from operator_actions where closed_at is null";
    assert_eq!(world.db.number(open).await, 0);
    world.everything_agrees().await;
}
