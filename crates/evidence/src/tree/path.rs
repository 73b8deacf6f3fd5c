//! Which nodes a proof is made of.

use super::{MAX_TREE_SIZE, NodeId, TreeError, fold, full_subtrees};
use crate::hash::Hash;

/// The plan of a proof: the ranges of leaves whose subtree roots it lists, in the proof's order.
///
/// It names the nodes that have to be had ([`Path::nodes`]), so that they can be fetched all at once,
/// and then makes the proof from them ([`Path::prove`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// From the leaves upwards; each from its first leaf to the one after its last.
    ranges: Vec<(u64, u64)>,
}

impl Path {
    /// The proof that leaf `index` is in the tree of `size` leaves (RFC 9162, 2.1.3.1).
    ///
    /// # Errors
    /// `NoSuchLeaf`, `TooLarge`.
    pub fn inclusion(index: u64, size: u64) -> Result<Self, TreeError> {
        if size > MAX_TREE_SIZE {
            return Err(TreeError::TooLarge(size));
        }
        if index >= size {
            return Err(TreeError::NoSuchLeaf { index, size });
        }
        let (mut begin, mut end) = (0, size);
        let mut ranges = Vec::new();
        while end - begin > 1 {
            let middle = begin + split(end - begin);
            if index < middle {
                ranges.push((middle, end));
                end = middle;
            } else {
                ranges.push((begin, middle));
                begin = middle;
            }
        }
        ranges.reverse();
        Ok(Self { ranges })
    }

    /// The proof that the tree of `old_size` leaves is the beginning of the one of `new_size`
    /// (RFC 9162, 2.1.4.1). Empty for equal sizes.
    ///
    /// # Errors
    /// `NoSuchGrowth` where `old_size` is 0 or above `new_size`; `TooLarge`.
    pub fn consistency(old_size: u64, new_size: u64) -> Result<Self, TreeError> {
        if new_size > MAX_TREE_SIZE {
            return Err(TreeError::TooLarge(new_size));
        }
        if old_size == 0 || old_size > new_size {
            return Err(TreeError::NoSuchGrowth { old_size, new_size });
        }
        let (mut begin, mut end) = (0, new_size);
        let mut ranges = Vec::new();
        while end != old_size {
            let middle = begin + split(end - begin);
            if old_size <= middle {
                ranges.push((middle, end));
                end = middle;
            } else {
                ranges.push((begin, middle));
                begin = middle;
            }
        }
        // The subtree that ends where the old tree ended; the verifier knows it where it is the old tree.
        if begin > 0 {
            ranges.push((begin, end));
        }
        ranges.reverse();
        Ok(Self { ranges })
    }

    /// The nodes that the proof is made from, in the order in which [`Path::prove`] asks for them.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.ranges
            .iter()
            .flat_map(|(begin, end)| full_subtrees(*begin, *end))
    }

    /// Makes the proof; `node` gives the hash of a node over a full subtree.
    ///
    /// # Errors
    /// What `node` answers.
    pub fn prove<E>(
        &self,
        mut node: impl FnMut(NodeId) -> Result<Hash, E>,
    ) -> Result<Vec<Hash>, E> {
        let mut proof = Vec::with_capacity(self.ranges.len());
        let mut parts = Vec::new();
        for (begin, end) in &self.ranges {
            parts.clear();
            for id in full_subtrees(*begin, *end) {
                parts.push(node(id)?);
            }
            // No range is empty.
            proof.extend(fold(&parts));
        }
        Ok(proof)
    }
}

/// Leaves of the left subtree of a tree of `size` > 1 leaves: the largest power of two below `size`.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}
