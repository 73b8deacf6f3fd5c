//! Leaf hashes of entries that this process has verified and given their positions.

use std::collections::VecDeque;

use parking_lot::Mutex;
use quittance_evidence::Hash;

use super::Lease;

/// Most hashes that are kept (32 bytes each); what is older is read from the journal.
const MAX_FRESH: usize = 65_536;

/// A run of leaf hashes, by the position of the first; it ends with the last position that was given. It is of one term
/// of the sequencer of this process: within it positions never change. A database that went back in time gives
/// some of them to other entries, in another term.
#[derive(Debug, Default)]
pub(crate) struct Fresh(Mutex<Run>);

#[derive(Debug, Default)]
struct Run {
    lease: Option<Lease>,
    first: u64,
    hashes: VecDeque<Hash>,
}

impl Run {
    fn end(&self) -> u64 {
        self.first
            .saturating_add(u64::try_from(self.hashes.len()).unwrap_or(u64::MAX))
    }

    fn drop_before(&mut self, position: u64) {
        while self.first < position && self.hashes.pop_front().is_some() {
            self.first += 1;
        }
    }
}

impl Fresh {
    /// Begins a term, in which `placed` entries have their positions.
    pub(crate) fn begin(&self, lease: Lease, placed: u64) {
        *self.0.lock() = Run {
            lease: Some(lease),
            first: placed,
            hashes: VecDeque::new(),
        };
    }

    /// Ends the term.
    pub(crate) fn end(&self) {
        *self.0.lock() = Run::default();
    }

    /// How many entries have their positions, in this term; `None` where it has ended.
    pub(crate) fn placed(&self, lease: Lease) -> Option<u64> {
        let run = self.0.lock();
        (run.lease == Some(lease)).then(|| run.end())
    }

    /// Takes the hashes of the entries at `position` and after, which are committed.
    pub(crate) fn push(&self, position: u64, hashes: impl Iterator<Item = Hash>) {
        let mut run = self.0.lock();
        if run.end() != position {
            run.hashes.clear();
            run.first = position;
        }
        run.hashes.extend(hashes);
        let excess = run.hashes.len().saturating_sub(MAX_FRESH);
        let keep_from = run.first + u64::try_from(excess).unwrap_or(0);
        run.drop_before(keep_from);
    }

    /// The hashes of the entries at `position` and after, `limit` at most; none where the one at `position` is
    /// not kept, or the term has ended. Those before are not needed any more.
    pub(crate) fn from(&self, lease: Lease, position: u64, limit: usize) -> Vec<Hash> {
        let mut run = self.0.lock();
        if run.lease != Some(lease) || position < run.first || position >= run.end() {
            return Vec::new();
        }
        run.drop_before(position);
        run.hashes.iter().take(limit).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const TERM: Lease = Lease {
        holder: Uuid::from_u128(1),
        fence: 7,
    };

    fn hash(byte: u8) -> Hash {
        Hash::from_bytes([byte; 32])
    }

    #[test]
    fn a_run_is_given_from_where_it_is_asked_for_and_never_with_a_gap() {
        let fresh = Fresh::default();
        fresh.begin(TERM, 5);
        fresh.push(5, [5, 6].map(hash).into_iter());
        fresh.push(7, [7].map(hash).into_iter());
        assert_eq!(fresh.from(TERM, 4, 9), []);
        assert_eq!(fresh.from(TERM, 6, 1), [hash(6)]);
        assert_eq!(fresh.from(TERM, 6, 9), [hash(6), hash(7)]);
        assert_eq!(fresh.from(TERM, 5, 9), [], "it was not needed any more");
        assert_eq!(fresh.from(TERM, 8, 9), []);
        fresh.push(9, [9].map(hash).into_iter());
        assert_eq!(fresh.from(TERM, 7, 9), []);
        assert_eq!(fresh.from(TERM, 9, 9), [hash(9)]);
    }

    #[test]
    fn a_run_is_bounded_and_keeps_the_newest() {
        let fresh = Fresh::default();
        fresh.begin(TERM, 0);
        let many = u64::try_from(MAX_FRESH).unwrap();
        fresh.push(0, std::iter::repeat_n(hash(1), MAX_FRESH));
        fresh.push(many, [hash(2)].into_iter());
        assert_eq!(fresh.from(TERM, 0, 1), []);
        assert_eq!(fresh.from(TERM, 1, MAX_FRESH + 1).len(), MAX_FRESH);
        assert_eq!(fresh.from(TERM, many, 1), [hash(2)]);
    }

    #[test]
    fn nothing_of_one_term_is_given_in_another() {
        let fresh = Fresh::default();
        fresh.begin(TERM, 3);
        fresh.push(3, [3, 4].map(hash).into_iter());
        assert_eq!(fresh.placed(TERM), Some(5));
        // The database went back, and its fence with it.
        let next = Lease {
            holder: Uuid::from_u128(2),
            ..TERM
        };
        fresh.begin(next, 3);
        assert_eq!((fresh.placed(TERM), fresh.placed(next)), (None, Some(3)));
        fresh.push(3, [5].map(hash).into_iter());
        assert_eq!(fresh.from(TERM, 3, 9), []);
        assert_eq!(fresh.from(next, 3, 9), [hash(5)]);
        fresh.end();
        assert_eq!((fresh.placed(next), fresh.from(next, 3, 9)), (None, vec![]));
    }
}
