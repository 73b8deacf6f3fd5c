//! Personal values: the entry holds a salted digest, the value and its salt live elsewhere and can
//! be destroyed without breaking any proof.
//!
//! The form is that of SD-JWT (RFC 9901, 4.2): the *disclosure* is
//! `base64url(JSON [salt, name, value])`, and the digest is `base64url(SHA-256(disclosure))`. Our JSON
//! is canonical (RFC 8785), so that a disclosure can be made again from its parts. Never make one of
//! a card number: its few possible values can be tried one by one once the salt is known.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de};
use sha2::{Digest as _, Sha256};

use crate::{canonical_json::push_string, text::is_field_name};

/// Size of a salt, in bytes (128 bits, the least that RFC 9901, 9.3 recommends).
pub const SALT_BYTES: usize = 16;

/// Longest personal value, in bytes of UTF-8.
pub const MAX_VALUE_BYTES: usize = 8_192;

/// Longest encoded disclosure: a value of nothing but control characters takes six bytes for one,
/// and base64 four for three.
const MAX_ENCODED_BYTES: usize = (MAX_VALUE_BYTES * 6 + 256) / 3 * 4 + 4;

/// Why a disclosure is refused. No variant quotes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DisclosureError {
    /// The name is not 1 to 64 of `a-z 0-9 _ . -` starting with a letter.
    #[error("the name of a disclosed field is 1 to 64 of a-z 0-9 _ . - starting with a letter")]
    InvalidName,
    /// The value is longer than [`MAX_VALUE_BYTES`].
    #[error("a disclosed value is at most {MAX_VALUE_BYTES} bytes")]
    ValueTooLong,
    /// The text is not base64url of `[salt, name, value]`.
    #[error("not a disclosure")]
    Malformed,
    /// The text is a disclosure, but not written in the one canonical way.
    #[error("the disclosure is not canonical")]
    NotCanonical,
}

/// One personal value with the salt that hides it. `Debug` shows the name only.
#[derive(Clone, PartialEq, Eq)]
pub struct Disclosure {
    salt: [u8; SALT_BYTES],
    name: String,
    value: String,
}

impl Disclosure {
    /// Joins a salt (16 bytes of a cryptographic random source, used once), a field name and a value.
    ///
    /// The value is kept exactly, control characters included: it is shown, not logged.
    pub fn new(
        salt: [u8; SALT_BYTES],
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, DisclosureError> {
        let (name, value) = (name.into(), value.into());
        if !is_field_name(&name) {
            return Err(DisclosureError::InvalidName);
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(DisclosureError::ValueTooLong);
        }
        Ok(Self { salt, name, value })
    }

    /// The salt.
    pub const fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }

    /// The field's name, the key under which an entry holds the digest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The personal value.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The disclosure as text: `base64url(JSON [salt, name, value])`, unpadded.
    pub fn encode(&self) -> String {
        let mut json = Vec::with_capacity(self.name.len() + self.value.len() + 40);
        json.push(b'[');
        push_string(&mut json, &URL_SAFE_NO_PAD.encode(self.salt));
        json.push(b',');
        push_string(&mut json, &self.name);
        json.push(b',');
        push_string(&mut json, &self.value);
        json.push(b']');
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Reads what [`Disclosure::encode`] wrote, and nothing else.
    pub fn parse(encoded: &str) -> Result<Self, DisclosureError> {
        if encoded.len() > MAX_ENCODED_BYTES {
            return Err(DisclosureError::ValueTooLong);
        }
        let malformed = DisclosureError::Malformed;
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed)?;
        let (salt, name, value): (String, String, String) =
            serde_json::from_slice(&json).map_err(|_| malformed)?;
        let salt = decode_base64url(&salt).ok_or(malformed)?;
        let disclosure = Self::new(salt, name, value)?;
        if disclosure.encode() == encoded {
            Ok(disclosure)
        } else {
            Err(DisclosureError::NotCanonical)
        }
    }

    /// The digest that stands for the value in an entry.
    pub fn digest(&self) -> DisclosureDigest {
        DisclosureDigest::of_encoded(&self.encode())
    }
}

impl fmt::Debug for Disclosure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disclosure")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Digest of a disclosure: 32 bytes, written as 43 characters of unpadded base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DisclosureDigest([u8; 32]);

impl DisclosureDigest {
    /// The digest of an encoded disclosure, whoever encoded it: SHA-256 over its ASCII bytes.
    pub fn of_encoded(encoded: &str) -> Self {
        Self(Sha256::digest(encoded.as_bytes()).into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for DisclosureDigest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for DisclosureDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for DisclosureDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DisclosureDigest({self})")
    }
}

impl FromStr for DisclosureDigest {
    type Err = DisclosureError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode_base64url(text)
            .map(Self)
            .ok_or(DisclosureError::Malformed)
    }
}

impl<'de> Deserialize<'de> for DisclosureDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Reads exactly `N` bytes of unpadded base64url.
pub(crate) fn decode_base64url<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_salt_nor_value() {
        let disclosure = Disclosure::new([7; 16], "customer.name", "Ada Lovelace").unwrap();
        let shown = format!("{disclosure:?}");
        assert_eq!(shown, "Disclosure { name: \"customer.name\", .. }");
    }

    #[test]
    fn the_example_of_rfc_9901_has_its_published_digest() {
        // RFC 9901, 4.2.1 and 4.2.3: family_name "Möbius".
        let encoded = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0";
        assert_eq!(
            DisclosureDigest::of_encoded(encoded).to_string(),
            "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"
        );
        // Its salt is not 16 bytes and its JSON has spaces: not one of ours.
        assert!(Disclosure::parse(encoded).is_err());
    }

    #[test]
    fn only_the_canonical_text_parses() {
        let salt = URL_SAFE_NO_PAD.encode([9; 16]);
        let parse = |json: String| Disclosure::parse(&URL_SAFE_NO_PAD.encode(json));
        assert!(parse(format!(r#"["{salt}","email","a@b.example"]"#)).is_ok());
        for (json, error) in [
            (
                format!(r#"["{salt}", "email","a"]"#),
                DisclosureError::NotCanonical,
            ),
            (
                format!(r#"["{salt}","email","\u0061"]"#),
                DisclosureError::NotCanonical,
            ),
            (
                format!(r#"["{salt}","email","a","b"]"#),
                DisclosureError::Malformed,
            ),
            (
                format!(r#"["{salt}","email",null]"#),
                DisclosureError::Malformed,
            ),
            (
                r#"["AAAA","email","a"]"#.to_owned(),
                DisclosureError::Malformed,
            ),
            (
                format!(r#"["{salt}","_sd","a"]"#),
                DisclosureError::InvalidName,
            ),
        ] {
            assert_eq!(parse(json), Err(error));
        }
    }

    #[test]
    fn the_longest_worst_value_still_parses() {
        let value = "\u{1}".repeat(MAX_VALUE_BYTES);
        let longest = Disclosure::new([1; 16], "n".repeat(64), value.clone()).unwrap();
        assert_eq!(Disclosure::parse(&longest.encode()), Ok(longest));
        assert_eq!(
            Disclosure::new([1; 16], "n", value + "x"),
            Err(DisclosureError::ValueTooLong)
        );
    }
}
