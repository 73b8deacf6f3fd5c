//! The key of receipts is replaced: what callers get meanwhile, and what their verifiers say (scenario 79).

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use quittance_evidence::bundle::TrustedKeys;
use quittance_evidence::note::{Note, SigningKey, VerifierKey};
use quittance_evidence::{Leaf, Receipt};
use quittance_proto::v1;
use toml::Value;

use super::evidence::{evidence_of, is_proved};
use crate::harness::process::run;
use crate::harness::python::{python_judges, python_verifier};
use crate::harness::site::Setting;
use crate::harness::{Client, Keyed as _, Site, World, purchase};

/// The published half of a key file.
fn verifier(site: &Site, file: &str) -> VerifierKey {
    let secret = std::fs::read_to_string(site.audit.path().join(file)).unwrap();
    SigningKey::parse(&secret).unwrap().verifier().clone()
}

/// The receipt of a purchase under an idempotency key, and the payment.
async fn receipt(client: &Client, key: &str) -> (v1::Receipt, String) {
    let answer = client.ok(purchase("tok_approve", 100).key(key)).await;
    let payment = answer.message.payment.unwrap().payment_id;
    (answer.message.receipt.unwrap(), payment)
}

/// Whether a receipt is signed by each of some keys.
fn signed_by(receipt: &v1::Receipt, keys: [&VerifierKey; 2]) -> [bool; 2] {
    let note: Note = receipt.signed_note.parse().unwrap();
    keys.map(|key| Receipt::open(&note, std::slice::from_ref(key)).is_ok())
}

/// A time between a receipt and whatever is recorded later.
fn after(receipt: &v1::Receipt) -> DateTime<Utc> {
    let at = receipt.issue_time.unwrap();
    let at = DateTime::from_timestamp(at.seconds, at.nanos.unsigned_abs()).unwrap();
    at + TimeDelta::milliseconds(1)
}

fn far_away() -> DateTime<Utc> {
    "2199-01-01T00:00:00Z".parse().unwrap()
}

/// As the operator configures it: the new key from a time on, the old one until another.
fn rotation(site: &Site, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<Setting> {
    let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let file = |name: &str| site.audit.path().join(name).to_str().unwrap().to_owned();
    let older = format!("{} until {}", file("receipt.key"), text(until));
    vec![
        ("audit.receipt_key_file", Value::from(file("receipt-2.key"))),
        ("audit.receipt_key_from", Value::from(text(from))),
        ("audit.older_receipt_keys", Value::from(vec![older])),
    ]
}

/// What both verifiers say of a payment's bundle to readers who know one of two keys of receipts.
async fn proved_to(world: &World, payment: &str, keys: [&VerifierKey; 2]) -> [bool; 2] {
    let bundle = world.client.ok(evidence_of(payment)).await.message.bundle;
    let python = python_verifier().await;
    let mut proved = [false; 2];
    for (proved, key) in proved.iter_mut().zip(keys) {
        let trusted = vec![verifier(world, "log.key"), key.clone()];
        *proved = is_proved(&bundle, &TrustedKeys::new(trusted.clone()));
        if let Some(python) = &python {
            let theirs = python_judges(python, std::slice::from_ref(&bundle), &trusted).await;
            assert_eq!(theirs, [*proved]);
        }
    }
    proved
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s79_the_key_of_receipts_is_replaced_with_an_overlap_and_a_repetition_gets_the_same_receipt()
 {
    let world = World::start().await;
    let (first, payment) = receipt(&world.client, "first").await;
    let new = world.audit.path().join("receipt-2.key");
    let rotate = ["audit", "keys", "rotate", "--receipts", "--file"];
    let arguments = [&rotate[..], &[new.to_str().unwrap()]].concat();
    let printed = run(&world, Vec::new(), &arguments).unwrap();
    let [old, new] = ["receipt.key", "receipt-2.key"].map(|file| verifier(&world, file));
    assert!(printed.contains(&new.to_string()), "{printed}");
    assert_eq!(new.name(), old.name());
    let told = "select leaf from journal where event_type = 'audit.signing_key_made'";
    let leaf = Leaf::decode(world.db.row(told, &[]).await.get(0)).unwrap();
    assert_eq!(leaf.details["public_key"], new.to_string());
    assert_eq!(leaf.details["replaces"], old.to_string());
    let keys = [&old, &new];

    // Servers are started anew one after the other; the new key is not in use yet.
    let (site, _) = world.shut_down().await;
    let settings = rotation(&site, far_away(), far_away());
    let world = World::on(site, settings).await;
    let not_yet_anew = world.replica().await;
    let (second, _) = receipt(&world.client, "second").await;
    assert_eq!(signed_by(&second, keys), [true, false]);
    for client in [&world.client, &not_yet_anew.client] {
        assert_eq!(receipt(client, "first").await.0, first);
        assert_eq!(receipt(client, "second").await.0, second);
    }
    drop(not_yet_anew);
    assert_eq!(proved_to(&world, &payment, keys).await, [true, false]);

    // Both sign: whoever knows either key is served.
    let (site, _) = world.shut_down().await;
    let settings = rotation(&site, after(&second), far_away());
    let world = World::on(site, settings).await;
    let (third, _) = receipt(&world.client, "third").await;
    assert_eq!(signed_by(&third, keys), [true, true]);
    assert_eq!(receipt(&world.client, "first").await.0, first);
    assert_eq!(receipt(&world.client, "second").await.0, second);
    assert_eq!(proved_to(&world, &payment, keys).await, [true, true]);

    // The new key signs alone; what was given before is repeated as it was.
    let (site, _) = world.shut_down().await;
    let settings = rotation(&site, after(&second), after(&third));
    let world = World::on(site, settings).await;
    let (fourth, _) = receipt(&world.client, "fourth").await;
    assert_eq!(signed_by(&fourth, keys), [false, true]);
    for (key, given) in [("first", &first), ("second", &second), ("third", &third)] {
        assert_eq!(receipt(&world.client, key).await.0, *given);
    }
    assert_eq!(proved_to(&world, &payment, keys).await, [false, true]);
    let started = "select leaf from journal where event_type = 'service.started' order by entry_id desc limit 1";
    let leaf = Leaf::decode(world.db.row(started, &[]).await.get(0)).unwrap();
    assert_eq!(leaf.details["receipt_key"], new.to_string());
    let older = &leaf.details["older_receipt_keys"];
    assert!(older.starts_with(&format!("{old} until ")), "{older}");
    assert!(leaf.details.contains_key("receipt_key_from"));
}
