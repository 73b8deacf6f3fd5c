//! Tests of Stripe's signatures. Thousands are compared with Stripe's own library in `tests/it/stripe_python.rs`.

use chrono::DateTime;

use super::*;

const SECRET: &str = "whsec_0123456789abcdef0123456789abcdef";
const OTHER: &str = "whsec_fedcba9876543210fedcba9876543210";
const SIGNED_AT: i64 = 1_767_225_600;
const BODY: &[u8] = br#"{"id": "evt_1", "object": "event"}"#;

/// What a sender with this secret signs.
fn signature(secret: &str, time: &str, body: &[u8]) -> String {
    let mut mac = key(secret).unwrap();
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn header() -> String {
    let time = SIGNED_AT.to_string();
    format!("t={time},v1={}", signature(SECRET, &time, BODY))
}

fn said(secrets: &[&str], header: &str, body: &[u8], now: i64) -> Result<(), Unverified> {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
    let value = |name: &str| (name == HEADER && !header.is_empty()).then_some(header);
    let delivery = Delivery {
        header: &value,
        body,
        received_at: DateTime::from_timestamp(now, 0).unwrap(),
    };
    Secrets::new(&secrets).unwrap().verify(&delivery)
}

#[test]
fn s46_a_bad_or_missing_signature_is_refused() {
    let good = header();
    assert_eq!(said(&[SECRET], &good, BODY, SIGNED_AT), Ok(()));
    let v1 = good.split_once("v1=").unwrap().1;
    let other = signature(OTHER, &SIGNED_AT.to_string(), BODY);
    let many = format!("t={SIGNED_AT},{}v1={v1}", "v1=00,".repeat(MAX_SIGNATURES));
    for (header, expected) in [
        (
            format!("t={SIGNED_AT},v1={other},v1={v1},v0={other}"),
            Ok(()),
        ),
        (format!("v1={v1},t={SIGNED_AT}"), Ok(())),
        (
            format!("t={SIGNED_AT},v1={other}"),
            Err(Unverified::Signature),
        ),
        (
            format!("t={SIGNED_AT},v1={}", &v1[..62]),
            Err(Unverified::Signature),
        ),
        (
            format!("t={SIGNED_AT},v1={}", v1.to_uppercase()),
            Err(Unverified::Unsigned),
        ),
        (format!("t={SIGNED_AT},v0={v1}"), Err(Unverified::Unsigned)),
        (format!("t={SIGNED_AT},v1="), Err(Unverified::Signature)),
        (format!("v1={v1}"), Err(Unverified::Unsigned)),
        (format!("t=,v1={v1}"), Err(Unverified::Unsigned)),
        (format!("t=+{SIGNED_AT},v1={v1}"), Err(Unverified::Unsigned)),
        (
            format!("t={SIGNED_AT},t={SIGNED_AT},v1={v1}"),
            Err(Unverified::Unsigned),
        ),
        (many, Err(Unverified::Signature)),
        ("nonsense".to_owned(), Err(Unverified::Unsigned)),
        (String::new(), Err(Unverified::Unsigned)),
    ] {
        assert_eq!(
            said(&[SECRET], &header, BODY, SIGNED_AT),
            expected,
            "{header}"
        );
    }
    assert_eq!(said(&[], &good, BODY, SIGNED_AT), Err(Unverified::NoSecret));
}

#[test]
fn s47_an_altered_body_or_time_is_refused() {
    for body in [&BODY[1..], b"", br#"{"id": "evt_2", "object": "event"}"#] {
        let said = said(&[SECRET], &header(), body, SIGNED_AT);
        assert_eq!(said, Err(Unverified::Signature));
    }
    let later = header().replace("t=17672", "t=17673");
    let said = said(&[SECRET], &later, BODY, SIGNED_AT);
    assert_eq!(said, Err(Unverified::Signature), "also where it is too new");
}

#[test]
fn s48_an_old_or_future_time_is_refused_both_ways() {
    for (off, expected) in [
        (TOLERANCE_SECONDS, Ok(())),
        (TOLERANCE_SECONDS + 1, Err(Unverified::TooOld)),
        (-TOLERANCE_SECONDS, Ok(())),
        (-TOLERANCE_SECONDS - 1, Err(Unverified::TooNew)),
    ] {
        let said = said(&[SECRET], &header(), BODY, SIGNED_AT + off);
        assert_eq!(said, expected, "{off}");
    }
}

#[test]
fn s49_both_secrets_are_live_during_rotation() {
    for secrets in [&[SECRET, OTHER][..], &[OTHER, SECRET]] {
        assert_eq!(said(secrets, &header(), BODY, SIGNED_AT), Ok(()));
    }
    let said = said(&[OTHER], &header(), BODY, SIGNED_AT);
    assert_eq!(said, Err(Unverified::Signature));
}

#[test]
fn short_foreign_or_too_many_secrets_are_refused_and_none_prints() {
    for bad in [
        "",
        "whsec_short",
        "0123456789abcdef0123456789abcdef",
        "whsec_0123456789 abcdef0123456789",
    ] {
        let problem = Secrets::new(&[Secret::new(bad)]).unwrap_err();
        assert_eq!(problem, FORM, "{bad}");
    }
    let many = vec![Secret::new(SECRET); MAX_SECRETS + 1];
    assert_eq!(Secrets::new(&many).unwrap_err(), SecretsProblem::TooMany);
    let shown = format!("{:?}", Secrets::new(&[Secret::new(SECRET)]).unwrap());
    assert_eq!(shown, "Secrets(1)");
}
