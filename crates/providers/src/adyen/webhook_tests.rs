//! Tests of the webhooks, on items as Adyen documents them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use quittance_domain::ids::{PaymentId, TransactionId};
use serde_json::json;
use sha2::Sha256;
use uuid::Uuid;

use super::*;
use crate::config::{ProviderAccountConfig, Secret};

#[path = "webhook_docs_tests.rs"]
mod docs;
#[path = "webhook_event_tests.rs"]
mod events;
#[path = "webhook_name_tests.rs"]
mod names;

const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const CAPTURE: &str = include_str!("fixtures/event_capture.json");
const CHARGEBACK: &str = include_str!("fixtures/event_chargeback.json");
const ACCOUNT: &str = "QuittanceECOM";

fn config() -> ProviderAccountConfig {
    let url = "http://127.0.0.1:1";
    ProviderAccountConfig {
        allow_plaintext: true,
        own: [("merchant_account", ACCOUNT.to_owned())].into(),
        webhook_secrets: vec![Secret::new(KEY)],
        ..ProviderAccountConfig::new("adyen", crate::adyen::KIND, url, Secret::new("key"))
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
    verify_at(account, body, DateTime::UNIX_EPOCH)
}

fn verify_at(
    account: &Adyen,
    body: &[u8],
    received_at: DateTime<Utc>,
) -> Result<Vec<VerifiedEvent>, Unverified> {
    account.verify(&Delivery {
        header: &|_| None,
        body,
        received_at,
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
    let signed = batch(&[signed(item_of(CAPTURE))]);
    let events = verify(&livemode, &signed).unwrap();
    assert_eq!(events[0].id, None, "it does not take the event's name");
    assert!(livemode.webhook(live.as_bytes()).is_ok());
    assert_eq!(
        account().webhook(live.as_bytes()),
        Err(Unreadable::Unexpected)
    );
    let other = told(CAPTURE, &[("merchantAccountCode", json!("OtherECOM"))]);
    assert_eq!(other, Err(Unreadable::Unexpected));
}
