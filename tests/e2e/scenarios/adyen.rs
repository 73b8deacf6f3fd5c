//! Adyen, played over HTTP on loopback: it answers captures, cancels and refunds with "received", and tells by webhook.

use chrono::DateTime;
use quittance_proto::v1::{
    OperatorActionKind, Payment, PaymentState, Transaction, TransactionKind, TransactionOrigin,
    TransactionState,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::adyen::{
    APPROVED, AdyenWorld, PARTLY, Processed, REDIRECTED, REFUSED, STALE, UNHEARD,
    adyen_authorization, adyen_purchase, item, signed,
};
use crate::harness::webhooks::now;
use crate::harness::{
    Amounts as _, Cases as _, SiteOptions, capture, eventually, refund, sync, void,
};

pub(super) fn last(payment: &Payment) -> &Transaction {
    payment.transactions.last().unwrap()
}

/// The payment, once it is so.
pub(super) async fn until(world: &AdyenWorld, payment: &Payment, state: PaymentState) -> Payment {
    eventually(&format!("the payment is {state:?}"), async || {
        let payment = world.client.payment(&payment.payment_id).await;
        (payment.state() == state).then_some(payment)
    })
    .await
}

fn failed(mut item: Value) -> Value {
    item["success"] = json!("false");
    item
}

/// An authorization of this amount, and what Adyen holds of it.
pub(super) async fn authorized(world: &AdyenWorld, minor_units: i64) -> (Payment, Processed) {
    let request = adyen_authorization(APPROVED, minor_units);
    let payment = world.client.create(request).await;
    assert_eq!(payment.state(), PaymentState::Authorized);
    (payment, world.adyen.only("/payments"))
}

/// A purchase of this amount, and what Adyen holds of it.
pub(super) async fn paid(world: &AdyenWorld, minor_units: i64) -> (Payment, Processed) {
    let request = adyen_purchase(APPROVED, minor_units);
    let payment = world.client.create(request).await;
    assert_eq!(payment.state(), PaymentState::Captured);
    (payment, world.adyen.only("/payments"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s02_adyen_receives_a_capture_and_a_refund_and_tells_their_results_by_webhook() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 1_250).await;
    assert_eq!(opening.body["additionalData"]["manualCapture"], "true");

    let answer = world.client.ok(capture(&payment, None)).await;
    let pending = answer.message.payment.unwrap();
    assert_eq!(pending.state(), PaymentState::Authorized);
    assert_eq!(
        (pending.captured(), last(&pending).state()),
        (0, TransactionState::Pending)
    );
    let captured = world.adyen.only("/captures");
    let reference = captured.psp_reference();
    assert_eq!(last(&pending).provider_reference, reference);
    world.tell(item("CAPTURE", &captured, Some(&opening))).await;
    let payment = until(&world, &payment, PaymentState::Captured).await;
    assert_eq!(payment.captured(), 1_250);

    let answer = world.client.ok(refund(&payment, 250)).await;
    let pending = answer.message.payment.unwrap();
    assert_eq!(
        (pending.refunded(), last(&pending).state()),
        (0, TransactionState::Pending)
    );
    let refunded = world.adyen.only("/refunds");
    world.tell(item("REFUND", &refunded, Some(&opening))).await;
    let payment = until(&world, &payment, PaymentState::PartiallyRefunded).await;
    assert_eq!((payment.captured(), payment.refunded()), (1_250, 250));
    world
        .kept(&format!("CAPTURE:true:{reference}"), "APPLIED")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s04_adyen_cancels_what_was_authorized() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 700).await;
    world.client.ok(void(&payment)).await;
    let cancel = world.adyen.only("/cancels");
    assert_eq!(cancel.body.get("amount"), None);
    let mut told = item("CANCELLATION", &cancel, Some(&opening));
    told["amount"] = opening.body["amount"].clone();
    world.tell(told).await;
    until(&world, &payment, PaymentState::Voided).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_a_refusal_of_adyen_s_in_an_http_200_is_a_decline() {
    let world = AdyenWorld::start().await;
    let declined = world.client.create(adyen_purchase(REFUSED, 500)).await;
    assert_eq!(declined.state(), PaymentState::Declined);
    let decline = declined.decline.unwrap();
    assert_eq!(decline.provider_code, "6");
    assert_eq!(decline.code().as_str_name(), "DECLINE_CODE_CARD_EXPIRED");
}

/// As by Auto Rescue, where somebody switched it on: a payment that the caller was told to be declined is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s11_what_adyen_declined_and_authorizes_later_is_booked_and_shown_to_a_person() {
    let world = AdyenWorld::start().await;
    let declined = world.client.create(adyen_purchase(REFUSED, 500)).await;
    assert_eq!(declined.state(), PaymentState::Declined);
    let mut rescued = item("AUTHORISATION", &world.adyen.only("/payments"), None);
    rescued["pspReference"] = json!("RESCUED000000001");
    world.tell(rescued).await;
    let paid = until(&world, &declined, PaymentState::Captured).await;
    assert_eq!((paid.captured(), paid.decline.as_ref()), (500, None));
    assert_eq!(paid.provider_reference, "RESCUED000000001");
    let case = last(&paid).open_operator_action();
    assert_eq!(case, OperatorActionKind::ContradictingFact);
}

/// Adyen has no lookup: the same bytes under the same key are answered as the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_an_answer_of_adyen_s_that_was_lost_is_asked_for_again_under_the_same_key() {
    let world = AdyenWorld::start().await;
    let pending = world.client.create(adyen_purchase(UNHEARD, 500)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    assert_eq!(world.adyen.only("/payments").sends, 1);

    world.let_leases_run_out().await;
    world.let_waits_end().await;
    let synced = world.client.ok(sync(&pending)).await;
    let payment = synced.message.payment.unwrap();
    assert_eq!(payment.state(), PaymentState::Captured);
    let charged = world.adyen.only("/payments");
    assert_eq!(charged.sends, 2);
    assert_eq!(payment.provider_reference, charged.psp_reference());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_a_webhook_of_adyen_s_tells_what_no_answer_told() {
    let world = AdyenWorld::start().await;
    let pending = world.client.create(adyen_purchase(UNHEARD, 500)).await;
    let charged = world.adyen.only("/payments");
    world.tell(item("AUTHORISATION", &charged, None)).await;
    let payment = until(&world, &pending, PaymentState::Captured).await;
    assert_eq!(payment.provider_reference, charged.psp_reference());
}

/// Adyen cannot be asked, so its word is all there is: the customer may have paid twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_a_second_authorization_at_adyen_under_our_reference_is_shown_to_a_person() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 500).await;
    let mut second = item("AUTHORISATION", &opening, None);
    second["pspReference"] = json!("PAYMENT000SECOND");
    world.tell(second).await;
    world
        .kept("AUTHORISATION:true:PAYMENT000SECOND", "APPLIED")
        .await;
    let after = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        (after.state(), after.captured()),
        (PaymentState::Captured, 500)
    );
    assert_eq!(after.provider_reference, opening.psp_reference());
    let case = last(&after).open_operator_action();
    assert_eq!(case, OperatorActionKind::ContradictingFact);

    // A third one, while that case is open.
    let mut third = item("AUTHORISATION", &opening, None);
    third["pspReference"] = json!("PAYMENT0000THIRD");
    world.tell(third).await;
    world
        .kept("AUTHORISATION:true:PAYMENT0000THIRD", "APPLIED")
        .await;
    let cases = "select count(*) from operator_actions where closed_at is null";
    assert_eq!(world.db.number(cases).await, 2);
}

