//! Gauges that somebody has to be asked for: measured from time to time, not per scrape, so that no scraper can
//! load the database.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::notification::{NotificationCount, Outbox};
use quittance_domain::ports::{Circuit, Providers, Store};
use quittance_domain::webhook::Inbox;
use quittance_store::PgStore;
use quittance_telemetry::{Metrics, Pending};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::signing::LogKeys;

/// How metrics name the states of a circuit.
const CIRCUIT_STATES: [&str; 3] = ["closed", "half_open", "open"];

/// Measures what waits for an outcome, and the circuits of provider accounts.
pub struct Gauges {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The inbox of webhooks.
    pub inbox: Arc<dyn Inbox>,
    /// The notifications.
    pub outbox: Arc<dyn Outbox>,
    /// The tree over the log.
    pub log: Arc<PgStore>,
    /// Under which keys its checkpoints are signed; `None` where they are not.
    pub keys: Option<Arc<LogKeys>>,
    /// The provider accounts.
    pub providers: Arc<dyn Providers>,
    /// Where it is shown.
    pub metrics: Metrics,
    /// How often.
    pub every: Duration,
}

impl Gauges {
    /// Measures until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.circuits();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.backlog() => {}
            }
        }
    }

    fn circuits(&self) {
        for name in self.providers.names() {
            if let Some(account) = self.providers.account(&name) {
                let state = state_name(account.circuit());
                self.metrics.circuit(name.as_str(), state, &CIRCUIT_STATES);
            }
        }
    }

    /// Where the database cannot be asked, the last values stay: the store warns of it already.
    async fn backlog(&self) {
        if let Ok(backlog) = self.store.backlog().await {
            self.metrics.pending(&Pending {
                transactions: backlog.pending,
                oldest_age: backlog.oldest_pending_seconds,
                due: backlog.due,
                open_cases: backlog.open_cases,
            });
        }
        if let Ok(backlog) = self.inbox.inbox_backlog().await {
            self.metrics.webhook_backlog(backlog.waiting, backlog.dead);
        }
        self.notifications().await;
        self.audit().await;
    }

    async fn notifications(&self) {
        let count = |what| self.outbox.count_notifications(what);
        if let Ok(number) = count(NotificationCount::Waiting).await {
            self.metrics.notifications_waiting(number);
        }
        if let Ok(number) = count(NotificationCount::Dead).await {
            self.metrics.notifications_dead(number);
        }
        if let Ok(number) = count(NotificationCount::Unplanned).await {
            self.metrics.notifications_unplanned(number);
        }
    }

    /// A checkpoint that covers the whole tree is as good as new, however long nothing has happened.
    async fn audit(&self) {
        if let Ok(seconds) = self.log.oldest_pending_entry_age().await {
            self.metrics.audit_pending_age(seconds);
        }
        let Some(keys) = &self.keys else {
            return;
        };
        let (Ok(Some(checkpoint)), Ok(head)) = (
            self.log.newest_checkpoint(&keys.verifiers()).await,
            self.log.tree_head().await,
        ) else {
            return;
        };
        let covered = head.map_or(0, |head| head.size) <= checkpoint.head.size;
        let age = self.log.clock().now() - checkpoint.signed_at;
        let age = age.to_std().unwrap_or_default().as_secs_f64();
        self.metrics.checkpoint_age(if covered { 0.0 } else { age });
    }
}

const fn state_name(circuit: Circuit) -> &'static str {
    match circuit {
        Circuit::Closed => "closed",
        Circuit::HalfOpen => "half_open",
        Circuit::Open => "open",
    }
}
