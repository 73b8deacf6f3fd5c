//! Webhooks about captures and refunds that name another amount or currency than was asked.

use quittance_proto::v1::{OperatorActionKind, Payment, Transaction, TransactionState};
use quittance_sandbox::Event;

use crate::harness::webhooks::Hooks;
use crate::harness::{Amounts as _, Cases as _, authorization, capture, refund, sync};

/// Carried out, and answered with an error: what became of it is not known.
const UNHEARD: &str = "tok_approve?capture.status_after=500&refund.status_after=500";

/// The newest transaction of a payment, after a webhook said something else of it than was asked.
async fn after(hooks: &Hooks, payment: &Payment, other: impl Fn(&mut Event)) -> Transaction {
    let asked = payment.transactions.last().unwrap();
    let mut event = hooks.event_about(&asked.transaction_id);
    other(&mut event);
    hooks.tell(&event, "APPLIED").await;
    let held = hooks.client.payment(&payment.payment_id).await;
    held.transactions.last().unwrap().clone()
}

/// It is not called successful, it is not tried again, and a person is asked.
fn waits_for_a_person(transaction: &Transaction) {
    assert_eq!(transaction.state(), TransactionState::Pending);
    let asked = transaction.open_operator_action();
    assert_eq!(asked, OperatorActionKind::AmountMismatch);
    assert_eq!(transaction.next_retry_time, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s60_a_capture_or_refund_of_another_amount_or_currency_waits_for_a_person() {
    let hooks = Hooks::start().await;
    let payment = hooks.client.create(authorization(UNHEARD, 900)).await;
    let asked = hooks.client.ok(capture(&payment, 400)).await;
    let pending = asked.message.payment.unwrap();
    let more = |event: &mut Event| event.operation.amount += 100;
    waits_for_a_person(&after(&hooks, &pending, more).await);
    let held = hooks.client.payment(&payment.payment_id).await;
    assert_eq!((held.captured(), held.pending()), (0, (400, 0, 0)));
    // The provider itself says otherwise when it is asked.
    let captured = hooks.client.ok(sync(&payment)).await.message.payment;
    assert_eq!(captured.unwrap().captured(), 400);

    let asked = hooks.client.ok(refund(&payment, 150)).await;
    let pending = asked.message.payment.unwrap();
    let foreign = |event: &mut Event| "USD".clone_into(&mut event.operation.currency);
    waits_for_a_person(&after(&hooks, &pending, foreign).await);
    let held = hooks.client.payment(&payment.payment_id).await;
    assert_eq!((held.refunded(), held.pending()), (0, (0, 0, 150)));
    let refunded = hooks.client.ok(sync(&payment)).await.message.payment;
    let refunded = refunded.unwrap();
    assert_eq!((refunded.refunded(), refunded.refundable()), (150, 250));
    let open = "select count(*) from operator_actions where closed_at is null";
    assert_eq!(hooks.db.number(open).await, 0, "what was asked is answered");
    hooks.everything_agrees().await;
}
