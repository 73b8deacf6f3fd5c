//! Whether a row of `checkpoints` is what this service stored.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use quittance_domain::verification::CheckpointMac;
use quittance_evidence::note::{Note, VerifierKey};
use quittance_evidence::{Checkpoint, Hash, SignedCheckpoint};

use super::TreeHead;
use super::heads::head_of;
use super::reads::StoredCheckpoint;
use crate::keys::{CheckpointFacts, KeyRing};

/// What a row is worth.
#[derive(Debug)]
pub(super) enum Judged {
    /// One of the keys signed it, and the service stored it so.
    Genuine(StoredCheckpoint),
    /// The service stored it so, and none of the keys signed it: it is of keys that were replaced since.
    OfReplacedKeys,
    /// Its MAC is under a key that is not in the ring: nobody here can tell when it was signed.
    KeyUnknown,
    /// It is not as the service stored it.
    Forged,
}

/// A checkpoint as read: anybody may have written it.
#[derive(Queryable)]
pub(super) struct CheckpointRow {
    pub(super) tree_size: i64,
    root_hash: Vec<u8>,
    note: String,
    pub(super) signed_at: DateTime<Utc>,
    mac: Option<Vec<u8>>,
    mac_key_id: Option<String>,
    previous_size: Option<i64>,
    note_digest: Option<Vec<u8>>,
}

/// What a note states, without its signatures: lines may be added under it.
pub(super) fn stated(note: &str) -> &str {
    note.rsplit_once("\n\n").map_or(note, |(text, _)| text)
}

/// What of a checkpoint's row its MAC is over, and the MAC.
#[derive(Clone, Copy)]
pub(crate) struct CheckpointCells<'a> {
    pub(crate) size: i64,
    pub(crate) signed_at: DateTime<Utc>,
    pub(crate) previous: Option<i64>,
    pub(crate) note: &'a str,
    pub(crate) note_digest: Option<&'a [u8]>,
    pub(crate) mac_key_id: Option<&'a str>,
    pub(crate) mac: Option<&'a [u8]>,
}

impl CheckpointCells<'_> {
    /// Whether the service stored what the note states with this time, and behind this one: whoever can write to the database
    /// could give it others. The signatures may be others.
    pub(crate) fn mac(&self, ring: &KeyRing) -> CheckpointMac {
        self.judged(ring).unwrap_or(CheckpointMac::Wrong)
    }

    /// The same; `None` where the row is none that this service writes.
    fn judged(&self, ring: &KeyRing) -> Option<CheckpointMac> {
        let (key, mac) = (self.mac_key_id?, self.mac?);
        let row = CheckpointFacts {
            size: u64::try_from(self.size).ok()?,
            signed_at: self.signed_at.timestamp_micros(),
            previous: self.previous.map(u64::try_from).transpose().ok()?,
            note: stated(self.note),
            note_digest: self.note_digest,
        };
        Some(match ring.verify_checkpoint(row, key, mac) {
            Some(true) => CheckpointMac::Ours,
            Some(false) => CheckpointMac::Wrong,
            None => CheckpointMac::KeyUnknown(key.to_owned()),
        })
    }

    /// Whether the whole note, with its signatures, is the one whose digest the row has. Rows from before there was one do not
    /// tell.
    pub(crate) fn has_its_note(&self) -> bool {
        let digest = Hash::of(self.note.as_bytes());
        self.note_digest.is_none_or(|it| it == digest.as_bytes())
    }
}

impl CheckpointRow {
    fn cells(&self) -> CheckpointCells<'_> {
        CheckpointCells {
            size: self.tree_size,
            signed_at: self.signed_at,
            previous: self.previous_size,
            note: &self.note,
            note_digest: self.note_digest.as_deref(),
            mac_key_id: self.mac_key_id.as_deref(),
            mac: self.mac.as_deref(),
        }
    }

    /// Whether the columns state what the note does.
    fn states(&self, stated: &Checkpoint) -> bool {
        let head = head_of(self.tree_size, &self.root_hash);
        head.is_ok_and(|head| (head.size, head.root) == (stated.size, stated.root))
    }

    /// What it is worth to whoever trusts `keys`.
    pub(super) fn judge(&self, keys: &[VerifierKey], ring: &KeyRing) -> Judged {
        let Ok(note) = Note::parse(self.note.as_bytes()) else {
            return Judged::Forged;
        };
        let mut signatures = note.signatures().iter();
        let by_known = signatures.any(|signature| keys.iter().any(|key| signature.is_of(key)));
        // What none of them signed says what it says: of which keys it is, is not known.
        let stated = if by_known {
            SignedCheckpoint::open(&note, keys).map(|opened| opened.checkpoint)
        } else {
            Checkpoint::parse_text(note.text())
        };
        let Some(stated) = stated.ok().filter(|stated| self.states(stated)) else {
            return Judged::Forged;
        };
        let cells = self.cells();
        match cells.mac(ring) {
            CheckpointMac::KeyUnknown(_) => Judged::KeyUnknown,
            CheckpointMac::Ours if by_known => Judged::Genuine(self.opened(&note, &stated, keys)),
            CheckpointMac::Ours if cells.has_its_note() => Judged::OfReplacedKeys,
            CheckpointMac::Ours | CheckpointMac::Wrong => Judged::Forged,
        }
    }

    /// The tree that it states, where this service stored it so, whoever signed it.
    pub(super) fn stored(&self, ring: &KeyRing) -> Option<TreeHead> {
        match self.judge(&[], ring) {
            Judged::OfReplacedKeys => head_of(self.tree_size, &self.root_hash).ok(),
            Judged::Genuine(_) | Judged::KeyUnknown | Judged::Forged => None,
        }
    }

    /// It, with what these keys signed under its note: a line that somebody wrote there in another's name would spoil it for
    /// whoever knows that key.
    fn opened(&self, note: &Note, stated: &Checkpoint, keys: &[VerifierKey]) -> StoredCheckpoint {
        StoredCheckpoint {
            head: TreeHead {
                size: stated.size,
                root: stated.root,
            },
            note: note.only_of(keys).to_string(),
            signed_at: self.signed_at,
            previous: self.previous_size.and_then(|size| u64::try_from(size).ok()),
        }
    }
}
