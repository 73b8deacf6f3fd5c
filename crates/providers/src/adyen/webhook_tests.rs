//! Tests of the webhooks, on items as Adyen documents them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use quittance_domain::decline::DeclineCode;
use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::money::{Currency, Money};
use serde_json::json;
use sha2::Sha256;
use uuid::Uuid;

use super::*;
use crate::config::{ProviderAccountConfig, ProviderKind, Secret};

const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const CAPTURE: &str = include_str!("fixtures/event_capture.json");
const CHARGEBACK: &str = include_str!("fixtures/event_chargeback.json");
const ACCOUNT: &str = "QuittanceECOM";

fn config() -> ProviderAccountConfig {
    let url = "http://127.0.0.1:1";
    ProviderAccountConfig {
        allow_plaintext: true,
        merchant_account: Some(ACCOUNT.to_owned()),
        webhook_secrets: vec![Secret::new(KEY)],
        ..ProviderAccountConfig::new("adyen", ProviderKind::Adyen, url, Secret::new("key"))
    }
}

fn account() -> Adyen {
    Adyen::new(&config(), |_| {}).unwrap()
}

/// Signed by the documentation's words, apart from the code under test.
fn signed(mut item: Value) -> Value {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields = [
        &item["pspReference"],
        &item["originalReference"],
        &item["merchantAccountCode"],
        &item["merchantReference"],
        &item["amount"]["value"],
        &item["amount"]["currency"],
        &item["eventCode"],
        &item["success"],
    ];
    let mut mac = Hmac::<Sha256>::new_from_slice(&hex::decode(KEY).unwrap()).unwrap();
    mac.update(fields.map(text).join(":").as_bytes());
    let signature = BASE64.encode(mac.finalize().into_bytes());
    item["additionalData"]["hmacSignature"] = Value::String(signature);
    item
}

fn item_of(fixture: &str) -> Value {
    let batch: Value = serde_json::from_str(fixture).unwrap();
    batch["notificationItems"][0]["NotificationRequestItem"].clone()
}

fn batch(items: &[Value]) -> Vec<u8> {
    let items: Vec<_> = items
        .iter()
        .map(|item| json!({"NotificationRequestItem": item}))
        .collect();
    serde_json::to_vec(&json!({"live": "false", "notificationItems": items})).unwrap()
}

fn verify(account: &Adyen, body: &[u8]) -> Result<Vec<VerifiedEvent>, Unverified> {
    account.verify(&Delivery {
        header: &|_| None,
        body,
        received_at: DateTime::UNIX_EPOCH,
    })
}

/// What one item tells, with these fields of the fixture changed.
fn told(fixture: &str, changes: &[(&str, Value)]) -> Result<WebhookFact, Unreadable> {
    let mut item = item_of(fixture);
    for (name, value) in changes {
        item[*name] = value.clone();
    }
    let facts = account().webhook(&batch(&[item]))?;
    let [fact] = <[WebhookFact; 1]>::try_from(facts).unwrap();
    Ok(fact)
}

fn reference(kind: TransactionKind) -> Value {
    let reference = Reference {
        payment: PaymentId(Uuid::from_u128(3)),
        transaction: TransactionId(Uuid::from_u128(7)),
        kind,
    };
    json!(reference.to_string())
}

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
fn an_item_is_known_by_its_event_its_reference_and_its_success() {
    let body = batch(&[signed(item_of(CAPTURE))]);
    let events = verify(&account(), &body).unwrap();
    let [event] = events.as_slice() else {
        panic!("{} events", events.len());
    };
    let id = event.id.as_ref().unwrap().as_str();
    assert_eq!(id, "CAPTURE:true:JDZXCMLW35GXXN82");
    assert_eq!(*event.body.expose(), body, "byte by byte as it came");
    let facts = account().webhook(event.body.expose()).unwrap();
    assert_eq!(facts.len(), 1);
}

