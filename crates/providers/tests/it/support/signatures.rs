//! The conformance kit's cases of webhooks: who signed what, and when.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use quittance_domain::ports::Provider;
use quittance_domain::webhook::{Delivery, Unverified};
use quittance_providers::webhook::TOLERANCE_SECONDS;

/// A delivery as the provider makes it.
#[derive(Clone)]
pub struct SignedDelivery {
    /// Names in lower case.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// How a provider signs its webhooks, written apart from the adapter.
pub trait Signs: Send + Sync {
    /// Three secrets of its form.
    fn secrets(&self) -> [&'static str; 3];
    /// An account with these secrets.
    fn with_secrets(&self, secrets: &[&str]) -> Arc<dyn Provider>;
    /// An event of the provider's about an amount of 1000, signed under a secret at a time.
    fn signed(&self, secret: &str, at: DateTime<Utc>) -> SignedDelivery;
    /// What takes the signature off.
    fn unsigned(&self, delivery: SignedDelivery) -> SignedDelivery;
    /// Whether the time of signing is signed.
    fn signs_time(&self) -> bool {
        true
    }
}

fn verify(
    account: &dyn Provider,
    delivery: &SignedDelivery,
    received_at: DateTime<Utc>,
) -> Result<usize, Unverified> {
    let header = |name: &str| {
        let mut headers = delivery.headers.iter();
        let found = headers.find(|(own, _)| *own == name);
        found.map(|(_, value)| value.as_str())
    };
    let verified = account.verify(&Delivery {
        header: &header,
        body: &delivery.body,
        received_at,
    });
    verified.map(|events| {
        for event in &events {
            // What verified can be read, and is known again.
            assert!(event.id.is_some());
            assert!(account.webhook(event.body.expose()).is_ok());
        }
        events.len()
    })
}

/// Runs every case.
pub fn signatures(subject: &dyn Signs) {
    let now = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
    let [old, new, other] = subject.secrets();
    let account = subject.with_secrets(&[old, new]);
    // Two secrets are live while one replaces the other.
    for secret in [old, new] {
        assert_eq!(verify(&*account, &subject.signed(secret, now), now), Ok(1));
    }
    let forged = subject.signed(other, now);
    let refused = Err(Unverified::Signature);
    assert_eq!(verify(&*account, &forged, now), refused);
    let closed = subject.with_secrets(&[]);
    let signed = subject.signed(old, now);
    assert_eq!(verify(&*closed, &signed, now), Err(Unverified::NoSecret));
    let bare = subject.unsigned(signed.clone());
    assert_eq!(verify(&*account, &bare, now), Err(Unverified::Unsigned));
    altered(subject, &*account, &signed, now);
    times(subject, &*account, now);
}

/// Neither another amount under the signature, nor the body under any other header.
fn altered(
    subject: &dyn Signs,
    account: &dyn Provider,
    signed: &SignedDelivery,
    now: DateTime<Utc>,
) {
    let text = String::from_utf8(signed.body.clone()).unwrap();
    let more = SignedDelivery {
        body: text.replace("1000", "1001").into_bytes(),
        ..signed.clone()
    };
    assert_ne!(more.body, signed.body, "no amount of 1000");
    let refused = Err(Unverified::Signature);
    assert_eq!(verify(account, &more, now), refused);
    for (number, (_, value)) in signed.headers.iter().enumerate() {
        for changed in ["", "é", ",,,=", &value[1..], &value[..value.len() - 1]] {
            let mut altered = signed.clone();
            altered.headers[number].1 = changed.to_owned();
            assert!(verify(account, &altered, now).is_err(), "{changed}");
        }
    }
    for body in ["", "null", "[]", "{}", "\u{feff}", "{\"live\""] {
        let empty = SignedDelivery {
            body: body.as_bytes().to_vec(),
            ..subject.unsigned(signed.clone())
        };
        assert!(verify(account, &empty, now).is_err(), "{body}");
    }
}

/// A replay, and a sender whose clock is ahead.
fn times(subject: &dyn Signs, account: &dyn Provider, now: DateTime<Utc>) {
    let secret = subject.secrets()[0];
    for (seconds, expected) in [
        (-TOLERANCE_SECONDS, Ok(1)),
        (TOLERANCE_SECONDS, Ok(1)),
        (-TOLERANCE_SECONDS - 1, Err(Unverified::TooOld)),
        (TOLERANCE_SECONDS + 1, Err(Unverified::TooNew)),
    ] {
        let signed = subject.signed(secret, now + TimeDelta::seconds(seconds));
        let expected = if subject.signs_time() {
            expected
        } else {
            Ok(1)
        };
        assert_eq!(verify(account, &signed, now), expected, "{seconds}");
    }
}
