//! Tests of Standard Webhooks: the specification's own example, and whatever differs from it.

use chrono::{DateTime, Utc};
use quittance_domain::webhook::{Delivery, Unverified};

use super::*;
use crate::config::Secret;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA==";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const SIGNED_AT: i64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn verifier(secrets: &[&str]) -> StandardWebhooks {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
    StandardWebhooks::new(&secrets).unwrap()
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// What verifying these headers and this body says.
fn said(
    secrets: &[&str],
    headers: [Option<&str>; 3],
    body: &[u8],
    now: i64,
) -> Result<String, Unverified> {
    let [id, timestamp, signature] = headers.map(|header| header.map(str::to_owned));
    let header = |name: &str| match name {
        "webhook-id" => id.as_deref(),
        "webhook-timestamp" => timestamp.as_deref(),
        "webhook-signature" => signature.as_deref(),
        _ => None,
    };
    let delivery = Delivery {
        header: &header,
        body,
        received_at: at(now),
    };
    let verified = verifier(secrets).verify(&delivery);
    verified.map(|event| event.as_str().to_owned())
}

fn with_signature(signature: &str) -> Result<String, Unverified> {
    let headers = [Some(ID), Some("1614265330"), Some(signature)];
    said(&[SECRET], headers, BODY, SIGNED_AT)
}

#[test]
fn the_example_of_the_specification_verifies() {
    assert_eq!(with_signature(SIGNATURE).as_deref(), Ok(ID));
    let several = format!("v1,AAAA v1a,b2s= {SIGNATURE} v2,x");
    assert_eq!(with_signature(&several).as_deref(), Ok(ID));
}

#[test]
fn s46_a_bad_or_missing_signature_is_refused() {
    for (signature, cause) in [
        ("", Unverified::Unsigned),
        (&SIGNATURE[3..], Unverified::Unsigned),
        ("v1,", Unverified::Signature),
        ("v1,?", Unverified::Unsigned),
        (
            "v1,h0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            Unverified::Signature,
        ),
        // A beginning of the right one.
        ("v1,g0hM9SsE", Unverified::Signature),
        (
            "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            Unverified::Unsigned,
        ),
    ] {
        assert_eq!(with_signature(signature), Err(cause), "{signature}");
    }
    let all = [Some(ID), Some("1614265330"), Some(SIGNATURE)];
    for missing in 0..3 {
        let mut headers = all;
        headers[missing] = None;
        let said = said(&[SECRET], headers, BODY, SIGNED_AT);
        assert_eq!(said, Err(Unverified::Unsigned));
    }
    assert_eq!(
        said(&[], all, BODY, SIGNED_AT),
        Err(Unverified::NoSecret),
        "nothing is verified without a secret"
    );
}

#[test]
fn s47_an_altered_body_id_or_time_is_refused() {
    let all = [Some(ID), Some("1614265330"), Some(SIGNATURE)];
    for body in [
        &br#"{"test": 2432232315}"#[..],
        br#"{"test":2432232314}"#,
        b"",
        b"\xff",
    ] {
        let said = said(&[SECRET], all, body, SIGNED_AT);
        assert_eq!(said, Err(Unverified::Signature));
    }
    for (id, timestamp, cause) in [
        (
            "msg_q5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            Unverified::Signature,
        ),
        (ID, "1614265331", Unverified::Signature),
        (ID, "01614265330", Unverified::Signature),
        (ID, "-1614265330", Unverified::Unsigned),
        (ID, "1614265330.0", Unverified::Unsigned),
        (ID, "99999999999999999999", Unverified::Unsigned),
        ("a.b", "1614265330", Unverified::Unsigned),
        ("a b", "1614265330", Unverified::Unsigned),
    ] {
        let headers = [Some(id), Some(timestamp), Some(SIGNATURE)];
        assert_eq!(
            said(&[SECRET], headers, BODY, SIGNED_AT),
            Err(cause),
            "{id}"
        );
    }
}

#[test]
fn s48_a_time_beyond_the_tolerance_is_refused_both_ways() {
    let all = [Some(ID), Some("1614265330"), Some(SIGNATURE)];
    for (off, expected) in [
        (TOLERANCE_SECONDS, Ok(ID.to_owned())),
        (TOLERANCE_SECONDS + 1, Err(Unverified::TooOld)),
        (-TOLERANCE_SECONDS, Ok(ID.to_owned())),
        (-TOLERANCE_SECONDS - 1, Err(Unverified::TooNew)),
    ] {
        assert_eq!(
            said(&[SECRET], all, BODY, SIGNED_AT + off),
            expected,
            "{off}"
        );
    }
    let forged = [Some(ID), Some("1614260000"), Some(SIGNATURE)];
    assert_eq!(
        said(&[SECRET], forged, BODY, SIGNED_AT),
        Err(Unverified::Signature),
        "nobody without a secret learns what is tolerated"
    );
}

#[test]
fn s49_two_secrets_are_live_during_rotation() {
    let all = [Some(ID), Some("1614265330"), Some(SIGNATURE)];
    for secrets in [&[SECRET, OTHER][..], &[OTHER, SECRET]] {
        assert!(said(secrets, all, BODY, SIGNED_AT).is_ok());
    }
    let said = said(&[OTHER], all, BODY, SIGNED_AT);
    assert_eq!(said, Err(Unverified::Signature));
}

#[test]
fn weak_foreign_or_too_many_secrets_are_refused_and_none_prints() {
    for bad in [
        "",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_c2hvcnQ=",
        "whsec_?",
    ] {
        let problem = StandardWebhooks::new(&[Secret::new(bad)]).unwrap_err();
        assert_eq!(problem, FORM, "{bad}");
    }
    let many = vec![Secret::new(SECRET); MAX_SECRETS + 1];
    let problem = StandardWebhooks::new(&many).unwrap_err();
    assert_eq!(problem, SecretsProblem::TooMany);
    let shown = format!("{:?}", verifier(&[SECRET]));
    assert_eq!(shown, "StandardWebhooks(1 secrets)");
}
