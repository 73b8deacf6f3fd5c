//! Warnings that would come with every call while the database is away: thinned, so that the log of an
//! outage can be read.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The same warning is given once in this time at most, with how many were left out.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// One warning of the code: a `static` beside it.
pub(crate) struct Thinned {
    every: Duration,
    state: Mutex<State>,
}

struct State {
    given: Option<Instant>,
    left_out: u64,
}

impl Thinned {
    pub(crate) const fn new() -> Self {
        Self {
            every: WARN_EVERY,
            state: Mutex::new(State {
                given: None,
                left_out: 0,
            }),
        }
    }

    /// Whether to give the warning now: how many there have been since it was last given, this one
    /// included.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due_at(Instant::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state
            .given
            .is_some_and(|given| now.saturating_duration_since(given) < self.every)
        {
            state.left_out += 1;
            return None;
        }
        state.given = Some(now);
        Some(1 + std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_given_at_once_and_the_others_are_counted() {
        let warning = Thinned::new();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(warning.due_at(at(0)), Some(1));
        for second in 1..10 {
            assert_eq!(warning.due_at(at(second)), None);
        }
        assert_eq!(warning.due_at(at(10)), Some(10));
        assert_eq!(warning.due_at(at(11)), None);
        assert_eq!(warning.due_at(at(100)), Some(2));
    }
}
