//! What is refused, and that refusals say nothing of what was sent.

use crate::client::{Client, KEY, config, payment};
use quittance_sandbox::{Sandbox, WebhookConfig};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn bad_requests_are_refused_and_nothing_is_stored() {
    let client = Client::new().await;
    let with = |field: &str, value: Value| {
        let mut body = payment("r1", "tok_approve", true);
        body[field] = value;
        body
    };
    for (body, status, code) in [
        (with("amount", json!(0)), 422, "invalid_amount"),
        (with("amount", json!(-5)), 422, "invalid_amount"),
        (with("amount", json!(1.5)), 400, "malformed_request"),
        (with("amount", json!(u64::MAX)), 400, "malformed_request"),
        (with("currency", json!("eur")), 422, "invalid_currency"),
        (with("currency", json!("EURO")), 422, "invalid_currency"),
        (with("reference", json!("")), 422, "invalid_reference"),
        (
            with("reference", json!("x".repeat(65))),
            422,
            "invalid_reference",
        ),
        (with("reference", json!("a b")), 422, "invalid_reference"),
        (
            with("token", json!("4242424242424242")),
            422,
            "unknown_token",
        ),
        (
            with("description", json!("x".repeat(1001))),
            422,
            "too_long",
        ),
        (
            with("description", json!("x".repeat(70_000))),
            413,
            "body_too_large",
        ),
        (
            with("capture", json!("4242424242424242")),
            400,
            "malformed_request",
        ),
    ] {
        let refused = client.post("/v1/payments", "k", &body).await;
        assert_eq!(
            (refused.status.as_u16(), refused.error_code().as_str()),
            (status, code)
        );
        assert!(!String::from_utf8(refused.bytes).unwrap().contains("4242"));
    }
    let most = with("amount", json!(i64::MAX));
    client.post("/v1/payments", "k", &most).await.operation();
    let most = with("token", json!("tok_wrong_amount"));
    let mut over = most.clone();
    over["amount"] = json!(i64::MAX);
    assert_eq!(
        client.post("/v1/payments", "k2", &over).await.error_code(),
        "invalid_fault"
    );
    client.post("/v1/payments", "k2", &most).await.operation();
    assert_eq!(client.sandbox.books().counts.operations, 2);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn keys_and_api_keys_are_needed() {
    let client = Client::new().await;
    let url = format!("{}/v1/payments", client.sandbox.base_url());
    let body = payment("r1", "tok_approve", true);
    let post = || client.http.post(&url).json(&body);
    let long = "k".repeat(256);
    assert_eq!(
        post()
            .header("idempotency-key", "k")
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    let wrong = post().bearer_auth("wrong").header("idempotency-key", "k");
    assert_eq!(wrong.send().await.unwrap().status(), 401);
    assert_eq!(post().bearer_auth(KEY).send().await.unwrap().status(), 400);
    let longer = post().bearer_auth(KEY).header("idempotency-key", &long);
    assert_eq!(longer.send().await.unwrap().status(), 400);
    let books = client
        .http
        .get(format!("{}/books", client.sandbox.base_url()));
    assert_eq!(books.send().await.unwrap().status(), 401);
    assert_eq!(client.get("/nowhere").await.status, 404);
    assert_eq!(client.get("/v1/payments").await.status, 405);
    assert_eq!(client.sandbox.books().counts.operations, 0);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn full_books_refuse_rather_than_forget() {
    let mut config = config();
    config.max_stored_operations = 2;
    let client = Client::with(config).await;
    client.pay("r1", "tok_approve", true).await.operation();
    client.pay("r2", "tok_approve", true).await.operation();
    let full = client.pay("r3", "tok_approve", true).await;
    assert_eq!(
        (full.status.as_u16(), full.error_code().as_str()),
        (503, "books_full")
    );
    assert!(client.pay("r1", "tok_approve", true).await.replayed);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn within_the_lookup_window_not_found_proves_nothing() {
    let mut config = config();
    config.lookup_window = Duration::from_secs(600);
    let client = Client::with(config).await;
    client.pay("r1", "tok_approve", true).await.operation();
    let found = client.look_up("r1").await;
    assert_eq!(found.status, 404);
    assert_eq!(found.json()["authoritative"], false);
    assert_eq!(client.charges("r1").0, 1);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_and_secrets_are_not_shown() {
    let mut config = config();
    config.webhook = Some(WebhookConfig {
        url: "http://127.0.0.1:9/".to_owned(),
        secret: "whsec_c2hvcnQ=".to_owned(),
        ca_pem: None,
    });
    let shown = format!("{config:?}");
    assert!(!shown.contains(KEY) && !shown.contains("whsec"), "{shown}");
    let error = Sandbox::start(config).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
