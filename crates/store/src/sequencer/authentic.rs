//! Whether a journal row is what this service wrote.

use std::collections::BTreeSet;

use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::sql_types::{Binary, Text};
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

/// The bytes of a journal row `j`, its MAC and the id of the MAC's key, for a [`Claimed`]: each cut behind the longest that the
/// service writes, since whoever may insert rows may fill memory with them. What was cut is not authentic.
pub(crate) const CLAIMED_COLUMNS: &str =
    "substr(j.leaf, 1, 65536), substr(j.mac, 1, 33), left(j.mac_key_id, 1024)";

/// The first of [`CLAIMED_COLUMNS`], of the table `journal` in a query that is built.
pub(crate) fn claimed_leaf() -> SqlLiteral<Binary> {
    sql("substr(journal.leaf, 1, 65536)")
}

/// The second.
pub(crate) fn claimed_mac() -> SqlLiteral<Binary> {
    sql("substr(journal.mac, 1, 33)")
}

/// The third.
pub(crate) fn claimed_mac_key_id() -> SqlLiteral<Text> {
    sql("left(journal.mac_key_id, 1024)")
}

/// The tenant of a row, cut likewise.
pub(super) const CLAIMED_TENANT: &str = "left(j.tenant_id, 1024)";

/// A journal row as far as its authenticity goes, whoever reads it.
pub(crate) struct Claimed<'a> {
    pub(crate) stream_id: Uuid,
    pub(crate) entity_seq: i64,
    pub(crate) entry_id: Uuid,
    pub(crate) leaf: &'a [u8],
    pub(crate) mac: &'a [u8],
    pub(crate) mac_key_id: &'a str,
}

/// Gives a row that was read with these columns of the journal its `claimed`.
macro_rules! claimed {
    ($row:ty) => {
        impl $row {
            fn claimed(&self) -> $crate::sequencer::Claimed<'_> {
                $crate::sequencer::Claimed {
                    stream_id: self.stream_id,
                    entity_seq: self.entity_seq,
                    entry_id: self.entry_id,
                    leaf: &self.leaf,
                    mac: &self.mac,
                    mac_key_id: &self.mac_key_id,
                }
            }
        }
    };
}
pub(crate) use claimed;

impl Claimed<'_> {
    /// Judges the row: the MAC over its bytes, and whether the bytes are this row's; and tells what they say of themselves. Whose
    /// the row is, is not looked at: that is the tenant column's word.
    pub(crate) fn judge(
        &self,
        ring: &KeyRing,
    ) -> Result<Result<LeafIdentity, Refusal>, UnknownKey> {
        let (Ok(key_id), Ok(tag)) = (MacKeyId::new(self.mac_key_id), self.mac.try_into()) else {
            return Ok(Err(Refusal::MacMissing));
        };
        let Some(key) = ring.journal_key_by_id(key_id.as_str()) else {
            let entry = self.entry_id;
            return Err(UnknownKey { entry, key: key_id });
        };
        if LeafMac::from_parts(key_id, tag)
            .verify(key, self.leaf)
            .is_err()
        {
            return Ok(Err(Refusal::MacWrong));
        }
        let Ok(leaf) = LeafIdentity::read(self.leaf) else {
            return Ok(Err(Refusal::Unreadable));
        };
        let is_this_row = stream_of(&leaf) == self.stream_id
            && leaf.entry_id == self.entry_id
            && i64::try_from(leaf.entity_seq) == Ok(self.entity_seq);
        Ok(Some(leaf).filter(|_| is_this_row).ok_or(Refusal::NotItsRow))
    }

    /// Whether a holder of one of our keys wrote these bytes, and as this row.
    pub(crate) fn is_authentic(&self, ring: &KeyRing) -> bool {
        matches!(self.judge(ring), Ok(Ok(_)))
    }

    /// Whether it is under a key that the ring lacks: it is neither ours nor forged, as far as can be told.
    pub(crate) fn lacks_key(&self, ring: &KeyRing) -> bool {
        self.judge(ring).is_err()
    }

    /// Whether it is not ours, under a key that the ring has or that no key can be.
    pub(crate) fn is_forged(&self, ring: &KeyRing) -> bool {
        matches!(self.judge(ring), Ok(Err(_)))
    }
}

claimed!(Arrived);

/// Judges a row that gets its position if it is ours, and tells its leaf hash. A row without a tenant is nobody's to read.
pub(crate) fn judge(ring: &KeyRing, row: &Arrived) -> Result<Result<Hash, Refusal>, UnknownKey> {
    let leaf = match row.claimed().judge(ring)? {
        Ok(leaf) => leaf,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let tenant = row.tenant_id.as_deref();
    if tenant.is_some_and(|tenant| tenant != leaf.tenant_id) {
        return Ok(Err(Refusal::NotItsRow));
    }
    Ok(Ok(leaf_hash(&row.leaf)))
}

fn stream_of(leaf: &LeafIdentity) -> Uuid {
    match &leaf.stream_id {
        StreamId::Payment(id) | StreamId::Named { id, .. } => *id,
    }
}
