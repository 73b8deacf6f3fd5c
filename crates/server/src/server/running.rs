//! A server that runs: what it is made of, and how it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quittance_store::PgStore;
use quittance_telemetry::{PrometheusText, Telemetry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::layers::Refusals;
use crate::trail::Trail;

/// How long connections and tasks may take to end after they were told to end at once.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// How long waiting changes may take to be written, and connections to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long the last audit entries may take to be written.
const RECORD_LIMIT: Duration = Duration::from_secs(3);

/// The stages of stopping.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// Cancelled first: accept nothing new, end streams, finish calls.
    pub(super) accepting: CancellationToken,
    /// Cancelled when the grace has passed: answer what is left as it stands, and drop it.
    pub(super) serving: CancellationToken,
    /// Cancelled last: until then health, readiness and metrics are served, so that whoever watches sees the server
    /// stop instead of taking it for dead.
    pub(super) watching: CancellationToken,
}

/// What lives as long as the server.
pub(super) struct Parts {
    pub(super) store: Arc<PgStore>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: Stop,
    pub(super) trail: Trail,
    pub(super) refusals: Refusals,
}

/// A server that runs until [`RunningServer::shutdown`]. Dropped, it stops at once.
pub struct RunningServer {
    pub(super) grpc_addr: SocketAddr,
    pub(super) http_addr: SocketAddr,
    pub(super) accepting_calls: JoinHandle<()>,
    pub(super) accepting_watchers: JoinHandle<()>,
    /// Puts refused calls on record.
    pub(super) recording: JoinHandle<()>,
    /// Connections of gRPC.
    pub(super) calls: TaskTracker,
    /// Connections of HTTP.
    pub(super) watchers: TaskTracker,
    pub(super) grace: Duration,
    pub(super) parts: Parts,
    pub(super) own_telemetry: Option<Telemetry>,
}

impl RunningServer {
    /// Where gRPC is served, with the port that was taken.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where HTTP is served, with the port that was taken.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The store, for commands and tests that look behind the API.
    pub fn store(&self) -> &Arc<PgStore> {
        &self.parts.store
    }

    #[cfg(test)]
    pub(crate) fn trail(&self) -> &Trail {
        &self.parts.trail
    }

    #[cfg(test)]
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.parts.refusals
    }

    /// The server's own metrics as Prometheus text; `None` where the process has them.
    pub fn prometheus(&self) -> Option<PrometheusText> {
        self.own_telemetry.as_ref().map(Telemetry::prometheus)
    }

    /// Stops: accepts no more calls, ends streams, finishes calls in flight, outcomes and recoveries under way
    /// within `server.shutdown_grace_seconds`, then closes the database connections. Returns whether
    /// everything finished in time; what did not is recovered from the database.
    pub async fn shutdown(self) -> bool {
        self.shutdown_recording_within(RECORD_LIMIT).await
    }

    /// [`Self::shutdown`], which may take so long to put the stop on record.
    pub(crate) async fn shutdown_recording_within(mut self, record_limit: Duration) -> bool {
        self.parts.stop.accepting.cancel();
        // It ends at once, and does not panic.
        let _ = (&mut self.accepting_calls).await;
        let (calls, tasks) = (self.calls.clone(), self.parts.tasks.clone());
        calls.close();
        let finished = tokio::time::timeout(self.grace, async {
            calls.wait().await;
            // Only now: a call in flight may have spawned its outcome until here.
            tasks.close();
            tasks.wait().await;
        });
        let in_time = finished.await.is_ok();
        if !in_time {
            tracing::warn!("calls in flight did not finish within server.shutdown_grace_seconds");
            self.parts.stop.serving.cancel();
            let _ = tokio::time::timeout(KILL_GRACE, calls.wait()).await;
        }
        let recorded = tokio::time::timeout(record_limit, self.record_stop(in_time)).await;
        if recorded.is_err() {
            tracing::warn!("the stop could not be put on record in time");
        }
        self.parts.store.shutdown(CLOSE_LIMIT).await;
        self.parts.stop.watching.cancel();
        let _ = (&mut self.accepting_watchers).await;
        self.watchers.close();
        let _ = tokio::time::timeout(KILL_GRACE, self.watchers.wait()).await;
        in_time
    }

    /// Puts what is left on record, the stop last. A server that has lost its database stops all the same.
    async fn record_stop(&mut self, in_time: bool) {
        // It ends after the entries that it is writing, and does not panic.
        let _ = (&mut self.recording).await;
        let Parts {
            trail, refusals, ..
        } = &self.parts;
        trail.record_refusals(refusals).await;
        if let Err(error) = trail.service_stopped(in_time).await {
            tracing::warn!(error.message = %error, "the stop could not be put on record");
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.parts.stop.accepting.cancel();
        self.parts.stop.serving.cancel();
        self.parts.stop.watching.cancel();
    }
}
