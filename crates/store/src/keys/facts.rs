//! What the MACs of rows about the tree are over.

use super::{KEY_BYTES, hmac};

/// What the MAC of a head of the tree is over.
#[derive(Debug, Clone, Copy)]
pub struct TreeHeadFacts<'a> {
    /// How many entries it covers.
    pub size: u64,
    /// The root over them.
    pub root: &'a [u8; 32],
    /// How many entries the head covers that it was grown from; `None` in a row from before that was kept.
    pub previous: Option<u64>,
}

impl TreeHeadFacts<'_> {
    pub(super) fn mac(&self, key: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
        let (size, previous) = (self.size.to_be_bytes(), self.previous.map(u64::to_be_bytes));
        let mut parts: Vec<&[u8]> = vec![&size, self.root];
        // One part more, so that no MAC of a row with it is one of a row without.
        parts.extend(previous.as_ref().map(<[u8; 8]>::as_slice));
        hmac(key, &parts)
    }
}

/// What the MAC of a checkpoint's row is over.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointFacts<'a> {
    /// How many entries it covers.
    pub size: u64,
    /// When it was signed, in microseconds since 1970.
    pub signed_at: i64,
    /// How many entries the one before it covers, where the signer knew.
    pub previous: Option<u64>,
    /// What its note states, which begins with the name of a log: never with a zero byte, as a number of entries does.
    pub note: &'a str,
    /// SHA-256 of the whole note as it was first stored; `None` in a row from before there was one.
    pub note_digest: Option<&'a [u8]>,
}

impl CheckpointFacts<'_> {
    pub(super) fn mac(&self, key: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
        let previous = self.previous.map(u64::to_be_bytes);
        let (size, signed_at) = (self.size.to_be_bytes(), self.signed_at.to_be_bytes());
        let mut parts: Vec<&[u8]> = vec![
            &size,
            &signed_at,
            previous.as_ref().map_or(&[], |bytes| bytes.as_slice()),
            self.note.as_bytes(),
        ];
        // One part more, so that no MAC of a row with it is one of a row without.
        parts.extend(self.note_digest);
        hmac(key, &parts)
    }
}

/// What the MAC of a cosignature's row is over.
#[derive(Debug, Clone, Copy)]
pub struct CosignatureFacts<'a> {
    /// How many entries the checkpoint covers.
    pub size: u64,
    /// The root that it states.
    pub root: &'a [u8],
    /// Name and id of the witness's key.
    pub witness: &'a str,
    /// The line under the note.
    pub line: &'a str,
    /// How many entries the one of this witness covers that was stored before it; 0 for the first.
    pub previous: u64,
}

impl CosignatureFacts<'_> {
    pub(super) fn mac(&self, key: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
        let (size, previous) = (self.size.to_be_bytes(), self.previous.to_be_bytes());
        let parts: [&[u8]; 5] = [
            &size,
            self.root,
            self.witness.as_bytes(),
            self.line.as_bytes(),
            &previous,
        ];
        hmac(key, &parts)
    }
}
