//! How the streams are shared among lanes, and what of them is done.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use uuid::Uuid;

/// Into how many segments the streams are cut: many more than lanes, so that all end at about the same time.
pub(super) const SEGMENTS: u64 = 64;

/// Streams from `from` on, and below `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: Uuid,
    /// `None`: to the last.
    pub(super) to: Option<Uuid>,
}

/// The segments, taken in order.
#[derive(Debug)]
pub(super) struct Segments {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where the next segment begins; `None` where none is left.
    next: Option<Uuid>,
    /// Where segments end, descending.
    cuts: Vec<Uuid>,
    /// From where on each lane's segment is not done.
    at: BTreeMap<usize, Uuid>,
}

impl Segments {
    /// Cuts what lies from `from` on; `None` is nothing.
    pub(super) fn new(from: Option<Uuid>, mut cuts: Vec<Uuid>) -> Self {
        cuts.sort_unstable_by(|a, b| b.cmp(a));
        cuts.dedup();
        cuts.retain(|cut| from.is_some_and(|from| *cut > from));
        let state = State {
            next: from,
            cuts,
            at: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Gives a lane its next segment, having done the one before.
    pub(super) fn take(&self, lane: usize) -> Option<Segment> {
        let mut state = self.state.lock();
        let Some(from) = state.next else {
            state.at.remove(&lane);
            return None;
        };
        let to = state.cuts.pop();
        state.next = to;
        state.at.insert(lane, from);
        Some(Segment { from, to })
    }

    /// Notes that a lane has done what lies below.
    pub(super) fn done(&self, lane: usize, below: Uuid) {
        self.state.lock().at.insert(lane, below);
    }

    /// Below which all are done; `None` where all are.
    pub(super) fn done_below(&self) -> Option<Uuid> {
        let state = self.state.lock();
        state.at.values().copied().chain(state.next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn segments_join_without_a_gap_and_tell_what_is_done() {
        let segments = Segments::new(Some(id(0)), vec![id(20), id(10), id(20), id(0)]);
        let first = segments.take(0).unwrap();
        let second = segments.take(1).unwrap();
        assert_eq!((first.from, first.to), (id(0), Some(id(10))));
        assert_eq!((second.from, second.to), (id(10), Some(id(20))));
        segments.done(1, id(15));
        assert_eq!(segments.done_below(), Some(id(0)));
        segments.done(0, id(7));
        assert_eq!(segments.done_below(), Some(id(7)));
        let third = segments.take(0).unwrap();
        assert_eq!((third.from, third.to), (id(20), None));
        assert_eq!(segments.done_below(), Some(id(15)));
        assert_eq!(segments.take(1), None);
        assert_eq!(segments.done_below(), Some(id(20)));
        assert_eq!(segments.take(0), None);
        assert_eq!(segments.done_below(), None);
    }

    #[test]
    fn what_was_done_before_is_not_taken_again() {
        let segments = Segments::new(Some(id(12)), vec![id(10), id(20)]);
        let first = segments.take(0).unwrap();
        assert_eq!((first.from, first.to), (id(12), Some(id(20))));
        assert!(Segments::new(None, vec![id(10)]).take(0).is_none());
    }
}
