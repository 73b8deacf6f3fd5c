//! Arrivals that are not visible while later ones are, and the proof that they never will be.
//!
//! The proof rests on *virtual* transaction ids. Whoever inserts into the journal locks it
//! (`RowExclusiveLock`) before the default of `arrival` takes a number, and holds that lock to the end of
//! the transaction; an ordinary transaction id is only given with the first row written, which is after
//! the number was taken, so a snapshot of those could miss a writer.

use std::collections::{BTreeMap, HashSet};

/// Most holes that there may be: with more, no new entries are read until some are filled or dead.
pub(super) const MAX_HOLES: usize = 65_536;
/// Most holes that are looked into at once.
pub(super) const MAX_LOOK: usize = 1_024;

/// One run of missing arrivals, by its first; to its last (inclusive).
#[derive(Debug, Clone, Copy)]
struct Hole {
    to: i64,
    /// Which list of suspects applies; `None` while nobody has looked for them.
    suspects: Option<u64>,
}

/// Some holes that are looked into at once: their first and last arrivals, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) from: Vec<i64>,
    pub(super) to: Vec<i64>,
}

/// All holes, in order, and who could still fill them.
#[derive(Debug, Clone, Default)]
pub(super) struct Holes {
    runs: BTreeMap<i64, Hole>,
    /// Transactions that could have taken the numbers of some holes, and had not ended when they were
    /// last looked for. Holes that were first seen together share a list.
    suspects: BTreeMap<u64, HashSet<String>>,
    next_list: u64,
}

impl Holes {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether there may be no more of them.
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() >= MAX_HOLES
    }

    /// The lowest missing arrival.
    pub(super) fn lowest(&self) -> Option<i64> {
        self.runs.keys().next().copied()
    }

    /// The first holes after an arrival, or what is left of them after it: [`MAX_LOOK`] at most.
    pub(super) fn after(&self, arrival: i64) -> Chunk {
        // One that begins before may reach beyond.
        let begun = self.runs.range(..=arrival).next_back();
        let begun = begun.filter(|(_, hole)| hole.to > arrival);
        let later = self.runs.range(arrival.saturating_add(1)..);
        let (from, to) = begun
            .into_iter()
            .chain(later)
            .take(MAX_LOOK)
            .map(|(from, hole)| ((*from).max(arrival.saturating_add(1)), hole.to))
            .unzip();
        Chunk { from, to }
    }

    /// Whether there is a hole after an arrival.
    pub(super) fn are_any_after(&self, arrival: i64) -> bool {
        let last = self.runs.values().next_back();
        last.is_some_and(|hole| hole.to > arrival)
    }

    /// Adds a hole, where there is one: `from` to `to`, both missing.
    pub(super) fn add(&mut self, from: i64, to: i64) {
        if from <= to {
            let hole = Hole { to, suspects: None };
            self.runs.insert(from, hole);
        }
    }

    /// An arrival became visible: what is left of its hole stays, with its proof.
    pub(super) fn fill(&mut self, arrival: i64) {
        let found = self.runs.range(..=arrival).next_back();
        let Some((from, hole)) = found.map(|(from, hole)| (*from, *hole)) else {
            return;
        };
        if arrival > hole.to {
            return;
        }
        self.runs.remove(&from);
        if from < arrival {
            let to = arrival - 1;
            self.runs.insert(from, Hole { to, ..hole });
        }
        if arrival < hole.to {
            self.runs.insert(arrival + 1, hole);
        }
    }

    /// Takes a look's result: the transactions that hold a writer's lock on the journal now.
    ///
    /// Of a hole that nobody looked for yet, they are the suspects: whoever took one of its numbers did
    /// so before the hole was seen, under that lock, and so either is among them or has ended.
    /// Afterwards only who was a suspect before stays one.
    ///
    /// A prepared transaction has lost the virtual id that it was known by: it stays a suspect, and
    /// joins every list, until it ends.
    pub(super) fn observe(&mut self, writers: &[String]) {
        let writers: HashSet<_> = writers.iter().cloned().collect();
        let prepared = |writer: &str| writer.starts_with(PREPARED);
        for list in self.suspects.values_mut() {
            list.retain(|suspect| writers.contains(suspect));
            let joining = writers.iter().filter(|writer| prepared(writer)).cloned();
            list.extend(joining);
        }
        let list = self.next_list;
        let mut new = false;
        for hole in self.runs.values_mut() {
            if hole.suspects.is_none() {
                hole.suspects = Some(list);
                new = true;
            }
        }
        if new {
            self.suspects.insert(list, writers);
            self.next_list += 1;
        }
    }

    /// Removes holes without suspects. To be called after every hole that [`Self::observe`] knew was looked into since,
    /// and what was found was filled. True where one was removed.
    pub(super) fn remove_dead(&mut self) -> bool {
        let before = self.runs.len();
        let suspects = &self.suspects;
        self.runs.retain(|_, hole| {
            let list = hole.suspects.and_then(|list| suspects.get(&list));
            !list.is_some_and(HashSet::is_empty)
        });
        let used: HashSet<u64> = self
            .runs
            .values()
            .filter_map(|hole| hole.suspects)
            .collect();
        self.suspects.retain(|list, _| used.contains(list));
        self.runs.len() < before
    }
}

