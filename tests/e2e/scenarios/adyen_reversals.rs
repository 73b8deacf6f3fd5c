//! What Adyen had done and takes back: told in order, before its success, and done again.

use super::adyen::{authorized, last, paid, until};
use crate::harness::adyen::{AdyenWorld, UNHEARD, adyen_purchase, item};
use crate::harness::site::TENANT;
use crate::harness::webhooks::now;
use crate::harness::{Amounts as _, Cases as _, capture, eventually, refund};
use chrono::{DateTime, TimeDelta};
use quittance_proto::v1::{
    OperatorActionKind, Payment, PaymentState, ResolveTransactionRequest, TransactionResolution,
    TransactionState,
};
use quittance_server::auth::Role;
use serde_json::json;

/// The payment, once its last transaction is so.
async fn until_last(world: &AdyenWorld, payment: &Payment, state: TransactionState) -> Payment {
    eventually(&format!("the transaction is {state:?}"), async || {
        let payment = world.client.payment(&payment.payment_id).await;
        (last(&payment).state() == state).then_some(payment)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_refund_that_adyen_takes_back_before_it_tells_of_it_ends_as_in_order() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    world.client.ok(refund(&payment, None)).await;
    let refunded = world.adyen.only("/refunds");
    let reference = refunded.psp_reference();
    world
        .tell(item("REFUND_FAILED", &refunded, Some(&opening)))
        .await;
    let payment = until_last(&world, &payment, TransactionState::Reversed).await;
    assert_eq!(payment.refunded(), 0);
    world.tell(item("REFUND", &refunded, Some(&opening))).await;
    world
        .kept(&format!("REFUND:true:{reference}"), "APPLIED")
        .await;
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        (payment.state(), payment.refunded(), last(&payment).state()),
        (PaymentState::Captured, 0, TransactionState::Reversed)
    );
    // As after the same in order.
    let case = last(&payment).open_operator_action();
    assert_eq!(case, OperatorActionKind::ContradictingFact);
}

/// Adyen does again by itself what a card scheme rejected, and tells it by the same event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s51_a_capture_that_adyen_does_again_is_shown_to_a_person_who_books_it() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 1_000).await;
    world.client.ok(capture(&payment, None)).await;
    let captured = world.adyen.only("/captures");
    world.tell(item("CAPTURE", &captured, Some(&opening))).await;
    until(&world, &payment, PaymentState::Captured).await;
    let today = DateTime::from_timestamp(now(), 0).unwrap();
    let rejected = |hours_ago| {
        let at = today - TimeDelta::hours(hours_ago);
        let mut rejected = item("CAPTURE_FAILED", &captured, Some(&opening));
        rejected["eventDate"] = json!(at.to_rfc3339());
        rejected
    };
    world.tell(rejected(3)).await;
    until(&world, &payment, PaymentState::Authorized).await;
    let again = || {
        let mut again = item("CAPTURE", &captured, Some(&opening));
        again["reason"] = json!("Transaction Recaptured");
        again
    };
    for _ in 0..2 {
        world.tell(again()).await;
    }
    let entries = "select count(*) from journal where event_type = 'capture.contradicted'";
    eventually("the capture is told again", async || {
        (world.db.number(entries).await == 1).then_some(())
    })
    .await;
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        (payment.state(), payment.captured()),
        (PaymentState::Authorized, 0)
    );
    let case = last(&payment).open_operator_action();
    assert_eq!(case, OperatorActionKind::ContradictingFact);

    // Who has looked it up at Adyen books it.
    let operator = world.as_role(TENANT, &[Role::Admin]).await;
    let found = ResolveTransactionRequest {
        payment_id: payment.payment_id.clone(),
        transaction_id: last(&payment).transaction_id.clone(),
        resolution: TransactionResolution::Succeeded.into(),
        reason: "captured again, says the Customer Area".to_owned(),
        ..ResolveTransactionRequest::default()
    };
    operator.ok(found.clone()).await;
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        (payment.state(), payment.captured()),
        (PaymentState::Captured, 1_000)
    );
    assert_eq!(last(&payment).state(), TransactionState::Succeeded);
    assert!(last(&payment).resolved_by_operator);
    let cases = "select count(*) from operator_actions where closed_at is null";
    assert_eq!(world.db.number(cases).await, 0);
    let refused = operator.refused(found).await;
    assert_eq!(refused.code, tonic::Code::FailedPrecondition, "once");

    // The first rejection is delivered once more; then the scheme rejects it again, on the same day.
    world.tell(rejected(3)).await;
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(after.captured(), 1_000);
    world.tell(rejected(1)).await;
    let payment = until(&world, &payment, PaymentState::Authorized).await;
    let row = last(&payment);
    assert_eq!(
        (payment.captured(), row.state()),
        (0, TransactionState::Reversed)
    );
}

