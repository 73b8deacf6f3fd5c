//! A provider that has forgotten the idempotency key before recovery got there, and whose lookup proves nothing.

use std::time::Duration;

use quittance_proto::v1::{OperatorActionKind, Payment, PaymentState};
use quittance_test_support::{Cut, Direction, Plan};

use crate::harness::process::ServerProcess;
use crate::harness::{
    Cases as _, Keyed as _, Links, SiteOptions, World, eventually, get_by_key, purchase,
    until_resolved,
};

use Direction::ToServer;

/// How long the sandbox's adapter relies on a key: the 24 hours for which it is kept, less one. Seconds.
const RELIED_UPON: i64 = 23 * 3_600;

/// A provider whose lookup may miss what it has processed: that it finds nothing proves nothing.
fn forgetful() -> SiteOptions {
    SiteOptions {
        lookup_window: Duration::from_secs(3_600),
        ..SiteOptions::default()
    }
}

/// A payment that was charged, and nobody heard of it; accepted so many seconds ago by the database's clock.
async fn unheard(world: &World, seconds_ago: i64) -> Payment {
    let pending = world
        .client
        .create(purchase("tok_approve?drop=after", 500))
        .await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let age = "update transactions set created_at = now() - make_interval(secs => $1), \
               updated_at = now() - make_interval(secs => $1), \
               lease_until = now() - interval '1 second', next_step_at = now() \
               where payment_id = $2::text::uuid";
    let seconds = f64::from(i32::try_from(seconds_ago).unwrap());
    world
        .db
        .execute(age, &[&seconds, &pending.payment_id])
        .await;
    pending
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_key_that_expired_before_recovery_got_there_is_not_sent_again_and_a_person_is_asked() {
    // Nobody recovers for almost a day.
    let world = World::start_with(forgetful()).await;
    let young = unheard(&world, RELIED_UPON - 3_600).await;
    let old = unheard(&world, RELIED_UPON + 1).await;
    let recovering = SiteOptions::default().recovering().settings;
    let _recovery = ServerProcess::start(&world, recovering).await;

    // The provider still remembers this one: the same bytes under the same key are answered as the first time.
    let paid = until_resolved(&world.client, &young.payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(paid.transactions[0].attempts, 2);
    assert_eq!(world.books().counts.replays, 1);

    let case = eventually("a person is asked", async || {
        let payment = world.client.payment(&old.payment_id).await;
        let asked = payment.transactions[0].open_operator_action();
        (asked == OperatorActionKind::RecoveryExhausted).then_some(payment)
    })
    .await;
    assert_eq!(case.state(), PaymentState::Pending, "unknown never decays");
    let transaction = &case.transactions[0];
    assert_eq!(transaction.attempts, 1, "it is not sent again");
    assert_eq!(transaction.next_retry_time, None, "only a person goes on");
    let last = world.client.entries_of(&old.payment_id).await.pop();
    let last = last.unwrap();
    assert_eq!(last.event_type, "payment.recovery_exhausted");
    assert_eq!(last.details["idempotency_key"], "expired");
    for payment in [&young, &old] {
        let charged = world.charged(&payment.transactions[0].transaction_id);
        assert_eq!(charged.charges, 1);
    }
    assert_eq!(world.books().counts.replays, 1);
}

/// A process that died before it sent is not told from one that died after: but what was never sent is not begun after its
/// time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s20_what_a_dead_server_may_never_have_sent_is_not_sent_after_its_time() {
    let world = World::start_with(forgetful()).await;
    let links = Links::of(&world).await;
    let mut payments = Vec::new();
    for key in ["in time", "too late"] {
        links.provider.set(ToServer, Plan::hold_at("POST /"));
        let mut victim = ServerProcess::start(&world, links.settings()).await;
        let client = victim.client.clone();
        let request = purchase("tok_approve", 500).key(key);
        let call = tokio::spawn(async move { client.send(request).await });
        links.provider.wait_until_held(ToServer).await;
        victim.kill();
        links.provider.drop_held(ToServer, Cut::Close);
        assert!(call.await.unwrap().is_err());
        let found = world.client.ok(get_by_key(key)).await.message.payment;
        payments.push(found.unwrap());
    }
    links.pass().await;
    let age = "update transactions set lease_until = now() - interval '1 second', \
               next_step_at = now() - interval '1 second'";
    world.db.execute(age, &[]).await;
    let late = "update transactions set execute_before = now() where payment_id = $1::text::uuid";
    world.db.execute(late, &[&payments[1].payment_id]).await;
    let recovering = SiteOptions::default()
        .recovering()
        .with("payments.retries.outcome_unknown.max_steps", 3)
        .with("payments.retries.undecided.max_steps", 3);
    let _recovery = ServerProcess::start(&world, recovering.settings).await;

    let paid = until_resolved(&world.client, &payments[0].payment_id).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(paid.transactions[0].attempts, 2);
    let case = eventually("a person is asked", async || {
        let payment = world.client.payment(&payments[1].payment_id).await;
        let asked = payment.transactions[0].open_operator_action();
        (asked == OperatorActionKind::RecoveryExhausted).then_some(payment)
    })
    .await;
    assert_eq!(case.state(), PaymentState::Pending, "unknown never decays");
    assert_eq!(case.transactions[0].attempts, 1, "it is not sent");
    // It was asked about more than once: what a provider holds may be found only later.
    let entries = world.client.entries_of(&case.payment_id).await;
    let mut looked = entries.iter().map(|entry| entry.event_type.as_str());
    assert!(looked.any(|event| event == "payment.unresolved"));
    assert_eq!(world.books().counts.purchases, 1);
}
