//! What nobody here asked for: done in the provider's dashboard, or by the card holder's bank.

use futures::join;
use quittance_proto::v1::{
    OperatorActionKind, Payment, PaymentState, Transaction, TransactionKind, TransactionOrigin,
    TransactionState,
};
use quittance_sandbox::EventType;
use serde_json::{Value, json};

use crate::harness::webhooks::{Hooks, OTHER_ACCOUNT, OTHER_SECRET, Post};
use crate::harness::{Amounts as _, Cases as _, SiteOptions, authorization, purchase, sync};

fn nothing() -> Value {
    json!({})
}

async fn paid(hooks: &Hooks, token: &str, minor_units: i64) -> Payment {
    let paid = hooks.client.create(purchase(token, minor_units)).await;
    assert_eq!(paid.state(), PaymentState::Captured);
    paid
}

async fn now(hooks: &Hooks, payment: &Payment) -> Payment {
    hooks.client.payment(&payment.payment_id).await
}

fn unasked(payment: &Payment) -> Vec<&Transaction> {
    let all = payment.transactions.iter();
    all.filter(|row| row.origin() == TransactionOrigin::Provider)
        .collect()
}

fn charged_back(payment: &Payment) -> i64 {
    payment.amount_charged_back.as_ref().unwrap().minor_units
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_refunds_in_the_dashboard_that_look_alike_are_booked_each_once() {
    let hooks = Hooks::start().await;
    let payment = paid(&hooks, "tok_approve", 900).await;
    let half = json!({ "amount": 300 });
    let first = hooks.control(&payment, "refunds", half.clone()).await;
    let second = hooks.control(&payment, "refunds", half).await;
    assert_eq!(first.r#type, EventType::RefundSucceeded);
    hooks.tell(&second, "APPLIED").await;
    hooks.tell(&first, "APPLIED").await;
    // Another event about the same refund, as providers send them.
    let mut again = first.clone();
    again.id = format!("{}b", first.id);
    hooks.tell(&again, "IGNORED").await;
    let after = now(&hooks, &payment).await;
    assert_eq!(
        (after.refunded(), after.state()),
        (600, PaymentState::PartiallyRefunded)
    );
    assert_eq!(after.amount_refundable.as_ref().unwrap().minor_units, 300);
    let rows = unasked(&after);
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(
            (row.kind(), row.state()),
            (TransactionKind::Refund, TransactionState::Succeeded)
        );
        assert_eq!((row.attempts, row.execute_before), (0, None));
    }
    let entries = hooks.client.entries_of(&payment.payment_id).await;
    let entry = entries.last().unwrap();
    assert_eq!(entry.event_type, "refund.succeeded");
    assert_eq!(entry.actor.as_ref().unwrap().r#type, "provider");
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_two_servers_that_hear_of_one_refund_at_once_book_it_once() {
    let hooks = Hooks::start().await;
    let second = hooks.second_server().await;
    for _ in 0..5 {
        let payment = paid(&hooks, "tok_approve", 900).await;
        let event = hooks.control(&payment, "refunds", nothing()).await;
        let mut again = event.clone();
        again.id = format!("{}b", event.id);
        let (one, other) = (Post::of(&event), Post::of(&again));
        join!(one.send(hooks.at()), other.send(second.http_addr()));
        crate::harness::eventually("both are done with", async || {
            let open = "select count(*) from webhook_inbox where next_step_at is not null";
            (hooks.db.number(open).await == 0).then_some(())
        })
        .await;
        let after = now(&hooks, &payment).await;
        assert_eq!((unasked(&after).len(), after.refunded()), (1, 900));
    }
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_refund_in_the_dashboard_that_fails_later_gives_its_amount_back() {
    let hooks = Hooks::start().await;
    let payment = paid(&hooks, "tok_approve", 900).await;
    let refunded = hooks.control(&payment, "refunds", nothing()).await;
    hooks.tell(&refunded, "APPLIED").await;
    assert_eq!(now(&hooks, &payment).await.state(), PaymentState::Refunded);
    let failed = hooks.control(&payment, "fail_refund", nothing()).await;
    hooks.tell(&failed, "APPLIED").await;
    let after = now(&hooks, &payment).await;
    assert_eq!(
        (after.refunded(), after.state()),
        (0, PaymentState::Captured)
    );
    assert_eq!(unasked(&after)[0].state(), TransactionState::Reversed);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s52_a_refund_in_the_dashboard_told_backwards_ends_as_the_provider_says() {
    let hooks = Hooks::start().await;
    let payment = paid(&hooks, "tok_approve", 900).await;
    let refunded = hooks.control(&payment, "refunds", nothing()).await;
    let failed = hooks.control(&payment, "fail_refund", nothing()).await;
    hooks.tell(&failed, "APPLIED").await;
    hooks.tell(&refunded, "IGNORED").await;
    let after = now(&hooks, &payment).await;
    assert_eq!((after.refunded(), unasked(&after).len()), (0, 1));
    assert_eq!(unasked(&after)[0].state(), TransactionState::Failed);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_another_account_cannot_refund_our_payment() {
    let hooks = Hooks::start().await;
    let payment = paid(&hooks, "tok_approve", 900).await;
    let event = hooks.control(&payment, "refunds", nothing()).await;
    let body = serde_json::to_vec(&event).unwrap();
    let theirs = Post::signed(&event.id, &body, OTHER_SECRET).to(OTHER_ACCOUNT);
    hooks.deliver(&theirs).await;
    let dead = hooks.until(&event.id, "DEAD").await;
    assert_eq!(dead.reason.as_deref(), Some("OTHER_ACCOUNT"));
    assert_eq!(now(&hooks, &payment).await.version, payment.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_and_a_void_in_the_dashboard_are_booked() {
    let hooks = Hooks::start().await;
    let payment = hooks.client.create(authorization("tok_approve", 900)).await;
    let captured = hooks
        .control(&payment, "captures", json!({ "amount": 300 }))
        .await;
    hooks.tell(&captured, "APPLIED").await;
    let after = now(&hooks, &payment).await;
    assert_eq!(
        (after.captured(), after.state()),
        (300, PaymentState::PartiallyCaptured)
    );
    let voided = hooks.control(&payment, "void", nothing()).await;
    hooks.tell(&voided, "APPLIED").await;
    let after = now(&hooks, &payment).await;
    assert_eq!(after.state(), PaymentState::Captured);
    assert_eq!(after.amount_voided.as_ref().unwrap().minor_units, 600);
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_chargeback_is_told_and_won() {
    let hooks = Hooks::start().await;
    let payment = paid(&hooks, "tok_chargeback", 900).await;
    let opened = hooks.events().pop().unwrap();
    assert_eq!(opened.r#type, EventType::ChargebackOpened);
    hooks.tell(&opened, "APPLIED").await;
    let disputed = now(&hooks, &payment).await;
    assert!(disputed.disputed);
    assert_eq!(
        (charged_back(&disputed), disputed.state()),
        (900, PaymentState::Captured)
    );
    assert_eq!(disputed.amount_refundable.as_ref().unwrap().minor_units, 0);
    let row = unasked(&disputed)[0];
    assert_eq!(
        (row.kind(), row.state()),
        (TransactionKind::Chargeback, TransactionState::Succeeded)
    );
    let about = row.dispute.as_ref().unwrap();
    assert_eq!(about.reason, "fraudulent");
    assert!(about.due_time.is_some());
    let amount = about.amount.as_ref().unwrap();
    assert_eq!(
        (amount.minor_units, amount.currency_code.as_str()),
        (900, "EUR")
    );
    hooks.everything_agrees().await;
    let won = hooks
        .control(&payment, "close_dispute", json!({ "won": true }))
        .await;
    assert_eq!(won.r#type, EventType::ChargebackReversed);
    hooks.tell(&won, "APPLIED").await;
    let after = now(&hooks, &payment).await;
    assert!(!after.disputed);
    assert_eq!((charged_back(&after), unasked(&after).len()), (0, 2));
    let entries = hooks.client.entries_of(&payment.payment_id).await;
    let types: Vec<_> = entries
        .iter()
        .map(|entry| entry.event_type.as_str())
        .collect();
    assert_eq!(
        types[types.len() - 2..],
        ["chargeback.opened", "chargeback.reversed"]
    );
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_chargeback_told_after_its_reversal_leaves_nothing_charged_back() {
    let hooks = Hooks::start().await;
    let payment = paid(&hooks, "tok_chargeback", 900).await;
    let opened = hooks.events().pop().unwrap();
    let won = hooks
        .control(&payment, "close_dispute", json!({ "won": true }))
        .await;
    hooks.tell(&won, "APPLIED").await;
    hooks.tell(&opened, "APPLIED").await;
    let after = now(&hooks, &payment).await;
    assert_eq!((after.disputed, charged_back(&after)), (false, 0));
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_an_inquiry_disputes_a_payment_until_it_is_closed_or_lost() {
    let hooks = Hooks::start().await;
    for won in [true, false] {
        let payment = paid(&hooks, "tok_approve", 900).await;
        let inquiry = json!({ "inquiry": true });
        let opened = hooks.control(&payment, "chargebacks", inquiry).await;
        assert_eq!(opened.r#type, EventType::ChargebackInquiryOpened);
        hooks.tell(&opened, "APPLIED").await;
        let asked = now(&hooks, &payment).await;
        assert_eq!((asked.disputed, charged_back(&asked)), (true, 0));
        let row = unasked(&asked)[0];
        assert_eq!(
            (row.state(), row.next_retry_time),
            (TransactionState::Pending, None)
        );
        // Nothing of ours looks it up by itself; who asks is told what the provider says.
        let synced = hooks.client.ok(sync(&payment)).await.message;
        let synced = synced.payment.unwrap();
        assert_eq!(synced.version, asked.version);
        let verdict = json!({ "won": won });
        let closed = hooks.control(&payment, "close_dispute", verdict).await;
        hooks.tell(&closed, "APPLIED").await;
        let after = now(&hooks, &payment).await;
        assert_eq!(after.disputed, !won);
        assert_eq!(charged_back(&after), if won { 0 } else { 900 });
    }
    hooks.everything_agrees().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s45_a_dispute_above_the_payment_or_in_another_currency_asks_a_person() {
    let hooks = Hooks::start().await;
    let payment = paid(&hooks, "tok_approve", 900).await;
    let above = hooks
        .control(&payment, "chargebacks", json!({ "amount": 1_200 }))
        .await;
    hooks.tell(&above, "APPLIED").await;
    let after = now(&hooks, &payment).await;
    assert_eq!((charged_back(&after), after.disputed), (900, true));
    assert_eq!(after.amount_excess.as_ref().unwrap().minor_units, 300);
    let row = unasked(&after)[0];
    assert_eq!(row.amount.as_ref().unwrap().minor_units, 1_200);
    assert_eq!(row.open_operator_action(), OperatorActionKind::ExcessAmount);

    let payment = paid(&hooks, "tok_approve", 900).await;
    let dollars = json!({ "amount": 1_000, "currency": "USD" });
    let other = hooks.control(&payment, "chargebacks", dollars).await;
    hooks.tell(&other, "APPLIED").await;
    let after = now(&hooks, &payment).await;
    assert_eq!((charged_back(&after), after.disputed), (0, true));
    let row = unasked(&after)[0];
    assert_eq!(
        (row.state(), row.open_operator_action()),
        (
            TransactionState::Pending,
            OperatorActionKind::AmountMismatch
        )
    );
    let about = row.dispute.as_ref().unwrap().amount.as_ref().unwrap();
    assert_eq!(
        (about.minor_units, about.currency_code.as_str()),
        (1_000, "USD")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_a_payment_whose_charge_is_unknown_waits_until_it_is_known() {
    // What it waits for uses up no try.
    let options = SiteOptions::default().with("webhooks.max_attempts", 1);
    let hooks = Hooks::start_with(options).await;
    let token = "tok_approve?status_after=500";
    let pending = hooks.client.create(purchase(token, 800)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let captured = hooks.events().pop().unwrap();
    let mut known = pending.clone();
    known.provider_reference = captured.payment_id.clone();
    let refunded = hooks
        .control(&known, "refunds", json!({ "amount": 300 }))
        .await;
    hooks.deliver(&Post::of(&refunded)).await;
    let parked = hooks.until(&refunded.id, "PARKED").await;
    assert_eq!(parked.reason.as_deref(), Some("NOT_CONFIRMED"));
    hooks.tell(&captured, "APPLIED").await;
    hooks.until(&refunded.id, "APPLIED").await;
    let after = now(&hooks, &pending).await;
    assert_eq!((after.captured(), after.refunded()), (800, 300));
    let cases = "select count(*) from operator_actions";
    assert_eq!(
        hooks.db.number(cases).await,
        0,
        "nothing contradicts anything"
    );
    hooks.everything_agrees().await;
}