/// The scheme rejects it again: the same event, success and reference, later on the same day or on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s51_a_capture_that_fails_again_after_adyen_did_it_again_is_no_repetition() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 1_000).await;
    world.client.ok(capture(&payment, None)).await;
    let captured = world.adyen.only("/captures");
    let today = DateTime::from_timestamp(now(), 0).unwrap();
    let mut told = Vec::new();
    for (event, reason, hours_ago) in [
        ("CAPTURE", "", 90),
        ("CAPTURE_FAILED", "", 7),
        ("CAPTURE", "Transaction Recaptured", 5),
        ("CAPTURE_FAILED", "", 3),
    ] {
        let at = today - TimeDelta::hours(hours_ago);
        let mut item = item(event, &captured, Some(&opening));
        item["eventDate"] = json!(at.to_rfc3339());
        item["reason"] = json!(reason);
        for _ in 0..2 {
            world.tell(item.clone()).await;
        }
        let dated = if hours_ago < 90 {
            at.format(":%Y-%m-%dT%H").to_string()
        } else {
            String::new()
        };
        told.push(format!("{event}:true:{}{dated}", captured.psp_reference()));
        let state = if hours_ago == 3 { "IGNORED" } else { "APPLIED" };
        world.kept(told.last().unwrap(), state).await;
    }
    assert_eq!(
        world.db.number("select count(*) from webhook_inbox").await,
        4
    );
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        (payment.captured(), last(&payment).state()),
        (0, TransactionState::Reversed)
    );
}

/// Told that it failed at once, or that the card scheme rejected it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_purchase_whose_capture_adyen_takes_back_is_no_longer_captured() {
    for (event, success) in [("CAPTURE_FAILED", "true"), ("CAPTURE", "false")] {
        let world = AdyenWorld::start().await;
        let (payment, opening) = paid(&world, 1_000).await;
        let mut told = item(event, &opening, Some(&opening));
        told["success"] = json!(success);
        world.tell(told).await;
        let payment = until(&world, &payment, PaymentState::Authorized).await;
        assert_eq!(payment.captured(), 0);
        assert_eq!(last(&payment).state(), TransactionState::Reversed);
        let case = last(&payment).open_operator_action();
        assert_eq!(case, OperatorActionKind::ContradictingFact);
    }
}

/// It is booked as captured when it is authorized, and can be cancelled until Adyen captures it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_purchase_that_is_cancelled_at_adyen_is_no_longer_captured_in_either_order() {
    for cancelled_first in [false, true] {
        let world = AdyenWorld::start().await;
        let pending = world.client.create(adyen_purchase(UNHEARD, 1_000)).await;
        let opening = world.adyen.only("/payments");
        let mut cancelled = item("CANCELLATION", &opening, Some(&opening));
        cancelled["pspReference"] = json!("CANCEL0000000001");
        let mut told = [item("AUTHORISATION", &opening, None), cancelled];
        let mut states = [PaymentState::Captured, PaymentState::Voided];
        if cancelled_first {
            told.reverse();
            states = [PaymentState::Voided; 2];
        }
        let mut names = told.clone().into_iter().map(|item| {
            let text = |name: &str| item[name].as_str().unwrap().to_owned();
            format!("{}:true:{}", text("eventCode"), text("pspReference"))
        });
        let mut payment = pending;
        for (item, state) in told.into_iter().zip(states) {
            world.tell(item).await;
            world.kept(&names.next().unwrap(), "APPLIED").await;
            payment = until(&world, &payment, state).await;
        }
        assert_eq!(payment.captured(), 0);
        assert_eq!(payment.transactions[0].state(), TransactionState::Reversed);
        assert_eq!(last(&payment).state(), TransactionState::Succeeded);
        let open = "select count(*) from operator_actions where kind = 'CONTRADICTING_FACT' \
                    and closed_at is null";
        assert_eq!(world.db.number(open).await, 1);
    }
}
