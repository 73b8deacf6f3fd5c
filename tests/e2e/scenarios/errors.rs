//! Errors of the framework have the form of the contract too.

use std::time::Duration;

use prost::Message as _;
use quittance_proto::v1::ErrorReason;
use quittance_test_support::Direction::ToClient;
use quittance_test_support::Plan;
use tonic::Code;

use crate::harness::site::{TENANT, TENANT_ROLES};
use crate::harness::{Failure, Keyed as _, SiteOptions, World, get, purchase, wire};

const CREATE: &str = "quittance.v1.PaymentService/CreatePayment";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_are_undecodable_and_store_nothing() {
    let world = World::start().await;
    let before = world.db.volume().await;
    for bytes in [
        vec![0xff; 7],
        // A string field whose bytes are not UTF-8.
        vec![0x0a, 0x02, 0xc3, 0x28],
        // A length beyond the end.
        vec![0x0a, 0x7f, b'a'],
        // `amount` as a number.
        vec![0x10, 0x01],
    ] {
        let failure = Failure::from(world.client.raw(CREATE, bytes).await.unwrap_err());
        failure.is(Code::InvalidArgument, "UNDECODABLE_REQUEST");
        assert!(!failure.money_may_have_moved() && !failure.retryable());
    }
    assert_eq!(world.db.volume().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s66_metadata_that_is_not_utf_8_is_undecodable() {
    let world = World::start().await;
    let mut bytes = purchase("tok_approve", 100).encode_to_vec();
    // metadata = 13, an entry whose value is one byte 0xff.
    bytes.extend([0x6a, 0x06, 0x0a, 0x01, b'k', 0x12, 0x01, 0xff]);
    let failure = Failure::from(world.client.raw(CREATE, bytes).await.unwrap_err());
    failure.is(Code::InvalidArgument, "UNDECODABLE_REQUEST");
    assert_eq!(world.db.number("select count(*) from payments").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_methods_and_services_are_named_as_such() {
    let world = World::start().await;
    for method in [
        "quittance.v1.PaymentService/StealPayment",
        "quittance.v1.NoService/Get",
        "x/y",
    ] {
        let failure = Failure::from(world.client.raw(method, Vec::new()).await.unwrap_err());
        failure.is(Code::Unimplemented, "UNKNOWN_METHOD");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_limit_is_refused() {
    let world = World::start().await;
    let mut request = purchase("tok_approve", 100);
    request.description = "x".repeat(300 * 1024);
    let failure = world.client.refused(request).await;
    assert_eq!(failure.reason, "MESSAGE_TOO_LARGE", "{failure:?}");
    assert!(!failure.money_may_have_moved());
    assert_eq!(world.db.number("select count(*) from payments").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_compression_is_refused_in_the_same_form() {
    let world = World::start().await;
    let authorization = format!("Bearer {}", world.api_key(TENANT, &TENANT_ROLES).await);
    let headers = [
        ("authorization", authorization.as_str()),
        ("grpc-encoding", "snappy"),
    ];
    let message = purchase("tok_approve", 100).encode_to_vec();
    let answer = wire::post(world.address(), CREATE, &headers, &message).await;
    let failure = Failure::from(answer.unwrap_err());
    failure.is(Code::Unimplemented, "UNSUPPORTED_COMPRESSION");
    assert!(!failure.money_may_have_moved());
    assert_eq!(world.db.number("select count(*) from payments").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s25_whatever_the_deadline_no_answer_claims_that_nothing_was_sent_when_it_was() {
    let world = World::start().await;
    let authorization = format!("Bearer {}", world.api_key(TENANT, &TENANT_ROLES).await);
    let (mut accepted, mut refused) = (0, 0);
    for timeout in [
        "1n", "1u", "50u", "200u", "500u", "1m", "2m", "4m", "8m", "50m", "150m", "30S",
    ] {
        for round in 0..5 {
            let key = format!("{timeout}-{round}");
            let headers = [
                ("authorization", &*authorization),
                ("grpc-timeout", timeout),
            ];
            let message = purchase("tok_approve?latency_ms=5", 100)
                .key(&key)
                .encode_to_vec();
            match wire::post(world.address(), CREATE, &headers, &message).await {
                Ok(_payment) => accepted += 1,
                Err(status) => {
                    let failure = Failure::from(status);
                    assert!(failure.money_may_have_moved(), "{key}: {failure:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(
        accepted >= 5 && refused >= 5,
        "{accepted} accepted, {refused} refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s69_overload_is_refused_with_nothing_sent() {
    let options = SiteOptions::default()
        .behind_proxies()
        .with("server.limits.max_in_flight", 1);
    let world = World::start_with(options).await;
    let provider = &world.links().provider;
    provider.set(ToClient, Plan::hold_answer_to("POST /").once());
    let slow = world.client.reconnected();
    let busy = tokio::spawn(async move { slow.create(purchase("tok_approve", 100)).await });
    provider.wait_until_held(ToClient).await;
    let failure = world.client.refused(purchase("tok_approve", 100)).await;
    failure.is(Code::ResourceExhausted, "OVERLOADED");
    assert!(failure.retryable() && failure.money_may_have_moved());
    assert!(failure.retry_delay.unwrap() > Duration::ZERO);
    provider.release_then(ToClient, Plan::pass());
    busy.await.unwrap();
    assert_eq!(world.books().counts.operations, 1);
    world.client.create(purchase("tok_approve", 100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_ids_are_echoed_and_every_answer_names_its_trace() {
    let world = World::start().await;
    let client = world.client.with("x-request-id", "order 42/a");
    let answer = client.ok(purchase("tok_approve", 1)).await;
    assert_eq!(
        crate::harness::client::text(&answer.metadata, "x-request-id"),
        "order 42/a"
    );
    assert_eq!(answer.trace_id().len(), 32);
    let failure = client.refused(get("no-uuid")).await;
    failure
        .is(Code::InvalidArgument, "INVALID_FIELD")
        .names(&["payment_id"]);
    let headers = failure.status.metadata();
    assert_eq!(
        crate::harness::client::text(headers, "x-request-id"),
        "order 42/a"
    );
    assert_eq!(
        crate::harness::client::text(headers, "quittance-trace-id").len(),
        32
    );
}

#[test]
fn every_error_reason_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
    let documented = std::fs::read_to_string(path).unwrap();
    for number in 1..=47 {
        let reason = ErrorReason::try_from(number).unwrap();
        let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
        assert!(documented.contains(name), "{name} is not in docs/errors.md");
    }
}
