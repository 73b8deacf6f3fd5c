//! The table of `docs/sandbox.md`: first send, resend, lookup, and what the books say.

use crate::client::{Client, eventually, payment};
use quittance_sandbox::{OperationStatus, Token};
use serde_json::json;

/// First send, resend and lookup of one token whose sends are all answered.
async fn answered(token: &str, status: OperationStatus, code: Option<&str>, charges: u64) {
    let client = Client::new().await;
    let first = client.pay("r1", token, true).await;
    let operation = first.operation();
    assert_eq!(operation.status, status);
    assert_eq!(
        operation
            .decline
            .as_ref()
            .map(|decline| decline.code.as_str()),
        code
    );
    assert!(!first.replayed);
    let resent = client.pay("r1", token, true).await;
    assert!(resent.replayed);
    assert_eq!(resent.bytes, first.bytes, "a replay is the same bytes");
    assert_eq!(client.look_up("r1").await.operation(), operation);
    assert_eq!(client.charges("r1").0, charges);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tokens_that_approve() {
    for token in [
        Token::Approve,
        Token::DuplicateWebhook,
        Token::WebhookOutOfOrder,
        Token::CaptureFails,
        Token::RefundFailsLater,
        Token::Chargeback,
    ] {
        answered(token.name(), OperationStatus::Approved, None, 1).await;
    }
}

#[tokio::test]
async fn tokens_that_decline() {
    for (token, code) in [
        (Token::Decline, "do_not_honor"),
        (Token::InsufficientFunds, "insufficient_funds"),
        (Token::ExpiredCard, "expired_card"),
        (Token::LostCard, "lost_card"),
        (Token::Fraud, "fraud"),
    ] {
        answered(token.name(), OperationStatus::Declined, Some(code), 0).await;
    }
}

#[tokio::test]
async fn tok_requires_action_waits_for_the_challenge() {
    answered(
        Token::RequiresAction.name(),
        OperationStatus::RequiresAction,
        None,
        0,
    )
    .await;
    let client = Client::new().await;
    for (reference, result, status, charges) in [
        ("passes", "passed", OperationStatus::Approved, 1),
        ("fails", "failed", OperationStatus::Declined, 0),
    ] {
        let asked = client
            .pay(reference, Token::RequiresAction.name(), true)
            .await
            .operation();
        let action = asked.next_action.unwrap();
        assert_eq!(action.r#type, "redirect");
        assert_eq!(action.data["return_url"], "https://shop.example/return");
        let page = client.http.get(&action.url).send().await.unwrap();
        assert_eq!(page.status(), 200);

        let path = format!("/v1/payments/{}/confirm", asked.payment_id);
        let key = format!("confirm-{reference}");
        let wrong = json!({"reference": reference, "parameters": {"challenge": "maybe"}});
        assert_eq!(
            client.post(&path, &key, &wrong).await.error_code(),
            "invalid_challenge"
        );
        let body = json!({"reference": reference, "parameters": {"challenge": result}});
        let ended = client.post(&path, &key, &body).await.operation();
        assert_eq!((ended.id, ended.status), (asked.id, status));
        assert!(client.post(&path, &key, &body).await.replayed);
        assert_eq!(client.look_up(reference).await.operation().status, status);
        assert_eq!(client.charges(reference).0, charges);
        let late = client
            .post(&path, &format!("late-{reference}"), &body)
            .await;
        assert_eq!(
            (late.status.as_u16(), late.error_code().as_str()),
            (409, "invalid_state")
        );
        // The authorization's own key still answers what it answered.
        let replay = client
            .pay(reference, Token::RequiresAction.name(), true)
            .await
            .operation();
        assert_eq!(replay.status, OperationStatus::RequiresAction);
    }
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tokens_that_are_pending_end_at_the_first_lookup() {
    let client = Client::new().await;
    for (token, status, charges) in [
        (Token::PendingThenApprove, OperationStatus::Approved, 1),
        (Token::PendingThenDecline, OperationStatus::Declined, 0),
    ] {
        let reference = token.name();
        let first = client.pay(reference, token.name(), true).await;
        assert_eq!(first.operation().status, OperationStatus::Pending);
        assert_eq!(
            client.charges(reference).0,
            0,
            "reading the books settles nothing"
        );
        let resent = client.pay(reference, token.name(), true).await;
        assert!(resent.replayed);
        assert_eq!(client.look_up(reference).await.operation().status, status);
        assert_eq!(client.charges(reference).0, charges);
        let resent = client.pay(reference, token.name(), true).await;
        assert_eq!(
            resent.bytes, first.bytes,
            "the key still answers what it answered"
        );
    }
    let token = "tok_pending_then_approve?settle_after_ms=600000";
    client.pay("later", token, true).await;
    assert_eq!(
        client.look_up("later").await.operation().status,
        OperationStatus::Pending
    );
    client.sandbox.shutdown().await;
}

/// Sends that get no answer, or none that can be read.
#[tokio::test]
async fn tokens_whose_first_answer_is_lost() {
    let client = Client::new().await;
    for (token, charged_at_first) in [
        (Token::TimeoutBeforeCharge, false),
        (Token::TimeoutAfterCharge, true),
        (Token::ResetAfterCharge, true),
    ] {
        let reference = token.name();
        assert!(
            client.try_pay(reference, token.name()).await.is_err(),
            "{reference}"
        );
        assert_eq!(
            client.charges(reference).0,
            u64::from(charged_at_first),
            "{reference}"
        );
        let found = client.look_up(reference).await;
        if charged_at_first {
            assert_eq!(found.operation().status, OperationStatus::Approved);
        } else {
            assert_eq!(found.status, 404);
            assert_eq!(found.json()["authoritative"], true);
        }
        let resent = client.pay(reference, token.name(), true).await;
        assert_eq!(resent.operation().status, OperationStatus::Approved);
        assert_eq!(resent.replayed, charged_at_first, "{reference}");
        assert_eq!(
            client.look_up(reference).await.operation(),
            resent.operation()
        );
        assert_eq!(client.charges(reference), (1, 1000), "{reference}");
    }
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tokens_that_refuse_the_first_send() {
    let client = Client::new().await;
    for (token, status) in [(Token::Error500ThenApprove, 500), (Token::RateLimited, 429)] {
        let reference = token.name();
        let first = client.pay(reference, token.name(), true).await;
        assert_eq!(first.status.as_u16(), status);
        assert_eq!(first.retry_after.as_deref(), (status == 429).then_some("1"));
        assert_eq!(client.charges(reference).0, 0);
        assert_eq!(client.look_up(reference).await.status, 404);
        let resent = client.pay(reference, token.name(), true).await;
        assert!(!resent.replayed);
        assert_eq!(resent.operation().status, OperationStatus::Approved);
        assert!(client.pay(reference, token.name(), true).await.replayed);
        assert_eq!(client.charges(reference).0, 1);
    }
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tok_malformed_response_stays_malformed() {
    let client = Client::new().await;
    let token = Token::MalformedResponse.name();
    let first = client.pay("r1", token, true).await;
    assert_eq!(first.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&first.bytes).is_err());
    let resent = client.pay("r1", token, true).await;
    assert!(resent.replayed);
    assert_eq!(resent.bytes, first.bytes);
    assert_eq!(
        client.look_up("r1").await.operation().status,
        OperationStatus::Approved
    );
    assert_eq!(client.charges("r1").0, 1);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tok_slow_keeps_its_key_in_use() {
    let client = Client::new().await;
    let (token, body) = (Token::Slow.name(), payment("r1", Token::Slow.name(), true));
    let begun = std::time::Instant::now();
    let first = client.post("/v1/payments", "r1", &body);
    let second = async {
        eventually("the charge", async || {
            (client.charges("r1").0 == 1).then_some(())
        })
        .await;
        client.post("/v1/payments", "r1", &body).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(300));
    assert_eq!(first.operation().status, OperationStatus::Approved);
    assert!(
        second.replayed || second.error_code() == "idempotency_key_in_use",
        "a resend waits for nothing"
    );
    assert!(client.pay("r1", token, true).await.replayed);
    assert_eq!(
        client.look_up("r1").await.operation().status,
        OperationStatus::Approved
    );
    assert_eq!(client.charges("r1").0, 1);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tok_wrong_amount_charges_what_it_says() {
    let client = Client::new().await;
    let token = Token::WrongAmount.name();
    assert_eq!(client.pay("r1", token, true).await.operation().amount, 1001);
    let resent = client.pay("r1", token, true).await;
    assert!(resent.replayed);
    assert_eq!(resent.operation().amount, 1001);
    assert_eq!(client.look_up("r1").await.operation().amount, 1001);
    assert_eq!(client.charges("r1"), (1, 1001));
    let less = client.pay("r2", "tok_approve?amount_delta=-5", true).await;
    assert_eq!(less.operation().amount, 995);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tok_capture_fails_after_being_pending() {
    let client = Client::new().await;
    let id = client
        .pay("a", Token::CaptureFails.name(), false)
        .await
        .operation()
        .payment_id;
    let pending = client.capture(&id, "c", 1000, true).await.operation();
    assert_eq!(pending.status, OperationStatus::Pending);
    let twice = client.capture(&id, "c2", 1, false).await;
    assert_eq!(
        twice.error_code(),
        "invalid_state",
        "a pending capture holds its amount"
    );
    assert_eq!(client.void(&id, "v").await.error_code(), "invalid_state");
    let failed = client.look_up("c").await.operation();
    assert_eq!(failed.status, OperationStatus::Failed);
    assert_eq!(failed.decline.unwrap().code, "capture_failed");
    assert_eq!(client.charges("c").0, 0);
    let books = client.sandbox.books().currencies["EUR"];
    assert_eq!((books.authorized, books.captured), (1000, 0));
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tok_refund_fails_later_at_the_second_lookup_or_when_told() {
    let client = Client::new().await;
    let token = Token::RefundFailsLater.name();
    let id = client.pay("p", token, true).await.operation().payment_id;
    let refunded = client.refund(&id, "f", 400).await.operation();
    assert_eq!(refunded.status, OperationStatus::Approved);
    assert_eq!(
        client.look_up("f").await.operation().status,
        OperationStatus::Approved
    );
    assert_eq!(client.charges("f"), (1, 400));
    let failed = client.look_up("f").await.operation();
    assert_eq!(failed.status, OperationStatus::Failed);
    assert_eq!(failed.decline.unwrap().code, "refund_failed");
    assert_eq!(client.charges("f"), (0, 0));
    assert_eq!(client.sandbox.books().currencies["EUR"].refunded, 0);

    client.refund(&id, "g", 300).await;
    let path = format!("/control/payments/{id}/fail_refund");
    let failed = client.post(&path, "-", &json!({})).await.operation();
    assert_eq!(
        (failed.reference.as_str(), failed.status),
        ("g", OperationStatus::Failed)
    );
    assert_eq!(client.post(&path, "-", &json!({})).await.status, 409);
    client.sandbox.shutdown().await;
}

#[tokio::test]
async fn tok_chargeback_takes_back_what_was_captured() {
    let client = Client::new().await;
    let id = client
        .pay("a", Token::Chargeback.name(), false)
        .await
        .operation()
        .payment_id;
    assert_eq!(client.sandbox.books().counts.chargebacks, 0);
    client.capture(&id, "c1", 600, false).await;
    client.capture(&id, "c2", 400, false).await;
    let payment = client.get(&format!("/v1/payments/{id}")).await.json();
    assert_eq!(payment["charged_back"], 600);
    assert_eq!(payment["captured"], 1000);
    let kinds: Vec<_> = payment["operations"].as_array().unwrap().iter().collect();
    assert_eq!(kinds[2]["kind"], "chargeback");
    assert_eq!(client.sandbox.books().counts.chargebacks, 1);
    client.sandbox.shutdown().await;
}
