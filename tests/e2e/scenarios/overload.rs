//! More than can be carried: refused before anything is written or sent, with the time to wait.

use std::time::{Duration, Instant};

use futures::future::join_all;
use quittance_proto::v1::PaymentState;
use quittance_test_support::Direction::ToClient;
use quittance_test_support::Plan;
use tokio_postgres::NoTls;
use toml::Value;
use tonic::Code;

use crate::harness::process::ServerProcess;
use crate::harness::site::{ACCOUNT, PROVIDER_TIMEOUT_MS, account};
use crate::harness::{
    Client, Failure, Keyed as _, Site, SiteOptions, World, eventually, get, money, purchase, refund,
};

/// The database does not answer for so long, at most, before the caller is told; a busy machine gets much more.
const SOON: Duration = Duration::from_secs(30);

/// Nothing was done by this call; it does not deny what one before it did under the same key (I13).
fn is_held_back(failure: &Failure) {
    assert!(failure.retryable(), "{failure:?}");
    assert!(failure.money_may_have_moved(), "{failure:?}");
    assert!(failure.retry_delay.is_some(), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s69_above_what_an_account_carries_payments_are_refused_and_nothing_is_sent() {
    let site = Site::new(SiteOptions::default().behind_proxies()).await;
    let provider = site.links().provider.clone();
    let base_url = format!("http://{}", provider.address());
    let mut only = account(ACCOUNT, &base_url, PROVIDER_TIMEOUT_MS);
    only.insert("max_concurrent_calls".to_owned(), Value::from(2));
    let settings = vec![("providers.accounts", Value::from(vec![Value::from(only)]))];
    let world = World::on(site, settings).await;
    provider.set(ToClient, Plan::hold_answer_to("POST /"));
    let slow = || {
        let client = world.client.clone();
        tokio::spawn(async move { client.create(purchase("tok_approve", 100)).await })
    };
    let held = [slow(), slow()];
    eventually("both places are taken", async || {
        (provider.held(ToClient) == 2).then_some(())
    })
    .await;
    let before = world.db.volume().await;
    let failure = world.client.refused(purchase("tok_approve", 1)).await;
    failure.is(Code::ResourceExhausted, "OVERLOADED");
    is_held_back(&failure);
    assert_eq!(world.db.volume().await, before, "nothing is stored");
    assert_eq!(world.books().counts.operations, 2, "nothing was sent");
    provider.release_then(ToClient, Plan::pass());
    for call in held {
        assert_eq!(call.await.unwrap().state(), PaymentState::Captured);
    }
    let paid = world.client.create(purchase("tok_approve", 1)).await;
    assert_eq!(paid.state(), PaymentState::Captured, "there is room again");
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s69_above_the_calls_that_are_worked_on_at_once_nothing_is_stored_or_sent() {
    let options = SiteOptions::default()
        .behind_proxies()
        .with("server.limits.max_in_flight", 1);
    let world = World::start_with(options).await;
    let provider = &world.links().provider;
    provider.set(ToClient, Plan::hold_answer_to("POST /").once());
    let client = world.client.reconnected();
    let held = tokio::spawn(async move { client.create(purchase("tok_approve", 100)).await });
    provider.wait_until_held(ToClient).await;
    let before = world.db.volume().await;
    let failure = world.client.refused(purchase("tok_approve", 1)).await;
    failure.is(Code::ResourceExhausted, "OVERLOADED");
    is_held_back(&failure);
    assert_eq!(world.db.volume().await, before);
    provider.release_then(ToClient, Plan::pass());
    assert_eq!(held.await.unwrap().state(), PaymentState::Captured);
    assert_eq!(world.books().counts.operations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s69_a_tenant_that_calls_too_often_is_held_back_and_others_are_not() {
    let options = SiteOptions::default()
        .with("server.limits.tenant_requests_per_second", 1)
        .with("server.limits.tenant_burst", 5);
    let world = World::start_with(options).await;
    let other = world.other_tenant().await;
    let calls = (0..20).map(|_| world.client.call(purchase("tok_approve", 100)));
    let (paid, refused): (Vec<_>, Vec<_>) =
        join_all(calls).await.into_iter().partition(Result::is_ok);
    assert!(paid.len() >= 5 && refused.len() >= 5, "{}", paid.len());
    let mut waits = Vec::new();
    for failure in refused.into_iter().map(Result::unwrap_err) {
        failure.is(Code::ResourceExhausted, "RATE_LIMITED");
        is_held_back(&failure);
        waits.extend(failure.retry_delay);
    }
    assert!(
        waits.iter().all(|wait| *wait <= Duration::from_secs(2)),
        "{waits:?}"
    );
    let purchases = usize::try_from(world.books().counts.purchases).unwrap();
    assert_eq!(purchases, paid.len(), "what was refused was not sent");
    other.create(purchase("tok_approve", 100)).await;
    // After the wait that it was told it is let in.
    tokio::time::sleep(*waits.iter().min().unwrap()).await;
    eventually("the tenant is let in again", async || {
        world.client.call(purchase("tok_approve", 100)).await.ok()
    })
    .await;
}

/// A lock that makes every statement on payments wait, held until it is dropped.
async fn locked_payments(site: &Site) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(site.database_url(), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let lock = "begin; lock table payments in access exclusive mode";
    client.batch_execute(lock).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s71_when_no_connection_is_free_reads_and_commands_are_told_soon_and_nothing_piles_up() {
    let options = SiteOptions::default()
        .soon_without_database()
        .with("database.pool_size", 2);
    let world = World::start_with(options).await;
    let paid = world.client.create(purchase("tok_approve", 500)).await;
    let sent = world.books().counts.operations;

    let lock = locked_payments(&world).await;
    let begun = Instant::now();
    let reads = (0..20).map(|_| world.client.call(get(&paid.payment_id)));
    let refunds = (0..20).map(|_| world.client.call(refund(&paid, 10)));
    let (reads, refunds) = tokio::join!(join_all(reads), join_all(refunds));
    let took = begun.elapsed();
    for failure in reads.into_iter().map(|read| read.map(|_| ()).unwrap_err()) {
        failure.is(Code::Unavailable, "DATABASE_UNAVAILABLE");
        assert!(!failure.money_may_have_moved());
    }
    for failure in refunds.into_iter().map(|it| it.map(|_| ()).unwrap_err()) {
        assert_eq!(failure.code, Code::Unavailable, "{failure:?}");
        assert_eq!(failure.reason, "DATABASE_UNAVAILABLE", "not even accepted");
    }
    assert!(took < SOON, "{took:?}");
    assert_eq!(world.books().counts.operations, sent, "nothing was sent");

    drop(lock);
    let refunded = works_again(&world.client, &paid.payment_id).await;
    assert_eq!(refunded, Some(money(10, "EUR")));
    world.everything_agrees().await;
}

/// Payments asked for at once, and how often after the first time; each has as much in it as a caller may say.
const WAVE: usize = 300;
const WAVES: usize = 8;
/// What all waves after the first may add to the most memory that the server has used: they bring 63 MB.
const MEMORY_LIMIT_KB: u64 = 48 * 1024;

/// Asks for many payments at once, none of which can be taken.
async fn ask_in_vain(client: &Client, wave: usize) {
    let asked = (0..WAVE).map(|number| {
        let mut request = purchase("tok_approve", 100).key(&format!("{wave}-{number}"));
        let text = "x".repeat(500);
        request.metadata = (0..50)
            .map(|key| (format!("k{key}"), text.clone()))
            .collect();
        client.call(request)
    });
    for asked in join_all(asked).await {
        let failure = asked.map(|_| ()).unwrap_err();
        let refused = [Code::Unavailable, Code::ResourceExhausted].contains(&failure.code);
        assert!(refused && failure.retryable(), "{failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s71_a_flood_while_the_database_does_not_get_on_takes_bounded_memory() {
    let options = SiteOptions::default()
        .soon_without_database()
        .with("database.pool_size", 2);
    let site = Site::new(options).await;
    let server = ServerProcess::start(&site, Vec::new()).await;
    let paid = server.client.create(purchase("tok_approve", 500)).await;
    let sent = site.books().counts.operations;

    let lock = locked_payments(&site).await;
    ask_in_vain(&server.client, 0).await;
    let before = server.peak_memory_kb();
    for wave in 1..=WAVES {
        ask_in_vain(&server.client, wave).await;
    }
    let grown = server.peak_memory_kb().saturating_sub(before);
    println!("{grown} kB more after {WAVES} waves of {WAVE}, {before} kB after the first");
    assert!(grown < MEMORY_LIMIT_KB, "{grown} kB");
    assert_eq!(site.books().counts.operations, sent, "nothing was sent");

    drop(lock);
    let refunded = works_again(&server.client, &paid.payment_id).await;
    assert_eq!(refunded, Some(money(10, "EUR")));
}

async fn works_again(client: &Client, payment_id: &str) -> Option<quittance_proto::v1::Money> {
    eventually("the service works again by itself", async || {
        let payment = client.call(get(payment_id)).await.ok()?;
        let request = refund(payment.message.payment.as_ref().unwrap(), 10);
        let refunded = client.call(request).await.ok()?;
        Some(refunded.message.payment.unwrap().amount_refunded)
    })
    .await
}