#[test]
fn each_item_of_a_batch_is_an_event_of_its_own() {
    let (first, second) = (signed(item_of(CAPTURE)), signed(item_of(CHARGEBACK)));
    let events = verify(&account(), &batch(&[first.clone(), second])).unwrap();
    assert_eq!(events.len(), 2);
    let ids: Vec<_> = events
        .iter()
        .map(|it| it.id.as_ref().unwrap().as_str())
        .collect();
    assert_eq!(
        ids,
        [
            "CAPTURE:true:JDZXCMLW35GXXN82",
            "CHARGEBACK:true:Q9HKLPSJ8MBWZG65"
        ]
    );
    for event in &events {
        assert_eq!(account().webhook(event.body.expose()).unwrap().len(), 1);
    }
    let kept: Value = serde_json::from_slice(events[0].body.expose()).unwrap();
    assert_eq!(
        kept["notificationItems"][0]["NotificationRequestItem"],
        first
    );
    assert_eq!(kept["live"], "false");
}

#[test]
fn s46_without_a_good_signature_nothing_is_believed() {
    let good = signed(item_of(CAPTURE));
    let mut unsigned = good.clone();
    unsigned["additionalData"] = Value::Null;
    let mut elsewhere = good.clone();
    elsewhere["additionalData"]["hmacSignature"] = json!(5);
    for (items, cause) in [
        (vec![unsigned], Unverified::Unsigned),
        (vec![elsewhere], Unverified::Unsigned),
        (vec![], Unverified::Unsigned),
        (vec![good.clone(); MAX_ITEMS + 1], Unverified::Unsigned),
        (vec![item_of(CAPTURE)], Unverified::Signature),
    ] {
        assert_eq!(verify(&account(), &batch(&items)), Err(cause));
    }
    for body in [
        &b""[..],
        b"{}",
        b"\xff\xfe",
        b"[1]",
        b"{\"live\": \"false\"}",
    ] {
        assert_eq!(verify(&account(), body), Err(Unverified::Unsigned));
    }
    let twice = String::from_utf8(batch(std::slice::from_ref(&good))).unwrap();
    let twice = twice.replace("\"success\"", "\"success\":\"false\",\"success\"");
    assert_eq!(
        verify(&account(), twice.as_bytes()),
        Err(Unverified::Unsigned),
        "a field that is there twice says nothing"
    );
    let nobody = ProviderAccountConfig {
        webhook_secrets: Vec::new(),
        ..config()
    };
    let nobody = Adyen::new(&nobody, |_| {}).unwrap();
    assert_eq!(verify(&nobody, &batch(&[good])), Err(Unverified::NoSecret));
}

#[test]
fn s47_any_signed_field_that_is_altered_is_noticed() {
    let good = signed(item_of(CAPTURE));
    for (name, value) in [
        ("pspReference", json!("JDZXCMLW35GXXN83")),
        ("originalReference", Value::Null),
        ("merchantAccountCode", json!("Other")),
        ("merchantReference", reference(TransactionKind::Refund)),
        ("amount", json!({"currency": "EUR", "value": 100_000})),
        ("amount", json!({"currency": "USD", "value": 1_000})),
        ("eventCode", json!("REFUND")),
        ("success", json!("false")),
    ] {
        let mut altered = good.clone();
        altered[name] = value;
        let said = verify(&account(), &batch(&[altered]));
        assert_eq!(said, Err(Unverified::Signature), "{name}");
    }
    let mut harmless = good;
    harmless["reason"] = json!("whatever");
    assert!(verify(&account(), &batch(&[harmless])).is_ok());
}

