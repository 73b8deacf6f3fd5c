//! One attempt of a notification: made from its journal entry, sent, and written down.

use std::time::Duration;

use chrono::{DateTime, Utc};
use quittance_domain::ids::TransactionId;
use quittance_domain::notification::{
    AttemptLog, ClaimedNotification, EndpointChange, NotificationCause, NotificationVerdict,
};
use quittance_domain::ports::StoreError;
use quittance_evidence::Leaf;
use quittance_telemetry as telemetry;
use rand::Rng as _;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::links::accepted_in;
use super::notifications::NotificationParts;
use crate::config::NotificationRetries;
use crate::convert::entry::{self, EntryError};
use crate::notifications::sender::Outgoing;
use crate::notifications::{Sent, Target, payload};

/// How long before its claim runs out a notification has to be closed.
const CLOSE_MARGIN: Duration = Duration::from_millis(200);
/// How long a notification is left alone that our own database, or limit, did not let us make.
const POSTPONED_FOR: Duration = Duration::from_secs(5);

/// What becomes of a notification that an old URL calls gone: it goes to the new one at once. Where there is none, because the
/// endpoint is off already, it is closed with what else waits for it.
const MOVED: NotificationVerdict = NotificationVerdict::Again {
    cause: NotificationCause::Gone,
    after: Duration::ZERO,
};

/// Sends one notification, in a trace of its own, and writes down what became of it.
pub(super) async fn work_on(
    parts: NotificationParts,
    claimed: ClaimedNotification,
    until: Instant,
) {
    let span = tracing::info_span!(
        parent: None,
        "notification",
        otel.kind = "client",
        otel.status_code = Empty,
        notification.id = %claimed.id,
        endpoint.id = %claimed.endpoint,
        payment.id = %claimed.payment,
        transaction.id = Empty,
        audit.event_type = Empty,
        audit.entry_id = %claimed.entry,
        retry.number = claimed.attempt,
        server.address = Empty,
        server.port = Empty,
        http.response.status_code = Empty,
        outcome = Empty,
        cause = Empty,
    );
    parts.attempt(&claimed, until).instrument(span).await;
}

/// What became of an attempt: its log, and for how long the receiver asked us to wait.
struct Attempted {
    log: AttemptLog,
    cause: Option<NotificationCause>,
    retry_after: Option<Duration>,
}

/// Why nothing was sent.
enum Unprepared {
    /// It cannot be made, or goes nowhere: an attempt that failed.
    Failed(NotificationCause),
    /// Our own database cannot be asked just now, or a key is missing here, which is nothing to the receiver's schedule.
    NotNow,
}

impl From<NotificationCause> for Unprepared {
    fn from(cause: NotificationCause) -> Self {
        Self::Failed(cause)
    }
}

impl From<StoreError> for Unprepared {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable | StoreError::Overloaded | StoreError::CommitUnknown => {
                Self::NotNow
            }
            StoreError::Refused(_) | StoreError::Corrupt(_) => {
                Self::Failed(NotificationCause::NotPrepared)
            }
        }
    }
}

impl Attempted {
    fn new(started_at: DateTime<Utc>, sent: Sent) -> Self {
        Self {
            log: AttemptLog {
                started_at,
                latency: sent.latency,
                http_status: sent.http_status,
            },
            cause: sent.cause,
            retry_after: sent.retry_after,
        }
    }
}

impl NotificationParts {
    async fn attempt(&self, claimed: &ClaimedNotification, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let Some(limit) = left.checked_sub(CLOSE_MARGIN) else {
            // Somebody else may be at it.
            return;
        };
        let began = if claimed.tries > self.settings.retries.most_tries() {
            // Whoever was at it died, again and again: it may be the notification that they died of.
            Some(self.unsent(NotificationCause::Abandoned))
        } else {
            self.send(claimed, limit).await
        };
        let Some(attempted) = began else {
            return self.postpone(claimed).await;
        };
        let mut verdict = self.verdict(claimed, &attempted);
        // First, so that nothing more is claimed for it.
        if attempted.cause == Some(NotificationCause::Gone) && !self.gone(claimed).await {
            verdict = MOVED;
        }
        record(&attempted, verdict);
        self.metrics.notification_attempt(
            attempted.cause.map_or("delivered", |_| "failed"),
            attempted.cause.map(NotificationCause::name),
            attempted.log.latency.as_secs_f64(),
        );
        let closing = self
            .outbox
            .close_notification(claimed, attempted.log, verdict);
        match closing.await {
            Ok(Some(age)) => self.closed(claimed, verdict, age),
            // Somebody else has claimed it since.
            Ok(None) => {}
            Err(error) => tracing::warn!(
                notification.id = %claimed.id,
                error.message = %error,
                "what became of a notification could not be written down; it is sent again"
            ),
        }
    }

    fn unsent(&self, cause: NotificationCause) -> Attempted {
        Attempted::new(self.clock.now(), Sent::unsent(cause))
    }

