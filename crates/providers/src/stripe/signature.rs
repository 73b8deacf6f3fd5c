//! Stripe's signatures (<https://docs.stripe.com/webhooks#verify-manually>): HMAC-SHA256 over `{t}.{body}`, keyed with
//! the whole text of the secret.

use std::fmt;

use hmac::{Hmac, Mac as _};
use quittance_domain::webhook::{Delivery, Unverified};
use sha2::Sha256;

use crate::config::Secret;
use crate::webhook::{MAX_SECRETS, SecretsProblem, TOLERANCE_SECONDS};

/// What a secret has to be.
const FORM: SecretsProblem = SecretsProblem::Form("whsec_ and at least 24 further characters");

const HEADER: &str = "stripe-signature";
const TIME: &str = "t";
/// The scheme that counts; others may stand beside it.
const SCHEME: &str = "v1";
/// Most signatures that are looked at: one for each secret of an endpoint that rotates, and some more.
const MAX_SIGNATURES: usize = 16;
const SECRET_PREFIX: &str = "whsec_";
/// Fewest characters behind the prefix.
const MIN_SECRET: usize = 24;

/// The live secrets of an account.
pub(super) struct Secrets {
    /// Each keyed with one secret; cloned for each signature that is computed.
    keys: Vec<Hmac<Sha256>>,
}

/// Hand-written: it holds secrets.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.keys.len())
    }
}

/// The header, taken apart.
struct Signed<'a> {
    /// As it was signed.
    time: &'a str,
    seconds: i64,
    signatures: Vec<Vec<u8>>,
}

impl Secrets {
    /// Reads the secrets, `whsec_…` each. With none, nothing is ever verified.
    pub(super) fn new(secrets: &[Secret]) -> Result<Self, SecretsProblem> {
        if secrets.len() > MAX_SECRETS {
            return Err(SecretsProblem::TooMany);
        }
        let keys = secrets.iter().map(|secret| key(secret.expose()));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// Verifies a delivery. The time is looked at only where a signature matches: whoever has no secret learns nothing
    /// from it.
    pub(super) fn verify(&self, delivery: &Delivery<'_>) -> Result<(), Unverified> {
        if self.keys.is_empty() {
            return Err(Unverified::NoSecret);
        }
        let header = (delivery.header)(HEADER).ok_or(Unverified::Unsigned)?;
        let signed = read(header).ok_or(Unverified::Unsigned)?;
        if !self.matches(&signed, delivery.body) {
            return Err(Unverified::Signature);
        }
        let now = delivery.received_at.timestamp();
        if now.saturating_sub(signed.seconds) > TOLERANCE_SECONDS {
            return Err(Unverified::TooOld);
        }
        if signed.seconds.saturating_sub(now) > TOLERANCE_SECONDS {
            return Err(Unverified::TooNew);
        }
        Ok(())
    }

    /// Whether any signature is one under any secret. Every pair is compared, each in constant time.
    fn matches(&self, signed: &Signed<'_>, body: &[u8]) -> bool {
        let mut any = false;
        for key in &self.keys {
            let mut mac = key.clone();
            mac.update(signed.time.as_bytes());
            mac.update(b".");
            mac.update(body);
            for signature in &signed.signatures {
                any |= mac.clone().verify_slice(signature).is_ok();
            }
        }
        any
    }
}

fn key(secret: &str) -> Result<Hmac<Sha256>, SecretsProblem> {
    let random = secret.strip_prefix(SECRET_PREFIX);
    let random = random.ok_or(FORM)?;
    if random.len() < MIN_SECRET || !random.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(FORM);
    }
    Hmac::new_from_slice(secret.as_bytes()).map_err(|_| FORM)
}

/// `t=<seconds>,v1=<hex>[,v1=…]`, in any order. `None` without exactly one time and a signature of the scheme.
fn read(header: &str) -> Option<Signed<'_>> {
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        match part.split_once('=')? {
            (TIME, _) if time.is_some() => return None,
            (TIME, value) => time = Some(value),
            (SCHEME, value) if signatures.len() < MAX_SIGNATURES => {
                signatures.extend(lower_hex(value));
            }
            _ => {}
        }
    }
    let time = time.filter(|time| time.bytes().all(|b| b.is_ascii_digit()))?;
    (!signatures.is_empty()).then_some(Signed {
        time,
        seconds: time.parse().ok()?,
        signatures,
    })
}

/// As Stripe writes it: lower case alone.
fn lower_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    bytes.collect()
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
