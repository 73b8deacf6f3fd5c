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
    /// The position before the next one that it says is not there: that was raised, or positions are gone.
    BeyondPositions,
    /// There are positions behind the next one that it says.
    PositionsBeyond,
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

    /// What is wrong with the next position that a head says; `placed` is how many there are below it, and `last` the last one
    /// of all, at that moment. From one that is too high, positions would have a gap for good. What somebody put behind it is in
    /// the way only once it is reached.
    pub(crate) fn of_positions(next: i64, placed: i64, last: Option<i64>) -> Option<Self> {
        if next != placed {
            return Some(Self::BeyondPositions);
        }
        let beyond = last.is_some_and(|last| last >= next);
        beyond.then_some(Self::PositionsBeyond)
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Missing => "head_missing",
            Self::BeyondArrivals => "beyond_arrivals",
            Self::BeyondPositions => "beyond_positions",
            Self::PositionsBeyond => "positions_beyond",
        }
    }

    /// Raises the alarm.
    pub(crate) fn report(self, observer: &dyn StoreObserver) {
        observer.verification_failed(SEQUENCER_CHECK, 1);
        if WRONG.due().is_some() {
            tracing::error!(
                kind = self.kind(),
                "the sequencer's head, or what lies behind it, is not as it was left: entries get no position, or soon will not, \
                 and nothing more is signed, until it is repaired"
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

    #[test]
    fn a_next_position_is_believed_where_the_one_before_it_is_there() {
        assert_eq!(HeadFault::of_positions(0, 0, None), None);
        assert_eq!(HeadFault::of_positions(7, 7, Some(6)), None);
        let raised = HeadFault::of_positions(i64::MAX, 7, Some(6));
        assert_eq!(raised, Some(HeadFault::BeyondPositions));
        let behind = HeadFault::of_positions(7, 7, Some(i64::MAX));
        assert_eq!(behind, Some(HeadFault::PositionsBeyond));
    }
}
