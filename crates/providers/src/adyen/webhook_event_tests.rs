//! Tests of what each event tells.

use quittance_domain::decline::DeclineCode;
use quittance_domain::ids::{EventId, PaymentId, TransactionId};
use quittance_domain::money::{Currency, Money};
use serde_json::json;
use uuid::Uuid;

use super::*;

fn event(code: &str, success: bool, named: TransactionKind) -> Result<WebhookFact, Unreadable> {
    let changes = [
        ("eventCode", json!(code)),
        ("success", json!(success.to_string())),
        ("merchantReference", reference(named)),
        ("reason", json!("Not enough balance")),
    ];
    told(CAPTURE, &changes)
}

fn ours() -> Subject {
    Subject::Transaction(TransactionId(Uuid::from_u128(7)))
}

fn approved() -> FactKind {
    FactKind::Approved {
        amount: Money::new(1_000, Currency::parse("EUR").unwrap()).ok(),
        expires_at: None,
    }
}

#[test]
fn an_authorisation_is_about_the_payment() {
    for kind in [TransactionKind::Purchase, TransactionKind::Authorization] {
        let told = event("AUTHORISATION", true, kind).unwrap();
        assert_eq!(told.subject, ours());
        assert_eq!(
            told.payment,
            PaymentName::Ours(PaymentId(Uuid::from_u128(3)))
        );
        assert_eq!(told.fact.kind, approved());
        assert!(told.fact.payment_reference.is_some());
        assert_eq!(told.fact.payment_reference, told.fact.provider_reference);
        let FactKind::Declined(decline) = event("AUTHORISATION", false, kind).unwrap().fact.kind
        else {
            panic!("not declined");
        };
        assert_eq!(decline.code, DeclineCode::InsufficientFunds);
        assert_eq!(decline.provider_code.as_str(), "12");
    }
    let odd = event("AUTHORISATION", true, TransactionKind::Refund);
    assert_eq!(odd, Err(Unreadable::Unexpected));
}

/// Captures, cancels and refunds name the operation, or only the payment.
#[test]
fn an_operation_is_told_by_our_reference_or_by_the_provider_s() {
    use TransactionKind as T;
    for (code, success, kind, expected) in [
        ("CAPTURE", true, T::Capture, approved()),
        ("CAPTURE", false, T::Capture, map::FAILED),
        ("CAPTURE_FAILED", true, T::Capture, map::TAKEN_BACK),
        ("CANCELLATION", true, T::Void, approved()),
        ("CANCELLATION", false, T::Void, map::FAILED),
        ("TECHNICAL_CANCEL", true, T::Void, approved()),
        ("REFUND", true, T::Refund, approved()),
        ("REFUND", false, T::Refund, map::FAILED),
        ("REFUND_FAILED", true, T::Refund, map::TAKEN_BACK),
        ("REFUNDED_REVERSED", true, T::Refund, map::TAKEN_BACK),
    ] {
        let told = event(code, success, kind).unwrap();
        assert_eq!(told.subject, ours(), "{code}");
        assert_eq!(told.fact.kind, expected, "{code}");
        let reference = told.fact.provider_reference.unwrap();
        assert_eq!(reference.as_str(), "JDZXCMLW35GXXN82");
        let payment = told.fact.payment_reference.unwrap();
        assert_eq!(payment.as_str(), "NC6HT9CRT65ZGN82");

        let told = event(code, success, T::Authorization).unwrap();
        let dispute = None;
        assert_eq!(told.subject, Subject::Operation { kind, dispute }, "{code}");
        assert_eq!(told.fact.kind, expected, "{code}");
        assert!(told.fact.provider_reference.is_some(), "{code}");
    }
    for code in [
        "CAPTURE_FAILED",
        "REFUND_FAILED",
        "REFUNDED_REVERSED",
        "EXPIRE",
        "CHARGEBACK",
    ] {
        let not = event(code, false, T::Authorization);
        assert_eq!(not, Err(Unreadable::Unexpected), "{code}");
    }
}

