//! Connections that break where only a proxy can break them: between two bytes, or at one end only.

use std::time::Duration;

use futures::future::join_all;
use quittance_proto::v1::{Payment, PaymentState};
use quittance_test_support::{Cut, Direction, Plan};
use tonic::Code;

use crate::harness::process::ServerProcess;
use crate::harness::{
    Keyed as _, Links, SiteOptions, World, eventually, get, get_by_key, purchase,
    until_resolved_by_key,
};

use Direction::{ToClient, ToServer};

/// What only the commit of that step holds: its entry of the journal.
const ACCEPTED: &str = "payment.accepted";
const OUTCOME: &str = "payment.captured";

async fn start() -> World {
    World::start_with(SiteOptions::default().recovering().behind_proxies()).await
}

/// A world that gives up soon on a provider that does not answer.
async fn start_without_answers() -> World {
    World::start_with(SiteOptions::impatient().recovering().behind_proxies()).await
}

/// Why the last attempt is not known to have succeeded.
async fn last_cause(world: &World, payment: &Payment) -> String {
    let entries = world.client.entries_of(&payment.payment_id).await;
    // Recovery may have begun again by now.
    let causes = entries.iter().rev().filter_map(|entry| entry.cause.clone());
    causes.map(|cause| cause.code).next().unwrap()
}

