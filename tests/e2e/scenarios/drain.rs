//! SIGTERM: what is under way is finished, within a limit; what is not is told truthfully, and recovered.

use quittance_proto::v1::PaymentState;
use quittance_test_support::Direction::ToClient;
use quittance_test_support::Plan;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::process::ServerProcess;
use crate::harness::tls::pki;
use crate::harness::{
    Client, Failure, Keyed as _, Site, SiteOptions, World, eventually, next_told, purchase,
    until_resolved_by_key,
};

async fn charged(site: &Site, count: u64) {
    eventually("the provider has charged", async || {
        (site.books().counts.purchases == count).then_some(())
    })
    .await;
}

fn http() -> reqwest::Client {
    let ca = reqwest::Certificate::from_pem(pki().ca_pem.as_bytes()).unwrap();
    // A connection for each request, as probes make them.
    let builder = reqwest::Client::builder().pool_max_idle_per_host(0);
    builder.tls_certs_only([ca]).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s73_while_it_drains_it_says_so_takes_nothing_new_and_finishes_what_it_has() {
    // Whoever watches its health keeps a connection open for as long.
    let options = SiteOptions::default().with("server.shutdown_grace_seconds", 15);
    let site = Site::new(options.behind_proxies()).await;
    let provider = &site.links().provider;
    provider.set(ToClient, Plan::hold_answer_to("POST /").once());
    let mut server = ServerProcess::start(&site, Vec::new()).await;
    let client = server.client.clone();
    let call = tokio::spawn(async move { client.create(purchase("tok_approve", 100)).await });
    provider.wait_until_held(ToClient).await;
    let watching = Client::new(server.address).channel();
    let request = HealthCheckRequest::default();
    let watched = HealthClient::new(watching).watch(request).await;
    let mut health = watched.unwrap().into_inner();
    let serving = next_told(&mut health).await.unwrap().unwrap().status();
    assert_eq!(serving, ServingStatus::Serving);

    server.terminate();
    let url = |path: &str| format!("https://localhost:{}{path}", server.http_address().port());
    eventually("it is not ready any more", async || {
        let answer = http().get(url("/readyz")).send().await.ok()?;
        (answer.status().as_u16() == 503).then_some(())
    })
    .await;
    let next = next_told(&mut health).await;
    let said = next.map(|status| status.map(|status| status.status()));
    // It may end the stream instead, which says the same.
    let ended = said.as_ref().map_or(true, Option::is_none);
    assert!(
        ended || matches!(said, Ok(Some(ServingStatus::NotServing))),
        "{said:?}"
    );
    let alive = http().get(url("/healthz")).send().await.unwrap();
    assert_eq!(alive.status().as_u16(), 200, "alive until its end");
    let metrics = http().get(url("/metrics")).send().await.unwrap();
    assert!(metrics.text().await.unwrap().contains("payment_attempts"));
    let late = server.client.reconnected();
    let late = late.send(purchase("tok_approve", 1)).await;
    assert_eq!(late.unwrap_err().code(), Code::Unavailable);

    provider.release_then(ToClient, Plan::pass());
    assert_eq!(call.await.unwrap().state(), PaymentState::Captured);
    assert!(server.ended().await.success(), "{}", server.log());
    assert_eq!(site.books().counts.purchases, 1);
    site.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s73_what_does_not_end_in_time_is_answered_truthfully_and_recovered_elsewhere() {
    let site = Site::new(SiteOptions::default().recovering()).await;
    let settings = vec![("server.shutdown_grace_seconds", 1.into())];
    let mut server = ServerProcess::start(&site, settings).await;
    let client = server.client.clone();
    let call = tokio::spawn(async move {
        let request = purchase("tok_approve?latency_ms=60000", 100).key("cut-off");
        client.send(request).await
    });
    charged(&site, 1).await;
    server.terminate();
    let failure = Failure::from(call.await.unwrap().unwrap_err());
    failure.is(Code::Unavailable, "ACCEPTANCE_UNKNOWN");
    assert!(failure.money_may_have_moved(), "{failure:?}");
    assert!(server.ended().await.success(), "{}", server.log());
    site.all_senders_are_gone().await;

    let world = World::on(site, Vec::new()).await;
    let paid = until_resolved_by_key(&world.client, "cut-off").await;
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(world.books().counts.purchases, 1);
    world.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s73_recovery_claims_nothing_more_and_finishes_what_it_has_begun() {
    let options = SiteOptions::impatient()
        .recovering()
        .with("recovery.concurrency_per_account", 1);
    let world = World::start_with(options).await;
    for _ in 0..12 {
        let lost = purchase("tok_approve?drop=after", 100);
        world.client.create(lost).await;
    }
    let (site, in_time) = world.shut_down().await;
    assert!(in_time);
    let claimed = "select count(*) from transactions where claimed_until > now()";
    assert_eq!(site.db.number(claimed).await, 0, "nothing is left claimed");
    // Another server finishes.
    let world = World::on(site, Vec::new()).await;
    let pending = "select count(*) from payments where state = 'PENDING'";
    eventually("the rest is found out", async || {
        (world.db.number(pending).await == 0).then_some(())
    })
    .await;
    assert_eq!(world.books().counts.purchases, 12);
    world.everything_agrees().await;
}