/// How `pg_locks` begins the id of a prepared transaction's holder.
const PREPARED: &str = "-1/";

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(holes: &Holes) -> Vec<(i64, i64)> {
        holes
            .runs
            .iter()
            .map(|(from, hole)| (*from, hole.to))
            .collect()
    }

    /// One pass that finds nothing.
    fn look(holes: &mut Holes, names: &[&str]) -> bool {
        holes.observe(&writers(names));
        holes.remove_dead()
    }

    fn writers(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn filling_splits_a_hole_and_closes_it_in_the_end() {
        let mut holes = Holes::default();
        holes.add(3, 2);
        assert!(holes.is_empty());
        holes.add(3, 7);
        holes.fill(9);
        holes.fill(5);
        assert_eq!(ranges(&holes), [(3, 4), (6, 7)]);
        holes.fill(3);
        holes.fill(7);
        assert_eq!(ranges(&holes), [(4, 4), (6, 6)]);
        assert_eq!(holes.lowest(), Some(4));
        holes.fill(4);
        holes.fill(6);
        assert!(holes.is_empty());
    }

    #[test]
    fn a_hole_is_dead_only_after_all_who_could_fill_it_have_ended() {
        let mut holes = Holes::default();
        holes.add(1, 1);
        assert!(!holes.remove_dead(), "nobody has looked");
        assert!(!look(&mut holes, &["1/7", "2/3"]));
        // A later transaction of the same session is another one, and no suspect.
        assert!(!look(&mut holes, &["1/8", "2/3"]));
        assert!(look(&mut holes, &["1/8"]));
        assert!(holes.is_empty());
    }

    #[test]
    fn a_hole_seen_when_nobody_writes_is_dead_after_one_more_look() {
        let mut holes = Holes::default();
        holes.add(1, 5);
        assert!(look(&mut holes, &[]));
        assert!(holes.suspects.is_empty());
    }

    #[test]
    fn a_transaction_that_is_prepared_under_a_hole_keeps_it_alive() {
        let mut holes = Holes::default();
        holes.add(1, 1);
        assert!(!look(&mut holes, &["1/7"]));
        assert!(!look(&mut holes, &["-1/812"]), "it may be what was 1/7");
        assert!(!look(&mut holes, &["-1/812", "1/8"]));
        assert!(look(&mut holes, &["1/8"]));
    }

    #[test]
    fn holes_seen_later_have_their_own_suspects() {
        let mut holes = Holes::default();
        holes.add(1, 1);
        assert!(!look(&mut holes, &["1/1"]));
        holes.add(5, 5);
        assert!(!look(&mut holes, &["1/1", "2/2"]));
        assert!(look(&mut holes, &["2/2"]));
        assert_eq!(ranges(&holes), [(5, 5)]);
        assert!(look(&mut holes, &[]));
    }

    #[test]
    fn a_look_is_bounded_and_looks_one_after_the_other_reach_every_hole() {
        let mut holes = Holes::default();
        let count = i64::try_from(2 * MAX_LOOK + 10).unwrap();
        (0..count).for_each(|number| holes.add(3 * number + 1, 3 * number + 2));
        let (mut seen, mut after) = (Vec::new(), 0);
        loop {
            let chunk = holes.after(after);
            assert!(chunk.from.len() <= MAX_LOOK);
            let Some(last) = chunk.to.last() else {
                break;
            };
            after = *last;
            assert_eq!(holes.are_any_after(after), after < 3 * count - 1);
            seen.extend(chunk.from.into_iter().zip(chunk.to));
        }
        assert_eq!(seen, ranges(&holes));
        // What is left of a hole.
        let chunk = holes.after(4);
        assert_eq!((chunk.from[0], chunk.to[0]), (5, 5));
    }
}