async fn is_paid_once(world: &World, pending: &Payment) -> Payment {
    let paid = eventually("the payment is resolved", async || {
        world.let_unanswered_leases_run_out().await;
        let payment = world.client.payment(&pending.payment_id).await;
        (payment.state() != PaymentState::Pending).then_some(payment)
    })
    .await;
    assert_eq!(paid.state(), PaymentState::Captured);
    let charged = world.charged(&paid.transactions[0].transaction_id);
    assert_eq!(charged.charges, 1);
    paid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_on_a_half_open_connection_nothing_is_known_and_it_is_sent_again() {
    let world = start_without_answers().await;
    let links: &Links = world.links();
    // One on a new connection, one on a connection that has served before.
    for amount in [100, 200] {
        links.provider.swallow();
        let pending = world.client.create(purchase("tok_approve", amount)).await;
        assert_eq!(pending.state(), PaymentState::Pending);
        assert_eq!(last_cause(&world, &pending).await, "RESPONSE_TIMEOUT");
        links.provider.pass().await;
        let paid = is_paid_once(&world, &pending).await;
        assert_eq!(paid.transactions[0].attempts, 2);
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_when_only_the_answers_are_swallowed_the_charge_is_found() {
    let world = start_without_answers().await;
    world.links().provider.set(ToClient, Plan::swallow());
    let pending = world.client.create(purchase("tok_approve", 100)).await;
    assert_eq!(last_cause(&world, &pending).await, "RESPONSE_TIMEOUT");
    world.links().provider.pass().await;
    let paid = is_paid_once(&world, &pending).await;
    assert_eq!(paid.transactions[0].attempts, 1, "found, not sent again");
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_a_request_cut_at_any_byte_is_charged_once() {
    // Recovery comes later, so that its own requests are not the ones that are cut.
    let world = World::start_with(SiteOptions::default().behind_proxies()).await;
    let provider = &world.links().provider;
    let before = provider.traffic().to_server;
    world.client.create(purchase("tok_approve", 1)).await;
    let length = provider.traffic().to_server - before;
    assert!(length > 200, "a request of {length} bytes");
    let mut pending = Vec::new();
    for how in [Cut::Close, Cut::Reset] {
        for at in [0, 1, 30, length / 3, length / 2, length - 40, length - 1] {
            provider.set(ToServer, Plan::cut_after(at, how).once());
            let payment = world.client.create(purchase("tok_approve", 300)).await;
            assert_eq!(payment.state(), PaymentState::Pending, "{how:?} at {at}");
            pending.push(payment);
        }
    }
    assert_eq!(world.books().counts.operations, 1, "a part is no request");
    let recovering = SiteOptions::default().recovering().settings;
    let _recovery = ServerProcess::start(&world, recovering).await;
    for payment in &pending {
        let paid = is_paid_once(&world, payment).await;
        assert_eq!(paid.transactions[0].attempts, 2);
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_an_answer_cut_at_any_byte_is_found() {
    let world = start().await;
    let provider = &world.links().provider;
    let before = provider.traffic().to_client;
    world.client.create(purchase("tok_approve", 300)).await;
    let length = provider.traffic().to_client - before;
    assert!(length > 200, "an answer of {length} bytes");
    for how in [Cut::Close, Cut::Reset] {
        for at in [0, 1, 12, 60, length / 2, length - 20] {
            provider.set(ToClient, Plan::cut_after(at, how).once());
            let pending = world.client.create(purchase("tok_approve", 300)).await;
            assert_eq!(pending.state(), PaymentState::Pending, "{how:?} at {at}");
            let paid = is_paid_once(&world, &pending).await;
            assert_eq!(paid.transactions[0].attempts, 1, "found, not sent again");
        }
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_connections_that_are_refused_or_reset_as_they_come_are_tried_again() {
    let world = start().await;
    let provider = &world.links().provider;
    provider.refuse_connections().await;
    provider.cut_all(Cut::Close).await;
    let refused = world.client.create(purchase("tok_approve", 100)).await;
    assert_eq!(last_cause(&world, &refused).await, "CONNECTION_REFUSED");
    provider.reset_connections().await;
    let reset = world.client.create(purchase("tok_approve", 200)).await;
    assert_eq!(reset.state(), PaymentState::Pending);
    provider.accept_connections().await;
    for pending in [refused, reset] {
        is_paid_once(&world, &pending).await;
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s16_connections_that_die_while_idle_cost_no_second_charge() {
    let world = start().await;
    let provider = &world.links().provider;
    for how in [Cut::Close, Cut::Reset] {
        for _ in 0..10 {
            world.client.create(purchase("tok_approve", 100)).await;
            provider.cut_all(how).await;
            // Whether the connection is known to be dead yet or not.
            let payment = world.client.create(purchase("tok_approve", 100)).await;
            is_paid_once(&world, &payment).await;
        }
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_to_the_provider_is_waited_for() {
    let world = start().await;
    for direction in [ToServer, ToClient] {
        let delay = Duration::from_millis(100);
        world.links().provider.delay(direction, delay);
    }
    let paid = world.client.create(purchase("tok_approve", 100)).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_a_commit_whose_connection_is_cut_is_found_out_and_the_caller_sees_nothing_of_it() {
    let world = start().await;
    let database = &world.links().database;
    for commit in [ACCEPTED, OUTCOME] {
        for (direction, plan) in [
            (ToServer, Plan::cut_at(commit, Cut::Close)),
            (ToServer, Plan::cut_at(commit, Cut::Reset).skip(200)),
            (ToClient, Plan::cut_answer_to(commit, Cut::Close)),
            (ToClient, Plan::cut_answer_to(commit, Cut::Reset)),
            (ToClient, Plan::cut_answer_to(commit, Cut::Close).skip(7)),
        ] {
            let connections = database.accepted();
            database.set(direction, plan.clone().once());
            let paid = world.client.create(purchase("tok_approve", 400)).await;
            let seen = (paid.state(), paid.version, paid.transactions[0].attempts);
            let expected = (PaymentState::Captured, 2, 1);
            assert_eq!(seen, expected, "{commit}: {direction:?} {plan:?}");
            assert!(
                database.accepted() > connections,
                "nothing was cut: {plan:?}"
            );
        }
    }
    world.everything_agrees().await;
}

/// A world that gives up on a commit so soon.
async fn start_impatient(options: SiteOptions, limit_ms: i64) -> World {
    let options = options
        .recovering()
        .behind_proxies()
        .with("database.statement_timeout_ms", limit_ms)
        .with("database.unavailable_after_ms", limit_ms)
        .with("database.commit_resolution_timeout_ms", limit_ms);
    World::start_with(options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_when_nobody_can_say_whether_it_was_accepted_the_same_key_finds_out() {
    let world = start_impatient(SiteOptions::default(), 3_000).await;
    let database = &world.links().database;
    // The acceptance is committed, and no answer to it ever comes; or it never gets there.
    let lost_answers = (ToClient, Plan::hold_answer_to(ACCEPTED), 1);
    let lost_requests = (ToServer, Plan::hold_at(ACCEPTED), 0);
    for (direction, plan, committed) in [lost_answers, lost_requests] {
        let before = world.db.number("select count(*) from payments").await;
        let request = purchase("tok_approve", 500).key(&format!("{direction:?}"));
        database.set(direction, plan);
        let failure = world.client.refused(request.clone()).await;
        failure.is(Code::Unavailable, "ACCEPTANCE_UNKNOWN");
        assert!(failure.retryable() && failure.money_may_have_moved(), "I13");
        let stored = world.db.number("select count(*) from payments").await - before;
        assert_eq!(stored, committed, "{direction:?}");
        database.drop_held(direction, Cut::Close);
        eventually(
            "the same request is answered, and carried out",
            async || {
                // Whoever accepted it does not know that, and sends nothing; that may be only now.
                world.all_senders_are_gone().await;
                let reply = world.client.call(request.clone()).await.ok()?;
                let state = reply.message.payment?.state();
                (state == PaymentState::Captured).then_some(())
            },
        )
        .await;
    }
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_a_key_that_is_looked_up_while_its_acceptance_hangs_is_not_found_and_nothing_is_denied()
{
    let world = start().await;
    let database = &world.links().database;
    let request = purchase("tok_approve", 500).key("on-its-way");
    database.set(ToServer, Plan::hold_at(ACCEPTED));
    let client = world.client.clone();
    let accepting = tokio::spawn(async move { client.create(request).await });
    database.wait_until_held(ToServer).await;

    let failure = world.client.refused(get_by_key("on-its-way")).await;
    failure.is(Code::NotFound, "PAYMENT_NOT_FOUND");
    assert!(failure.money_may_have_moved(), "I13");
    let nobodys = get("0198c5a2-0000-7000-8000-000000000001");
    let failure = world.client.refused(nobodys).await;
    failure.is(Code::NotFound, "PAYMENT_NOT_FOUND");
    assert!(!failure.money_may_have_moved(), "an id has an acceptance");

    database.release_then(ToServer, Plan::pass());
    let paid = is_paid_once(&world, &accepting.await.unwrap()).await;
    let found = world.client.ok(get_by_key("on-its-way")).await.message;
    assert_eq!(found.payment.unwrap().payment_id, paid.payment_id);
    world.everything_agrees().await;
}

/// The way to the database takes long enough for leases to run out on it, and for commits to be given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_a_slow_way_to_the_database_charges_nothing_twice_and_loses_nothing() {
    let world = start_impatient(SiteOptions::short_leases(), 500).await;
    let mut requests = Vec::new();
    for (direction, milliseconds) in [
        (ToServer, 20),
        (ToClient, 120),
        (ToServer, 450),
        (ToClient, 900),
    ] {
        let delay = Duration::from_millis(milliseconds);
        world.links().database.delay(direction, delay);
        let made: Vec<_> = (0..4)
            .map(|number| purchase("tok_approve", 100).key(&format!("{milliseconds}-{number}")))
            .collect();
        let calls = made
            .iter()
            .map(|request| world.client.call(request.clone()));
        for failure in join_all(calls).await.into_iter().filter_map(Result::err) {
            assert!(
                failure.retryable() && failure.money_may_have_moved(),
                "{failure:?}"
            );
        }
        requests.extend(made);
        world.links().database.delay(direction, Duration::ZERO);
    }
    for request in &requests {
        eventually(
            "the same request under the same key is answered",
            async || world.client.call(request.clone()).await.ok(),
        )
        .await;
        let paid = until_resolved_by_key(&world.client, &request.idempotency_key).await;
        assert_eq!(paid.state(), PaymentState::Captured);
        let charged = world.charged(&paid.transactions[0].transaction_id);
        assert_eq!((charged.charges, charged.amount), (1, 100));
    }
    let payments = u64::try_from(requests.len()).unwrap();
    assert_eq!(world.books().counts.purchases, payments);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_an_outcome_that_cannot_be_committed_is_kept_and_written_later() {
    let options = SiteOptions::default().with("payments.answer_margin_ms", 3_000);
    let world = start_impatient(options, 3_000).await;
    let database = &world.links().database;
    database.set(ToServer, Plan::hold_at(OUTCOME));
    let hurried = world.client.within(Duration::from_secs(8));
    let request = purchase("tok_approve", 600).key("outcome");
    let pending = hurried.ok(request).await.message.payment.unwrap();
    assert_eq!(pending.state(), PaymentState::Pending);
    assert_eq!(
        world.books().counts.purchases,
        1,
        "charged, and not recorded"
    );
    database.drop_held(ToServer, Cut::Reset);
    let paid = is_paid_once(&world, &pending).await;
    assert_eq!(paid.transactions[0].attempts, 1, "not sent again");
    world.everything_agrees().await;
}
