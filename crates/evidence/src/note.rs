//! Signed notes (C2SP signed-note): a text, and under it the signatures of those who vouch for it.
//!
//! ```text
//! <text, one or more lines>
//!
//! — <key name> <base64(key id ‖ signature)>
//! ```
//!
//! Two types of signature are known: Ed25519 (type 0x01), and the cosignature of a witness (0x04),
//! which states a time as well. Signatures of other types or unknown keys are kept and not believed.

mod key;
mod signing_key;
mod verifier_key;

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

pub use key::{KeyError, KeyId, KeyName, KeyType};
pub use signing_key::{SEED_BYTES, SigningKey, WitnessKey};
pub use verifier_key::VerifierKey;

/// Longest note, in bytes.
pub const MAX_NOTE_BYTES: usize = 262_144;

/// Most signatures of a note.
pub const MAX_SIGNATURES: usize = 64;

/// What every signature line starts with: an em dash and a space.
const SIGNATURE_START: &str = "\u{2014} ";

/// Why a note is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than [`MAX_NOTE_BYTES`].
    #[error("a note has at most {MAX_NOTE_BYTES} bytes")]
    TooLarge,
    /// Not UTF-8, or with control characters other than newline.
    #[error("a note is UTF-8 without control characters")]
    NotText,
    /// There is no blank line between a text that ends its last line, and signatures.
    #[error("a note is a text, a blank line, and signatures")]
    NoSignatures,
    /// A line under the text is no signature.
    #[error("signature line {0} of the note is malformed")]
    MalformedSignature(usize),
    /// More than [`MAX_SIGNATURES`].
    #[error("a note has at most {MAX_SIGNATURES} signatures")]
    TooManySignatures,
    /// A signature that claims to be of a known key is not.
    #[error("the signature of {0} does not verify")]
    WrongSignature(KeyName),
    /// None of the signatures is of a known key.
    #[error("the note is not signed by a known key")]
    UnknownSigners,
}

/// A text with signatures, which [`Note::verify`] checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    name: KeyName,
    key_id: KeyId,
    /// As its type has it: 64 bytes, with 8 bytes of time before them in a cosignature.
    bytes: Vec<u8>,
}

/// A signature that verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<'k> {
    /// Whose it is.
    pub key: &'k VerifierKey,
    /// When it was given, in seconds since 1970, where its type says so: in a cosignature.
    pub time: Option<u64>,
}

impl Note {
    /// Signs a text. The same text and keys give the same note.
    ///
    /// # Errors
    /// `NotText` where the text does not end with a newline or has control characters; `NoSignatures`
    /// and `TooManySignatures` for the number of keys; `TooLarge`.
    pub fn sign(text: impl Into<String>, keys: &[&SigningKey]) -> Result<Self, NoteError> {
        let text = text.into();
        let signatures = keys.iter().map(|key| key.sign(&text)).collect();
        let note = Self { text, signatures };
        if !is_text(&note.text) || !note.text.ends_with('\n') {
            return Err(NoteError::NotText);
        }
        note.check_count()?;
        if note.to_string().len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLarge);
        }
        Ok(note)
    }

    /// Reads a note. What it says is not to be believed before [`Note::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLarge);
        }
        let all = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        if !is_text(all) {
            return Err(NoteError::NotText);
        }
        // The last blank line; the text's own newline is the first of the two.
        let (text, lines) = all.rsplit_once("\n\n").ok_or(NoteError::NoSignatures)?;
        let signatures = Signature::parse_lines(lines)?;
        let note = Self {
            text: format!("{text}\n"),
            signatures,
        };
        note.check_count()?;
        Ok(note)
    }

    /// The text, with the newline at its end.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, known or not.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// The same text with the signatures of these keys only, whatever else somebody wrote under it.
    #[must_use]
    pub fn only_of(&self, keys: &[VerifierKey]) -> Self {
        let known = |signature: &&Signature| keys.iter().any(|key| signature.is_of(key));
        let signatures = self.signatures.iter().filter(known).cloned();
        Self {
            text: self.text.clone(),
            signatures: signatures.collect(),
        }
    }

    /// Adds signatures that others gave, such as the cosignatures of a witness. One that the note has
    /// already is not added twice.
    pub fn add(&mut self, more: impl IntoIterator<Item = Signature>) -> Result<(), NoteError> {
        for signature in more {
            if !self.signatures.contains(&signature) {
                self.signatures.push(signature);
            }
        }
        self.check_count()
    }

    /// Checks the signatures of `keys`, and ignores those of others. Gives each of `keys` that signed
    /// once, in their order.
    ///
    /// # Errors
    /// `WrongSignature` where any signature under the name and id of one of `keys` does not verify;
    /// `UnknownSigners` where there is none.
    pub fn verify<'k>(&self, keys: &'k [VerifierKey]) -> Result<Vec<Verified<'k>>, NoteError> {
        let mut verified = Vec::new();
        for key in keys {
            let mut first = None;
            for signature in self.signatures.iter().filter(|s| s.is_of(key)) {
                let time = key
                    .verify(&self.text, &signature.bytes)
                    .map_err(|_| NoteError::WrongSignature(key.name().clone()))?;
                first.get_or_insert(Verified { key, time });
            }
            verified.extend(first);
        }
        if verified.is_empty() {
            Err(NoteError::UnknownSigners)
        } else {
            Ok(verified)
        }
    }

    const fn check_count(&self) -> Result<(), NoteError> {
        match self.signatures.len() {
            0 => Err(NoteError::NoSignatures),
            1..=MAX_SIGNATURES => Ok(()),
            _ => Err(NoteError::TooManySignatures),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text.as_bytes())
    }
}

impl Signature {
    pub(crate) const fn new(name: KeyName, key_id: KeyId, bytes: Vec<u8>) -> Self {
        Self {
            name,
            key_id,
            bytes,
        }
    }

    /// Name of the key that it claims to be of.
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// Id of that key.
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Whether it claims to be of this key.
    pub fn is_of(&self, key: &VerifierKey) -> bool {
        self.key_id == key.id() && self.name == *key.name()
    }

    /// Reads signature lines, each ended by a newline: a witness's answer.
    ///
    /// # Errors
    /// `NoSignatures`, `TooManySignatures`, `MalformedSignature`.
    pub fn parse_lines(lines: &str) -> Result<Vec<Self>, NoteError> {
        let lines = lines.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        let mut signatures = Vec::new();
        for (number, line) in (1..).zip(lines.split('\n')) {
            if number > MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            let signature = Self::parse_line(line);
            signatures.push(signature.ok_or(NoteError::MalformedSignature(number))?);
        }
        Ok(signatures)
    }

    fn parse_line(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
        let name = KeyName::new(name).ok()?;
        let bytes = STANDARD.decode(encoded).ok()?;
        let (key_id, bytes) = bytes.split_first_chunk()?;
        // A signature of no bytes is none.
        (!bytes.is_empty()).then(|| Self::new(name, KeyId::from_bytes(*key_id), bytes.to_vec()))
    }
}

/// The line, with its newline.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.as_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes);
        let (name, encoded) = (&self.name, STANDARD.encode(bytes));
        writeln!(f, "{SIGNATURE_START}{name} {encoded}")
    }
}

/// No control characters below U+0020 but newlines.
fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| byte >= 0x20 || byte == b'\n')
}
