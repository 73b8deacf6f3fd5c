//! Faults by parameter, by the control API, and outages.

use crate::client::{Client, KEY, eventually, payment};
use serde_json::json;
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn parameters_spoil_as_many_sends_as_they_say() {
    let client = Client::new().await;
    let token = "tok_approve?status=503&times=2";
    for _ in 0..2 {
        assert_eq!(client.pay("r1", token, true).await.status, 503);
    }
    client.pay("r1", token, true).await.operation();
    assert_eq!(client.charges("r1").0, 1);

    let token = "tok_approve?drop=before&latency_ms=20";
    assert!(client.try_pay("r2", token).await.is_err());
    assert_eq!(client.charges("r2").0, 0);
    assert!(!client.pay("r2", token, true).await.replayed);

    assert!(
        client
            .try_pay("r3", "tok_approve?drop=after")
            .await
            .is_err()
    );
    assert_eq!(client.charges("r3").0, 1);
    assert!(
        client
            .pay("r3", "tok_approve?drop=after", true)
            .await
            .replayed
    );

    let token = "tok_approve?status_after=502";
    for _ in 0..2 {
        assert_eq!(client.pay("r4", token, true).await.status, 502);
    }
    assert_eq!(client.charges("r4").0, 1);
    client.look_up("r4").await.operation();

    let begun = Instant::now();
    client
        .pay("r5", "tok_approve?latency_ms=120", true)
        .await
        .operation();
    assert!(begun.elapsed() >= Duration::from_millis(120));

    for bad in [
        "tok_approve?drop=never",
        "tok_approve?nope=1",
        "tok_approve?status=200",
    ] {
        assert_eq!(
            client.pay("r6", bad, true).await.error_code(),
            "invalid_fault",
            "{bad}"
        );
    }
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn prefixed_parameters_spoil_later_operations() {
    let client = Client::new().await;
    let token = "tok_approve?capture.drop=after&refund.status=500&void.malformed=1";
    let id = client.pay("a", token, false).await.operation().payment_id;
    let path = format!("/v1/payments/{id}/captures");
    let body = json!({"reference": "c", "amount": 400, "currency": "EUR", "final": false});
    assert!(client.try_post(&path, "c", &body).await.is_err());
    assert_eq!(client.charges("c"), (1, 400));
    assert!(client.post(&path, "c", &body).await.replayed);
    assert_eq!(client.refund(&id, "f", 100).await.status, 500);
    client.refund(&id, "f", 100).await.operation();
    let void = client.void(&id, "v").await;
    assert!(serde_json::from_slice::<serde_json::Value>(&void.bytes).is_err());
    assert_eq!(client.charges("v"), (1, 600));
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn armed_faults_hit_what_they_match() {
    let client = Client::new().await;
    let fault = json!({"match": {"kind": "lookup", "reference": "r1"},
                       "fault": {"status": 500}, "times": 2});
    assert_eq!(
        client.post("/control/faults", "-", &fault).await.status,
        204
    );
    client.pay("r1", "tok_approve", true).await.operation();
    client.pay("r2", "tok_approve", true).await.operation();
    client.look_up("r2").await.operation();
    for _ in 0..2 {
        assert_eq!(client.look_up("r1").await.status, 500);
    }
    client.look_up("r1").await.operation();

    // A replay meets an armed fault too.
    client
        .post(
            "/control/faults",
            "-",
            &json!({"fault": {"malformed": true}}),
        )
        .await;
    let spoiled = client.pay("r1", "tok_approve", true).await;
    assert!(serde_json::from_slice::<serde_json::Value>(&spoiled.bytes).is_err());
    client.pay("r1", "tok_approve", true).await.operation();

    client
        .post(
            "/control/faults",
            "-",
            &json!({"fault": {"drop": "before"}}),
        )
        .await;
    let url = format!("{}/control/faults", client.sandbox.base_url());
    let cleared = client
        .http
        .delete(url)
        .bearer_auth(KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(cleared.status(), 204);
    client.pay("r3", "tok_approve", true).await.operation();
    let bad = client
        .post("/control/faults", "-", &json!({"fault": {"status": 99}}))
        .await;
    assert_eq!(bad.error_code(), "invalid_fault");
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn a_reset_is_a_reset_in_mid_answer() {
    let client = Client::new().await;
    let body = payment("r1", "tok_reset_after_charge", true).to_string();
    let request = format!(
        "POST /v1/payments HTTP/1.1\r\nhost: sandbox\r\nauthorization: Bearer {KEY}\r\n\
         idempotency-key: r1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(client.sandbox.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("spay_") && !answer.contains("created_at"),
        "half: {answer}"
    );
    assert_eq!(client.charges("r1").0, 1);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn outages_process_nothing() {
    let client = Client::new().await;
    for mode in ["refuse", "hang"] {
        client
            .post("/control/outage", "-", &json!({"mode": mode}))
            .await;
        assert!(client.try_pay(mode, "tok_approve").await.is_err());
        client
            .post("/control/outage", "-", &json!({"mode": "none"}))
            .await;
        assert_eq!(client.charges(mode).0, 0);
        client.pay(mode, "tok_approve", true).await.operation();
    }
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn a_closed_door_refuses_connections() {
    let client = Client::new().await;
    client.pay("r0", "tok_approve", true).await.operation();
    client.sandbox.pause_accepting().await;
    let refused = TcpStream::connect(client.sandbox.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(client.try_pay("r1", "tok_approve").await.is_err());
    client.sandbox.resume().await.unwrap();
    client.pay("r1", "tok_approve", true).await.operation();
    assert_eq!(client.charges("r0").0, 1, "the books stay");

    let outage = json!({"mode": "refuse", "for_ms": 100});
    let addr = client.sandbox.addr();
    // It may be over before a busy machine looks.
    eventually("refusal", async || {
        // The answer may be cut off together with the connection.
        let _ = client.try_post("/control/outage", "-", &outage).await;
        TcpStream::connect(addr).await.err()
    })
    .await;
    eventually("return", async || TcpStream::connect(addr).await.ok()).await;
    client.sandbox.shutdown().await;
}
