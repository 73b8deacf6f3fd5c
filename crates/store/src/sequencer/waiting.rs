//! Entries under a key that this process does not have.
//!
//! Such an entry is no proof of anything: another server may have the key, or somebody made the entry up. It is not
//! refused, which would be for good, and gets no position; nor do entries that follow upon it. All others go on, or one
//! row that anybody can insert would stop the log.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::authentic::UnknownKey;
use super::statements::Arrived;

/// Most entries that wait. With more of them no entry gets a position: the database is being filled with them.
const MAX_WAITING: usize = 65_536;

/// Those that wait, as one term of the sequencer knows them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: BTreeSet<(i64, Uuid, i64)>,
    /// The lowest number that waits of a stream, and for which key: what comes behind it follows upon it.
    streams: BTreeMap<Uuid, (i64, UnknownKey)>,
}

impl Waiting {
    /// The lowest arrival: until it has its position, whoever takes over looks from there.
    pub(super) fn lowest(&self) -> Option<i64> {
        self.rows.first().map(|(arrival, ..)| *arrival)
    }

    /// Which key is lacking, where one is.
    pub(super) fn lacking(&self) -> Option<&UnknownKey> {
        self.streams.values().next().map(|(_, unknown)| unknown)
    }

    /// The key that is lacking for an entry that a row follows upon.
    pub(super) fn behind(&self, row: &Arrived) -> Option<&UnknownKey> {
        let (first, unknown) = self.streams.get(&row.stream_id)?;
        (*first < row.entity_seq).then_some(unknown)
    }

    /// Lets a row wait for a key; whether it did not do so before.
    ///
    /// # Errors
    /// No more may wait.
    pub(super) fn add(&mut self, row: &Arrived, unknown: UnknownKey) -> Result<bool, UnknownKey> {
        if self.rows.len() >= MAX_WAITING {
            return Err(unknown);
        }
        let (first, _) = self
            .streams
            .entry(row.stream_id)
            .or_insert((row.entity_seq, unknown));
        *first = row.entity_seq.min(*first);
        let place = (row.arrival, row.stream_id, row.entity_seq);
        Ok(self.rows.insert(place))
    }
}

#[cfg(test)]
mod tests {
    use quittance_evidence::MacKeyId;

    use super::*;

    fn row(arrival: i64, stream: u128, entity_seq: i64) -> Arrived {
        Arrived {
            arrival,
            entry_id: Uuid::nil(),
            stream_id: Uuid::from_u128(stream),
            entity_seq,
            tenant_id: None,
            leaf: Vec::new(),
            mac: Vec::new(),
            mac_key_id: String::new(),
        }
    }

    fn add(waiting: &mut Waiting, row: &Arrived) -> Option<bool> {
        let unknown = UnknownKey {
            entry: Uuid::nil(),
            key: MacKeyId::new("k9").unwrap(),
        };
        waiting.add(row, unknown).ok()
    }

    #[test]
    fn what_follows_upon_one_that_waits_waits_too_and_nothing_else() {
        let mut waiting = Waiting::default();
        assert!(waiting.lowest().is_none() && waiting.lacking().is_none());
        assert_eq!(add(&mut waiting, &row(12, 1, 5)), Some(true));
        assert_eq!(add(&mut waiting, &row(12, 1, 5)), Some(false));
        assert!(waiting.behind(&row(15, 1, 6)).is_some());
        assert!(waiting.behind(&row(7, 1, 4)).is_none());
        assert!(waiting.behind(&row(15, 2, 6)).is_none());
        assert_eq!(add(&mut waiting, &row(9, 1, 3)), Some(true));
        assert!(waiting.behind(&row(7, 1, 4)).is_some());
        assert_eq!(waiting.lowest(), Some(9));
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let mut waiting = Waiting::default();
        let most = i64::try_from(MAX_WAITING).unwrap();
        for arrival in 0..most {
            assert_eq!(add(&mut waiting, &row(arrival, 1, 1)), Some(true));
        }
        assert_eq!(add(&mut waiting, &row(most, 1, 1)), None);
    }
}
