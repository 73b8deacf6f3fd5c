//! Authentication of entries: HMAC-SHA256 under a key that the database never sees, so that an
//! entry which a database superuser inserted is known for what it is.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{leaf::LeafData, text::MAX_NAME_BYTES};

/// Size of a MAC key, in bytes (the output size of the hash, RFC 2104, section 3).
pub const MAC_KEY_BYTES: usize = 32;

/// Domain separation: the same key used for anything else cannot yield a valid entry MAC.
const DOMAIN: &[u8] = b"quittance leaf mac v1\0";

/// Name of a MAC key, stored beside each MAC so that keys can be rotated: 1 to 64 of
/// `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacKeyId(String);

/// The text is not a key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a MAC key id is 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 . _ -")]
pub struct MacKeyIdError;

impl MacKeyId {
    /// Parses a key id.
    pub fn new(id: impl Into<String>) -> Result<Self, MacKeyIdError> {
        let id = id.into();
        let fits = (1..=MAX_NAME_BYTES).contains(&id.len());
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if fits && id.bytes().all(plain) {
            Ok(Self(id))
        } else {
            Err(MacKeyIdError)
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MacKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A MAC key with its id. The bytes are wiped on drop and never printed.
#[derive(Clone)]
pub struct MacKey {
    id: MacKeyId,
    secret: Zeroizing<[u8; MAC_KEY_BYTES]>,
}

impl MacKey {
    /// Makes a key of 32 bytes of a cryptographic random source (or derived from one).
    pub fn new(id: MacKeyId, secret: [u8; MAC_KEY_BYTES]) -> Self {
        Self {
            id,
            secret: Zeroizing::new(secret),
        }
    }

    /// The key's id.
    pub const fn id(&self) -> &MacKeyId {
        &self.id
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacKey")
            .field("id", &self.id)
            .field("secret", &"[redacted]")
            .finish()
    }
}

/// Why an entry is not authentic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// The MAC was made under another key than the one tried: look that key up.
    #[error("the MAC is under key {stated}, not {tried}")]
    OtherKey {
        /// Key id stored with the MAC.
        stated: MacKeyId,
        /// Id of the key given.
        tried: MacKeyId,
    },
    /// The key is the stated one, and the MAC is not over these bytes: forged or changed.
    #[error("the MAC does not match the entry")]
    Mismatch,
}

/// The MAC of one entry:
/// HMAC-SHA256(key, `"quittance leaf mac v1\0"` ‖ len(key id) as one byte ‖ key id ‖ leaf data).
///
/// Equality of two `LeafMac`s is not constant time; check authenticity with [`LeafMac::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafMac {
    key_id: MacKeyId,
    tag: [u8; 32],
}

impl LeafMac {
    /// Authenticates an entry.
    pub fn compute(key: &MacKey, leaf_data: &LeafData) -> Self {
        let tag = state(key, leaf_data.as_bytes())
            .finalize()
            .into_bytes()
            .into();
        Self {
            key_id: key.id.clone(),
            tag,
        }
    }

    /// Takes a stored MAC.
    pub const fn from_parts(key_id: MacKeyId, tag: [u8; 32]) -> Self {
        Self { key_id, tag }
    }

    /// Id of the key that made it.
    pub const fn key_id(&self) -> &MacKeyId {
        &self.key_id
    }

    /// The 32 bytes to store.
    pub const fn tag(&self) -> &[u8; 32] {
        &self.tag
    }

    /// Checks stored bytes, which may be anything, in constant time.
    pub fn verify(&self, key: &MacKey, leaf_data: &[u8]) -> Result<(), MacError> {
        if self.key_id != key.id {
            return Err(MacError::OtherKey {
                stated: self.key_id.clone(),
                tried: key.id.clone(),
            });
        }
        state(key, leaf_data)
            .verify_slice(&self.tag)
            .map_err(|_| MacError::Mismatch)
    }
}

fn state(key: &MacKey, leaf_data: &[u8]) -> Hmac<Sha256> {
    // A key of exactly one block needs no fallible length check (RFC 2104: zero-padded to 64 bytes).
    let mut block = Zeroizing::new([0_u8; 64]);
    block
        .iter_mut()
        .zip(key.secret.iter())
        .for_each(|(to, from)| *to = *from);
    let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
    let id = key.id.as_str().as_bytes();
    mac.update(DOMAIN);
    // The length keeps ids and data apart; ids are at most 64 bytes.
    mac.update(&[u8::try_from(id.len()).unwrap_or(u8::MAX)]);
    mac.update(id);
    mac.update(leaf_data);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, byte: u8) -> MacKey {
        MacKey::new(MacKeyId::new(id).unwrap(), [byte; MAC_KEY_BYTES])
    }

    #[test]
    fn a_key_never_prints_its_bytes() {
        let shown = format!("{:?}", key("k1", 0xab));
        assert!(shown.contains("redacted") && !shown.contains("171") && !shown.contains("ab,"));
    }

    #[test]
    fn key_ids_are_plain_and_bounded() {
        assert!(MacKeyId::new("2026-01.a_B").is_ok());
        for bad in ["", "a b", "ü", "a/b", &"k".repeat(65)] {
            assert_eq!(MacKeyId::new(bad), Err(MacKeyIdError));
        }
    }
}