/// What was called declined and is paid all the same opens a case: a second payment is not lost behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s17_a_second_authorization_at_adyen_is_shown_though_a_case_is_open() {
    let world = AdyenWorld::start().await;
    let declined = world.client.create(adyen_purchase(REFUSED, 500)).await;
    let opening = world.adyen.only("/payments");
    for reference in ["RESCUED000000001", "RESCUED000000002"] {
        let mut rescued = item("AUTHORISATION", &opening, None);
        rescued["pspReference"] = json!(reference);
        world.tell(rescued).await;
        let event = format!("AUTHORISATION:true:{reference}");
        world.kept(&event, "APPLIED").await;
    }
    let paid = world.client.payment(&declined.payment_id).await;
    assert_eq!(
        (paid.state(), paid.captured()),
        (PaymentState::Captured, 500)
    );
    assert_eq!(paid.provider_reference, "RESCUED000000001");
    let cases = "select count(*) from operator_actions where closed_at is null";
    assert_eq!(world.db.number(cases).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_what_adyen_does_to_a_second_authorization_is_not_done_to_ours() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 500).await;
    let about_second = |event: &str, reference: &str| {
        let mut told = item(event, &opening, Some(&opening));
        told["pspReference"] = json!(reference);
        told["originalReference"] = json!("PAYMENT000SECOND");
        told
    };
    let mut second = item("AUTHORISATION", &opening, None);
    second["pspReference"] = json!("PAYMENT000SECOND");
    world.tell(second).await;
    world
        .kept("AUTHORISATION:true:PAYMENT000SECOND", "APPLIED")
        .await;
    for (event, reference) in [
        ("CAPTURE", "SECOND0000000001"),
        ("CAPTURE_FAILED", "SECOND0000000001"),
        ("REFUND", "SECOND0000000002"),
        ("CHARGEBACK", "SECOND0000000003"),
        ("CANCELLATION", "SECOND0000000004"),
        ("EXPIRE", "SECOND0000000005"),
    ] {
        world.tell(about_second(event, reference)).await;
        eventually(&format!("{event} was looked at"), async || {
            let sql = "select state from webhook_inbox where event_id like $1 || ':%' \
                       and state in ('APPLIED', 'IGNORED')";
            let rows = world.db.rows(sql, &[&event]).await;
            (!rows.is_empty()).then_some(())
        })
        .await;
        let after = world.client.payment(&payment.payment_id).await;
        assert_eq!(after.provider_reference, opening.psp_reference(), "{event}");
        assert_eq!(
            (after.state(), after.captured(), after.refunded()),
            (PaymentState::Captured, 500, 0),
            "{event}"
        );
        assert_eq!((after.transactions.len(), after.disputed), (1, false));
    }
    // So a refund still goes to ours.
    world.client.ok(refund(&payment, 200)).await;
    let refunds = format!("/payments/{}/refunds", opening.psp_reference());
    assert_eq!(world.adyen.only("/refunds").path, refunds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_what_a_redirect_of_adyen_s_returned_completes_the_payment() {
    let world = AdyenWorld::start().await;
    let waiting = world
        .client
        .create(adyen_authorization(REDIRECTED, 900))
        .await;
    assert_eq!(waiting.state(), PaymentState::RequiresAction);
    let action = waiting.next_action.as_ref().unwrap();
    assert_eq!(action.redirect_url, "https://issuer.example/3ds");
    assert_eq!(action.data["method"], "GET");

    let mut returned = crate::harness::confirm(&waiting, "");
    returned.parameters = [("redirectResult".to_owned(), "X6XtfGC3".to_owned())].into();
    let answer = world.client.ok(returned).await;
    let payment = answer.message.payment.unwrap();
    assert_eq!(payment.state(), PaymentState::Authorized);
    let details = world.adyen.only("/details");
    assert_eq!(details.body["details"]["redirectResult"], "X6XtfGC3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_capture_or_refund_that_adyen_takes_back_gives_its_amount_back() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 1_000).await;
    world.client.ok(capture(&payment, None)).await;
    let captured = world.adyen.only("/captures");
    world
        .tell(failed(item("CAPTURE", &captured, Some(&opening))))
        .await;
    let payment = eventually("the capture failed", async || {
        let payment = world.client.payment(&payment.payment_id).await;
        (last(&payment).state() == TransactionState::Failed).then_some(payment)
    })
    .await;
    assert_eq!(
        (payment.state(), payment.captured()),
        (PaymentState::Authorized, 0)
    );

    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    world.client.ok(refund(&payment, None)).await;
    let refunded = world.adyen.only("/refunds");
    world.tell(item("REFUND", &refunded, Some(&opening))).await;
    until(&world, &payment, PaymentState::Refunded).await;
    world
        .tell(item("REFUND_FAILED", &refunded, Some(&opening)))
        .await;
    let payment = until(&world, &payment, PaymentState::Captured).await;
    assert_eq!((payment.captured(), payment.refunded()), (1_000, 0));
    assert_eq!(last(&payment).state(), TransactionState::Reversed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s56_one_forged_item_refuses_the_batch_and_nothing_of_it_is_kept() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 1_000).await;
    world.client.ok(capture(&payment, None)).await;
    let captured = world.adyen.only("/captures");
    let good = signed(item("CAPTURE", &captured, Some(&opening)));
    let mut forged = signed(item("AUTHORISATION", &opening, None));
    forged["amount"]["value"] = json!(1);
    for batch in [
        [good.clone(), forged.clone()],
        [forged.clone(), good.clone()],
    ] {
        assert_eq!(world.deliver(&batch).await, StatusCode::UNAUTHORIZED);
    }
    let stored = "select count(*) from webhook_inbox";
    assert_eq!(world.db.number(stored).await, 0);
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(payment.captured(), 0);

    assert_eq!(world.deliver(&[good]).await, StatusCode::OK);
    until(&world, &payment, PaymentState::Captured).await;
}

/// The answer waits for one insert, however many items there are; each of them is known again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s50_a_batch_whose_first_item_is_known_does_not_lose_its_second() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    for minor_units in [300, 300] {
        world.client.ok(refund(&payment, minor_units)).await;
    }
    let refunds = world.adyen.processed("/refunds");
    let [first, second] = refunds.as_slice() else {
        panic!("{refunds:?}");
    };
    let first = signed(item("REFUND", first, Some(&opening)));
    let second = signed(item("REFUND", second, Some(&opening)));
    assert_eq!(
        world.deliver(std::slice::from_ref(&first)).await,
        StatusCode::OK
    );
    let mut elsewhere = item("REFUND", &opening, None);
    elsewhere["merchantReference"] = json!("somebody else's");
    let batch = [first.clone(), second, first, signed(elsewhere)];
    for _ in 0..2 {
        assert_eq!(world.deliver(&batch).await, StatusCode::OK);
    }
    let payment = eventually("both refunds are known", async || {
        let payment = world.client.payment(&payment.payment_id).await;
        (payment.refunded() == 600).then_some(payment)
    })
    .await;
    assert_eq!(payment.state(), PaymentState::PartiallyRefunded);
    let stored = "select count(*) from webhook_inbox";
    assert_eq!(world.db.number(stored).await, 3);
    let together = "select count(distinct received_at) from webhook_inbox";
    assert_eq!(
        world.db.number(together).await,
        2,
        "one commit for each delivery"
    );
}

