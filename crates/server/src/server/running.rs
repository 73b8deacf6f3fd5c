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

/// The two stages of stopping.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// Cancelled first: accept nothing new, end streams, finish calls.
    pub(super) accepting: CancellationToken,
    /// Cancelled when the grace has passed: drop what is left.
    pub(super) serving: CancellationToken,
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
    pub(super) acceptors: Vec<JoinHandle<()>>,
    /// Puts refused calls on record.
    pub(super) recording: JoinHandle<()>,
    pub(super) connections: TaskTracker,
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

    /// Stops: accepts nothing more, ends streams, finishes calls in flight and outcomes under way
    /// within `server.shutdown_grace_seconds`, then closes the database connections. Returns whether
    /// everything finished in time; what did not is recovered from the database.
    pub async fn shutdown(mut self) -> bool {
        self.parts.stop.accepting.cancel();
        for acceptor in std::mem::take(&mut self.acceptors) {
            // It ends at once, and does not panic.
            let _ = acceptor.await;
        }
        let (connections, tasks) = (self.connections.clone(), self.parts.tasks.clone());
        connections.close();
        let finished = tokio::time::timeout(self.grace, async {
            connections.wait().await;
            // Only now: a call in flight may have spawned its outcome until here.
            tasks.close();
            tasks.wait().await;
        });
        let in_time = finished.await.is_ok();
        if !in_time {
            tracing::warn!("calls in flight did not finish within server.shutdown_grace_seconds");
            self.parts.stop.serving.cancel();
            let _ = tokio::time::timeout(KILL_GRACE, connections.wait()).await;
        }
        let recorded = tokio::time::timeout(RECORD_LIMIT, self.record_stop(in_time)).await;
        if recorded.is_err() {
            tracing::warn!("the stop could not be put on record in time");
        }
        self.parts.store.shutdown(CLOSE_LIMIT).await;
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
    }
}
