//! Appending to a tree without holding it.

use super::{MAX_TREE_SIZE, NodeId, TreeError, empty_root, fold, full_subtrees, node_hash};
use crate::hash::Hash;

/// The right edge of a tree: the roots of its full subtrees, from the largest (left) to the smallest.
/// At most 62 hashes, and all that appending a leaf or telling the root needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactRange {
    size: u64,
    edge: Vec<Hash>,
}

/// The nodes of the right edge of a tree of `size` leaves, from left to right: those that
/// [`CompactRange::from_edge`] wants.
pub fn frontier(size: u64) -> impl Iterator<Item = NodeId> {
    full_subtrees(0, size)
}

impl CompactRange {
    /// The empty tree.
    pub const fn new() -> Self {
        Self {
            size: 0,
            edge: Vec::new(),
        }
    }

    /// Takes up a tree again from the hashes of its [`frontier`], in the same order.
    ///
    /// # Errors
    /// `TooLarge` and `WrongEdge`. That the hashes are the right ones only the root can show:
    /// compare it with one that is known.
    pub fn from_edge(size: u64, edge: Vec<Hash>) -> Result<Self, TreeError> {
        if size > MAX_TREE_SIZE {
            return Err(TreeError::TooLarge(size));
        }
        let expected = size.count_ones();
        if u32::try_from(edge.len()) == Ok(expected) {
            Ok(Self { size, edge })
        } else {
            Err(TreeError::WrongEdge {
                size,
                expected,
                given: edge.len(),
            })
        }
    }

    /// Takes up a tree again from wherever its nodes are kept.
    ///
    /// # Errors
    /// What `node` answers, and `TooLarge`.
    pub fn load<E: From<TreeError>>(
        size: u64,
        node: impl FnMut(NodeId) -> Result<Hash, E>,
    ) -> Result<Self, E> {
        if size > MAX_TREE_SIZE {
            return Err(TreeError::TooLarge(size).into());
        }
        let edge = frontier(size).map(node).collect::<Result<_, E>>()?;
        Ok(Self { size, edge })
    }

    /// Leaves of the tree.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the [`frontier`].
    pub fn edge(&self) -> &[Hash] {
        &self.edge
    }

    /// The root of the tree (RFC 9162, 2.1.1).
    pub fn root(&self) -> Hash {
        fold(&self.edge).unwrap_or_else(empty_root)
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_with(leaf, |_, _| ());
    }

    /// Appends a leaf by its hash, and tells `completed` every node that this completes: the leaf
    /// itself first, then the roots of the full subtrees that it closes, upwards.
    pub fn push_with(&mut self, leaf: Hash, mut completed: impl FnMut(NodeId, &Hash)) {
        let mut id = NodeId {
            level: 0,
            index: self.size,
        };
        let mut hash = leaf;
        completed(id, &hash);
        while id.index & 1 == 1 {
            // An odd place has a left sibling on the edge.
            let Some(left) = self.edge.pop() else { break };
            hash = node_hash(&left, &hash);
            id = NodeId {
                level: id.level + 1,
                index: id.index >> 1,
            };
            completed(id, &hash);
        }
        self.edge.push(hash);
        // Cannot overflow: it would take 2^62 calls beyond the largest tree.
        self.size += 1;
    }
}