/// Of one payment, and of equal amounts: only their references tell them apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s51_alike_partial_refunds_at_adyen_are_as_many_as_their_references() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    for _ in 0..2 {
        world.client.ok(refund(&payment, 200)).await;
    }
    let ours = world.adyen.processed("/refunds");
    let ours = ours.iter().map(|one| item("REFUND", one, Some(&opening)));
    // In the Customer Area.
    let theirs = ["RETURN0000000001", "RETURN0000000002"].map(|reference| {
        let mut one = item("REFUND", &opening, Some(&opening));
        one["pspReference"] = json!(reference);
        one["amount"]["value"] = json!(200);
        one
    });
    let told: Vec<_> = ours.chain(theirs).collect();
    for one in told.iter().chain(&told) {
        world.tell(one.clone()).await;
    }
    let payment = eventually("all are known", async || {
        let payment = world.client.payment(&payment.payment_id).await;
        (payment.refunded() == 800).then_some(payment)
    })
    .await;
    assert_eq!(payment.state(), PaymentState::PartiallyRefunded);
    let refunds = payment.transactions.iter();
    let refunds: Vec<_> = refunds
        .filter(|row| row.kind() == TransactionKind::Refund)
        .collect();
    let succeeded = |row: &&Transaction| row.state() == TransactionState::Succeeded;
    assert!(
        refunds.len() == 4 && refunds.iter().all(succeeded),
        "{refunds:?}"
    );
    let unasked = |row: &&&Transaction| row.origin() == TransactionOrigin::Provider;
    assert_eq!(refunds.iter().filter(unasked).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s57_an_item_whose_fields_could_be_divided_otherwise_changes_nothing() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 1_000).await;
    // Signed for somebody else's reference; presented as an event about ours.
    let mut theirs = item("CANCELLATION", &opening, Some(&opening));
    let ours = opening.reference().to_owned();
    theirs["merchantReference"] = json!(format!("{ours}:1000:EUR:CAPTURE:true"));
    let mut shifted = signed(theirs);
    shifted["merchantReference"] = json!(ours);
    shifted["eventCode"] = json!("CAPTURE");
    shifted["success"] = json!("true:1000:EUR:CANCELLATION:true");
    assert_eq!(world.deliver(&[shifted]).await, StatusCode::OK);
    let dead = "select count(*) from webhook_inbox where state = 'DEAD' and reason = 'UNEXPECTED'";
    assert_eq!(world.db.number(dead).await, 1);
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(
        (payment.state(), payment.captured()),
        (PaymentState::Authorized, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s60_what_adyen_authorized_in_part_waits_for_a_person() {
    let world = AdyenWorld::start().await;
    let pending = world.client.create(adyen_purchase(PARTLY, 1_000)).await;
    assert_eq!(pending.state(), PaymentState::Pending);
    assert_eq!(pending.captured(), 0);
    let action = last(&pending).open_operator_action();
    assert_eq!(action, OperatorActionKind::AmountMismatch);
    // The webhook names the same amount, and decides no more than the answer did.
    let mut told = item("AUTHORISATION", &world.adyen.only("/payments"), None);
    told["amount"]["value"] = json!(500);
    let event = format!(
        "AUTHORISATION:true:{}",
        told["pspReference"].as_str().unwrap()
    );
    world.tell(told).await;
    eventually("the webhook was looked at", async || {
        let sql = "select state from webhook_inbox where event_id = $1";
        let state: String = world.db.rows(sql, &[&event]).await.first()?.get(0);
        (state != "RECEIVED").then_some(())
    })
    .await;
    let pending = world.client.payment(&pending.payment_id).await;
    assert_eq!(
        (pending.state(), pending.captured()),
        (PaymentState::Pending, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s61_an_event_of_adyen_s_live_platform_changes_nothing_on_a_test_account() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = authorized(&world, 1_000).await;
    let expired = signed(item("EXPIRE", &opening, None));
    let status = world
        .deliver_from("true", std::slice::from_ref(&expired))
        .await;
    assert_eq!(status, StatusCode::OK);
    let dead = "select count(*) from webhook_inbox where state = 'DEAD' and reason = 'UNEXPECTED'";
    assert_eq!(world.db.number(dead).await, 1);
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(payment.state(), PaymentState::Authorized);
    // The flag is not signed: with another one, the event is no repetition.
    assert_eq!(world.deliver(&[expired]).await, StatusCode::OK);
    until(&world, &payment, PaymentState::Expired).await;
}

/// The dispute's events have its reference in common, and name the payment's.
fn dispute(event: &str, opening: &Processed) -> Value {
    let mut told = item(event, opening, Some(opening));
    told["pspReference"] = json!("DISPUTE000000001");
    told["additionalData"] = json!({"chargebackReasonCode": "10.4"});
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_a_chargeback_that_adyen_tells_is_won_and_taken_again() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    let charged_back = async |event: &str, expected: i64, disputed: bool| {
        world.tell(dispute(event, &opening)).await;
        eventually(&format!("{event} is applied"), async || {
            let payment = world.client.payment(&payment.payment_id).await;
            let amount = payment.amount_charged_back.as_ref()?.minor_units;
            (amount == expected && payment.disputed == disputed).then_some(())
        })
        .await;
    };
    charged_back("NOTIFICATION_OF_CHARGEBACK", 0, true).await;
    charged_back("CHARGEBACK", 1_000, true).await;
    charged_back("CHARGEBACK_REVERSED", 0, false).await;
    charged_back("SECOND_CHARGEBACK", 1_000, true).await;
    let payment = world.client.payment(&payment.payment_id).await;
    let kinds: Vec<_> = payment.transactions.iter().map(Transaction::kind).collect();
    assert_eq!(
        kinds,
        [
            TransactionKind::Purchase,
            TransactionKind::Chargeback,
            TransactionKind::ChargebackReversal,
            TransactionKind::Chargeback,
        ]
    );
    assert_eq!(payment.captured(), 1_000);

    // Returned a second time: by the same name as the first, so a person is asked.
    let mut again = dispute("CHARGEBACK_REVERSED", &opening);
    let at = DateTime::from_timestamp(now(), 0).unwrap();
    again["eventDate"] = json!(at.to_rfc3339());
    world.tell(again).await;
    eventually("a person is asked", async || {
        let payment = world.client.payment(&payment.payment_id).await;
        let returned = payment.transactions.get(2)?;
        let case = returned.open_operator_action();
        (case == OperatorActionKind::ContradictingFact).then_some(())
    })
    .await;
}

/// Made in the Customer Area: it names our payment, and nothing that we asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_refund_that_was_made_at_adyen_is_recorded_and_so_is_its_failure() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    let told = |event: &str| {
        let mut told = item(event, &opening, Some(&opening));
        told["pspReference"] = json!("ELSEWHERE0000001");
        told["amount"]["value"] = json!(400);
        told
    };
    world.tell(told("REFUND")).await;
    let refunded = until(&world, &payment, PaymentState::PartiallyRefunded).await;
    assert_eq!(refunded.refunded(), 400);
    assert_eq!(last(&refunded).origin(), TransactionOrigin::Provider);
    world.tell(told("REFUND_FAILED")).await;
    let failed = until(&world, &payment, PaymentState::Captured).await;
    assert_eq!((failed.refunded(), failed.transactions.len()), (0, 2));
}

/// In the Customer Area a refund can be given a reference of its own: then only Adyen's reference of the payment names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_a_refund_at_adyen_with_a_reference_of_its_own_is_recorded_once_its_payment_is_told() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    let elsewhere = |event: &str, original: &str| {
        let mut told = item(event, &opening, Some(&opening));
        told["pspReference"] = json!(format!("ELSEWHERE{original}"));
        told["originalReference"] = json!(original);
        told["merchantReference"] = json!("RETURN-2026-17");
        told["amount"]["value"] = json!(400);
        told
    };
    let named = opening.psp_reference();
    world.tell(elsewhere("REFUND", named)).await;
    let waits = world
        .kept(&format!("REFUND:true:ELSEWHERE{named}"), "PARKED")
        .await;
    assert_eq!(waits.as_deref(), Some("UNKNOWN_PAYMENT"));
    // It tells nothing new but by which name Adyen knows the payment.
    world.tell(item("AUTHORISATION", &opening, None)).await;
    let refunded = until(&world, &payment, PaymentState::PartiallyRefunded).await;
    assert_eq!(refunded.refunded(), 400);
    assert_eq!(last(&refunded).origin(), TransactionOrigin::Provider);
    world.tell(elsewhere("REFUND_FAILED", named)).await;
    until(&world, &payment, PaymentState::Captured).await;

    // What somebody else did to a payment of their own through the same account is none of ours.
    let mut foreign = item("AUTHORISATION", &opening, None);
    foreign["pspReference"] = json!("FOREIGN000000001");
    foreign["merchantReference"] = json!("ORDER-17");
    world.tell(foreign).await;
    world.tell(elsewhere("REFUND", "FOREIGN000000001")).await;
    let event = "REFUND:true:ELSEWHEREFOREIGN000000001";
    let given_up = world.kept(event, "DEAD").await;
    assert_eq!(given_up.as_deref(), Some("UNEXPECTED"));
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!((payment.refunded(), payment.captured()), (0, 1_000));
}