    /// `None` where our own database could not be asked, or our own limit on names that are looked up at once was reached.
    async fn send(&self, claimed: &ClaimedNotification, limit: Duration) -> Option<Attempted> {
        let started_at = self.clock.now();
        let sent = match self.prepare(claimed).await {
            Ok((target, body)) => {
                let span = Span::current();
                span.record("server.address", target.host());
                span.record("server.port", target.port());
                let secrets = claimed.destination.as_ref();
                let outgoing = Outgoing {
                    asker: claimed.tenant.as_str(),
                    id: claimed.id,
                    at: started_at,
                    secrets: secrets.map_or(&[], |destination| &destination.secrets),
                    body,
                    limit,
                };
                self.sender.send(&target, outgoing).await
            }
            Err(Unprepared::Failed(cause)) => Sent::unsent(cause),
            Err(Unprepared::NotNow) => return None,
        };
        if sent.busy {
            return None;
        }
        Some(Attempted::new(started_at, sent))
    }

    /// Where that cannot be written either, the claim runs out.
    async fn postpone(&self, claimed: &ClaimedNotification) {
        Span::current().record("outcome", "POSTPONED");
        let postponed = self.outbox.postpone_notification(claimed, POSTPONED_FOR);
        if let Err(error) = postponed.await {
            tracing::debug!(error.message = %error, "a notification waits until its claim runs out");
        }
    }

    /// Where it goes, and its body: from the journal entry, which must be the tenant's (I11), and as this service wrote it.
    async fn prepare(
        &self,
        claimed: &ClaimedNotification,
    ) -> Result<(Target, Vec<u8>), Unprepared> {
        let destination = claimed.destination.as_ref();
        let destination = destination.ok_or(NotificationCause::NotPrepared)?;
        let target = self.sender.target(destination.url.expose());
        let target = target.map_err(|_| NotificationCause::AddressRefused)?;
        let stored = self.store.entry(Some(&claimed.tenant), claimed.entry).await;
        let stored = stored?.ok_or(NotificationCause::NotPrepared)?;
        let leaf = match entry::told(&stored, &claimed.tenant) {
            Ok(told) => told.ok_or(NotificationCause::NotPrepared)?,
            // Another server may have it.
            Err(EntryError::KeyUnknown(_)) => return Err(Unprepared::NotNow),
            Err(_) => return Err(NotificationCause::NotPrepared.into()),
        };
        if leaf.payment_id != Some(claimed.payment.0) {
            return Err(NotificationCause::NotPrepared.into());
        }
        self.link(claimed, &leaf).await;
        let body = payload::of_entry(&leaf).ok_or(NotificationCause::NotPrepared)?;
        Ok((target, body))
    }

    /// Links the span to the one that accepted the transaction.
    async fn link(&self, claimed: &ClaimedNotification, leaf: &Leaf) {
        let span = Span::current();
        span.record("audit.event_type", leaf.event_type.as_str());
        let Some(transaction) = leaf.transaction_id else {
            return;
        };
        span.record("transaction.id", transaction.to_string());
        let transaction = TransactionId(transaction);
        let accepted = accepted_in(self.store.as_ref(), claimed.payment, transaction);
        if let Some(accepted) = accepted.await {
            telemetry::add_link(&span, accepted);
        }
    }

    fn verdict(&self, claimed: &ClaimedNotification, attempted: &Attempted) -> NotificationVerdict {
        let Some(cause) = attempted.cause else {
            return NotificationVerdict::Delivered;
        };
        let lot = rand::rng().random();
        let failures = claimed.failures.saturating_add(1);
        let retries = &self.settings.retries;
        let again = Some(cause).filter(|cause| NotificationRetries::worth_it(*cause));
        match again.and_then(|_| retries.wait(failures, attempted.retry_after, lot)) {
            Some(after) => NotificationVerdict::Again { cause, after },
            None => NotificationVerdict::Dead { cause },
        }
    }

    /// The receiver wants no more: its endpoint is switched off, on record, unless it has moved meanwhile, or is off already.
    /// `false` where it was not for that.
    async fn gone(&self, claimed: &ClaimedNotification) -> bool {
        let Some(destination) = &claimed.destination else {
            return true;
        };
        let change = EndpointChange::Gone {
            id: claimed.endpoint,
            url: destination.url.clone(),
        };
        let (tenant, endpoint) = (&claimed.tenant, claimed.endpoint);
        let switch_off = |entry| self.outbox.change_endpoint(tenant, change, entry);
        let gone = self.trail.endpoint_gone(tenant, endpoint, switch_off);
        gone.await.unwrap_or_else(|error| {
            // What is sent to it next says so again.
            tracing::warn!(
                endpoint.id = %endpoint,
                error.message = %error,
                "an endpoint that is gone could not be switched off"
            );
            true
        })
    }

    fn closed(&self, claimed: &ClaimedNotification, verdict: NotificationVerdict, age: f64) {
        match verdict {
            NotificationVerdict::Again { .. } => {}
            NotificationVerdict::Delivered => self.metrics.notification_ended("delivered", age),
            NotificationVerdict::Dead { cause } => {
                tracing::warn!(
                    notification.id = %claimed.id,
                    endpoint.id = %claimed.endpoint,
                    cause = cause.name(),
                    "a notification was given up: kept as a dead letter"
                );
                self.metrics.notification_ended("dead", age);
            }
        }
    }
}

fn record(attempted: &Attempted, verdict: NotificationVerdict) {
    let span = Span::current();
    span.record("outcome", verdict.state().name());
    if let Some(status) = attempted.log.http_status {
        span.record("http.response.status_code", status);
    }
    if let Some(cause) = attempted.cause {
        span.record("cause", cause.name());
        span.record("otel.status_code", "ERROR");
    }
}
