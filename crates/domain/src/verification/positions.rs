//! The positions, one after the other.

use quittance_evidence::Hash;
use uuid::Uuid;

use super::mismatch::{Fault, Mismatch, Shown};
use crate::ids::EntryId;

/// A position, with what the journal holds at the place that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    /// 0, 1, 2 …
    pub position: i64,
    /// Which arrival it was given to.
    pub arrival: i64,
    /// To which entry.
    pub entry_id: Uuid,
    /// Of which stream.
    pub stream_id: Uuid,
    /// Its number there.
    pub entity_seq: i64,
    /// `arrival`, `entry_id` and `leaf_hash` of the journal's row at (stream, `entity_seq`), where there is one.
    pub found: Option<(i64, Uuid, Vec<u8>)>,
}

/// Follows the positions in their order.
#[derive(Debug, Default)]
pub struct PositionWalk {
    next: i64,
}

impl PositionWalk {
    /// Takes the next position. Gives the leaf hash that the journal has for it.
    pub fn push(&mut self, row: &PositionRow, out: &mut Vec<Mismatch>) -> Option<Hash> {
        let mut report = |fault| {
            out.push(Mismatch {
                fault,
                entry: Some(EntryId(row.entry_id)),
                payment: None,
                position: u64::try_from(row.position).ok(),
            });
        };
        if row.position != self.next {
            report(Fault::PositionGap {
                expected: self.next,
                found: row.position,
            });
        }
        self.next = row.position.saturating_add(1);
        let Some((arrival, entry, hash)) = &row.found else {
            report(Fault::EntryMissing {
                stream: row.stream_id,
                entity_seq: row.entity_seq,
            });
            return None;
        };
        let mut differs = |column, expected, found| {
            report(Fault::PositionDiffers {
                column,
                expected,
                found,
            });
        };
        if *arrival != row.arrival {
            differs("arrival", Shown::of(arrival), Shown::of(&row.arrival));
        }
        if *entry != row.entry_id {
            differs("entry_id", Shown::of(entry), Shown::of(&row.entry_id));
        }
        let bytes: Option<[u8; 32]> = hash.as_slice().try_into().ok();
        bytes.map(Hash::from_bytes)
    }

    /// The end: the head must say the same number.
    pub fn finish(&self, head: i64, out: &mut Vec<Mismatch>) {
        if head != self.next {
            out.push(Mismatch {
                fault: Fault::HeadDiffers {
                    head,
                    found: self.next,
                },
                entry: None,
                payment: None,
                position: None,
            });
        }
    }
}
