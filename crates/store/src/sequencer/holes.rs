//! Arrivals that are not visible while later ones are, and the proof that they never will be.

use std::collections::{BTreeMap, HashSet};

/// What is known of a hole's writers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// Nobody has looked since the hole was seen.
    None,
    /// These transactions could have taken its numbers, and had not ended at the last look.
    Suspects(HashSet<String>),
}

/// One run of missing arrivals, by its first; to its last (inclusive).
#[derive(Debug, Clone)]
struct Hole {
    to: i64,
    proof: Proof,
}

/// All holes, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Holes {
    holes: BTreeMap<i64, Hole>,
}

impl Holes {
    pub(super) fn is_empty(&self) -> bool {
        self.holes.is_empty()
    }

    /// The lowest missing arrival.
    pub(super) fn lowest(&self) -> Option<i64> {
        self.holes.keys().next().copied()
    }

    /// First and last arrivals of each hole.
    pub(super) fn bounds(&self) -> (Vec<i64>, Vec<i64>) {
        self.holes
            .iter()
            .map(|(from, hole)| (*from, hole.to))
            .unzip()
    }

    /// Adds a hole, where there is one: `from` to `to`, both missing.
    pub(super) fn add(&mut self, from: i64, to: i64) {
        if from <= to {
            self.holes.insert(
                from,
                Hole {
                    to,
                    proof: Proof::None,
                },
            );
        }
    }

    /// An arrival became visible: what is left of its hole stays, with its proof.
    pub(super) fn fill(&mut self, arrival: i64) {
        let found = self
            .holes
            .range(..=arrival)
            .next_back()
            .map(|(from, hole)| (*from, hole.clone()));
        let Some((from, hole)) = found.filter(|(_, hole)| arrival <= hole.to) else {
            return;
        };
        self.holes.remove(&from);
        if from < arrival {
            let proof = hole.proof.clone();
            self.holes.insert(
                from,
                Hole {
                    to: arrival - 1,
                    proof,
                },
            );
        }
        if arrival < hole.to {
            self.holes.insert(
                arrival + 1,
                Hole {
                    to: hole.to,
                    proof: hole.proof,
                },
            );
        }
    }

    /// Takes a look's result: the transactions that hold a lock on the journal now.
    ///
    /// Of a hole that nobody looked for yet, they are the suspects: whoever took one of its numbers did
    /// so before the hole was seen, under that lock, and so either is among them or has ended.
    /// Afterwards only who was a suspect before stays one.
    pub(super) fn observe(&mut self, writers: &[String]) {
        let writers: HashSet<_> = writers.iter().cloned().collect();
        for hole in self.holes.values_mut() {
            hole.proof = match &hole.proof {
                Proof::None => Proof::Suspects(writers.clone()),
                Proof::Suspects(before) => {
                    Proof::Suspects(before.intersection(&writers).cloned().collect())
                }
            };
        }
    }

    /// Removes holes without suspects. To be called after a look at the journal that was made after
    /// [`Self::observe`], and filled what it found. True where one was removed.
    pub(super) fn remove_dead(&mut self) -> bool {
        let before = self.holes.len();
        self.holes.retain(|_, hole| match &hole.proof {
            Proof::None => true,
            Proof::Suspects(left) => !left.is_empty(),
        });
        self.holes.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(holes: &Holes) -> Vec<(i64, i64)> {
        holes
            .holes
            .iter()
            .map(|(from, hole)| (*from, hole.to))
            .collect()
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
        holes.observe(&writers(&["1/7", "2/3"]));
        assert!(!holes.remove_dead());
        // A later transaction of the same session is another one, and no suspect.
        holes.observe(&writers(&["1/8", "2/3"]));
        assert!(!holes.remove_dead());
        holes.observe(&writers(&["1/8"]));
        assert!(holes.remove_dead());
        assert!(holes.is_empty());
    }

    #[test]
    fn a_hole_seen_when_nobody_writes_is_dead_after_one_more_look() {
        let mut holes = Holes::default();
        holes.add(1, 5);
        holes.observe(&[]);
        assert!(holes.remove_dead());
    }
}
