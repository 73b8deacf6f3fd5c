//! Heads of the tree as somebody writes them who owns the database.

use std::fmt::Write as _;

use quittance_evidence::Hash;
use quittance_store::TreeHeadFacts;

use crate::test_keys;

/// A row of `tree_heads`. Fields can be changed before it is written, which is what tampering is.
#[derive(Debug, Clone)]
pub struct HeadRow {
    /// How many entries.
    pub tree_size: u64,
    /// The root.
    pub root: Hash,
    /// The MAC of both.
    pub mac: Vec<u8>,
    /// Under which key.
    pub mac_key_id: String,
}

impl HeadRow {
    /// The row as the service writes it, under the active key of [`test_keys`]: what only a holder of the key can make.
    pub fn authentic(tree_size: u64, root: Hash) -> Self {
        let (mac, mac_key_id) = test_keys().tree_head_mac(TreeHeadFacts {
            size: tree_size,
            root: root.as_bytes(),
            previous: None,
        });
        Self {
            tree_size,
            root,
            mac: mac.to_vec(),
            mac_key_id,
        }
    }

    /// The row as somebody makes it who has no key: the MAC is made up.
    pub fn made_up(tree_size: u64, root: Hash) -> Self {
        Self {
            mac: vec![0xab; 32],
            ..Self::authentic(tree_size, root)
        }
    }

    /// The statement that adds it, which the application's role may.
    pub fn insert(&self) -> String {
        let hex = |bytes: &[u8]| {
            let digits = bytes.iter().fold(String::new(), |mut digits, byte| {
                let _ = write!(digits, "{byte:02x}");
                digits
            });
            format!("'\\x{digits}'::bytea")
        };
        format!(
            "insert into tree_heads (tree_size, root_hash, fence, mac, mac_key_id) values ({}, {}, 1, {}, '{}')",
            self.tree_size,
            hex(self.root.as_bytes()),
            hex(&self.mac),
            self.mac_key_id
        )
    }

    /// The statement that writes it in place of the one of its size, which only the database's owner may.
    pub fn replace(&self) -> String {
        let delete = format!(
            "delete from tree_heads where tree_size = {}",
            self.tree_size
        );
        format!("{delete}; {}", self.insert())
    }
}
