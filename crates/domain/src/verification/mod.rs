//! What is compared when the log is verified: purely, so that every kind of tampering is tried without a database.
//!
//! - [`check_entry`] takes one journal row: its bytes against its hash, its MAC, each column and its position.
//! - [`StreamWalk`] follows the entries of each stream: numbers, chain, order of positions.
//!   It replays the entries of a payment: amounts and state after each follow from those before, and what it says of
//!   the rows that it found is what the entries before had left.
//! - [`compare_payment`] holds a payment's row and its transactions to what its entries say.
//! - [`compare_api_key`] holds the row of an API key to what the log says of it.
//! - A [`Claim`] is what an entry says of attempts, idempotency records and operator actions; they are held to it.
//! - [`PositionWalk`] follows the positions: gapless, each of an entry that exists.
//! - [`TreeWalk`] rebuilds the tree from the entries at their positions, and compares heads, tiles, checkpoints, and what
//!   was signed last.
//!
//! Whoever reads the rows hands them over in order, and in batches that are each of one moment: a payment and its
//! entries commit together, so that an untampered log is never reported, whatever commits meanwhile.

mod api_keys;
mod attempts;
mod cases;
mod claims;
mod cosignatures;
mod entry;
mod erasures;
mod heads;
mod key_records;
mod links;
mod mismatch;
mod payment;
mod positions;
mod replay;
mod row_fault;
mod stored_tree;
mod stream;
mod tree;
mod tree_fault;

pub use api_keys::{ApiKeyFault, ApiKeyRow, ApiKeySaid, check_api_key, compare_api_key};
pub use attempts::{
    AttemptEndSaid, AttemptKey, AttemptSaid, StoredAttempt, StoredResponse, attempt_without_entry,
    attempts_of_nothing, compare_attempt, compare_attempt_end, unspoken_attempts,
};
pub use cases::{
    StoredAction, closes_case_of, compare_action, left_open, operator_action_without_entry,
};
pub use claims::{Claim, RowsSaid};
pub use entry::{CheckedEntry, LeafFacts, LoggedRow, MacKeys, Placed, check_entry};
pub use erasures::{
    StoredErasure, UnjudgedErasure, compare_erasure, erasure_done, erasure_without_entry,
};
pub use key_records::{
    KeySaid, StoredKeyRecord, compare_key_record, key_record_without_entry, key_records_of_nothing,
    unspoken_key_records,
};
pub use mismatch::{Fault, Mismatch, Stage};
pub use payment::{StoredCustomer, StoredPayment, StoredTransaction, compare_payment};
pub use positions::{PositionRow, PositionWalk};
pub use row_fault::{ResponseProblem, RowFault};
pub use stored_tree::{
    CheckpointMac, CheckpointRow, CosignatureMac, CosignatureRow, HeadMac, HeadRow, Linked,
    SignedLast, TreeEnd, TreePage, Trusted,
};
pub use stream::{StreamEnd, StreamWalk, TransactionFacts, TransactionSaid};
pub use tree::TreeWalk;
pub use tree_fault::TreeFault;
