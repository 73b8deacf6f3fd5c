//! Fingerprints of requests: a keyed MAC per field, so that a request under a known idempotency key can be
//! compared field by field, and the differing field named, without keeping what it held (I6).

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Version of the field list and of the encoding; stored as the first byte.
const VERSION: u8 = 1;
/// What an erasure wipes of a stored fingerprint: zeros stand in its place, and it is not compared any more.
pub const PERSONAL_FIELDS: [&str; 3] = ["payment_method.provider_token", "customer", "parameters"];
/// Bytes kept of each field's MAC.
const FIELD_MAC: usize = 8;

/// The key under which fingerprints are made.
#[derive(Clone)]
pub struct FingerprintKey(Zeroizing<[u8; 32]>);

impl FingerprintKey {
    /// Wraps 32 secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey(<sensitive>)")
    }
}

/// The fields of a request in their fixed order: (name as callers know it, canonical value).
pub type Fields = Vec<(&'static str, Vec<u8>)>;

/// One byte of version, then eight bytes for each field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// Computes the fingerprint of `fields` under `key`, bound to the tenant and the idempotency key, so
    /// that equal values of two requests cannot be told from the database.
    pub fn compute(
        key: &FingerprintKey,
        tenant: &str,
        idempotency_key: &str,
        fields: &Fields,
    ) -> Self {
        let mut bytes = Vec::with_capacity(1 + fields.len() * FIELD_MAC);
        bytes.push(VERSION);
        for (name, value) in fields {
            bytes.extend_from_slice(&field_mac(key, &[tenant, idempotency_key, name], value));
        }
        Self(bytes)
    }

    /// Reads a stored fingerprint.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes as stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Compares with the fingerprint of a new request with these `fields`.
    ///
    /// What an erasure has wiped does not differ. Returns the name of the first differing field; `Some("request")` where the stored one was made by a
    /// version that cannot be compared field by field.
    pub fn first_difference(&self, new: &Self, fields: &Fields) -> Option<&'static str> {
        if self == new {
            return None;
        }
        let (Some((stored_version, stored)), Some((version, made))) =
            (self.0.split_first(), new.0.split_first())
        else {
            return Some("request");
        };
        if stored_version != version || stored.len() != made.len() {
            return Some("request");
        }
        let pairs = stored.chunks(FIELD_MAC).zip(made.chunks(FIELD_MAC));
        let mut wiped = false;
        for ((old, new), (name, _)) in pairs.zip(fields) {
            if old == new {
                continue;
            }
            if !(PERSONAL_FIELDS.contains(name) && old.iter().all(|byte| *byte == 0)) {
                return Some(name);
            }
            wiped = true;
        }
        (!wiped).then_some("request")
    }
}

/// HMAC-SHA256 over length-prefixed parts, shortened to [`FIELD_MAC`] bytes.
fn field_mac(key: &FingerprintKey, labels: &[&str], value: &[u8]) -> [u8; FIELD_MAC] {
    let mut out = [0; FIELD_MAC];
    // HMAC takes a key of any length, so this cannot fail; an all-zero MAC would only refuse replays.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.0.as_ref()) else {
        return out;
    };
    for part in labels.iter().map(|label| label.as_bytes()).chain([value]) {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part);
    }
    for (to, from) in out.iter_mut().zip(mac.finalize().into_bytes()) {
        *to = from;
    }
    out
}

/// A keyed digest of an idempotency key, for the journal.
pub fn idempotency_key_digest(
    key: &FingerprintKey,
    tenant: &str,
    idempotency_key: &str,
) -> [u8; 32] {
    let mut out = [0; 32];
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.0.as_ref()) else {
        return out;
    };
    for part in ["idempotency-key", tenant, idempotency_key] {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part.as_bytes());
    }
    out.copy_from_slice(&mac.finalize().into_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(amount: &str, reference: &str) -> Fields {
        vec![
            ("amount.minor_units", amount.as_bytes().to_vec()),
            ("merchant_reference", reference.as_bytes().to_vec()),
        ]
    }

    fn fingerprint(fields: &Fields) -> Fingerprint {
        Fingerprint::compute(&FingerprintKey::new([7; 32]), "acme", "key-1", fields)
    }

    #[test]
    fn s27_the_first_differing_field_is_named() {
        let stored = fingerprint(&fields("100", "order-1"));
        for (amount, reference, expected) in [
            ("100", "order-1", None),
            ("101", "order-1", Some("amount.minor_units")),
            ("100", "order-2", Some("merchant_reference")),
            ("101", "order-2", Some("amount.minor_units")),
        ] {
            let new = fields(amount, reference);
            assert_eq!(stored.first_difference(&fingerprint(&new), &new), expected);
        }
    }

    #[test]
    fn what_an_erasure_has_wiped_is_not_compared_and_everything_else_is() {
        let fields = |amount: &str, token: &str| -> Fields {
            vec![
                ("amount.minor_units", amount.into()),
                ("payment_method.provider_token", token.into()),
            ]
        };
        let made = fingerprint(&fields("100", "tok_1"));
        let wipe = |field: usize| {
            let mut bytes = made.as_bytes().to_vec();
            bytes[1 + field * FIELD_MAC..][..FIELD_MAC].fill(0);
            Fingerprint::from_bytes(bytes)
        };
        for (stored, amount, token, expected) in [
            (wipe(1), "100", "tok_1", None),
            (wipe(1), "100", "tok_2", None),
            (wipe(1), "101", "tok_1", Some("amount.minor_units")),
            (wipe(0), "100", "tok_1", Some("amount.minor_units")),
        ] {
            let new = fields(amount, token);
            assert_eq!(stored.first_difference(&fingerprint(&new), &new), expected);
        }
    }

    #[test]
    fn fingerprints_of_other_versions_differ_as_a_whole() {
        let new = fields("1", "2");
        let old = Fingerprint::from_bytes(vec![0; 17]);
        assert_eq!(
            old.first_difference(&fingerprint(&new), &new),
            Some("request")
        );
        assert_eq!(
            Fingerprint::from_bytes(vec![]).first_difference(&fingerprint(&new), &new),
            Some("request")
        );
    }
}
