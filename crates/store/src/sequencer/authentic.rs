//! Whether a journal row is what this service wrote.

use std::collections::BTreeSet;

use quittance_evidence::{Hash, LeafIdentity, LeafMac, MacKeyId, StreamId, leaf_hash};
use uuid::Uuid;

use super::statements::Arrived;
use crate::keys::KeyRing;

/// Why a journal row gets no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its MAC is not one, or under a key id that no key can have.
    MacMissing,
    /// The MAC is not over its bytes.
    MacWrong,
    /// The bytes are authentic, and those of another entry: stream, number, id or tenant differ.
    NotItsRow,
    /// The bytes are authentic, and cannot be read.
    Unreadable,
    /// Another row has the arrival.
    ArrivalTaken,
    /// The entry has its position already, under another arrival: that is no part of what the MAC covers.
    AlreadyPlaced,
}

impl Refusal {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::MacMissing,
        Self::MacWrong,
        Self::NotItsRow,
        Self::Unreadable,
        Self::ArrivalTaken,
        Self::AlreadyPlaced,
    ];

    /// Its name, as in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MacMissing => "MAC_MISSING",
            Self::MacWrong => "MAC_WRONG",
            Self::NotItsRow => "NOT_ITS_ROW",
            Self::Unreadable => "UNREADABLE",
            Self::ArrivalTaken => "ARRIVAL_TAKEN",
            Self::AlreadyPlaced => "ALREADY_PLACED",
        }
    }
}

/// An entry is under a key that the ring does not have.
#[derive(Debug, Clone)]
pub(crate) struct UnknownKey {
    pub(crate) entry: Uuid,
    pub(crate) key: MacKeyId,
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is ours, with this leaf hash, and gets its position.
    Ours(Hash),
    /// It is not, and never gets one.
    Refused(Refusal),
    /// It cannot be judged, or follows upon one that cannot.
    Waits,
}

/// Rows in order of arrival, each with what becomes of it.
#[derive(Default)]
pub(super) struct Judged<'a> {
    pub(super) rows: Vec<(&'a Arrived, Verdict)>,
}

impl<'a> Judged<'a> {
    /// Those that are ours, with their leaf hashes.
    pub(super) fn authentic(&self) -> impl Iterator<Item = (&'a Arrived, Hash)> {
        self.rows.iter().filter_map(|(row, verdict)| match verdict {
            Verdict::Ours(hash) => Some((*row, *hash)),
            Verdict::Refused(_) | Verdict::Waits => None,
        })
    }

    /// Refuses those among them that have their position already, by stream and number; and of two rows that say that they are
    /// one entry, the second.
    pub(super) fn refuse_placed(&mut self, placed: &BTreeSet<(Uuid, i64)>) {
        let mut known = placed.clone();
        for (row, verdict) in &mut self.rows {
            if matches!(verdict, Verdict::Ours(_)) && !known.insert((row.stream_id, row.entity_seq))
            {
                *verdict = Verdict::Refused(Refusal::AlreadyPlaced);
            }
        }
    }

    /// Those that are not.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&'a Arrived, Refusal)> {
        self.rows.iter().filter_map(|(row, verdict)| match verdict {
            Verdict::Refused(refusal) => Some((*row, *refusal)),
            Verdict::Ours(_) | Verdict::Waits => None,
        })
    }

    /// Whether all that there is waits: nothing of it is written, and it is read again.
    pub(super) fn all_wait(&self) -> bool {
        self.rows
            .iter()
            .all(|(_, verdict)| *verdict == Verdict::Waits)
    }
}

/// A journal row as far as its authenticity goes, whoever reads it.
pub(crate) struct Claimed<'a> {
    pub(crate) stream_id: Uuid,
    pub(crate) entity_seq: i64,
    pub(crate) entry_id: Uuid,
    pub(crate) leaf: &'a [u8],
    pub(crate) mac: &'a [u8],
    pub(crate) mac_key_id: &'a str,
}

/// Gives a row that was read with these columns of the journal its `is_authentic`.
macro_rules! claimed {
    ($row:ty) => {
        impl $row {
            /// Whether this service wrote it, as this row.
            fn is_authentic(&self, ring: &$crate::keys::KeyRing) -> bool {
                let claimed = $crate::sequencer::Claimed {
                    stream_id: self.stream_id,
                    entity_seq: self.entity_seq,
                    entry_id: self.entry_id,
                    leaf: &self.leaf,
                    mac: &self.mac,
                    mac_key_id: &self.mac_key_id,
                };
                claimed.is_authentic(ring)
            }
        }
    };
}
pub(crate) use claimed;

impl Claimed<'_> {
    /// Whether a holder of one of our keys wrote these bytes, and as this row.
    pub(crate) fn is_authentic(&self, ring: &KeyRing) -> bool {
        let (Ok(id), Ok(tag)) = (MacKeyId::new(self.mac_key_id), self.mac.try_into()) else {
            return false;
        };
        let mac = LeafMac::from_parts(id, tag);
        let key = ring.journal_key_by_id(self.mac_key_id);
        key.is_some_and(|key| mac.verify(key, self.leaf).is_ok())
            && LeafIdentity::read(self.leaf).is_ok_and(|leaf| {
                stream_of(&leaf) == self.stream_id
                    && leaf.entry_id == self.entry_id
                    && i64::try_from(leaf.entity_seq) == Ok(self.entity_seq)
            })
    }
}

/// Judges one row: the MAC over its bytes, and whether the bytes are this row's.
pub(crate) fn judge(ring: &KeyRing, row: &Arrived) -> Result<Result<Hash, Refusal>, UnknownKey> {
    let Ok(key_id) = MacKeyId::new(row.mac_key_id.as_str()) else {
        return Ok(Err(Refusal::MacMissing));
    };
    let Ok(tag) = row.mac.as_slice().try_into() else {
        return Ok(Err(Refusal::MacMissing));
    };
    let Some(key) = ring.journal_key_by_id(key_id.as_str()) else {
        let entry = row.entry_id;
        return Err(UnknownKey { entry, key: key_id });
    };
    if LeafMac::from_parts(key_id, tag)
        .verify(key, &row.leaf)
        .is_err()
    {
        return Ok(Err(Refusal::MacWrong));
    }
    let Ok(leaf) = LeafIdentity::read(&row.leaf) else {
        return Ok(Err(Refusal::Unreadable));
    };
    if is_of(&leaf, row) {
        Ok(Ok(leaf_hash(&row.leaf)))
    } else {
        Ok(Err(Refusal::NotItsRow))
    }
}

/// Whether an authentic leaf is this row's own. A row without a tenant is nobody's to read.
fn is_of(leaf: &LeafIdentity, row: &Arrived) -> bool {
    let tenant = row.tenant_id.as_deref();
    stream_of(leaf) == row.stream_id
        && leaf.entry_id == row.entry_id
        && i64::try_from(leaf.entity_seq) == Ok(row.entity_seq)
        && tenant.is_none_or(|tenant| tenant == leaf.tenant_id)
}

fn stream_of(leaf: &LeafIdentity) -> Uuid {
    match &leaf.stream_id {
        StreamId::Payment(id) | StreamId::Named { id, .. } => *id,
    }
}
