//! What becomes of a payment at Adyen whose customer never returns, is declined, or pays for the first time: told by signed
//! items, in a world where Adyen is played.

use quittance_proto::v1::{DeclineCode, OperatorActionKind, PaymentState, RetryAdvice};
use serde_json::json;

use super::adyen::{authorized, last, paid, until};
use crate::harness::adyen::{
    APPROVED, AdyenWorld, BLOCKED, POOR, REDIRECTED, STOLEN, adyen_authorization, adyen_purchase,
    item,
};
use crate::harness::{Cases as _, Keyed as _, SiteOptions, sync};

/// The item that tells what became of the customer's authentication.
fn ended(world: &AdyenWorld, event: &str, done: bool) -> serde_json::Value {
    let mut opening = world.adyen.only("/payments");
    // Adyen names a payment once its customer has acted.
    opening.answer["pspReference"] = json!("PAYMENT0000ENDED");
    let mut told = item(event, &opening, None);
    told["success"] = json!(done.to_string());
    told["reason"] = json!(if done { "" } else { "3D Not Authenticated" });
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_customer_who_never_returns_to_adyen_s_caller_is_completed_by_webhook() {
    for (event, done, state) in [
        ("AUTHORISATION", true, PaymentState::Authorized),
        ("AUTHORISATION", false, PaymentState::Declined),
        ("OFFER_CLOSED", true, PaymentState::Failed),
    ] {
        let world = AdyenWorld::start().await;
        let request = adyen_authorization(REDIRECTED, 900);
        let waiting = world.client.create(request).await;
        assert_eq!(waiting.state(), PaymentState::RequiresAction);
        world.tell(ended(&world, event, done)).await;
        let after = until(&world, &waiting, state).await;
        assert_eq!(after.next_action, None, "{event}");
        if event == "AUTHORISATION" && !done {
            let code = after.decline.unwrap().code();
            assert_eq!(code, DeclineCode::AuthenticationFailed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s09_after_a_soft_decline_at_adyen_a_new_key_can_succeed() {
    let world = AdyenWorld::start().await;
    let poor = adyen_purchase(POOR, 900).key("first");
    let declined = world.client.create(poor).await;
    assert_eq!(declined.state(), PaymentState::Declined);
    let decline = declined.decline.unwrap();
    assert_eq!(decline.code(), DeclineCode::InsufficientFunds);
    assert_eq!(decline.retry_advice(), RetryAdvice::RetryLater);
    let again = adyen_purchase(APPROVED, 900).key("second");
    let again = world.client.create(again).await;
    assert_eq!(again.state(), PaymentState::Captured);
}

/// Declined for good: nobody is asked again, however often the caller asks.
async fn never_retried(token: &str, provider_code: &str, code: DeclineCode) {
    let world = AdyenWorld::start_with(SiteOptions::default().recovering()).await;
    let request = adyen_purchase(token, 900).key(token);
    let declined = world.client.create(request.clone()).await;
    let decline = declined.decline.as_ref().unwrap();
    assert_eq!(
        (decline.code(), decline.retry_advice()),
        (code, RetryAdvice::DoNotRetry)
    );
    assert_eq!(decline.provider_code, provider_code);
    assert!(world.client.ok(request).await.replayed());
    let synced = world.client.ok(sync(&declined)).await.message.payment;
    assert_eq!(synced.unwrap().version, declined.version);
    assert_eq!(world.adyen.only("/payments").sends, 1);
    let due = "select count(*) from transactions where next_step_at is not null";
    assert_eq!(world.db.number(due).await, 0, "nothing is due");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_a_hard_decline_at_adyen_is_never_retried_by_itself() {
    never_retried(STOLEN, "5", DeclineCode::CardLostOrStolen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s12_a_fraud_block_at_adyen_ends_the_payment() {
    never_retried(BLOCKED, "20", DeclineCode::FraudSuspected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s41_adyen_s_webhook_after_its_answer_tells_nothing_new() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 900).await;
    let event = format!("AUTHORISATION:true:{}", opening.psp_reference());
    world.tell(item("AUTHORISATION", &opening, None)).await;
    world.kept(&event, "IGNORED").await;
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(after.version, payment.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s45_a_dispute_at_adyen_above_the_payment_is_booked_as_far_as_it_reaches() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 900).await;
    let mut above = item("CHARGEBACK", &opening, Some(&opening));
    above["pspReference"] = json!("DISPUTE000000001");
    above["amount"]["value"] = json!(1_000);
    world.tell(above).await;
    world
        .kept("CHARGEBACK:true:DISPUTE000000001", "APPLIED")
        .await;
    let after = world.client.payment(&payment.payment_id).await;
    assert!(after.disputed);
    let charged_back = after.amount_charged_back.as_ref().unwrap().minor_units;
    assert_eq!(charged_back, 900);
    let case = last(&after).open_operator_action();
    assert_eq!(case, OperatorActionKind::ExcessAmount);
}

/// An item that is kept as a dead letter, and why.
async fn why_dead(world: &AdyenWorld, item: serde_json::Value) -> String {
    let [event, reference] = ["eventCode", "pspReference"].map(|name| item[name].as_str().unwrap());
    let named = format!("{event}:true:{reference}");
    world.tell(item).await;
    world.kept(&named, "DEAD").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_an_item_of_adyen_s_about_an_unknown_payment_is_tried_again_and_given_up() {
    let options = SiteOptions::default().with("webhooks.max_attempts", 2);
    let world = AdyenWorld::start_with(options).await;
    let (payment, opening) = authorized(&world, 900).await;
    let mut unknown = item("CANCELLATION", &opening, Some(&opening));
    let ours = payment.payment_id.replace('-', "");
    let theirs = uuid::Uuid::now_v7().simple().to_string();
    let reference = opening.reference().replace(&ours, &theirs);
    unknown["merchantReference"] = json!(reference);
    assert_eq!(why_dead(&world, unknown).await, "UNKNOWN_PAYMENT");
    let tries = "select attempts::bigint from webhook_inbox";
    assert_eq!(world.db.number(tries).await, 2);
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(after.version, payment.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s54_an_item_of_adyen_s_that_comes_before_our_row_is_applied_once_that_is_there() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 900).await;
    let hide = "create table held as select * from payments; delete from payments";
    world.db.batch(hide).await;
    let mut told = item("CANCELLATION", &opening, Some(&opening));
    told["pspReference"] = json!("CANCEL0000000001");
    world.tell(told).await;
    let event = "CANCELLATION:true:CANCEL0000000001";
    let why = world.kept(event, "PARKED").await;
    assert_eq!(why.as_deref(), Some("UNKNOWN_PAYMENT"));
    let back = "insert into payments select * from held; drop table held";
    world.db.batch(back).await;
    until(&world, &payment, PaymentState::Voided).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s55_an_unknown_type_of_event_at_adyen_is_acknowledged_and_kept_as_a_dead_letter() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 900).await;
    let report = item("REPORT_AVAILABLE", &opening, None);
    assert_eq!(why_dead(&world, report).await, "UNEXPECTED");
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(after.version, payment.version);
}

/// Adyen's client code has encrypted the card in the customer's browser; whoever comes back pays with what was stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_s_first_payment_at_adyen_stores_the_card_for_the_next() {
    let world = AdyenWorld::start().await;
    let entered = json!({
        "paymentMethod": {
            "type": "scheme", "encryptedCardNumber": "e".repeat(700), "encryptedExpiryMonth": "m".repeat(700),
            "encryptedExpiryYear": "y".repeat(700), "encryptedSecurityCode": "c".repeat(700),
        },
        "storePaymentMethod": true,
        "browserInfo": {"userAgent": "Mozilla/5.0", "acceptHeader": "*/*"},
        "clientStateDataIndicator": true,
    });
    let first = adyen_purchase(&entered.to_string(), 900);
    let first = world.client.create(first).await;
    assert_eq!(first.state(), PaymentState::Captured);
    let asked = world.adyen.only("/payments").body;
    assert_eq!(asked["paymentMethod"], entered["paymentMethod"]);
    assert_eq!(asked["storePaymentMethod"], true);
    assert_eq!(asked["shopperReference"], "shopper-7");
    assert_eq!(asked["shopperInteraction"], "Ecommerce");
    // Nothing of it is shown, or left once it is not needed.
    assert_eq!(first.payment_method.unwrap().provider_token, "");
    let stored = item("RECURRING_CONTRACT", &world.adyen.only("/payments"), None);
    let event = format!("RECURRING_CONTRACT:true:{}", first.provider_reference);
    world.tell(stored).await;
    world.kept(&event, "IGNORED").await;

    let mut raw = entered.clone();
    raw["paymentMethod"]["number"] = json!("visible");
    let refused = world
        .client
        .refused(adyen_purchase(&raw.to_string(), 900))
        .await;
    refused.is(tonic::Code::InvalidArgument, "INVALID_FIELD");
    let next = world.client.create(adyen_purchase(APPROVED, 900)).await;
    assert_eq!(next.state(), PaymentState::Captured);
}