/// The payment's reference is signed, and its authorization was told under it, with ours.
#[test]
fn s43_what_was_made_elsewhere_under_a_reference_of_its_own_is_about_its_original() {
    use TransactionKind as T;
    for (code, success, kind, expected) in [
        ("CAPTURE", true, T::Capture, approved()),
        ("CAPTURE_FAILED", true, T::Capture, map::TAKEN_BACK),
        ("CANCELLATION", true, T::Void, approved()),
        ("TECHNICAL_CANCEL", true, T::Void, approved()),
        ("REFUND", true, T::Refund, approved()),
        ("REFUND", false, T::Refund, map::FAILED),
        ("REFUND_FAILED", true, T::Refund, map::TAKEN_BACK),
        ("REFUNDED_REVERSED", true, T::Refund, map::TAKEN_BACK),
    ] {
        for reference in [json!("RETURN-2026-17"), json!(""), Value::Null] {
            let changes = [
                ("eventCode", json!(code)),
                ("success", json!(success.to_string())),
                ("merchantReference", reference),
            ];
            let told = told(CAPTURE, &changes).unwrap();
            let event = EventId::parse("AUTHORISATION:true:NC6HT9CRT65ZGN82").unwrap();
            assert_eq!(told.payment, PaymentName::OfEvent(event), "{code}");
            let dispute = None;
            assert_eq!(told.subject, Subject::Operation { kind, dispute }, "{code}");
            assert_eq!(told.fact.kind, expected, "{code}");
            let reference = told.fact.provider_reference.unwrap();
            assert_eq!(reference.as_str(), "JDZXCMLW35GXXN82");
            let payment = told.fact.payment_reference.unwrap();
            assert_eq!(payment.as_str(), "NC6HT9CRT65ZGN82");
        }
    }
    let foreign = ("merchantReference", json!("RETURN-2026-17"));
    for change in [
        ("originalReference", Value::Null),
        ("originalReference", json!("")),
        ("eventCode", json!("AUTHORISATION")),
        ("eventCode", json!("EXPIRE")),
    ] {
        let told = told(CAPTURE, &[foreign.clone(), change]);
        assert_eq!(told, Err(Unreadable::Unexpected));
    }
}

/// Otherwise nothing that was made elsewhere would find its payment.
#[test]
fn an_authorisation_is_known_by_the_id_that_others_look_for() {
    let mut item = item_of(CAPTURE);
    item["eventCode"] = json!("AUTHORISATION");
    let named = item["pspReference"].as_str().unwrap().to_owned();
    let events = verify(&account(), &batch(&[signed(item)])).unwrap();
    let named = ProviderReference::parse(named).unwrap();
    assert_eq!(events[0].id, authorised(&named));
}

#[test]
fn the_capture_of_a_purchase_is_part_of_it() {
    for (code, success, expected) in [
        ("CAPTURE", true, approved()),
        ("CAPTURE", false, map::TAKEN_BACK),
        ("CAPTURE_FAILED", true, map::TAKEN_BACK),
    ] {
        let told = event(code, success, TransactionKind::Purchase).unwrap();
        assert_eq!(told.subject, ours());
        assert_eq!(told.fact.kind, expected);
        assert_eq!(
            told.fact.provider_reference, None,
            "the purchase has its own"
        );
    }
}

#[test]
fn what_expires_or_is_abandoned_ends_its_payment() {
    for (code, expected) in [
        ("EXPIRE", FactKind::Expired),
        ("OFFER_CLOSED", FactKind::Failed(Cause::Expired)),
    ] {
        let told = event(code, true, TransactionKind::Authorization).unwrap();
        assert_eq!((told.subject, told.fact.kind), (ours(), expected));
        assert_eq!(told.fact.provider_reference, None);
        // Where there is one, it names the payment: another one may bear our reference.
        let payment = told.fact.payment_reference.unwrap();
        assert_eq!(payment.as_str(), "NC6HT9CRT65ZGN82");
        let odd = event(code, true, TransactionKind::Capture);
        assert_eq!(odd, Err(Unreadable::Unexpected));
    }
}

#[test]
fn s44_a_dispute_is_told_with_its_reason_its_date_and_its_amount() {
    let told_of = |code: &str| told(CHARGEBACK, &[("eventCode", json!(code))]).unwrap();
    for (code, kind, reference) in [
        (
            "CHARGEBACK",
            TransactionKind::Chargeback,
            "Q9HKLPSJ8MBWZG65",
        ),
        (
            "SECOND_CHARGEBACK",
            TransactionKind::Chargeback,
            "Q9HKLPSJ8MBWZG65/second",
        ),
        (
            "CHARGEBACK_REVERSED",
            TransactionKind::ChargebackReversal,
            "Q9HKLPSJ8MBWZG65",
        ),
    ] {
        let told = told_of(code);
        assert_eq!(told.fact.kind, approved());
        assert_eq!(told.fact.provider_reference.unwrap().as_str(), reference);
        let Subject::Operation { kind: of, dispute } = told.subject else {
            panic!("{code}");
        };
        assert_eq!(of, kind);
        let dispute = dispute.unwrap();
        assert_eq!(dispute.reason.as_str(), "4853");
        assert_eq!(dispute.amount.minor_units(), 1_000);
        let due = dispute.due_at.unwrap().to_rfc3339();
        assert_eq!(due, "2026-02-01T01:03:07.123456+00:00");
    }
    for code in ["NOTIFICATION_OF_CHARGEBACK", "REQUEST_FOR_INFORMATION"] {
        let told = told_of(code);
        assert_eq!(told.fact.kind, FactKind::Pending, "nothing is taken yet");
        assert!(
            matches!(told.subject, Subject::Operation { kind, .. } if kind == TransactionKind::Chargeback)
        );
        assert_eq!(
            told.fact.provider_reference.unwrap().as_str(),
            "Q9HKLPSJ8MBWZG65"
        );
    }
    // What is not signed only informs: without it the chargeback is one all the same.
    let bare = told(
        CHARGEBACK,
        &[("additionalData", json!({"chargebackReasonCode": 7}))],
    );
    let Subject::Operation { dispute, .. } = bare.unwrap().subject else {
        panic!("no dispute");
    };
    assert_eq!(dispute.unwrap().reason.as_str(), "");
}

