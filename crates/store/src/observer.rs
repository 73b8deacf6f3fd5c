//! What the store tells about itself.

use crate::sequencer::{SEQUENCER_CHECK, UNKNOWN_KEY_CHECK};
use crate::tree::CHECKPOINT_KEY_CHECK;

/// What is checked while the log is written and served: that an arriving entry is ours (`entry`) and under a key that
/// is at hand (`entry_key`), that the sequencer can find what arrives (`sequencer`), that the tree is as it was left
/// (`tree`), that a stored checkpoint is one that the log signed (`checkpoint`) and under a key that is at hand
/// (`checkpoint_key`), that a stored cosignature is its witness's (`cosignature`), that an entry is in the tree where its
/// position says (`position`), that an erasure is one that the log says was asked for (`erasure`), that the row of an
/// API key is as this service wrote it (`api_key`), and that the log says that what was asked under an idempotency key was
/// accepted (`idempotency`).
pub const VERIFICATION_CHECKS: [&str; 11] = [
    "entry",
    UNKNOWN_KEY_CHECK,
    SEQUENCER_CHECK,
    "tree",
    "checkpoint",
    CHECKPOINT_KEY_CHECK,
    "cosignature",
    "position",
    "erasure",
    "api_key",
    "idempotency",
];

/// Takes the store's measurements. Methods are called on hot paths: they return at once.
pub trait StoreObserver: Send + Sync + 'static {
    /// A batch of this many changes is given to the database.
    fn batch(&self, size: usize);

    /// An operation ended: its summary (such as `commit payment`), how long it took, whether it worked.
    fn operation(&self, summary: &'static str, seconds: f64, ok: bool);

    /// So many journal entries were read whose MAC does not verify: somebody wrote to the database past
    /// us. Worth an alert. Nothing is done about it by default: the log has it, too.
    fn unverified_entries(&self, _count: usize) {}

    /// The tree has so many entries now.
    fn tree_size(&self, _size: u64) {}

    /// A check of the log found something wrong, so many times. `check` is one of [`VERIFICATION_CHECKS`].
    /// Worth a page.
    fn verification_failed(&self, _check: &'static str, _count: usize) {}
}

/// Takes nothing down.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl StoreObserver for Unobserved {
    fn batch(&self, _size: usize) {}
    fn operation(&self, _summary: &'static str, _seconds: f64, _ok: bool) {}
}
