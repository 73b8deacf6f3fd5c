//! Whether the row that says how far the sequencer has come can be true.
//!
//! It is under no MAC. Whoever owns the database can delete it, or set its mark so high that no later entry is ever looked
//! at; and a database that was moved without the values of its sequences gives numbers out again. Then nothing gets a
//! position any more, and an entry that was committed meanwhile could be deleted without a trace: that must not be silent.

use crate::observer::StoreObserver;
use crate::warning::Thinned;

/// How entries that the sequencer can never find are counted among failures of verification.
pub(crate) const SEQUENCER_CHECK: &str = "sequencer";

static WRONG: Thinned = Thinned::new();

/// Why the sequencer cannot find what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// There is no row.
    Missing,
    /// It is said to have come further than numbers were given out, or a position is of a number that was not.
    BeyondArrivals,
    /// The next position that it says is not the one behind the last that there is.
    NotBehindPositions,
}

impl HeadFault {
    /// What is wrong with a head: `low` is its mark, `None` where it is gone; `given` is the last number that was given
    /// out, at that moment or after; `placed` is the greatest that has a position.
    pub(crate) fn of(low: Option<i64>, given: i64, placed: Option<i64>) -> Option<Self> {
        let Some(low) = low else {
            return Some(Self::Missing);
        };
        let beyond = low.saturating_sub(1) > given || placed.is_some_and(|placed| placed > given);
        beyond.then_some(Self::BeyondArrivals)
    }

    /// What is wrong with the next position that a head says; `placed` is the one behind the last that there is, at that
    /// moment. From one that is too high, positions would have a gap for good.
    pub(crate) fn of_positions(next: i64, placed: i64) -> Option<Self> {
        (next != placed).then_some(Self::NotBehindPositions)
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Missing => "head_missing",
            Self::BeyondArrivals => "beyond_arrivals",
            Self::NotBehindPositions => "not_behind_positions",
        }
    }

    /// Raises the alarm.
    pub(crate) fn report(self, observer: &dyn StoreObserver) {
        observer.verification_failed(SEQUENCER_CHECK, 1);
        if WRONG.due().is_some() {
            tracing::error!(
                kind = self.kind(),
                "the sequencer's head is not as it was left: entries get no position, and nothing more is signed, until \
                 it is repaired"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_believed_up_to_the_last_number_that_was_given_out() {
        // Before the first entry, and where all that was given out is done.
        assert_eq!(HeadFault::of(Some(1), 1, None), None);
        assert_eq!(HeadFault::of(Some(8), 7, Some(7)), None);
        assert_eq!(HeadFault::of(Some(3), 7, Some(6)), None);
        assert_eq!(HeadFault::of(Some(i64::MIN), 1, None), None);
        let beyond = Some(HeadFault::BeyondArrivals);
        assert_eq!(HeadFault::of(Some(9), 7, Some(7)), beyond);
        assert_eq!(HeadFault::of(Some(i64::MAX), 7, Some(7)), beyond);
        assert_eq!(HeadFault::of(Some(3), 7, Some(8)), beyond);
        assert_eq!(HeadFault::of(None, 7, Some(7)), Some(HeadFault::Missing));
    }
}
