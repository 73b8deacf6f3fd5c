//! Makes notifications from the journal: on every replica, by one of them at a time.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::notifications::NotificationParts;
use super::pace::{failed, pause};

/// Most entries of the journal that are looked at in one go.
const MOST: usize = 1_024;
/// Shortest time between two looks at the journal, so that each has something to do under load.
const PLAN_PAUSE: Duration = Duration::from_millis(20);
/// Notifications that are closed in one go.
const TIDY: usize = 1_000;

/// How many entries are looked at in one go: fewer after each failure, because a statement that takes longer than the
/// database allows does so for ever. How many notifications an entry becomes is the tenant's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch(usize);

impl Default for Batch {
    fn default() -> Self {
        Self(MOST)
    }
}

impl Batch {
    fn grow(&mut self) {
        self.0 = self.0.saturating_mul(2).min(MOST);
    }

    fn shrink(&mut self) {
        self.0 = (self.0 / 2).max(1);
    }
}

/// Makes notifications from the journal until `stop`.
pub async fn plan(parts: NotificationParts, stop: CancellationToken) {
    let mut failures = 0;
    let mut batch = Batch::default();
    let mut next = 0;
    let mut served = true;
    let mut tidied: Option<Instant> = None;
    while !stop.is_cancelled() {
        match parts.outbox.plan_notifications(batch.0).await {
            Ok(planned) => {
                failures = 0;
                // Not where another process was at it.
                if planned.next > next {
                    batch.grow();
                }
                next = planned.next.max(next);
                served = planned.served;
                if planned.made > 0 {
                    parts.wake.notify_one();
                }
                if planned.more {
                    continue;
                }
            }
            Err(error) => {
                batch.shrink();
                failures = failed("notifications cannot be made", failures, &error);
            }
        }
        let poll = parts.settings.poll_interval;
        if tidied.is_none_or(|at| at.elapsed() >= poll) {
            let closed = parts.outbox.close_notifications(TIDY).await;
            // Where it fails, so does planning, which says so. There may be more of them.
            if closed.is_ok_and(|closed| usize::try_from(closed).is_ok_and(|closed| closed >= TIDY))
            {
                continue;
            }
            tidied = Some(Instant::now());
        }
        let rest = async {
            tokio::time::sleep(PLAN_PAUSE).await;
            if failures > 0 || !served {
                tokio::time::sleep(pause(poll, failures)).await;
            } else {
                parts.store.wait_for_position(next, poll).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = rest => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_a_batch_that_fails_is_halved_down_to_one_and_grows_again() {
        let mut batch = Batch::default();
        batch.grow();
        assert_eq!(batch, Batch(MOST));
        batch.shrink();
        assert_eq!(batch, Batch(MOST / 2));
        for _ in 0..20 {
            batch.shrink();
        }
        assert_eq!(batch, Batch(1));
        batch.grow();
        assert_eq!(batch, Batch(2));
    }
}
