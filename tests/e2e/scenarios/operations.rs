//! Running it: stopping with calls in flight, without a collector, and side by side.

use std::time::Duration;

use quittance_proto::v1::PaymentState;
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::process::ServerProcess;
use crate::harness::tls::pki;
use crate::harness::{
    Client, Keyed as _, Site, SiteOptions, World, eventually, get_by_key, purchase, sync,
};

async fn accepted(site: &Site, count: i64) {
    eventually("the payment is accepted", async || {
        (site.db.number("select count(*) from payments").await == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s73_stopping_waits_for_the_calls_in_flight() {
    let world = World::start().await;
    let client = world.client.reconnected();
    let call = tokio::spawn(async move {
        client
            .create(purchase("tok_approve?latency_ms=700", 100))
            .await
    });
    accepted(&world, 1).await;
    let (site, in_time) = world.shut_down().await;
    assert!(in_time);
    assert_eq!(call.await.unwrap().state(), PaymentState::Captured);
    assert_eq!(site.books().counts.purchases, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s73_stopping_waits_for_a_payment_whose_caller_has_gone() {
    let world = World::start().await;
    let client = world.client.reconnected();
    let call = tokio::spawn(async move {
        client
            .send(purchase("tok_approve?latency_ms=700", 100))
            .await
    });
    accepted(&world, 1).await;
    call.abort();
    let (site, in_time) = world.shut_down().await;
    assert!(in_time);
    let state: String = site.db.row("select state from payments", &[]).await.get(0);
    assert_eq!(state, "CAPTURED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s73_sigterm_finishes_the_calls_in_flight_and_exits_cleanly() {
    let site = Site::new(SiteOptions::default()).await;
    let mut server = ServerProcess::start(&site, Vec::new()).await;
    let client = server.client.clone();
    let call = tokio::spawn(async move {
        client
            .create(purchase("tok_approve?latency_ms=700", 100))
            .await
    });
    accepted(&site, 1).await;
    server.terminate();
    assert_eq!(call.await.unwrap().state(), PaymentState::Captured);
    assert!(server.ended().await.success(), "{}", server.log());
    let late = Client::new(server.address)
        .send(purchase("tok_approve", 1))
        .await;
    assert_eq!(late.unwrap_err().code(), tonic::Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s81_without_its_collector_payments_go_on() {
    // One that nobody listens on, and one that accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = [
        "http://127.0.0.1:1".to_owned(),
        format!("http://{}", silent.local_addr().unwrap()),
    ];
    for endpoint in endpoints {
        let site = Site::new(SiteOptions::default()).await;
        let settings = vec![
            ("telemetry.otlp_endpoint", endpoint.into()),
            ("telemetry.otlp_protocol", "grpc".into()),
            ("telemetry.shutdown_timeout_ms", 500.into()),
        ];
        let server = ServerProcess::start(&site, settings).await;
        let client = server.client.within(Duration::from_secs(25));
        for _ in 0..50 {
            let answer = client.ok(purchase("tok_approve", 100)).await;
            assert_eq!(
                answer.message.payment.clone().unwrap().state(),
                PaymentState::Captured
            );
            // The audit entries have their trace all the same.
            let payment_id = answer.message.payment.as_ref().unwrap().payment_id.clone();
            let entries = client.entries_of(&payment_id).await;
            assert!(
                entries
                    .iter()
                    .all(|entry| entry.trace_id == answer.trace_id())
            );
            assert_eq!(entries.len(), 2);
        }
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s82_a_replica_killed_in_the_middle_of_a_payment_loses_nothing() {
    let world = World::start().await;
    let victim = ServerProcess::start(&world, Vec::new()).await;
    let client = victim.client.clone();
    let call = tokio::spawn(async move {
        client
            .send(purchase("tok_approve?latency_ms=60000", 100).key("killed"))
            .await
    });
    eventually("the provider has charged", async || {
        (world.books().counts.purchases == 1).then_some(())
    })
    .await;
    // SIGKILL.
    drop(victim);
    assert!(call.await.unwrap().is_err());
    let pending = world
        .client
        .ok(get_by_key("killed"))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(pending.state(), PaymentState::Pending);
    let paid = world
        .client
        .ok(sync(&pending))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!(paid.state(), PaymentState::Captured);
    assert_eq!(
        world.charged(&paid.transactions[0].transaction_id).charges,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_readiness_and_metrics_are_served() {
    let world = World::start().await;
    for service in [
        "",
        "quittance.v1.PaymentService",
        "quittance.v1.AuditService",
        "quittance.v1.AdminService",
    ] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let channel: Channel = Client::new(world.address()).channel();
        let answer = HealthClient::new(channel)
            .check(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let payment = world.client.create(purchase("tok_approve", 100)).await;

    let ca = reqwest::Certificate::from_pem(pki().ca_pem.as_bytes()).unwrap();
    let http = reqwest::Client::builder()
        .tls_certs_only([ca])
        .build()
        .unwrap();
    let get = async |path: &str| {
        let url = format!(
            "https://localhost:{}{path}",
            world.server.http_addr().port()
        );
        let answer = http.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await.0, 200);
    assert_eq!(get("/readyz").await.0, 200);
    assert_eq!(get("/nothing").await.0, 404);
    let (status, metrics) = get("/metrics").await;
    assert_eq!(status, 200);
    for name in [
        "rpc_server_call_duration",
        "payment_attempts",
        "payment_commit_batch_size",
    ] {
        assert!(metrics.contains(name), "{name} is missing:\n{metrics}");
    }
    assert!(metrics.contains("quittance.v1.PaymentService/CreatePayment"));
    assert!(
        !metrics.contains(&payment.payment_id),
        "no payment ids as labels"
    );
}
