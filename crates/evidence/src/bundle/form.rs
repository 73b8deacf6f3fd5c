//! The bundle as a file: JSON in one spelling, which any language can write again to compare.
//!
//! Keys in ascending order, one blank a level of indentation, no escapes but those of RFC 8785, 3.2.2.2,
//! one newline at the end. So a bundle that was changed and still says the same is refused too, and two
//! bundles are the same exactly where their bytes are.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Serializer, ser::PrettyFormatter};
use uuid::Uuid;

use super::counted::Counted;
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

/// The fields of a file that is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    checkpoint: String,
    disclosures: Counted<String, MAX_DISCLOSURES>,
    entries: Counted<FileEntry, MAX_BUNDLE_ENTRIES>,
    format: String,
    last_entry: String,
    payment_id: Uuid,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    inclusion_proof: Counted<Hash, MAX_PROOF_HASHES>,
    leaf_data: String,
    /// Decimal text, as all 64-bit integers of the log are.
    #[serde(deserialize_with = "decimal::deserialize")]
    leaf_index: u64,
}

/// The fields of a file that is written, in their order.
#[derive(Serialize)]
struct Written<'a> {
    checkpoint: String,
    disclosures: Vec<String>,
    entries: Vec<WrittenEntry<'a>>,
    format: &'static str,
    last_entry: String,
    payment_id: Uuid,
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    inclusion_proof: &'a [Hash],
    leaf_data: &'a str,
    #[serde(serialize_with = "decimal::serialize")]
    leaf_index: u64,
}

impl Bundle {
    /// Writes the file. Disclosures are put in order, each once.
    pub fn encode(&self) -> Result<Vec<u8>, BundleFormError> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleFormError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Writes the file to `to`, which must not fail.
    fn write(&self, to: &mut impl io::Write) -> Result<(), BundleFormError> {
        let mut disclosures: Vec<_> = self.disclosures.iter().map(Disclosure::encode).collect();
        disclosures.sort_unstable();
        disclosures.dedup();
        let proofs = self.entries.iter().map(|entry| entry.inclusion_proof.len());
        check_counts([
            self.entries.len(),
            disclosures.len(),
            proofs.max().unwrap_or(0),
        ])?;
        let file = Written {
            checkpoint: self.checkpoint.to_string(),
            disclosures,
            entries: self.entries.iter().map(WrittenEntry::of).collect(),
            format: BUNDLE_FORMAT,
            last_entry: self.last_entry.to_string(),
            payment_id: self.payment_id,
        };
        let formatter = PrettyFormatter::with_indent(b" ");
        // Texts and numbers cannot fail.
        let written = file.serialize(&mut Serializer::with_formatter(&mut *to, formatter));
        written.map_err(|error| malformed(&error))?;
        let newline = to.write_all(b"\n").map_err(serde_json::Error::io);
        newline.map_err(|error| malformed(&error))
    }

    /// Reads what [`Bundle::encode`] wrote, byte for byte, and nothing else. Never panics. Needs memory for what a bundle
    /// may hold, at most about twice the length of the file, whatever the file holds.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleFormError> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleFormError::TooLarge(bytes.len()));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        if file.format != BUNDLE_FORMAT {
            return Err(BundleFormError::OtherFormat);
        }
        let proofs = file.entries.kept.iter();
        let longest = proofs.map(|entry| entry.inclusion_proof.given).max();
        check_counts([
            file.entries.given,
            file.disclosures.given,
            longest.unwrap_or(0),
        ])?;
        let bundle = Self::of_file(file)?;
        let mut comparing = Comparing {
            rest: bytes,
            same: 0,
            differs: false,
        };
        bundle.write(&mut comparing)?;
        if comparing.differs || !comparing.rest.is_empty() {
            let offset = comparing.same;
            return Err(BundleFormError::NotCanonical { offset });
        }
        Ok(bundle)
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
            entries: file
                .entries
                .kept
                .into_iter()
                .map(FileEntry::entry)
                .collect(),
            disclosures: (1..)
                .zip(&file.disclosures.kept)
                .map(disclosure)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> WrittenEntry<'a> {
    fn of(entry: &'a BundleEntry) -> Self {
        Self {
            inclusion_proof: &entry.inclusion_proof,
            leaf_data: &entry.leaf_data,
            leaf_index: entry.leaf_index,
        }
    }
}

impl FileEntry {
    fn entry(self) -> BundleEntry {
        BundleEntry {
            leaf_data: self.leaf_data,
            leaf_index: self.leaf_index,
            inclusion_proof: self.inclusion_proof.kept,
        }
    }
}

/// How many entries, disclosures, and hashes in the longest proof.
fn check_counts([entries, disclosures, longest]: [usize; 3]) -> Result<(), BundleFormError> {
    for (what, most, given) in [
        ("entries", MAX_BUNDLE_ENTRIES, entries),
        ("disclosures", MAX_DISCLOSURES, disclosures),
        ("hashes in a proof", MAX_PROOF_HASHES, longest),
    ] {
        if given > most {
            return Err(BundleFormError::TooMany { what, most, given });
        }
    }
    Ok(())
}

/// Compares what is written with a file, without a second copy of it.
struct Comparing<'a> {
    /// What of the file is still to come.
    rest: &'a [u8],
    /// How many bytes were the same, until one differed.
    same: usize,
    differs: bool,
}

impl io::Write for Comparing<'_> {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        if !self.differs {
            let pairs = written.iter().zip(self.rest);
            let same = pairs.take_while(|(a, b)| a == b).count();
            self.same += same;
            self.differs = same < written.len();
            self.rest = self.rest.get(same..).unwrap_or_default();
        }
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
