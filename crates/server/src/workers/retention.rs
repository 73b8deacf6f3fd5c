//! Wipes the bodies of webhooks that nobody needs any more: on every replica, each body by one of them, a bounded number
//! at a time.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::webhook::{Inbox, Wiped};
use quittance_telemetry::Metrics;
use tokio_util::sync::CancellationToken;

use super::pace::half_at_least;
use crate::config::WebhookRetention;

/// Most bodies that are wiped by one statement: none of them is locked for long.
const BATCH: usize = 200;

/// The worker.
pub struct Retention {
    /// Where the bodies are.
    pub inbox: Arc<dyn Inbox>,
    /// Where what was wiped is counted.
    pub metrics: Metrics,
    /// How long they are kept.
    pub settings: WebhookRetention,
}

impl Retention {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(half_at_least(self.settings.every)) => {}
            }
            for (which, kept_for) in [
                (Wiped::Done, self.settings.done),
                (
                    Wiped::Unnamed,
                    self.settings.unnamed.min(self.settings.dead),
                ),
                (Wiped::Dead, self.settings.dead),
            ] {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.wipe(which, kept_for) => {}
                }
            }
        }
    }

    /// Wipes what there is to wipe, batch by batch. Where the database cannot be asked it is left for the next time:
    /// the store warns of that already.
    async fn wipe(&self, which: Wiped, kept_for: Duration) {
        let outcome = match which {
            Wiped::Done => "done",
            Wiped::Dead => "dead",
            Wiped::Unnamed => "unnamed",
        };
        while let Ok(count) = self.inbox.wipe_webhooks(which, kept_for, BATCH).await {
            self.metrics.webhooks_wiped(outcome, count);
            if count < BATCH {
                return;
            }
        }
    }
}
