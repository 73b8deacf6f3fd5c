//! An account at Stripe, which PyPI's localstripe plays: a server that behaves as Stripe does, and that we did not write.

use quittance_proto::v1::{
    CreatePaymentRequest, DeclineCode, Payment, PaymentMethodType, PaymentState,
};
use serde_json::json;

use crate::harness::stripe::StripeWorld;
use crate::harness::{
    Amounts as _, authorization, capture, confirm, eventually, purchase, refund, sync, void,
};

/// The payment, once it is so.
async fn until(world: &StripeWorld, payment: &Payment, state: PaymentState) -> Payment {
    eventually(&format!("the payment is {state:?}"), async || {
        let payment = world.client.payment(&payment.payment_id).await;
        (payment.state() == state).then_some(payment)
    })
    .await
}

fn debit(token: &str) -> CreatePaymentRequest {
    let mut request = purchase(token, 1_200);
    let method = request.payment_method.as_mut().unwrap();
    method.r#type = PaymentMethodType::BankDebit.into();
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_a_payment_at_stripe_is_authorized_captured_in_part_and_refunded() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let payment = world
        .client
        .create(authorization("pm_card_visa", 1_250))
        .await;
    assert_eq!(payment.state(), PaymentState::Authorized);
    assert!(payment.provider_reference.starts_with("pi_"));

    let mut last = capture(&payment, 1_000);
    last.final_capture = true;
    let answer = world.client.ok(last).await.message.payment.unwrap();
    assert_eq!(
        (answer.state(), answer.captured()),
        (PaymentState::Captured, 1_000)
    );
    for refunded in [300, 600] {
        let answer = world.client.ok(refund(&payment, 300)).await;
        assert_eq!(answer.message.payment.unwrap().refunded(), refunded);
    }
    let synced = world
        .client
        .ok(sync(&payment))
        .await
        .message
        .payment
        .unwrap();
    assert_eq!((synced.captured(), synced.refunded()), (1_000, 600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s04_an_authorization_at_stripe_is_released() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let payment = world
        .client
        .create(authorization("pm_card_visa", 900))
        .await;
    let answer = world.client.ok(void(&payment)).await;
    let voided = answer.message.payment.unwrap();
    assert_eq!(voided.state(), PaymentState::Voided);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_challenge_at_stripe_is_passed_on_the_page_and_confirmed() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let card = world.card("4000002500003155").await;
    let payment = world.client.create(purchase(&card, 1_200)).await;
    assert_eq!(payment.state(), PaymentState::RequiresAction);
    let data = payment.next_action.clone().unwrap().data;
    let path = format!(
        "/v1/payment_intents/{}/_authenticate",
        payment.provider_reference
    );
    let form = [
        ("client_secret", data["client_secret"].as_str()),
        ("success", "true"),
    ];
    world.post(&path, &form).await;
    let answer = world.client.ok(confirm(&payment, "passed")).await;
    let confirmed = answer.message.payment.unwrap();
    assert_eq!(confirmed.state(), PaymentState::Captured);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s07_a_debit_at_stripe_is_settled_by_stripes_own_webhook() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    for (iban, state) in [
        ("DE89370400440532013000", PaymentState::Captured),
        ("DE62370400440532013001", PaymentState::Declined),
    ] {
        let token = world.debit(iban).await;
        let payment = world.client.create(debit(&token)).await;
        // The webhook may be there before the answer.
        assert!([PaymentState::Pending, state].contains(&payment.state()));
        // Nobody asks: recovery is off.
        let settled = until(&world, &payment, state).await;
        assert_eq!(settled.transactions.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s08_a_card_that_stripe_declines_is_a_decline_with_its_code() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let card = world.card("4000000000000341").await;
    let payment = world.client.create(purchase(&card, 500)).await;
    assert_eq!(payment.state(), PaymentState::Declined);
    let decline = payment.decline.unwrap();
    assert_eq!(decline.code(), DeclineCode::DoNotHonor);
    assert_eq!(decline.provider_code, "card_declined");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s61_a_live_event_on_a_test_account_of_stripes_is_a_dead_letter() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let payment = world
        .client
        .create(authorization("pm_card_visa", 700))
        .await;
    let canceled = json!({
        "id": payment.provider_reference, "status": "canceled", "amount": 700, "amount_capturable": 0,
        "amount_received": 0, "currency": "eur", "capture_method": "manual", "cancellation_reason": "automatic",
        "metadata": {
            "quittance_payment": payment.payment_id,
            "quittance_transaction": payment.transactions[0].transaction_id,
        },
    });
    world
        .tell("evt_live", "payment_intent.canceled", true, &canceled)
        .await;
    let dead = ("DEAD".to_owned(), Some("UNEXPECTED".to_owned()));
    assert_eq!(world.kept("evt_live").await, dead);
    let unchanged = world.client.payment(&payment.payment_id).await;
    assert_eq!(unchanged.state(), PaymentState::Authorized);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_a_refund_of_a_payment_that_somebody_else_made_at_the_same_account_is_asked_for_once() {
    let Some(world) = StripeWorld::start().await else {
        return;
    };
    let card = world.card("4242424242424242").await;
    let form = [
        ("amount", "700"),
        ("currency", "eur"),
        ("payment_method", card.as_str()),
        ("confirm", "true"),
    ];
    let theirs = world.post("/v1/payment_intents", &form).await;
    let refund = |intent: &str| {
        json!({
            "id": "re_theirs", "status": "succeeded", "amount": 300, "currency": "eur", "metadata": {},
            "payment_intent": intent, "balance_transaction": "txn_1",
        })
    };
    let object = refund(theirs["id"].as_str().unwrap());
    world
        .tell("evt_theirs", "refund.created", false, &object)
        .await;
    let dead = ("DEAD".to_owned(), Some("UNEXPECTED".to_owned()));
    assert_eq!(world.kept("evt_theirs").await, dead);
    let attempts = "select attempts::bigint from webhook_inbox where event_id = 'evt_theirs'";
    assert_eq!(world.db.number(attempts).await, 1);
    // What Stripe does not know may still come.
    let object = refund("pi_nobodys");
    world
        .tell("evt_nobodys", "refund.created", false, &object)
        .await;
    assert_eq!(world.kept("evt_nobodys").await.0, "DEAD");
    let attempts = "select attempts::bigint from webhook_inbox where event_id = 'evt_nobodys'";
    assert!(world.db.number(attempts).await > 1, "it was tried again");
}
