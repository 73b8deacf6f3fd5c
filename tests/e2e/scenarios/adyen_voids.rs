//! Voids of what Adyen has not named yet: it is asked by our reference of the payment.

use quittance_proto::v1::{
    CreatePaymentRequest, Payment, PaymentState, Transaction, TransactionKind, TransactionOrigin,
    TransactionState,
};
use serde_json::{Value, json};

use super::adyen::{last, until};
use crate::harness::adyen::{
    AdyenWorld, Processed, REDIRECTED, UNHEARD, adyen_authorization, adyen_purchase, item,
};
use crate::harness::{Amounts as _, SiteOptions, eventually, void};

/// Waits for the cancel, and looks at what it asks for.
async fn cancelled(world: &AdyenWorld, opening: &Processed) -> Processed {
    // Recovery looks at both transactions of the payment. Where it decides on both at once, the one that comes second is
    // taken up again when its claim has run out: not waited for here.
    let due = "update transactions set next_step_at = now(), claimed_until = null, retries = 0 \
               where kind = 'VOID' and attempts = 0 and lease_until is null";
    // The payment's lease, run out by hand, comes back with whatever recovery had read before that and commits after it.
    let over = "update transactions set lease_until = now() - interval '1 second' \
                where kind <> 'VOID' and lease_until > now()";
    let cancel = eventually("Adyen is asked", async || {
        world.db.execute(over, &[]).await;
        world.db.execute(due, &[]).await;
        world.adyen.processed("/cancels").pop()
    })
    .await;
    assert_eq!(cancel.path, "/cancels");
    assert_eq!(cancel.body["paymentReference"], opening.reference());
    assert_eq!(cancel.body.get("amount"), None);
    cancel
}

/// As Adyen tells it: by the references of what was cancelled.
fn technical_cancel(cancel: &Processed, opening: &Processed, success: &str) -> Value {
    let mut told = item("TECHNICAL_CANCEL", cancel, None);
    told["merchantReference"] = json!(opening.reference());
    told["amount"] = opening.body["amount"].clone();
    told["success"] = json!(success);
    if success == "true" {
        let named = opening.answer["pspReference"].as_str();
        told["originalReference"] = json!(named.unwrap_or("PAYMENT0000009999"));
    }
    told
}

fn the_void(payment: &Payment) -> &Transaction {
    let mut all = payment.transactions.iter();
    all.find(|it| it.kind() == TransactionKind::Void).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_what_its_customer_has_left_at_a_redirect_of_adyen_s_is_cancelled_by_reference() {
    let options = SiteOptions::default().recovering();
    let options = options.with("payments.retries.abandoned_after_seconds", 1);
    let world = AdyenWorld::start_with(options).await;
    let request = adyen_authorization(REDIRECTED, 900);
    let waiting = world.client.create(request).await;
    assert_eq!(waiting.state(), PaymentState::RequiresAction);
    assert_eq!(waiting.provider_reference, "");

    let opening = world.adyen.only("/payments");
    let cancel = cancelled(&world, &opening).await;
    let answered = world.client.payment(&waiting.payment_id).await;
    assert_eq!(answered.state(), PaymentState::RequiresAction);
    assert_eq!(the_void(&answered).origin(), TransactionOrigin::Service);

    world
        .tell(technical_cancel(&cancel, &opening, "true"))
        .await;
    let voided = until(&world, &waiting, PaymentState::Voided).await;
    assert_eq!(last(&voided).state(), TransactionState::Succeeded);
    assert_eq!(voided.provider_reference, "PAYMENT0000009999");
    // That it was authorized before is told late.
    let mut authorised = item("AUTHORISATION", &cancel, None);
    authorised["pspReference"] = json!("PAYMENT0000009999");
    authorised["merchantReference"] = json!(opening.reference());
    authorised["amount"] = opening.body["amount"].clone();
    world.tell(authorised).await;
    world
        .kept("AUTHORISATION:true:PAYMENT0000009999", "APPLIED")
        .await;
    let voided = until(&world, &waiting, PaymentState::Voided).await;
    assert_eq!((voided.captured(), voided.refunded()), (0, 0));
    assert_eq!(world.adyen.only("/cancels").sends, 1);
}

/// However slow the machine is, a sender of this world is taken to be alive until a test says otherwise.
fn long_leases() -> SiteOptions {
    let options = SiteOptions::default().recovering();
    options.with("payments.lease_margin_ms", 600_000)
}

/// A payment whose answer was lost, and its void once that was sent.
async fn unheard(
    world: &AdyenWorld,
    request: CreatePaymentRequest,
) -> (Payment, Processed, Processed) {
    let pending = world.client.create(request).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    let answer = world.client.ok(void(&pending)).await;
    let waits = answer.message.payment.unwrap();
    assert_eq!(the_void(&waits).state(), TransactionState::Pending);
    assert!(
        world.adyen.processed("/cancels").is_empty(),
        "the payment may still be under way"
    );
    world.let_leases_run_out().await;
    let opening = world.adyen.only("/payments");
    let cancel = cancelled(world, &opening).await;
    (pending, opening, cancel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_what_adyen_s_answer_was_lost_of_is_cancelled_by_reference() {
    let world = AdyenWorld::start_with(long_leases()).await;
    let request = adyen_authorization(UNHEARD, 900);
    let (payment, opening, cancel) = unheard(&world, request).await;
    world.tell(item("AUTHORISATION", &opening, None)).await;
    let payment = until(&world, &payment, PaymentState::Authorized).await;
    assert_eq!(the_void(&payment).state(), TransactionState::Pending);
    world
        .tell(technical_cancel(&cancel, &opening, "true"))
        .await;
    until(&world, &payment, PaymentState::Voided).await;
    assert_eq!(world.adyen.only("/payments").sends, 1, "not sent again");
    assert_eq!(world.adyen.only("/cancels").sends, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_a_cancel_of_adyen_s_that_found_nothing_does_not_let_the_payment_be_sent_again() {
    let world = AdyenWorld::start_with(long_leases()).await;
    let request = adyen_purchase(UNHEARD, 900);
    let (payment, opening, cancel) = unheard(&world, request).await;
    world
        .tell(technical_cancel(&cancel, &opening, "false"))
        .await;
    let failed = eventually("the void failed", async || {
        let payment = world.client.payment(&payment.payment_id).await;
        let ended = the_void(&payment).state() == TransactionState::Failed;
        ended.then_some(payment)
    })
    .await;
    assert_eq!(failed.state(), PaymentState::Pending);
    // Recovery takes it up, and leaves it. It may have been claimed when the void was sent, and may have been looked at so
    // often that nobody counts any more: that it was looked at shows in its next step, whatever that is.
    let due = "update transactions set next_step_at = '2000-01-01', claimed_until = null where kind = 'PURCHASE'";
    world.db.execute(due, &[]).await;
    let looked = "select count(*) from transactions where kind = 'PURCHASE' \
                  and next_step_at is distinct from '2000-01-01'";
    eventually("recovery has looked", async || {
        (world.db.number(looked).await == 1).then_some(())
    })
    .await;
    assert_eq!(world.adyen.only("/payments").sends, 1, "it was not wanted");
    // Adyen has the last word.
    world.tell(item("AUTHORISATION", &opening, None)).await;
    until(&world, &payment, PaymentState::Captured).await;
}
