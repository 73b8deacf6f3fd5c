//! What PostgreSQL itself says no to: a row that has moved, a standby that takes no writes.

use std::time::Duration;

use quittance_proto::v1::PaymentState;
use quittance_test_support::Direction::ToClient;
use quittance_test_support::Plan;
use tonic::Code;

use super::database_lost::OwnPostgres;
use super::migration::migrate;
use crate::harness::database::Database;
use crate::harness::{
    Amounts as _, Keyed as _, Site, SiteOptions, World, authorization, capture, eventually,
    purchase,
};

/// A world whose database has these defaults for every session.
async fn world_on(options: SiteOptions, defaults: &[&str]) -> World {
    let site = Site::new(options).await;
    let name: String = site
        .db
        .row("select current_database()::text", &[])
        .await
        .get(0);
    for default in defaults {
        let alter = format!("alter database \"{name}\" set {default}");
        site.db.execute(&alter, &[]).await;
    }
    World::on(site, Vec::new()).await
}

/// A commit of the server's waits for somebody's lock.
async fn until_a_commit_waits(world: &World) {
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                   and datname = current_database() and application_name = 'quittance commit'";
    eventually("a commit waits for a lock", async || {
        (world.db.number(waiting).await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_a_serialization_failure_costs_a_try_and_no_second_charge() {
    let strict = ["default_transaction_isolation = 'repeatable read'"];
    let world = world_on(SiteOptions::default(), &strict).await;
    let payment = world.client.create(authorization("tok_approve", 900)).await;
    let other = Database::connect(world.database_url()).await;
    other.execute("begin", &[]).await;
    other
        .execute("update payments set description = description", &[])
        .await;
    let (client, request) = (world.client.clone(), capture(&payment, 400));
    let call = tokio::spawn(async move { client.ok(request).await });
    until_a_commit_waits(&world).await;
    // The row has moved since the statement began: it cannot be serialized, and is tried again.
    other.execute("commit", &[]).await;
    let captured = call.await.unwrap().message.payment.unwrap();
    assert_eq!((captured.captured(), captured.capturable()), (400, 500));
    assert_eq!(world.books().counts.captures, 1);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_a_commit_that_falls_victim_to_a_deadlock_is_made_again_and_nobody_hears_of_it() {
    let options = SiteOptions::default().behind_proxies();
    let world = world_on(options, &["deadlock_timeout = '500ms'"]).await;
    let payment = world.client.create(authorization("tok_approve", 900)).await;
    let provider = &world.links().provider;
    provider.set(ToClient, Plan::hold_answer_to("/captures").once());
    let (client, request) = (world.client.clone(), capture(&payment, 400));
    let call = tokio::spawn(async move { client.ok(request).await });
    provider.wait_until_held(ToClient).await;
    assert_eq!(world.books().counts.captures, 1, "the money has moved");

    // What the outcome's commit changes is locked: the payment by one session, the capture by another.
    let holder = Database::connect(world.database_url()).await;
    holder.execute("begin", &[]).await;
    holder
        .rows("select from payments for no key update", &[])
        .await;
    let opponent = Database::connect(world.database_url()).await;
    opponent.execute("begin", &[]).await;
    // So that it is the commit which finds the deadlock, and is its victim.
    let patient = "set local deadlock_timeout = '10min'";
    opponent.execute(patient, &[]).await;
    let wanted = "select from transactions where kind = 'CAPTURE' for no key update";
    assert_eq!(opponent.rows(wanted, &[]).await.len(), 1);
    provider.release_then(ToClient, Plan::pass());
    until_a_commit_waits(&world).await;
    // It queues behind the commit for the payment, and the commit will want the capture, which it has.
    let opponent = tokio::spawn(async move {
        let description = "update payments set description = description";
        opponent.execute(description, &[]).await;
        opponent.execute("commit", &[]).await;
    });
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' \
                   and datname = current_database()";
    eventually("both wait", async || {
        (world.db.number(waiting).await == 2).then_some(())
    })
    .await;
    holder.execute("commit", &[]).await;

    opponent.await.expect("the other has its way");
    let captured = call.await.unwrap().message.payment.unwrap();
    assert_eq!((captured.captured(), captured.capturable()), (400, 500));
    assert_eq!(world.books().counts.captures, 1);
    assert_eq!(captured.transactions[1].attempts, 1);
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    eventually("PostgreSQL counts a deadlock", async || {
        (world.db.number(deadlocks).await == 1).then_some(())
    })
    .await;
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s72_a_standby_that_takes_no_writes_is_unavailable_and_sends_nothing_until_it_is_promoted()
{
    let mut postgres = OwnPostgres::start().await;
    assert!(migrate(&postgres.url()).await.status.success());
    let options = SiteOptions {
        database_url: Some(postgres.url()),
        ..SiteOptions::default().soon_without_database()
    };
    let world = World::start_with(options).await;
    let payment = world.client.create(authorization("tok_approve", 900)).await;
    let before = world.books();

    // The primary is gone, and what answers in its place is a standby.
    postgres.stop_as_standby().await;
    postgres.start_again().await;
    let hurried = world.client.within(Duration::from_secs(55));
    let request = purchase("tok_approve", 300).key("failover");
    for _ in 0..2 {
        let failure = hurried.refused(request.clone()).await;
        failure.is(Code::Unavailable, "DATABASE_UNAVAILABLE");
        assert!(failure.retryable() && failure.money_may_have_moved());
    }
    let refused = hurried.refused(capture(&payment, 400).key("c")).await;
    refused.is(Code::Unavailable, "DATABASE_UNAVAILABLE");
    let read = eventually("what is stored can be read", async || {
        let get = crate::harness::get(&payment.payment_id);
        hurried.call(get).await.ok()?.message.payment
    })
    .await;
    assert_eq!(read.version, payment.version);
    assert_eq!(world.books(), before, "nothing was sent");

    let standby = Database::connect(&postgres.url()).await;
    standby.number("select count(pg_promote())").await;
    let paid = eventually("it works again without a restart", async || {
        hurried.call(request.clone()).await.ok()?.message.payment
    })
    .await;
    assert_eq!(paid.state(), PaymentState::Captured);
    let captured = hurried.ok(capture(&payment, 400).key("c")).await;
    let captured = captured.message.payment.unwrap();
    assert_eq!(captured.captured(), 400);
    assert_eq!(world.books().counts.operations, 3);
    world.shut_down().await;
}
