//! The Merkle tree over all entries (RFC 9162, section 2.1).
//!
//! A leaf is known here by its hash ([`leaf_hash`](crate::leaf_hash)). The tree itself is never in
//! memory: [`CompactRange`] holds what appending needs, a proof is made from the few nodes that
//! [`Path`] names, and a verifier needs nothing but the proof.

mod path;
mod range;
mod verify;

use sha2::{Digest as _, Sha256};

use crate::hash::Hash;

pub use path::Path;
pub use range::{CompactRange, frontier};
pub use verify::{ProofError, verify_consistency, verify_growth, verify_inclusion};

/// Most leaves of a tree. No log comes near it, and every sum of two sizes fits into 64 bits.
pub const MAX_TREE_SIZE: u64 = 1 << 62;

/// Most hashes of a proof: one for each level of the largest tree, and one more in a consistency
/// proof (C2SP tlog-witness has the same limit).
pub const MAX_PROOF_HASHES: usize = 63;

/// First byte under the hash of an inner node (RFC 9162, 2.1.1): it can never pass for a leaf.
const NODE_PREFIX: [u8; 1] = [0x01];

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(NODE_PREFIX);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    Hash::from_bytes(hasher.finalize().into())
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Hash::of(&[])
}

/// A node over a full subtree: over the leaves `index * 2^level` to `(index + 1) * 2^level - 1`.
/// Such a node never changes once it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Height above the leaves, which are at level 0.
    pub level: u8,
    /// Place within the level, from 0.
    pub index: u64,
}

/// What is asked of a tree does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The leaf is not in the tree.
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf {
        /// Leaf asked for.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// A tree only grows, and consistency with the empty tree needs no proof.
    #[error("there is no consistency proof from size {old_size} to size {new_size}")]
    NoSuchGrowth {
        /// Leaves before.
        old_size: u64,
        /// Leaves after.
        new_size: u64,
    },
    /// More leaves than [`MAX_TREE_SIZE`].
    #[error("a tree has at most {MAX_TREE_SIZE} leaves, not {0}")]
    TooLarge(u64),
    /// The number of nodes does not fit the size.
    #[error("the right edge of a tree of {size} leaves has {expected} nodes, not {given}")]
    WrongEdge {
        /// Leaves of the tree.
        size: u64,
        /// Nodes that its edge has.
        expected: u32,
        /// Nodes given.
        given: usize,
    },
}

/// The root of the subtree over the roots of its full parts, given from left to right.
/// `None` for no parts.
fn fold(parts: &[Hash]) -> Option<Hash> {
    let (last, before) = parts.split_last()?;
    let root = before
        .iter()
        .rfold(*last, |right, left| node_hash(left, &right));
    Some(root)
}

/// The full subtrees over the leaves `begin..end`, from left to right. `begin` is a multiple of a
/// power of two that is not below `end - begin`, as all ranges of RFC 9162 are.
fn full_subtrees(begin: u64, end: u64) -> impl Iterator<Item = NodeId> {
    let mut at = begin;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        // At most 63: `left` is not 0.
        let level = left.ilog2();
        let id = NodeId {
            level: u8::try_from(level).unwrap_or(u8::MAX),
            index: at >> level,
        };
        at += 1 << level;
        Some(id)
    })
}
