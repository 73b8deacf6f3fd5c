//! The provider is away while payments come in, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use quittance_proto::v1::PaymentState;
use quittance_test_support::FaultProxy;
use toml::Value;

use crate::harness::meter::Meter;
use crate::harness::site::{ACCOUNT, PROVIDER_TIMEOUT_MS, account};
use crate::harness::{Client, PATIENCE, Site, SiteOptions, World, eventually_within, purchase};

/// Payments that come in during the outage; the long run is of a thousand.
const PAYMENTS: &str = "QUITTANCE_OUTAGE_PAYMENTS";
const PAYMENTS_USUALLY: u32 = 60;
/// Callers at once, by turns at each of the servers.
const CALLERS: usize = 25;
/// Callers that go on after the outage, each with one payment after the other.
const NEW_CALLERS: usize = 4;
/// How long each of them waits in between.
const BETWEEN: Duration = Duration::from_millis(50);
/// Servers.
const REPLICAS: i64 = 2;
/// Transactions of the account that recovery takes up at once here, on each server.
const AT_ONCE: i64 = 8;
/// Longest time from the return to the first probes, and to the last wait's end: both limits of the defaults.
const LONGEST_WAITS: Duration = Duration::from_secs(60);
/// The pace that is demanded of a machine that is busy with other tests.
const PER_SECOND: f64 = 8.0;

fn payment() -> quittance_proto::v1::CreatePaymentRequest {
    purchase("tok_approve?latency_ms=20", 100)
}

/// New payments, until they are stopped: how many, and how many were charged before their answer.
async fn new_traffic(client: Client, stopped: Arc<AtomicBool>) -> (u64, u64) {
    let (mut made, mut at_once) = (0, 0);
    while !stopped.load(Ordering::SeqCst) {
        let payment = client.create(payment()).await;
        made += 1;
        at_once += u64::from(payment.state() == PaymentState::Captured);
        tokio::time::sleep(BETWEEN).await;
    }
    (made, at_once)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_after_an_outage_all_that_waited_is_sent_at_a_bounded_pace() {
    let payments = std::env::var(PAYMENTS).map_or(PAYMENTS_USUALLY, |text| text.parse().unwrap());
    let site = Site::new(SiteOptions::default()).await;
    // The circuit and the schedules are the product's own.
    let meter = Meter::before(site.sandbox.addr()).await;
    let link = FaultProxy::start(meter.address()).await;
    let base_url = format!("http://{}", link.address());
    let only = Value::from(account(ACCOUNT, &base_url, PROVIDER_TIMEOUT_MS));
    let settings = vec![
        ("providers.accounts", Value::from(vec![only])),
        ("recovery.enabled", Value::from(true)),
        ("recovery.concurrency_per_account", Value::from(AT_ONCE)),
    ];
    let world = World::on(site, settings.clone()).await;
    let other = world.replica_with(settings).await;
    let clients = [&world.client, &other.client];
    // Some were charged, and nobody heard of it.
    for _ in 0..5 {
        let lost = purchase("tok_approve?drop=after", 100);
        world.client.create(lost).await;
    }
    link.refuse_connections().await;
    link.cut_all(quittance_test_support::Cut::Close).await;
    let away = Instant::now();
    let create = async |at: u32| {
        let client = clients[usize::from(at.is_multiple_of(2))];
        let payment = client.create(payment()).await;
        assert_eq!(payment.state(), PaymentState::Pending);
    };
    stream::iter(0..payments)
        .for_each_concurrent(CALLERS, create)
        .await;

    meter.reset();
    let stopped = Arc::<AtomicBool>::default();
    let traffic: Vec<_> = (0..NEW_CALLERS)
        .map(|at| clients[at % 2].clone())
        .map(|client| tokio::spawn(new_traffic(client, Arc::clone(&stopped))))
        .collect();
    let waiting = world
        .db
        .number("select count(*) from payments where state = 'PENDING'")
        .await;
    let until = "select (extract(epoch from now()) * 1000000)::bigint";
    let until = world.db.number(until).await;
    link.accept_connections().await;
    let (lasted, back) = (away.elapsed(), Instant::now());
    let limit =
        LONGEST_WAITS + PATIENCE + Duration::from_secs_f64(f64::from(payments) / PER_SECOND);
    let left = format!(
        "select count(*) from payments where state = 'PENDING' \
         and created_at <= to_timestamp({until} / 1000000.0)"
    );
    eventually_within(limit, "all that waited are resolved", async || {
        (world.db.number(&left).await == 0).then_some(())
    })
    .await;
    let took = back.elapsed();
    let load = meter.load();
    stopped.store(true, Ordering::SeqCst);
    let (mut made, mut at_once) = (0, 0);
    for traffic in traffic {
        let (more, charged) = traffic.await.unwrap();
        (made, at_once) = (made + more, at_once + charged);
    }
    let allowed = REPLICAS * AT_ONCE + i64::try_from(NEW_CALLERS).unwrap();
    println!(
        "an outage of {lasted:?} left {waiting} payments: all resolved {took:?} after the provider's return \
         ({:.2} times the outage), while {made} new ones came, {at_once} charged at once; {} requests, {} at once at most \
         ({allowed} allowed), {} within a second at most",
        took.as_secs_f64() / lasted.as_secs_f64(),
        load.requests,
        load.peak,
        load.peak_per_second,
    );
    assert!(load.peak <= allowed, "a herd of {}", load.peak);
    let none = "select count(*) from payments where state = 'PENDING'";
    eventually_within(limit, "the new ones are resolved", async || {
        (world.db.number(none).await == 0).then_some(())
    })
    .await;
    let charged = world.books().counts.purchases;
    assert_eq!(charged, u64::from(payments) + 5 + made);
    world.everything_agrees().await;
}
