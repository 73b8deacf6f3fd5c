//! Authorize, capture, void, refund, idempotency, books.

use crate::client::{Client, payment};
use quittance_sandbox::{OperationKind, OperationPage, PaymentStatus, PaymentView};
use serde_json::json;

async fn view(client: &Client, id: &str) -> PaymentView {
    serde_json::from_value(client.get(&format!("/v1/payments/{id}")).await.json()).unwrap()
}

#[tokio::test]
async fn authorize_two_captures_partial_refund() {
    let client = Client::new().await;
    let authorized = client.pay("a", "tok_approve", false).await.operation();
    assert_eq!(authorized.kind, OperationKind::Authorization);
    assert!(authorized.expires_at.unwrap() > authorized.created_at);
    let id = authorized.payment_id;
    assert_eq!(view(&client, &id).await.status, PaymentStatus::Authorized);
    assert_eq!(
        client.refund(&id, "early", 1).await.error_code(),
        "invalid_state"
    );

    client.capture(&id, "c1", 300, false).await.operation();
    assert_eq!(
        view(&client, &id).await.status,
        PaymentStatus::PartiallyCaptured
    );
    let over = client.capture(&id, "c2", 701, false).await;
    assert_eq!(
        (over.status.as_u16(), over.error_code().as_str()),
        (422, "amount_too_large")
    );
    assert!(
        client.capture(&id, "c2", 701, false).await.replayed,
        "state refusals are stored"
    );
    client.capture(&id, "c3", 500, true).await.operation();
    let now = view(&client, &id).await;
    assert_eq!(
        (now.status, now.captured, now.voided),
        (PaymentStatus::Captured, 800, 200)
    );
    assert_eq!(
        client.capture(&id, "c4", 1, false).await.error_code(),
        "invalid_state"
    );

    client.refund(&id, "f1", 100).await.operation();
    assert_eq!(
        view(&client, &id).await.status,
        PaymentStatus::PartiallyRefunded
    );
    assert_eq!(
        client.refund(&id, "f2", 701).await.error_code(),
        "amount_too_large"
    );
    client.refund(&id, "f3", 700).await.operation();
    assert_eq!(view(&client, &id).await.status, PaymentStatus::Refunded);

    let books = client.sandbox.books();
    let eur = books.currencies["EUR"];
    assert_eq!((eur.authorized, eur.captured, eur.voided), (1000, 800, 200));
    assert_eq!((eur.refunded, eur.charges), (800, 1));
    assert_eq!((books.counts.captures, books.counts.refunds), (2, 2));
    let over_http: quittance_sandbox::Books =
        serde_json::from_value(client.get("/books").await.json()).unwrap();
    assert_eq!(over_http, books);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn void_releases_what_is_left() {
    let client = Client::new().await;
    let id = client
        .pay("a", "tok_approve", false)
        .await
        .operation()
        .payment_id;
    client.capture(&id, "c", 400, false).await.operation();
    let void = client.void(&id, "v").await.operation();
    assert_eq!((void.kind, void.amount), (OperationKind::Void, 600));
    assert_eq!(view(&client, &id).await.status, PaymentStatus::Captured);
    assert_eq!(client.void(&id, "v2").await.error_code(), "invalid_state");

    let id = client
        .pay("b", "tok_requires_action", false)
        .await
        .operation()
        .payment_id;
    assert_eq!(client.void(&id, "w").await.operation().amount, 0);
    assert_eq!(view(&client, &id).await.status, PaymentStatus::Failed);
    assert_eq!(
        client
            .void("spay_00000000000000000000000000000000", "x")
            .await
            .status,
        404
    );
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn one_key_one_charge_another_key_another_charge() {
    let client = Client::new().await;
    let body = payment("r1", "tok_approve", true);
    let sends = (0..50).map(|_| client.post("/v1/payments", "k1", &body));
    let answers = futures::future::join_all(sends).await;
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.bytes == answers[0].bytes)
    );
    assert_eq!(client.charges("r1"), (1, 1000));

    let mut other = body.clone();
    other["amount"] = json!(1001);
    let refused = client.post("/v1/payments", "k1", &other).await;
    let code = refused.error_code();
    assert_eq!(
        (refused.status.as_u16(), code.as_str()),
        (400, "idempotency_mismatch")
    );

    // The books can show a double charge: nothing but the key prevents one.
    client.post("/v1/payments", "k2", &body).await.operation();
    assert_eq!(client.charges("r1"), (2, 2000));
    assert_eq!(client.sandbox.books().counts.replays, 49);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn books_are_paged_in_order() {
    let client = Client::new().await;
    for n in 0..7 {
        client
            .pay(&format!("r{n}"), "tok_approve", true)
            .await
            .operation();
    }
    let (mut seen, mut after) = (Vec::new(), Some(0));
    while let Some(cursor) = after {
        let page = client
            .get(&format!("/books?after={cursor}&limit=3"))
            .await
            .json();
        let page: OperationPage = serde_json::from_value(page).unwrap();
        seen.extend(
            page.operations
                .into_iter()
                .map(|operation| operation.reference),
        );
        after = page.next;
    }
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4", "r5", "r6"]);
    assert_eq!(client.get("/books?limit=0").await.status, 422);
    assert_eq!(client.get("/books?after=x").await.status, 400);
    let unknown = client.get("/books/unknown").await.json();
    assert_eq!(
        (&unknown["charges"], &unknown["amount"]),
        (&json!(0), &json!(0))
    );
    client.sandbox.shutdown().await;
}
