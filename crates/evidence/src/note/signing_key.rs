//! Making signatures.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use super::{
    Signature,
    key::{KeyError, KeyId, KeyName, KeyType},
    verifier_key::{VerifierKey, cosigned_message},
};
use crate::hash::lower_hex;

/// Bytes of the seed of a key (RFC 8032, 5.1.5: the private key).
pub const SEED_BYTES: usize = 32;

/// How the text of a private key starts.
const TEXT_START: &str = "PRIVATE+KEY+";

/// A private key that signs notes. Its bytes are wiped on drop and never printed.
#[derive(Clone)]
pub struct SigningKey {
    verifier: VerifierKey,
    secret: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// Makes a key of 32 bytes of a cryptographic random source.
    pub fn from_seed(name: KeyName, seed: &[u8; SEED_BYTES]) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, KeyType::Ed25519, secret.verifying_key());
        Self { verifier, secret }
    }

    /// Reads `PRIVATE+KEY+<name>+<hex key id>+<base64(0x01 ‖ seed)>`, the form of Go's
    /// `golang.org/x/mod/sumdb/note`, which tools for such logs share. Blanks around it are ignored, so
    /// that a file may end with a newline.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let malformed = KeyError::Malformed("PRIVATE+KEY+name+id+key");
        let parts = text.trim().strip_prefix(TEXT_START).ok_or(malformed)?;
        let mut parts = parts.splitn(3, '+');
        let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed);
        };
        let name = KeyName::new(name)?;
        let id = lower_hex(id).map(KeyId::from_bytes).ok_or(malformed)?;
        let data = Zeroizing::new(STANDARD.decode(data).map_err(|_| malformed)?);
        let (key_type, seed) = data.split_first().ok_or(malformed)?;
        match KeyType::of_byte(*key_type)? {
            KeyType::Ed25519 => {}
            KeyType::Cosignature => return Err(KeyError::UnknownType),
        }
        let key = Self::from_seed(name, seed.try_into().map_err(|_| malformed)?);
        if key.verifier.id() == id {
            Ok(key)
        } else {
            Err(KeyError::WrongId)
        }
    }

    /// The text that [`SigningKey::parse`] reads, to be kept where nobody else reads it.
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut data = Zeroizing::new([0_u8; 1 + SEED_BYTES]);
        let (key_type, seed) = data.split_at_mut(1);
        key_type.fill(self.verifier.key_type().byte());
        seed.copy_from_slice(self.secret.as_bytes());
        let encoded = Zeroizing::new(STANDARD.encode(data.as_slice()));
        let (name, id) = (self.verifier.name(), self.verifier.id());
        Zeroizing::new(format!("{TEXT_START}{name}+{id}+{}", encoded.as_str()))
    }

    /// The half of the key to publish.
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Name of the key.
    pub const fn name(&self) -> &KeyName {
        self.verifier.name()
    }

    /// Signs a note's text.
    pub(super) fn sign(&self, text: &str) -> Signature {
        let bytes = self.secret.sign(text.as_bytes()).to_vec();
        Signature::new(self.name().clone(), self.verifier.id(), bytes)
    }
}

impl FromStr for SigningKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "SigningKey", &self.verifier)
    }
}

/// The private key of a witness: it signs nothing but checkpoints, with a time. Its bytes are wiped on
/// drop and never printed.
#[derive(Clone)]
pub struct WitnessKey {
    verifier: VerifierKey,
    secret: ed25519_dalek::SigningKey,
}

impl WitnessKey {
    /// The half of the key to publish.
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs the text of a checkpoint as of `time`, seconds since 1970, at most 2^63 - 1.
    pub(crate) fn cosign(&self, text: &str, time: u64) -> Signature {
        let message = cosigned_message(time, text);
        let signature = self.secret.sign(message.as_bytes()).to_bytes();
        let bytes = [&time.to_be_bytes()[..], &signature].concat();
        Signature::new(self.verifier.name().clone(), self.verifier.id(), bytes)
    }
}

/// A witness's key is kept in the same form as any other; what it signs makes it one. Use it for
/// nothing else (C2SP tlog-cosignature).
impl From<SigningKey> for WitnessKey {
    fn from(key: SigningKey) -> Self {
        let (name, public) = (key.name().clone(), key.secret.verifying_key());
        Self {
            verifier: VerifierKey::new(name, KeyType::Cosignature, public),
            secret: key.secret,
        }
    }
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "WitnessKey", &self.verifier)
    }
}

fn debug(f: &mut fmt::Formatter<'_>, kind: &str, verifier: &VerifierKey) -> fmt::Result {
    f.debug_struct(kind)
        .field("verifier", &verifier.to_string())
        .field("secret", &"[redacted]")
        .finish()
}
