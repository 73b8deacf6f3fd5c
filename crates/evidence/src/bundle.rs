//! The evidence bundle: all entries of one payment, with everything that a stranger needs to check
//! them, and nothing of anybody else but the number of entries that the log had.
//!
//! - [`Bundle`] is the file; [`Bundle::encode`] and [`Bundle::decode`] write and read it, in one
//!   spelling only.
//! - [`Bundle::verify`] checks it under keys that the reader trusts, and reports check by check.

mod counted;
mod form;
mod named;
mod report;
mod verify;

use uuid::Uuid;

use crate::{disclosure::Disclosure, hash::Hash, note::Note};

pub use form::BundleFormError;
pub use named::RECEIPTS_SUFFIX;
pub use report::{Check, CheckFailure, CheckName, CheckedEntry, Report};
pub use verify::TrustedKeys;

/// What the field `format` of a bundle says.
pub const BUNDLE_FORMAT: &str = "quittance evidence bundle v1";

/// Largest bundle, in bytes.
pub const MAX_BUNDLE_BYTES: usize = 64 * 1024 * 1024;

/// Most entries of a bundle. A payment has at most 1,000 transactions, and few have more than a
/// handful of entries.
pub const MAX_BUNDLE_ENTRIES: usize = 16_384;

/// Most disclosed values of a bundle.
pub const MAX_DISCLOSURES: usize = 4_096;

/// The evidence about one payment, as it was exported. Its parts are what they claim to be only once
/// [`Bundle::verify`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The payment.
    pub payment_id: Uuid,
    /// The signed checkpoint, with cosignatures where there are any.
    pub checkpoint: Note,
    /// The signed statement which entry was the payment's last in that checkpoint
    /// ([`LastEntry`](crate::LastEntry)).
    pub last_entry: Note,
    /// All entries of the payment, in their order.
    pub entries: Vec<BundleEntry>,
    /// Personal values that are disclosed, of any of the entries.
    pub disclosures: Vec<Disclosure>,
}

/// One entry of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleEntry {
    /// The bytes that were stored and hashed.
    pub leaf_data: String,
    /// The entry's place in the log, from 0.
    pub leaf_index: u64,
    /// Its proof in the tree of the checkpoint, from the leaf upwards.
    pub inclusion_proof: Vec<Hash>,
}

impl BundleEntry {
    /// Puts an entry together from stored bytes, which are text unless somebody changed them.
    pub fn new(
        leaf_data: Vec<u8>,
        leaf_index: u64,
        inclusion_proof: Vec<Hash>,
    ) -> Result<Self, std::string::FromUtf8Error> {
        Ok(Self {
            leaf_data: String::from_utf8(leaf_data)?,
            leaf_index,
            inclusion_proof,
        })
    }
}
