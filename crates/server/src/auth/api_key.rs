//! API keys: `qk_<key id>_<secret>`. The database holds only a keyed hash of the secret, so that
//! neither a copy of it nor the right to write to it gives a working key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quittance_store::KeyRing;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

/// How every API key begins; secret scanners find leaked keys by it.
const PREFIX: &str = "qk_";
/// Bytes of a key id; twice as many hexadecimal digits.
const KEY_ID_BYTES: usize = 8;
/// Bytes of a key's secret.
const SECRET_BYTES: usize = 32;
/// The secret as text: base64url without padding.
const SECRET_CHARS: usize = 43;

/// The public part of an API key: 16 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyId(String);

impl KeyId {
    /// Parses a key id.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 2 * KEY_ID_BYTES && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An API key with its secret.
pub struct ApiKey {
    id: KeyId,
    secret: Zeroizing<String>,
}

/// Hand-written: the secret stays out.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl ApiKey {
    /// Makes a new key from the operating system's random source.
    ///
    /// # Errors
    /// That of the random source.
    pub fn generate() -> Result<Self, rand::rand_core::OsError> {
        let mut id = [0; KEY_ID_BYTES];
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        OsRng.try_fill_bytes(&mut id)?;
        OsRng.try_fill_bytes(secret.as_mut_slice())?;
        Ok(Self {
            id: KeyId(hex::encode(id)),
            secret: Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice())),
        })
    }

    /// Parses what a caller sent.
    pub fn parse(text: &str) -> Option<Self> {
        // The secret may hold underscores, the id cannot.
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let is_secret = secret.len() == SECRET_CHARS && secret.bytes().all(allowed);
        let id = KeyId::parse(id)?;
        is_secret.then(|| Self {
            id,
            secret: Zeroizing::new(secret.to_owned()),
        })
    }

    /// The public part.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The whole key, to be shown once.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}_{}", self.id.0, self.secret.as_str()))
    }

    /// What is hashed: the id too, so that a hash cannot be moved to another key.
    pub(crate) fn hashed_text(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.id.0.as_bytes(), b"\0", self.secret.as_bytes()].concat())
    }

    /// The keyed hash to store, and the id of the master key it is under.
    pub fn hash(&self, keys: &KeyRing) -> KeyHash {
        let (mac, mac_key_id) = keys.api_key_mac(&self.hashed_text());
        KeyHash {
            mac: mac.to_vec(),
            mac_key_id,
        }
    }

    /// Whether `stored` is the hash of this key, in constant time.
    pub fn matches(&self, stored: &KeyHash, keys: &KeyRing) -> bool {
        keys.verify_api_key(&self.hashed_text(), &stored.mac_key_id, &stored.mac)
    }
}

/// The keyed hash of an API key, as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyHash {
    /// HMAC-SHA256 of the key.
    pub mac: Vec<u8>,
    /// The id of the master key it is under.
    pub mac_key_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(ids: &[(&str, u8)]) -> KeyRing {
        KeyRing::new(ids.iter().map(|(id, byte)| ((*id).to_owned(), [*byte; 32]))).unwrap()
    }

    #[test]
    fn a_key_survives_text_and_is_only_verified_by_its_own_hash() {
        let key = ApiKey::generate().unwrap();
        let text = key.reveal();
        assert!(text.starts_with("qk_"));
        let parsed = ApiKey::parse(&text).unwrap();
        let ring = ring(&[("a", 1)]);
        let stored = key.hash(&ring);
        assert_eq!(stored.mac.len(), 32);
        assert!(parsed.matches(&stored, &ring));
        assert!(!ApiKey::generate().unwrap().matches(&stored, &ring));
        let cut = KeyHash {
            mac: Vec::new(),
            ..stored
        };
        assert!(!parsed.matches(&cut, &ring));
    }

    #[test]
    fn the_id_is_part_of_what_is_hashed() {
        let key = ApiKey::generate().unwrap();
        let other = ApiKey {
            id: KeyId("00".repeat(KEY_ID_BYTES)),
            secret: key.secret.clone(),
        };
        let ring = ring(&[("a", 1)]);
        assert!(!other.matches(&key.hash(&ring), &ring));
    }

    #[test]
    fn keys_made_before_a_rotation_still_work() {
        let key = ApiKey::generate().unwrap();
        let stored = key.hash(&ring(&[("a", 1)]));
        assert!(key.matches(&stored, &ring(&[("b", 2), ("a", 1)])));
        assert!(!key.matches(&stored, &ring(&[("b", 2)])));
        assert!(!key.matches(&stored, &ring(&[("a", 3)])));
    }

    #[test]
    fn what_is_no_key_is_refused_before_the_database_is_asked() {
        let key = ApiKey::generate().unwrap().reveal();
        let id_upper = key.replacen(&key[3..19], &"A".repeat(16), 1);
        let cut = &key[..key.len() - 1];
        for text in [
            "",
            "qk_",
            "qk__",
            "Bearer",
            "sk_0011",
            &id_upper,
            cut,
            &format!("{}x", key.as_str()),
        ] {
            assert!(ApiKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn debug_output_has_no_secret() {
        let key = ApiKey::generate().unwrap();
        assert!(!format!("{key:?}").contains(key.secret.as_str()));
    }
}
