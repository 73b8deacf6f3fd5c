//! Tests of what events are known by.

use std::collections::BTreeSet;

use super::*;

/// What the event is known by, with these fields of the fixture changed.
fn named(changes: &[(&str, Value)]) -> String {
    let mut item = item_of(CAPTURE);
    for (name, value) in changes {
        item[*name] = value.clone();
    }
    let events = verify(&account(), &batch(&[signed(item)])).unwrap();
    events[0].id.as_ref().unwrap().as_str().to_owned()
}

#[test]
fn s51_what_adyen_does_again_is_no_repetition() {
    let named = |event: &str, reason: &str| {
        named(&[("eventCode", json!(event)), ("reason", json!(reason))])
    };
    for event in ["CAPTURE", "REFUND"] {
        let first = format!("{event}:true:JDZXCMLW35GXXN82");
        assert_eq!(named(event, ""), first);
        let again = format!("{first}:again");
        assert_eq!(named(event, "Transaction Recaptured"), again);
    }
    let refused = named("AUTHORISATION", "Refused");
    assert_eq!(refused, named("AUTHORISATION", ""));
}

/// What is not signed can be varied by whoever holds an item: it makes two names of it at most.
#[test]
fn s50_an_item_has_few_names_whatever_is_not_signed_of_it() {
    let names: BTreeSet<_> = (0..50)
        .map(|number| {
            let reason = format!("reason {number}");
            named(&[("reason", json!(reason)), ("operations", json!([number]))])
        })
        .collect();
    assert_eq!(names.len(), 1);
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
