//! Standard Webhooks (standardwebhooks.com, version 1): HMAC-SHA256 over `{id}.{timestamp}.{body}`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use quittance_domain::ids::EventId;
use quittance_domain::webhook::{Delivery, Unverified};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::Secret;

/// By how much the time of signing may differ from now, in seconds, both ways.
pub const TOLERANCE_SECONDS: i64 = 300;
/// Most secrets that are live at once: the one that is being replaced, and the one that replaces it.
pub const MAX_SECRETS: usize = 2;
/// Most signatures of one webhook that are looked at: one for each secret of a sender that rotates, and some more.
const MAX_SIGNATURES: usize = 16;
/// How a secret begins.
const SECRET_PREFIX: &str = "whsec_";
/// How many bytes a secret has.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How many bytes a secret that we make has.
pub const NEW_SECRET_BYTES: usize = 32;
/// What the scheme gives as a secret.
const FORM: SecretsProblem = SecretsProblem::Form("whsec_ and the base64 of 24 to 64 bytes");
/// How a signature of this scheme begins; others may stand beside it.
const SIGNATURE_PREFIX: &str = "v1,";

/// Why the secrets of an account were refused. Names no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SecretsProblem {
    /// A secret is not of the form that the provider gives them.
    #[error("each webhook secret must be {0}")]
    Form(&'static str),
    /// There are more than [`MAX_SECRETS`].
    #[error("at most {MAX_SECRETS} webhook secrets can be live at once")]
    TooMany,
}

/// The live secrets of an account.
pub struct StandardWebhooks {
    /// Each keyed with one secret; cloned for each signature that is computed.
    keys: Vec<Hmac<Sha256>>,
}

/// Hand-written: it holds secrets.
impl fmt::Debug for StandardWebhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StandardWebhooks({} secrets)", self.keys.len())
    }
}

impl StandardWebhooks {
    /// Reads the secrets, `whsec_` and the base64 of 24 to 64 bytes each. With none, nothing is ever verified.
    pub fn new(secrets: &[Secret]) -> Result<Self, SecretsProblem> {
        if secrets.len() > MAX_SECRETS {
            return Err(SecretsProblem::TooMany);
        }
        Self::signing(secrets)
    }

    /// Reads the secrets that what we send is signed with, however many are live: whoever is told one that is not known there
    /// passes over it.
    pub fn signing(secrets: &[Secret]) -> Result<Self, SecretsProblem> {
        let keys = secrets.iter().map(|secret| key(secret.expose()));
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// Verifies a delivery and gives the id of its event, which is part of what is signed.
    ///
    /// The time is looked at only where a signature matches: whoever has no secret learns nothing from it.
    pub fn verify(&self, delivery: &Delivery<'_>) -> Result<EventId, Unverified> {
        if self.keys.is_empty() {
            return Err(Unverified::NoSecret);
        }
        let header = |name| (delivery.header)(name).ok_or(Unverified::Unsigned);
        let event = event_id(header("webhook-id")?)?;
        let timestamp = header("webhook-timestamp")?;
        let signed_at = seconds(timestamp)?;
        let given = signatures(header("webhook-signature")?)?;
        let signed = [event.as_str(), ".", timestamp, "."];
        if !self.matches(&signed, delivery.body, &given) {
            return Err(Unverified::Signature);
        }
        let now = delivery.received_at.timestamp();
        if now.saturating_sub(signed_at) > TOLERANCE_SECONDS {
            return Err(Unverified::TooOld);
        }
        if signed_at.saturating_sub(now) > TOLERANCE_SECONDS {
            return Err(Unverified::TooNew);
        }
        Ok(event)
    }

    /// The signatures of a webhook that we send, under every secret, in their order: the value of
    /// `webhook-signature`. The id must hold no dot.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.keys.iter().map(|key| {
            let mut mac = key.clone();
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            let signature = BASE64.encode(mac.finalize().into_bytes());
            format!("{SIGNATURE_PREFIX}{signature}")
        });
        signatures.collect::<Vec<_>>().join(" ")
    }

    /// Whether any signature is one under any secret. Every pair is compared, each in constant time.
    fn matches(&self, signed: &[&str], body: &[u8], given: &[Vec<u8>]) -> bool {
        let mut any = false;
        for key in &self.keys {
            let mut mac = key.clone();
            for part in signed {
                mac.update(part.as_bytes());
            }
            mac.update(body);
            for signature in given {
                any |= mac.clone().verify_slice(signature).is_ok();
            }
        }
        any
    }
}

/// A new secret: `whsec_` and the base64 of [`NEW_SECRET_BYTES`] of these bytes.
pub fn secret_of(bytes: &[u8; NEW_SECRET_BYTES]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(BASE64.encode(bytes));
    Zeroizing::new(format!("{SECRET_PREFIX}{}", encoded.as_str()))
}

fn key(secret: &str) -> Result<Hmac<Sha256>, SecretsProblem> {
    let encoded = secret.strip_prefix(SECRET_PREFIX).ok_or(FORM)?;
    let key = BASE64.decode(encoded).map(Zeroizing::new);
    let key = key.map_err(|_| FORM)?;
    if !SECRET_BYTES.contains(&key.len()) {
        return Err(FORM);
    }
    Hmac::new_from_slice(&key).map_err(|_| FORM)
}

/// Without a dot: with one, `{id}.{timestamp}` could be divided in several ways, and a signature be moved from one
/// webhook to another.
fn event_id(text: &str) -> Result<EventId, Unverified> {
    EventId::parse(text)
        .ok()
        .filter(|id| !id.as_str().contains('.'))
        .ok_or(Unverified::Unsigned)
}

/// Seconds since 1970, digits only.
fn seconds(text: &str) -> Result<i64, Unverified> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|_| digits);
    seconds.ok_or(Unverified::Unsigned)
}

/// The signatures of this scheme, separated by spaces; those of others are passed over.
fn signatures(text: &str) -> Result<Vec<Vec<u8>>, Unverified> {
    let ours = text
        .split(' ')
        .filter_map(|signature| signature.strip_prefix(SIGNATURE_PREFIX))
        .filter_map(|encoded| BASE64.decode(encoded).ok())
        .take(MAX_SIGNATURES);
    let ours: Vec<_> = ours.collect();
    if ours.is_empty() {
        return Err(Unverified::Unsigned);
    }
    Ok(ours)
}

#[cfg(test)]
#[path = "standard_tests.rs"]
mod tests;
