//! Verifies the audit log from time to time, on one server at a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quittance_domain::ports::StoreError;
use quittance_store::{VerifyError, VerifyEvent, VerifyProgress, VerifySummary};
use quittance_telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::grpc::LogVerifier;
use crate::trail::Trail;

/// How often it is looked whether a verification is due, at most.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Events that wait.
const EVENTS: usize = 64;
/// How often one that was interrupted by the database is gone on with.
const MAX_RESUMES: u32 = 20;
/// Pause before each of them.
const PAUSE: Duration = Duration::from_secs(30);
/// Longest pause before one that found the log being verified already is tried again.
const BUSY_PAUSE: Duration = Duration::from_secs(60);
/// How metrics name what a scheduled verification finds.
pub const SCHEDULED_CHECK: &str = "log";
/// Most mismatches of one verification that are logged by themselves; `VerifyLog` tells all.
const MAX_LOGGED: u64 = 20;

/// Says whose turn it is.
#[async_trait]
pub trait Schedule: Send + Sync {
    /// Takes the next verification, where it is due.
    async fn claim(&self, every: Duration) -> Result<bool, StoreError>;
    /// Notes that it came to its end.
    async fn finish(&self, mismatches: u64) -> Result<(), StoreError>;
}

/// Verifies the log when it is due.
pub struct Verification {
    /// Whose turn it is.
    pub schedule: Arc<dyn Schedule>,
    /// Verifies.
    pub verifier: Arc<dyn LogVerifier>,
    /// Where it is put on record.
    pub trail: Trail,
    /// Where it is counted.
    pub metrics: Metrics,
    /// How often.
    pub every: Duration,
}

impl Verification {
    /// Verifies until `stop`, and shows how long ago a verification came to its end.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.every.min(LOOK_EVERY));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Kept here, not in the database, where it could be set. Of those before this process nothing is known.
        let mut completed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.metrics
                .verification_age(completed.elapsed().as_secs_f64());
            // Where the database cannot be asked, the store warns of it already.
            if self.schedule.claim(self.every).await != Ok(true) {
                continue;
            }
            let verifying = self.verify();
            tokio::pin!(verifying);
            let ended = loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    ended = &mut verifying => break ended,
                    _ = ticks.tick() => {
                        self.metrics.verification_age(completed.elapsed().as_secs_f64());
                    }
                }
            };
            if ended {
                completed = Instant::now();
                self.metrics.verification_age(0.0);
            }
        }
    }

    /// Whether it came to its end.
    async fn verify(&self) -> bool {
        let mut at = VerifyProgress::default();
        let mut failures = 0;
        while failures < MAX_RESUMES {
            match self.once(&mut at).await {
                Ok(summary) => {
                    self.ended(summary).await;
                    return true;
                }
                // Somebody else verifies it at this moment, or holds the lock of whoever does: the turn is not lost.
                Err(VerifyError::Busy) => {
                    self.metrics.log_verified("busy");
                    tracing::warn!(
                        "the audit log cannot be verified: it is being verified already, or its lock is held"
                    );
                    tokio::time::sleep(self.every.min(BUSY_PAUSE)).await;
                }
                Err(VerifyError::Store(_)) => {
                    failures += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.metrics.log_verified("incomplete");
        tracing::error!("the audit log could not be verified: the database failed again and again");
        false
    }

    /// One attempt, from where the last one had got to.
    async fn once(&self, at: &mut VerifyProgress) -> Result<VerifySummary, VerifyError> {
        let (sender, mut events) = mpsc::channel(EVENTS);
        let from = *at;
        let listening = async {
            while let Some(event) = events.recv().await {
                match event {
                    VerifyEvent::Progress { at: now, .. } => *at = now,
                    VerifyEvent::Mismatch(found) => {
                        at.mismatches += 1;
                        self.metrics.verification_failed(SCHEDULED_CHECK, 1);
                        if at.mismatches <= MAX_LOGGED {
                            let position = found.position.map(|it| it.to_string());
                            tracing::error!(
                                audit.mismatch = found.fault.code(),
                                audit.entry_id = found.entry.map(|it| it.to_string()),
                                payment.id = found.payment.map(|it| it.to_string()),
                                audit.position = position,
                                "the audit log does not verify"
                            );
                        }
                    }
                }
            }
        };
        let (ended, ()) = tokio::join!(self.verifier.verify(from, sender), listening);
        ended
    }

    async fn ended(&self, summary: VerifySummary) {
        let (result, intact) = match summary.mismatches {
            0 => ("intact", true),
            _ => ("differs", false),
        };
        self.metrics.log_verified(result);
        if intact {
            tracing::info!(count = summary.entries, "the audit log was verified");
        } else {
            tracing::error!(
                count = summary.mismatches,
                "the audit log does not verify: quittance audit verify tells all that differs"
            );
        }
        let recorded = self
            .trail
            .log_verified(summary.entries, summary.payments, summary.mismatches)
            .await;
        let noted = self.schedule.finish(summary.mismatches).await;
        if recorded.is_err() || noted.is_err() {
            tracing::warn!("the verification of the audit log could not be put on record");
        }
    }
}
