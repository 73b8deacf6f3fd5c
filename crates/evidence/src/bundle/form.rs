//! The bundle as a file: JSON in one spelling, which any language can write again to compare.
//!
//! Keys in ascending order, one blank a level of indentation, no escapes but those of RFC 8785, 3.2.2.2,
//! one newline at the end. So a bundle that was changed and still says the same is refused too, and two
//! bundles are the same exactly where their bytes are.

use serde::{Deserialize, Serialize};
use serde_json::{Serializer, ser::PrettyFormatter};
use uuid::Uuid;

use super::{
    BUNDLE_FORMAT, Bundle, BundleEntry, MAX_BUNDLE_BYTES, MAX_BUNDLE_ENTRIES, MAX_DISCLOSURES,
};
use crate::{
    disclosure::{Disclosure, DisclosureError},
    hash::Hash,
    note::{Note, NoteError},
    tree::MAX_PROOF_HASHES,
};

/// Why a file is no bundle, or parts do not make one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleFormError {
    /// Longer than [`MAX_BUNDLE_BYTES`].
    #[error("an evidence bundle has at most {MAX_BUNDLE_BYTES} bytes, not {0}")]
    TooLarge(usize),
    /// Not JSON, or fields are missing, unknown, repeated or of the wrong type.
    #[error("not an evidence bundle: line {line}, column {column} is malformed")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A bundle of a kind that this version does not know.
    #[error("not a bundle of the format {BUNDLE_FORMAT:?}")]
    OtherFormat,
    /// More than a bundle may have of something.
    #[error("an evidence bundle has at most {most} {what}, not {given}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
        /// How many there are.
        given: usize,
    },
    /// The checkpoint or the statement is no signed note.
    #[error("the {part} is not a signed note")]
    Note {
        /// `checkpoint` or `last_entry`.
        part: &'static str,
        /// Why.
        #[source]
        source: NoteError,
    },
    /// A disclosed value is not one.
    #[error("disclosure {number} is malformed")]
    Disclosure {
        /// Which, from 1.
        number: usize,
        /// Why.
        #[source]
        source: DisclosureError,
    },
    /// It says what a bundle can say, but not in the one way in which bundles are written.
    #[error("the evidence bundle was written anew: it differs from byte {offset} on")]
    NotCanonical {
        /// Of the first byte that differs, from 0.
        offset: usize,
    },
}

/// The fields of the file, in their order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    checkpoint: String,
    disclosures: Vec<String>,
    entries: Vec<FileEntry>,
    format: String,
    last_entry: String,
    payment_id: Uuid,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    inclusion_proof: Vec<Hash>,
    leaf_data: String,
    /// Decimal text, as all 64-bit integers of the log are.
    #[serde(with = "decimal")]
    leaf_index: u64,
}

impl Bundle {
    /// Writes the file. Disclosures are put in order, each once.
    pub fn encode(&self) -> Result<Vec<u8>, BundleFormError> {
        let mut disclosures: Vec<_> = self.disclosures.iter().map(Disclosure::encode).collect();
        disclosures.sort_unstable();
        disclosures.dedup();
        let file = File {
            checkpoint: self.checkpoint.to_string(),
            disclosures,
            entries: self.entries.iter().map(FileEntry::of).collect(),
            format: BUNDLE_FORMAT.to_owned(),
            last_entry: self.last_entry.to_string(),
            payment_id: self.payment_id,
        };
        check_counts(&file)?;
        let bytes = write(&file)?;
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleFormError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads what [`Bundle::encode`] wrote, byte for byte, and nothing else. Never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleFormError> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleFormError::TooLarge(bytes.len()));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        if file.format != BUNDLE_FORMAT {
            return Err(BundleFormError::OtherFormat);
        }
        check_counts(&file)?;
        let bundle = Self::of_file(file)?;
        let canonical = bundle.encode()?;
        if canonical == bytes {
            return Ok(bundle);
        }
        let same = canonical.iter().zip(bytes).take_while(|(a, b)| a == b);
        Err(BundleFormError::NotCanonical {
            offset: same.count(),
        })
    }

    fn of_file(file: File) -> Result<Self, BundleFormError> {
        let note = |part, text: &str| {
            Note::parse(text.as_bytes()).map_err(|source| BundleFormError::Note { part, source })
        };
        let disclosure = |(number, text): (usize, &String)| {
            Disclosure::parse(text).map_err(|source| BundleFormError::Disclosure { number, source })
        };
        Ok(Self {
            payment_id: file.payment_id,
            checkpoint: note("checkpoint", &file.checkpoint)?,
            last_entry: note("last_entry", &file.last_entry)?,
            entries: file.entries.into_iter().map(FileEntry::entry).collect(),
            disclosures: (1..)
                .zip(&file.disclosures)
                .map(disclosure)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl FileEntry {
    fn of(entry: &BundleEntry) -> Self {
        Self {
            inclusion_proof: entry.inclusion_proof.clone(),
            leaf_data: entry.leaf_data.clone(),
            leaf_index: entry.leaf_index,
        }
    }

    fn entry(self) -> BundleEntry {
        BundleEntry {
            leaf_data: self.leaf_data,
            leaf_index: self.leaf_index,
            inclusion_proof: self.inclusion_proof,
        }
    }
}

fn check_counts(file: &File) -> Result<(), BundleFormError> {
    let longest = file.entries.iter().map(|entry| entry.inclusion_proof.len());
    for (what, most, given) in [
        ("entries", MAX_BUNDLE_ENTRIES, file.entries.len()),
        ("disclosures", MAX_DISCLOSURES, file.disclosures.len()),
        (
            "hashes in a proof",
            MAX_PROOF_HASHES,
            longest.max().unwrap_or(0),
        ),
    ] {
        if given > most {
            return Err(BundleFormError::TooMany { what, most, given });
        }
    }
    Ok(())
}

fn write(file: &File) -> Result<Vec<u8>, BundleFormError> {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(b" ");
    // Writing into memory cannot fail, nor can text and numbers.
    file.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|error| malformed(&error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// serde's own text may quote the file: only the place is passed on.
fn malformed(error: &serde_json::Error) -> BundleFormError {
    BundleFormError::Malformed {
        line: error.line(),
        column: error.column(),
    }
}

mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde calls it with a reference"
    )]
    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}
