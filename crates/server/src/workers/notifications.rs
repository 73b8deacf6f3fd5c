//! Sends notifications: on every replica, each by one of them at a time.
//!
//! A payment's notifications go to an endpoint one after another, those of different payments at once. Whatever dies
//! in between, a notification is sent again rather than not at all: its id tells the receiver.

use std::sync::Arc;
use std::time::Duration;

use quittance_domain::ids::EndpointId;
use quittance_domain::notification::{NotificationClaim, Outbox};
use quittance_domain::ports::{Clock, Store};
use quittance_telemetry::Metrics;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::notification_attempt::work_on;
use super::pace::{failed, pause};
use super::shares::{Shares, task_of};
use crate::config::NotificationsConfig;
use crate::notifications::Sender;
use crate::trail::Trail;

/// Shortest time between two claims, so that each has something to claim under load.
const CLAIM_PAUSE: Duration = Duration::from_millis(5);

/// What the workers work with.
#[derive(Clone)]
pub struct NotificationParts {
    /// Where notifications are.
    pub outbox: Arc<dyn Outbox>,
    /// The journal.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Puts on record that a receiver is gone.
    pub trail: Trail,
    /// Sends.
    pub sender: Sender,
    /// Where lag and latency are shown.
    pub metrics: Metrics,
    /// How much at once, and how often.
    pub settings: NotificationsConfig,
    /// Told when this process has made notifications.
    pub wake: Arc<Notify>,
}

/// Sends what is due.
pub struct Notifier {
    parts: NotificationParts,
    running: JoinSet<()>,
    shares: Shares<EndpointId>,
    failures: u32,
}

impl Notifier {
    /// A notifier that has not begun.
    pub fn new(parts: NotificationParts) -> Self {
        Self {
            parts,
            running: JoinSet::new(),
            shares: Shares::default(),
            failures: 0,
        }
    }

    /// Works until `stop`, when nothing more is claimed; returns when what runs has ended, or at `kill`. What is left
    /// then is claimed by others once the claim has run out.
    pub async fn run(mut self, stop: CancellationToken, kill: CancellationToken) {
        while !stop.is_cancelled() {
            let claimed = self.claim_and_start().await;
            let pause = pause(self.parts.settings.poll_interval, self.failures);
            let wake = Arc::clone(&self.parts.wake);
            let ready = self.failures == 0;
            tokio::select! {
                () = stop.cancelled() => break,
                // What waits behind it may be due, or a place is free.
                Some(ended) = self.running.join_next_with_id(), if ready => self.ended(&ended),
                () = wake.notified(), if ready => {}
                () = std::future::ready(()), if claimed => {}
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(CLAIM_PAUSE).await;
            while let Some(ended) = self.running.try_join_next_with_id() {
                self.ended(&ended);
            }
        }
        tokio::select! {
            () = async { while self.running.join_next().await.is_some() {} } => {}
            // Dropped, they are aborted.
            () = kill.cancelled() => {}
        }
    }

    fn ended(&mut self, ended: &Result<(Id, ()), JoinError>) {
        self.shares.ended(task_of(ended));
    }

    /// Claims what can be started, and starts it. Whether anything was there, so that there may be more.
    async fn claim_and_start(&mut self) -> bool {
        let settings = &self.parts.settings;
        let limit = settings.concurrency.saturating_sub(self.running.len());
        if limit == 0 {
            return false;
        }
        let claim = NotificationClaim {
            limit,
            per_endpoint: settings.concurrency_per_endpoint,
            busy: self.shares.taken(),
            lease: settings.claim,
        };
        // Taken before the claim is made, so that it has run out here before it has there.
        let until = Instant::now() + settings.claim;
        match self.parts.outbox.claim_notifications(&claim).await {
            Ok(claimed) => {
                self.failures = 0;
                let any = !claimed.is_empty();
                for notification in claimed {
                    let endpoint = notification.endpoint;
                    let work = work_on(self.parts.clone(), notification, until);
                    self.shares.begun(self.running.spawn(work).id(), endpoint);
                }
                any
            }
            Err(error) => {
                self.failures = failed("notifications cannot be claimed", self.failures, &error);
                false
            }
        }
    }
}
