//! Checking proofs, with nothing but the proof.

use super::{empty_root, node_hash};
use crate::hash::Hash;

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf lies beyond the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    BeyondTree {
        /// Leaf stated.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// The tree became smaller.
    #[error("the tree shrank from {old_size} to {new_size} leaves")]
    Shrank {
        /// Leaves before.
        old_size: u64,
        /// Leaves after.
        new_size: u64,
    },
    /// Every tree is consistent with the empty one: that proves nothing.
    #[error("consistency with the empty tree proves nothing")]
    FromEmpty,
    /// The proof has more or fewer hashes than the sizes ask for.
    #[error("the proof has the wrong length")]
    WrongLength,
    /// The proof leads to another root.
    #[error("the proof does not lead to the root")]
    WrongRoot,
    /// The proof does not start from the old tree.
    #[error("the proof does not start from the old root")]
    WrongOldRoot,
}

/// Checks that the leaf with the hash `leaf` is number `index` (from 0) of the tree of `size` leaves
/// with `root` (RFC 9162, 2.1.3.2).
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::BeyondTree { index, size });
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            skip_lone_levels(&mut at, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        Err(ProofError::WrongLength)
    } else if hash == *root {
        Ok(())
    } else {
        Err(ProofError::WrongRoot)
    }
}

/// Checks that the tree of `old_size` leaves with `old_root` is the beginning of the one of
/// `new_size` leaves with `new_root` (RFC 9162, 2.1.4.2).
///
/// An `old_size` of 0 is refused, because such a proof says nothing; who starts to follow a log uses
/// [`verify_growth`].
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::Shrank { old_size, new_size });
    }
    if old_size == 0 {
        return Err(ProofError::FromEmpty);
    }
    if old_size == new_size {
        return same_tree(old_root, new_root, proof);
    }
    // A full old tree is a node of the new one, and left out of the proof.
    let (seed, rest) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(ProofError::WrongLength)?
    };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    let skipped = at.trailing_ones();
    at >>= skipped;
    last >>= skipped;
    let (mut old, mut new) = (*seed, *seed);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if at & 1 == 1 || at == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            skip_lone_levels(&mut at, &mut last);
        } else {
            new = node_hash(&new, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        Err(ProofError::WrongLength)
    } else if old != *old_root {
        Err(ProofError::WrongOldRoot)
    } else if new != *new_root {
        Err(ProofError::WrongRoot)
    } else {
        Ok(())
    }
}

/// [`verify_consistency`] for who follows a log from its beginning, as a witness does: from size 0,
/// whose root must be that of the empty tree, an empty proof is right.
pub fn verify_growth(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old_size > 0 {
        return verify_consistency(old_size, old_root, new_size, new_root, proof);
    }
    if *old_root != empty_root() {
        Err(ProofError::WrongOldRoot)
    } else if !proof.is_empty() {
        Err(ProofError::WrongLength)
    } else if new_size == 0 && new_root != old_root {
        Err(ProofError::WrongRoot)
    } else {
        Ok(())
    }
}

fn same_tree(old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> Result<(), ProofError> {
    if !proof.is_empty() {
        Err(ProofError::WrongLength)
    } else if old_root == new_root {
        Ok(())
    } else {
        Err(ProofError::WrongRoot)
    }
}

/// Goes up past the levels at which the last node of an incomplete tree has no sibling. Those are the
/// levels where `at` is even and on the right edge.
const fn skip_lone_levels(at: &mut u64, last: &mut u64) {
    while *at & 1 == 0 && *at != 0 {
        *at >>= 1;
        *last >>= 1;
    }
}
