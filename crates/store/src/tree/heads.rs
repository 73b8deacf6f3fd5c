//! Heads as they are stored, and whether this service made them.

use diesel::prelude::*;
use quittance_domain::verification::{HeadMac, HeadRow};
use quittance_evidence::Hash;

use super::{TreeDamage, TreeHead};
use crate::keys::{KeyRing, TreeHeadFacts};

/// A head as read: anybody may have written it.
#[derive(Queryable)]
pub(crate) struct StoredHead {
    pub(super) tree_size: i64,
    pub(super) root_hash: Vec<u8>,
    pub(super) mac: Vec<u8>,
    pub(super) mac_key_id: String,
    pub(super) previous_size: Option<i64>,
}

impl StoredHead {
    /// The head, where its MAC is ours.
    pub(super) fn authentic(&self, ring: &KeyRing) -> Result<TreeHead, TreeDamage> {
        let head = head_of(self.tree_size, &self.root_hash)?;
        let previous = self.previous_size.map(u64::try_from).transpose();
        let facts = TreeHeadFacts {
            size: head.size,
            root: head.root.as_bytes(),
            previous: previous.map_err(|_| TreeDamage::Number)?,
        };
        match ring.verify_tree_head(facts, &self.mac_key_id, &self.mac) {
            Some(true) => Ok(head),
            Some(false) => Err(TreeDamage::HeadMac),
            None => Err(TreeDamage::HeadKey),
        }
    }

    /// How many entries it says that it has.
    pub(crate) const fn size(&self) -> i64 {
        self.tree_size
    }

    /// The head as verification takes it: with whatever is wrong with it.
    pub(crate) fn into_row(self, ring: &KeyRing) -> HeadRow {
        let mac = match self.authentic(ring) {
            Ok(_) => HeadMac::Ours,
            Err(TreeDamage::HeadKey) => HeadMac::KeyUnknown(self.mac_key_id),
            Err(_) => HeadMac::Wrong,
        };
        HeadRow {
            size: self.tree_size,
            root: self.root_hash,
            mac,
            previous: self.previous_size,
        }
    }
}

/// A size and a root as stored.
pub(super) fn head_of(size: i64, root: &[u8]) -> Result<TreeHead, TreeDamage> {
    let root: [u8; 32] = root.try_into().map_err(|_| TreeDamage::Root)?;
    Ok(TreeHead {
        size: u64::try_from(size).map_err(|_| TreeDamage::Number)?,
        root: Hash::from_bytes(root),
    })
}
