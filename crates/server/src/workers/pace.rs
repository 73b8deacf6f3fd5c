//! How long a worker waits: drawn at random, and longer and longer while what it needs is away.

use std::time::Duration;

use quittance_domain::ports::StoreError;

/// Longest pause after the database could not be asked; up to it, pauses double.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Most doublings that are counted: by then, every limit is reached.
const MOST_DOUBLINGS: u32 = 16;

/// Drawn at random, at least half of `limit`: servers that were started together do not look together, and what failed
/// together does not come back together.
pub(super) fn half_at_least(limit: Duration) -> Duration {
    limit / 2 + limit.mul_f64(rand::random::<f64>() / 2.0)
}

/// `first`, doubled for each failure in a row, up to `longest`; `first` where that is longer.
pub(crate) fn doubled(first: Duration, failures: u32, longest: Duration) -> Duration {
    let factor = 2_u32.saturating_pow(failures.min(MOST_DOUBLINGS));
    first.saturating_mul(factor).min(longest.max(first))
}

/// Until the next look, after so many failures in a row.
pub(super) fn pause(poll: Duration, failures: u32) -> Duration {
    half_at_least(doubled(poll, failures, LONGEST_PAUSE))
}

/// Warns of the first failure in a row; how many there are with this one.
pub(super) fn failed(what: &'static str, failures: u32, error: &StoreError) -> u32 {
    if failures == 0 {
        tracing::warn!(error.message = %error, "{what}");
    }
    failures.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_and_are_bounded() {
        let longest = Duration::from_secs(60);
        let wait = |failures| doubled(SECOND, failures, longest).as_secs();
        let waits: Vec<u64> = (0..8).map(wait).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait(u32::MAX), 60);
        // What is longer than the limit to begin with is not made shorter by a failure.
        let hour = Duration::from_secs(3_600);
        assert_eq!(
            [0, 9].map(|failures| doubled(hour, failures, longest)),
            [hour; 2]
        );
        assert_eq!(doubled(Duration::MAX, 1, longest), Duration::MAX);
    }

    #[test]
    fn what_is_drawn_is_half_of_the_limit_at_least_and_not_always_the_same() {
        let drawn: Vec<_> = (0..100).map(|_| half_at_least(SECOND)).collect();
        assert!(
            drawn.iter().all(|it| *it >= SECOND / 2 && *it <= SECOND),
            "{drawn:?}"
        );
        assert!(
            drawn.iter().any(|it| Some(it) != drawn.first()),
            "{drawn:?}"
        );
        assert_eq!(half_at_least(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_pause_is_drawn_from_what_the_failures_so_far_allow() {
        for (failures, limit) in [(0, SECOND), (2, SECOND * 4), (99, LONGEST_PAUSE)] {
            let pause = pause(SECOND, failures);
            assert!(
                pause >= limit / 2 && pause <= limit,
                "{failures}: {pause:?}"
            );
        }
    }

    #[test]
    fn failures_in_a_row_are_counted() {
        let more = |failures| failed("away", failures, &StoreError::Unavailable);
        assert_eq!([0, 1, u32::MAX].map(more), [1, 2, u32::MAX]);
    }
}
