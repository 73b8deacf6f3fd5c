//! The provider is away while payments come in, and comes back.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use quittance_proto::v1::PaymentState;
use quittance_test_support::FaultProxy;
use toml::Value;

use crate::harness::meter::Meter;
use crate::harness::site::{ACCOUNT, account};
use crate::harness::{Site, SiteOptions, World, purchase};

/// Payments that come in during the outage; the long run is of a thousand.
const PAYMENTS: &str = "QUITTANCE_OUTAGE_PAYMENTS";
const PAYMENTS_USUALLY: u32 = 60;
/// Callers at once.
const CALLERS: usize = 25;
/// Transactions of the account that recovery takes up at once here.
const AT_ONCE: i64 = 8;
/// Longest time from the return to the first probes, and to the last wait's end: both limits of the defaults.
const LONGEST_WAITS: Duration = Duration::from_secs(60);
/// The pace that is demanded of a machine that is busy with other tests.
const PER_SECOND: f64 = 8.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s13_after_an_outage_all_that_waited_is_sent_at_a_bounded_pace() {
    let payments = std::env::var(PAYMENTS).map_or(PAYMENTS_USUALLY, |text| text.parse().unwrap());
    let site = Site::new(SiteOptions::default()).await;
    // The circuit and the schedules are the product's own.
    let meter = Meter::before(site.sandbox.addr()).await;
    let link = FaultProxy::start(meter.address()).await;
    let base_url = format!("http://{}", link.address());
    let only = Value::from(account(ACCOUNT, &base_url, 5_000));
    let settings = vec![
        ("providers.accounts", Value::from(vec![only])),
        ("recovery.enabled", Value::from(true)),
        ("recovery.concurrency_per_account", Value::from(AT_ONCE)),
    ];
    let world = World::on(site, settings).await;
    // Some were charged, and nobody heard of it.
    for _ in 0..5 {
        let lost = purchase("tok_approve?drop=after", 100);
        world.client.create(lost).await;
    }
    link.refuse_connections().await;
    link.cut_all(quittance_test_support::Cut::Close).await;
    let create = async |_| {
        let request = purchase("tok_approve?latency_ms=20", 100);
        let payment = world.client.create(request).await;
        assert_eq!(payment.state(), PaymentState::Pending);
    };
    stream::iter(0..payments)
        .for_each_concurrent(CALLERS, create)
        .await;

    meter.reset();
    link.accept_connections().await;
    let back = Instant::now();
    let limit = LONGEST_WAITS + Duration::from_secs_f64(f64::from(payments) / PER_SECOND);
    let left = "select count(*) from payments where state = 'PENDING'";
    while world.db.number(left).await > 0 {
        let waiting = world.db.number(left).await;
        assert!(back.elapsed() < limit, "{waiting} left after {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = back.elapsed();
    let (peak, requests) = meter.peak_and_total();
    println!(
        "after an outage with {payments} payments: all resolved {took:?} after the provider's return, \
         {requests} requests, {peak} at once at most"
    );
    assert!(peak <= AT_ONCE, "a herd of {peak}");
    assert_eq!(world.books().counts.purchases, u64::from(payments) + 5);
    world.everything_agrees().await;
}