/// Which of the two it was is not signed; nor does a lost dispute say whether money was taken once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s43_what_adyen_did_without_saying_what_is_shown_to_a_person() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    let case = async |kind: TransactionKind| {
        eventually("a person is asked", async || {
            let payment = world.client.payment(&payment.payment_id).await;
            let mut rows = payment.transactions.iter();
            let row = rows.find(|row| row.kind() == kind)?;
            let open = row.open_operator_action() == OperatorActionKind::ContradictingFact;
            open.then_some(())
        })
        .await;
    };
    let mut told = item("CANCEL_OR_REFUND", &opening, Some(&opening));
    told["pspReference"] = json!("ELSEWHERE0000001");
    world.tell(told).await;
    case(TransactionKind::Purchase).await;
    world.tell(dispute("CHARGEBACK", &opening)).await;
    // Before it, nobody knows of a dispute, and the payment itself is what is asked about.
    let taken = "CHARGEBACK:true:DISPUTE000000001";
    world.kept(taken, "APPLIED").await;
    world.tell(dispute("PREARBITRATION_LOST", &opening)).await;
    case(TransactionKind::Chargeback).await;
    for event in [
        "CANCEL_OR_REFUND:true:ELSEWHERE0000001",
        "PREARBITRATION_LOST:true:DISPUTE000000001",
    ] {
        world.kept(event, "APPLIED").await;
    }
    let payment = world.client.payment(&payment.payment_id).await;
    let charged_back = payment.amount_charged_back.as_ref().unwrap().minor_units;
    assert_eq!((payment.captured(), charged_back), (1_000, 1_000));
}