/// The money was taken, whatever we can count it in.
#[test]
fn s45_a_dispute_whose_amount_is_none_of_ours_is_told_without_one() {
    for amount in [json!({"currency": "ISK", "value": 1_050}), Value::Null] {
        let told = told(CHARGEBACK, &[("amount", amount)]).unwrap();
        let taken = FactKind::Approved {
            amount: None,
            expires_at: None,
        };
        assert_eq!(told.fact.kind, taken);
        let (kind, dispute) = (TransactionKind::Chargeback, None);
        assert_eq!(told.subject, Subject::Operation { kind, dispute });
    }
}

/// The codes of `specs/adyen-webhooks-v1.json`.
#[test]
fn s44_how_a_dispute_ends_is_told_where_the_issuer_gives_it_up() {
    for code in [
        "ISSUER_RESPONSE_TIMEFRAME_EXPIRED",
        "PREARBITRATION_ISSUER_WITHDRAWN",
        "PREARBITRATION_WON",
        "SCHEME_ARBITRATION_WON",
    ] {
        let told = told(CHARGEBACK, &[("eventCode", json!(code))]).unwrap();
        assert!(matches!(told.fact.kind, FactKind::Declined(_)), "{code}");
        assert!(
            matches!(told.subject, Subject::Operation { kind, .. } if kind == TransactionKind::Chargeback)
        );
        let reference = told.fact.provider_reference.unwrap();
        assert_eq!(reference.as_str(), "Q9HKLPSJ8MBWZG65");
    }
    for code in INFORMING {
        let mut item = item_of(CHARGEBACK);
        item["eventCode"] = json!(code);
        assert_eq!(account().webhook(&batch(&[item])), Ok(Vec::new()), "{code}");
    }
}

/// What was moved is not among the signed fields: that something was, is.
#[test]
fn s43_what_does_not_say_what_was_moved_asks_a_person() {
    for code in UNCLEAR {
        let changes = |success: bool, reference: Value| {
            [
                ("eventCode", json!(code)),
                ("success", json!(success.to_string())),
                ("merchantReference", reference),
            ]
        };
        let ours = || reference(TransactionKind::Purchase);
        let seen = told(CAPTURE, &changes(true, ours())).unwrap();
        let event = Text::parse(code).unwrap();
        assert_eq!(seen.subject, Subject::Unclear { event });
        assert_eq!(
            seen.payment,
            PaymentName::Ours(PaymentId(Uuid::from_u128(3)))
        );
        let named = seen.fact.provider_reference.unwrap();
        assert_eq!(named.as_str(), "JDZXCMLW35GXXN82");
        let foreign = told(CAPTURE, &changes(true, json!("RETURN-2026-17"))).unwrap();
        assert!(matches!(foreign.payment, PaymentName::OfEvent(_)), "{code}");
        // What was not done moved nothing.
        let mut item = item_of(CAPTURE);
        for (name, value) in changes(false, ours()) {
            item[name] = value;
        }
        assert_eq!(account().webhook(&batch(&[item])), Ok(Vec::new()), "{code}");
    }
}

#[test]
fn s55_events_that_are_not_handled_are_told_from_those_that_cannot_be_read() {
    for code in [
        "REPORT_AVAILABLE",
        "ORDER_CLOSED",
        // Auto Rescue is on, and must not be: somebody has to hear of it.
        "AUTORESCUE",
        "AUTORESCUE_NEXT_ATTEMPT",
        "CANCEL_AUTORESCUE",
        "CELEBRATION",
        "",
    ] {
        let told = event(code, true, TransactionKind::Authorization);
        assert_eq!(told, Err(Unreadable::Unexpected), "{code}");
    }
    for reference in [json!("order-3"), json!(""), Value::Null] {
        let told = told(CHARGEBACK, &[("merchantReference", reference)]);
        assert_eq!(told, Err(Unreadable::Unexpected));
    }
    for (name, value) in [
        ("success", json!("maybe")),
        ("success", Value::Null),
        ("pspReference", json!("")),
        ("pspReference", json!("a b")),
        ("originalReference", json!("a b")),
    ] {
        let told = told(CAPTURE, &[(name, value)]);
        assert_eq!(told, Err(Unreadable::Malformed), "{name}");
    }
    for body in [
        &b""[..],
        b"\xff",
        b"{}",
        &batch(&[]),
        &batch(&[item_of(CAPTURE), item_of(CAPTURE)]),
    ] {
        assert_eq!(account().webhook(body), Err(Unreadable::Malformed));
    }
}
