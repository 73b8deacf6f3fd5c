//! Rows that each name the one before them, under a MAC: what is named and was not seen is missing.

use std::collections::{BTreeMap, BTreeSet};

/// Rows of so many sizes are kept in mind: a later one names one of them as that before it. It is the last, but where
/// several servers write.
const MAX_SEEN: usize = 1_024;
/// Most rows that are told to be missing.
const MAX_MISSING: usize = 64;

/// A row that is named by a later one, and is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// Entries that it covered.
    pub(super) size: u64,
    /// Entries of the last before it that is there, 0 where there is none: what else was between the two, only the missing one
    /// could say.
    pub(super) after: u64,
}

/// Follows rows from one to the next, by size.
#[derive(Debug, Default)]
pub(super) struct Links {
    seen: BTreeSet<u64>,
    /// By its size, each with the size of the last before it.
    missing: BTreeMap<u64, u64>,
}

impl Links {
    /// Takes the next row that this service stored, and the size of the one before it: 0 for the first, `None` where it does
    /// not say.
    pub(super) fn push(&mut self, size: u64, previous: Option<u64>) {
        if let Some(previous) = previous.filter(|previous| *previous > 0) {
            // What was forgotten was there.
            let first = self.seen.first().copied().unwrap_or(u64::MAX);
            let forgotten = self.seen.len() >= MAX_SEEN && previous < first;
            if !forgotten && !self.seen.contains(&previous) && self.missing.len() < MAX_MISSING {
                let after = self.seen.range(..previous).next_back();
                let after = after.copied().unwrap_or(0);
                self.missing.insert(previous, after);
            }
        }
        self.seen.insert(size);
        if self.seen.len() > MAX_SEEN {
            self.seen.pop_first();
        }
    }

    /// The sizes that are named and were not seen. One may have been stored behind the page that it belongs to.
    pub(super) fn missing(&self) -> Vec<u64> {
        self.missing.keys().copied().collect()
    }

    /// Takes the sizes of rows that are stored after all.
    pub(super) fn stored(&mut self, sizes: &[u64]) {
        self.missing.retain(|size, _| !sizes.contains(size));
    }

    /// What is missing.
    pub(super) fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.missing.iter().map(|(size, after)| Gap {
            size: *size,
            after: *after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(rows: &[(u64, Option<u64>)]) -> Links {
        let mut links = Links::default();
        for (size, previous) in rows {
            links.push(*size, *previous);
        }
        links
    }

    fn gaps(links: &Links) -> Vec<(u64, u64)> {
        links.gaps().map(|gap| (gap.size, gap.after)).collect()
    }

    #[test]
    fn a_row_that_is_named_and_not_there_is_told_with_the_last_before_it() {
        let whole = walked(&[(3, Some(0)), (5, Some(3)), (9, Some(5))]);
        assert_eq!(gaps(&whole), []);
        // 5 is gone; then 3 and 5, of which nothing names 3.
        assert_eq!(gaps(&walked(&[(3, Some(0)), (9, Some(5))])), [(5, 3)]);
        assert_eq!(gaps(&walked(&[(9, Some(5))])), [(5, 0)]);
        let two = walked(&[(3, Some(0)), (9, Some(5)), (12, Some(11))]);
        assert_eq!(gaps(&two), [(5, 3), (11, 9)]);
    }

    #[test]
    fn what_does_not_say_what_was_before_it_is_no_gap() {
        assert_eq!(gaps(&walked(&[(3, None), (9, None)])), []);
    }

    #[test]
    fn several_servers_may_name_the_same_row() {
        let two = walked(&[(3, Some(0)), (5, Some(3)), (6, Some(3)), (9, Some(5))]);
        assert_eq!(gaps(&two), []);
    }

    #[test]
    fn what_was_stored_meanwhile_is_not_missing() {
        let mut links = walked(&[(9, Some(5)), (12, Some(11))]);
        assert_eq!(links.missing(), [5, 11]);
        links.stored(&[5]);
        assert_eq!(gaps(&links), [(11, 9)]);
    }

    #[test]
    fn neither_what_is_seen_nor_what_is_missing_fills_the_memory() {
        let mut links = Links::default();
        for size in (2..20_000).step_by(2) {
            links.push(size, Some(size - 1));
        }
        assert_eq!(links.seen.len(), MAX_SEEN);
        assert_eq!(links.missing.len(), MAX_MISSING);
        // One before all that is kept in mind was there.
        let mut links = walked(&[]);
        for size in 1..=2_000 {
            links.push(size, Some(size - 1));
        }
        links.push(3_000, Some(1));
        assert_eq!(gaps(&links), []);
    }
}
