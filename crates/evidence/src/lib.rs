//! The bytes of the audit log: what one entry says, how it is written, hashed, authenticated and
//! chained.
//!
//! Everything here is pure: ids, salts and times come in as arguments, so the same entry gives the
//! same bytes on every machine and in every verifier.
//!
//! - [`Leaf`] is one audit entry; [`Leaf::encode`] writes its canonical bytes ([`LeafData`]), which
//!   are what is stored, hashed and served; [`Leaf::decode`] reads them back, strictly.
//! - [`leaf_hash`] is the RFC 9162 leaf hash of those bytes.
//! - [`LeafMac`] authenticates them under a key that the database never sees.
//! - [`Disclosure`] is a personal value with its salt; only its [`DisclosureDigest`] enters a leaf.
//! - [`ChainCheck`] follows one stream of entries and names the first that does not belong.
//! - [`tree`] is the Merkle tree over all entries with its proofs, [`tile`] how it is stored.
//! - [`note`] holds signed texts and their keys; [`Checkpoint`], [`Receipt`] and [`LastEntry`] are the
//!   texts that are signed.
//! - [`bundle`] is the evidence about one payment in one file, and its check; [`page`] shows it to people.
//! - [`witness`] is what somebody else cosigns, and what they refuse.
//!
//! ```
//! use quittance_evidence::{ChainCheck, Leaf, leaf_hash};
//! # fn check(stored: &[Vec<u8>]) -> Result<(), Box<dyn std::error::Error>> {
//! let head = ChainCheck::run(stored)?;
//! for bytes in stored {
//!     let leaf = Leaf::decode(bytes)?;
//!     println!("{} {} {}", leaf.entity_seq, leaf.event_type, leaf_hash(bytes));
//! }
//! # let _ = head; Ok(())
//! # }
//! ```

pub mod bundle;
mod canonical_json;
mod chain;
mod checkpoint;
pub mod disclosure;
mod hash;
mod leaf;
mod lines;
mod mac;
pub mod note;
pub mod page;
mod receipt;
mod statement;
mod text;
pub mod tile;
pub mod tree;
pub mod witness;

pub use chain::{ChainCheck, ChainError, ChainFault, ChainHead};
pub use checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
pub use disclosure::{Disclosure, DisclosureDigest, DisclosureError};
pub use hash::{Hash, ParseHashError, leaf_hash};
pub use leaf::{
    Actor, Amounts, Cause, EntryResult, Leaf, LeafData, LeafError, LeafIdentity, MAX_LEAF_BYTES,
    SCHEMA_VERSION, Source, StreamId, StreamIdError,
};
pub use lines::TextError;
pub use mac::{LeafMac, MAC_KEY_BYTES, MacError, MacKey, MacKeyId, MacKeyIdError};
pub use receipt::{Receipt, ReceiptError};
pub use statement::LastEntry;
pub use text::{REPLACEMENT, clean_text};
