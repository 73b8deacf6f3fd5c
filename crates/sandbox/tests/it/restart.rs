//! The books file.

use crate::client::{Client, config};
use quittance_sandbox::{OperationStatus, Sandbox};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

#[tokio::test]
async fn a_restart_forgets_neither_charges_nor_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("books.jsonl");
    let start = async || {
        let mut config = config();
        config.persist = Some(path.clone());
        Client::with(config).await
    };
    let client = start().await;
    let id = client
        .pay("a", "tok_approve?capture.drop=after", false)
        .await
        .operation()
        .payment_id;
    client.pay("b", "tok_decline", true).await.operation();
    client
        .pay("p", "tok_pending_then_approve", true)
        .await
        .operation();
    let refused = client.refund(&id, "f", 5).await;
    let first = client.pay("m", "tok_malformed_response", true).await;
    let before = client.sandbox.operations(0, 1000);
    let mut books = client.sandbox.books();
    client.sandbox.shutdown().await;

    // The process died while it was writing a line.
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(br#"{"operations":[[9,{"id""#).unwrap();
    drop(file);

    let client = start().await;
    books.counts.replays = 0;
    assert_eq!(client.sandbox.books(), books);
    assert_eq!(client.sandbox.operations(0, 1000), before);
    assert!(client.pay("b", "tok_decline", true).await.replayed);
    assert_eq!(
        client.pay("m", "tok_malformed_response", true).await.bytes,
        first.bytes
    );
    assert_eq!(client.refund(&id, "f", 5).await.bytes, refused.bytes);
    assert_eq!(
        client.look_up("p").await.operation().status,
        OperationStatus::Approved
    );
    assert!(client.try_post(
        &format!("/v1/payments/{id}/captures"),
        "c",
        &serde_json::json!({"reference": "c", "amount": 1000, "currency": "EUR", "final": true}),
    )
    .await
    .is_err(), "the payment remembers its faults");
    let mut books = client.sandbox.books();
    books.counts.replays = 0;
    client.sandbox.shutdown().await;

    let client = start().await;
    assert_eq!(client.sandbox.books(), books);
    assert_eq!(client.charges("c"), (1, 1000));
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn a_books_file_that_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("books.jsonl");
    std::fs::write(&path, "{\"operations\": 7}\n").unwrap();
    let mut config = config();
    config.persist = Some(path);
    let error = Sandbox::start(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains("line 1"), "{error}");
}
