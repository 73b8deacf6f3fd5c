//! Checking signatures.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature as Ed25519Signature, Verifier as _, VerifyingKey};

use super::key::{KeyError, KeyId, KeyName, KeyType};
use crate::hash::lower_hex;

/// The published half of a key, written `name+<hex key id>+<base64(type ‖ public key)>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    key_type: KeyType,
    id: KeyId,
    public: VerifyingKey,
}

impl VerifierKey {
    pub(super) fn new(name: KeyName, key_type: KeyType, public: VerifyingKey) -> Self {
        let id = KeyId::of(&name, key_type, public.as_bytes());
        Self {
            name,
            key_type,
            id,
            public,
        }
    }

    /// Name of the key.
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// Type of the key.
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Id of the key.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Checks a signature over a note's text. Gives the time that a cosignature states.
    pub(super) fn verify(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, Invalid> {
        match self.key_type {
            KeyType::Ed25519 => {
                self.verify_bytes(text.as_bytes(), signature)?;
                Ok(None)
            }
            KeyType::Cosignature => {
                let (time, signature) = signature.split_first_chunk().ok_or(Invalid)?;
                let time = u64::from_be_bytes(*time);
                // C2SP tlog-cosignature: at most 2^63 - 1.
                i64::try_from(time).map_err(|_| Invalid)?;
                let message = cosigned_message(time, text);
                self.verify_bytes(message.as_bytes(), signature)?;
                Ok(Some(time))
            }
        }
    }

    /// As OpenSSL and Go verify: by the equation without the cofactor, and with `s` below the group's order. Not `verify_strict`,
    /// which also refuses a signature whose `R` is of small order: only whoever holds the key can make one, and verifiers of
    /// notes would disagree on it. Keys of small order, under which one signature is of many messages, are refused where a
    /// key is read.
    fn verify_bytes(&self, message: &[u8], signature: &[u8]) -> Result<(), Invalid> {
        let signature = Ed25519Signature::from_slice(signature).map_err(|_| Invalid)?;
        self.public.verify(message, &signature).map_err(|_| Invalid)
    }
}

/// The signature is not of this key over this text.
pub(super) struct Invalid;

/// What a witness signs (C2SP tlog-cosignature, version 1).
pub(super) fn cosigned_message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut data = vec![self.key_type.byte()];
        data.extend_from_slice(self.public.as_bytes());
        write!(f, "{}+{}+{}", self.name, self.id, STANDARD.encode(data))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = KeyError::Malformed("name+id+key");
        // The key's own base64 may hold a `+`, the name and the id cannot.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed);
        };
        let name = KeyName::new(name)?;
        let id = lower_hex(id).map(KeyId::from_bytes).ok_or(malformed)?;
        let data = STANDARD.decode(data).map_err(|_| malformed)?;
        let (key_type, public) = data.split_first().ok_or(malformed)?;
        let key_type = KeyType::of_byte(*key_type)?;
        let public = public.try_into().map_err(|_| malformed)?;
        let public = VerifyingKey::from_bytes(public).map_err(|_| KeyError::InvalidPoint)?;
        if public.is_weak() {
            return Err(KeyError::InvalidPoint);
        }
        let key = Self::new(name, key_type, public);
        if key.id == id {
            Ok(key)
        } else {
            Err(KeyError::WrongId)
        }
    }
}
