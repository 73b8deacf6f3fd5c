//! Removes notifications that nobody needs any more: on every replica, each by one of them, a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::notification::{Outbox, Pruned};
use tokio_util::sync::CancellationToken;

use super::pace::half_at_least;

/// Most notifications that are removed by one statement: none of them is locked for long.
const BATCH: usize = 1_000;
/// How often it is looked for some, at most; at least half as often.
const EVERY: Duration = Duration::from_secs(600);
/// How long an endpoint that was deleted, and that nothing is left of what it was told, is kept: whatever was under way
/// has ended by then.
const DELETED_ENDPOINT: Duration = Duration::from_secs(3_600);

/// The worker.
pub struct NotificationRetention {
    /// Where the notifications are.
    pub outbox: Arc<dyn Outbox>,
    /// How long what was delivered is kept, and everything of an endpoint that was deleted.
    pub keep_delivered: Duration,
    /// How long dead letters are kept.
    pub keep_dead: Duration,
}

impl NotificationRetention {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.prune_all() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(half_at_least(EVERY)) => {}
            }
        }
    }

    async fn prune_all(&self) {
        for (which, keep) in [
            (Pruned::Delivered, self.keep_delivered),
            (Pruned::Dead, self.keep_dead),
            (Pruned::OfDeletedEndpoints, self.keep_delivered),
            (Pruned::DeletedEndpoints, DELETED_ENDPOINT),
        ] {
            self.prune(which, keep).await;
        }
    }

    /// Removes what there is to remove, batch by batch, so that it keeps up with whatever is delivered. Where the database
    /// cannot be asked it is left for the next time: the store warns of that already.
    async fn prune(&self, which: Pruned, keep: Duration) {
        let batch = u64::try_from(BATCH).unwrap_or(u64::MAX);
        while let Ok(count) = self.outbox.prune_notifications(which, keep, BATCH).await {
            if count < batch {
                return;
            }
        }
    }
}