#[test]
fn s56_one_forged_item_refuses_the_whole_batch() {
    let good = signed(item_of(CAPTURE));
    let mut forged = signed(item_of(CHARGEBACK));
    forged["amount"]["value"] = json!(1);
    for items in [[good.clone(), forged.clone()], [forged, good.clone()]] {
        let said = verify(&account(), &batch(&items));
        assert_eq!(said, Err(Unverified::Signature));
    }
    let mut unsigned = good.clone();
    unsigned["additionalData"] = json!({});
    let said = verify(&account(), &batch(&[good, unsigned]));
    assert_eq!(said, Err(Unverified::Unsigned));
}

/// The signature does not say where a field ends. What was signed for somebody else's reference, which holds the
/// separator, must not become an event about a payment of ours.
#[test]
fn s57_a_separator_in_a_reference_cannot_shift_a_field() {
    let our_reference = reference(TransactionKind::Authorization);
    let our_reference = our_reference.as_str().unwrap();
    let mut theirs = item_of(CAPTURE);
    theirs["merchantReference"] = json!(format!("{our_reference}:999999:EUR:AUTHORISATION:true"));
    theirs["amount"] = json!({"currency": "EUR", "value": 1});
    let theirs = signed(theirs);
    let mut shifted = theirs.clone();
    shifted["merchantReference"] = json!(our_reference);
    shifted["amount"] = json!({"currency": "EUR", "value": 999_999});
    shifted["eventCode"] = json!("AUTHORISATION");
    shifted["success"] = json!("true:1:EUR:CAPTURE:true");
    for item in [theirs, shifted] {
        let body = batch(std::slice::from_ref(&item));
        let events = verify(&account(), &body).unwrap();
        assert_eq!(events[0].id, None, "it takes no event's name");
        assert_eq!(account().webhook(&body), Err(Unreadable::Unexpected));
    }
}

#[test]
fn s61_an_event_of_the_other_platform_or_of_another_account_is_not_applied() {
    let item = item_of(CAPTURE);
    let test = batch(std::slice::from_ref(&item));
    let live = String::from_utf8(test.clone()).unwrap();
    let live = live.replace("\"live\":\"false\"", "\"live\":\"true\"");
    let livemode = ProviderAccountConfig {
        livemode: true,
        ..config()
    };
    let livemode = Adyen::new(&livemode, |_| {}).unwrap();
    assert_eq!(livemode.webhook(&test), Err(Unreadable::Unexpected));
    assert!(livemode.webhook(live.as_bytes()).is_ok());
    assert_eq!(
        account().webhook(live.as_bytes()),
        Err(Unreadable::Unexpected)
    );
    let other = told(CAPTURE, &[("merchantAccountCode", json!("OtherECOM"))]);
    assert_eq!(other, Err(Unreadable::Unexpected));
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
        ("CAPTURE_FAILED", true, T::Capture, map::FAILED),
        ("CANCELLATION", true, T::Void, approved()),
        ("CANCELLATION", false, T::Void, map::FAILED),
        ("TECHNICAL_CANCEL", true, T::Void, approved()),
        ("REFUND", true, T::Refund, approved()),
        ("REFUND", false, T::Refund, map::FAILED),
        ("REFUND_FAILED", true, T::Refund, map::FAILED),
        ("REFUNDED_REVERSED", true, T::Refund, map::FAILED),
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

#[test]
fn the_capture_of_a_purchase_is_part_of_it() {
    for (code, expected) in [("CAPTURE", approved()), ("CAPTURE_FAILED", map::FAILED)] {
        let told = event(code, true, TransactionKind::Purchase).unwrap();
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

#[test]
fn s55_events_that_are_not_handled_are_told_from_those_that_cannot_be_read() {
    for code in [
        "REPORT_AVAILABLE",
        "CANCEL_OR_REFUND",
        "ORDER_CLOSED",
        "CELEBRATION",
        "",
    ] {
        let told = event(code, true, TransactionKind::Authorization);
        assert_eq!(told, Err(Unreadable::Unexpected), "{code}");
    }
    for reference in [json!("order-3"), json!(""), Value::Null] {
        let told = told(CAPTURE, &[("merchantReference", reference)]);
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
