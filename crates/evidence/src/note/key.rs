//! How keys are named.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

/// Longest name of a key, in bytes.
const MAX_KEY_NAME_BYTES: usize = 255;

/// Why a key is refused. No variant quotes the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty, too long, or has spaces, `+` or control characters.
    #[error(
        "the name of a key is 1 to {MAX_KEY_NAME_BYTES} bytes without spaces, control characters and +"
    )]
    InvalidName,
    /// The text does not have the parts of a key.
    #[error("not a key: it should be of the form {0}")]
    Malformed(&'static str),
    /// The type of the key is neither Ed25519 (0x01) nor cosignature (0x04).
    #[error("the type of the key is unknown")]
    UnknownType,
    /// The 32 bytes are no public key, or one that verifies anything.
    #[error("not an Ed25519 public key")]
    InvalidPoint,
    /// The id in the text is not that of the key.
    #[error("the id does not belong to the key")]
    WrongId,
}

/// Name of a key, by convention a URL without its scheme: `example.com/quittance`. Also the origin
/// of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// Takes 1 to 255 bytes without Unicode spaces, control characters and `+`.
    pub fn new(name: impl Into<String>) -> Result<Self, KeyError> {
        let name = name.into();
        let fits = (1..=MAX_KEY_NAME_BYTES).contains(&name.len());
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
        if fits && name.chars().all(plain) {
            Ok(Self(name))
        } else {
            Err(KeyError::InvalidName)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// What a key signs, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// Ed25519 over the note's text.
    Ed25519,
    /// Ed25519 over a time and the text of a checkpoint (C2SP tlog-cosignature, version 1).
    Cosignature,
}

impl KeyType {
    /// The byte that C2SP signed-note assigns.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }

    pub(super) const fn of_byte(byte: u8) -> Result<Self, KeyError> {
        match byte {
            0x01 => Ok(Self::Ed25519),
            0x04 => Ok(Self::Cosignature),
            _ => Err(KeyError::UnknownType),
        }
    }
}

/// The first four bytes of SHA-256(name ‖ 0x0A ‖ type ‖ public key). It tells keys of one name
/// apart and proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

impl KeyId {
    pub(super) fn of(name: &KeyName, key_type: KeyType, public: &[u8; 32]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(name.as_str());
        hasher.update([b'\n', key_type.byte()]);
        hasher.update(public);
        let [a, b, c, d, ..] = <[u8; 32]>::from(hasher.finalize());
        Self([a, b, c, d])
    }

    pub(super) const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The four bytes.
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }
}

/// Eight lower-case hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
