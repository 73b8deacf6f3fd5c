//! Tests of what events are known by.

use std::collections::BTreeSet;

use super::*;

fn at(day: &str) -> DateTime<Utc> {
    let text = format!("{day}T12:00:00Z");
    DateTime::parse_from_rfc3339(&text).unwrap().to_utc()
}

/// What the event is known by that is received on this day, with these fields of the fixture changed.
fn named(received: &str, changes: &[(&str, Value)]) -> String {
    let mut item = item_of(CAPTURE);
    for (name, value) in changes {
        item[*name] = value.clone();
    }
    let body = batch(&[signed(item)]);
    let events = verify_at(&account(), &body, at(received)).unwrap();
    events[0].id.as_ref().unwrap().as_str().to_owned()
}

fn dated(event: &str, reason: &str, date: Value) -> [(&'static str, Value); 3] {
    [
        ("eventCode", json!(event)),
        ("reason", json!(reason)),
        ("eventDate", date),
    ]
}

const RECAPTURED: &str = "Transaction Recaptured";

#[test]
fn s51_what_adyen_does_again_is_no_repetition() {
    for event in ["CAPTURE", "REFUND"] {
        let first = named(
            "2026-03-01",
            &dated(event, "", json!("2026-03-01T01:00:00+01:00")),
        );
        assert_eq!(first, format!("{event}:true:JDZXCMLW35GXXN82"));
        let again = |date: Value| named("2026-03-05", &dated(event, RECAPTURED, date));
        let dated = again(json!("2026-03-04T23:30:00+01:00"));
        assert_eq!(dated, format!("{first}:2026-03-04T22"));
        for undated in [
            Value::Null,
            json!(7),
            json!("yesterday"),
            json!("2025-03-04T00:00:00Z"),
        ] {
            assert_eq!(again(undated), format!("{first}:again"));
        }
    }
    let refused = |reason| {
        named(
            "2026-03-05",
            &dated("AUTHORISATION", reason, json!("2026-03-04T00:00:00Z")),
        )
    };
    assert_eq!(refused("Refused"), refused(""), "of a payment there is one");
}

#[test]
fn s51_what_is_taken_back_a_second_time_is_no_repetition() {
    for event in [
        "CAPTURE_FAILED",
        "REFUND_FAILED",
        "REFUNDED_REVERSED",
        "CHARGEBACK_REVERSED",
    ] {
        let told = |received: &str, date: &str| named(received, &dated(event, "", json!(date)));
        let first = told("2026-03-02", "2026-03-02T10:00:00+01:00");
        let hour = "2026-03-02T09";
        assert_eq!(first, format!("{event}:true:JDZXCMLW35GXXN82:{hour}"));
        // Delivered again, and again, for as long as Adyen tries.
        assert_eq!(first, told("2026-03-02", "2026-03-02T10:00:00+01:00"));
        assert_eq!(first, told("2026-04-05", "2026-03-02T10:00:00+01:00"));
        assert_ne!(first, told("2026-03-09", "2026-03-09T10:00:00+01:00"));
        // On the same day.
        assert_ne!(first, told("2026-03-02", "2026-03-02T22:59:59+01:00"));
    }
}

/// What is not signed can be varied by whoever holds an item: it makes a few names of it, and no more.
#[test]
fn s50_an_item_has_few_names_whatever_is_not_signed_of_it() {
    let names = |event: &str, success: &str| {
        let mut names = BTreeSet::new();
        for number in 0..2_400_i64 {
            let date = at("2026-03-01") + chrono::TimeDelta::minutes(number * 40 - 1_200 * 60);
            let reason = format!("reason {number}");
            let mut changes = dated(event, &reason, json!(date.to_rfc3339())).to_vec();
            changes.push(("success", json!(success)));
            changes.push(("operations", json!([number])));
            names.insert(named("2026-03-01", &changes));
        }
        names.len()
    };
    assert_eq!(names("AUTHORISATION", "true"), 1);
    assert_eq!(names("CAPTURE", "false"), 1);
    // The hours of 42 days, and the one name without.
    assert_eq!(names("CAPTURE", "true"), 42 * 24 + 1);
    assert_eq!(names("CAPTURE_FAILED", "true"), 42 * 24 + 1);
}

#[test]
fn s50_what_has_no_name_is_known_by_what_is_signed_of_it_and_its_platform() {
    let digest = |live: &str, changes: &[(&str, Value)], reason: &str| {
        let mut item = item_of(CAPTURE);
        for (name, value) in changes {
            item[*name] = value.clone();
        }
        let mut item = signed(item);
        item["reason"] = json!(reason);
        let body = json!({"live": live, "more": reason,
            "notificationItems": [{"NotificationRequestItem": item}]});
        let events = verify(&account(), body.to_string().as_bytes()).unwrap();
        events[0].signed
    };
    let theirs = [("merchantReference", json!("a:b"))];
    let one = digest("false", &theirs, "one");
    assert_eq!(one, digest("false", &theirs, "another"));
    assert_ne!(one, digest("true", &theirs, "one"));
    assert_ne!(
        one,
        digest("false", &[("merchantReference", json!("a:c"))], "one")
    );
}