/// Where its payment was never told, it is given up as any other that names an unknown payment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s53_a_refund_at_adyen_of_a_payment_that_nobody_knows_is_given_up_and_reported() {
    let world =
        AdyenWorld::start_with(SiteOptions::default().with("webhooks.max_attempts", 2)).await;
    let (_, opening) = paid(&world, 1_000).await;
    let mut told = item("REFUND", &opening, None);
    told["originalReference"] = json!("NOBODY0000000001");
    told["merchantReference"] = json!("RETURN-2026-17");
    world.tell(told).await;
    let event = format!("REFUND:true:{}", opening.psp_reference());
    let given_up = world.kept(&event, "DEAD").await;
    assert_eq!(given_up.as_deref(), Some("UNKNOWN_PAYMENT"));
    let reported = "select count(*) from journal where event_type = 'webhook.given_up'";
    assert_eq!(world.db.number(reported).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_confirmation_that_adyen_refuses_can_be_repeated() {
    let world = AdyenWorld::start().await;
    let waiting = world
        .client
        .create(adyen_authorization(REDIRECTED, 900))
        .await;
    for (result, state) in [
        (STALE, PaymentState::RequiresAction),
        ("X6XtfGC3", PaymentState::Authorized),
    ] {
        let mut returned = crate::harness::confirm(&waiting, "");
        returned.parameters = [("redirectResult".to_owned(), result.to_owned())].into();
        let answer = world.client.ok(returned).await;
        assert_eq!(answer.message.payment.unwrap().state(), state, "{result}");
    }
}

/// Adyen names a payment only once it is decided, so that this is a first send as far as is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s06_a_customer_who_returns_to_adyen_after_an_hour_completes_the_payment() {
    let world = AdyenWorld::start().await;
    let waiting = world
        .client
        .create(adyen_authorization(REDIRECTED, 900))
        .await;
    world.db.age("1 hour").await;
    let mut returned = crate::harness::confirm(&waiting, "");
    returned.parameters = [("redirectResult".to_owned(), "X6XtfGC3".to_owned())].into();
    let answer = world.client.ok(returned).await;
    let payment = answer.message.payment.unwrap();
    assert_eq!(payment.state(), PaymentState::Authorized);
    assert_eq!(world.adyen.processed("/details").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s44_an_inquiry_at_adyen_is_closed_when_the_issuer_gives_it_up() {
    let world = AdyenWorld::start().await;
    let (payment, opening) = paid(&world, 1_000).await;
    for (event, disputed) in [
        ("REQUEST_FOR_INFORMATION", true),
        ("ISSUER_RESPONSE_TIMEFRAME_EXPIRED", false),
    ] {
        world.tell(dispute(event, &opening)).await;
        eventually(&format!("{event} is applied"), async || {
            let payment = world.client.payment(&payment.payment_id).await;
            (payment.transactions.len() == 2 && payment.disputed == disputed).then_some(())
        })
        .await;
    }
    let payment = world.client.payment(&payment.payment_id).await;
    assert_eq!(last(&payment).state(), TransactionState::Failed);
    assert_eq!(payment.captured(), 1_000);
}
