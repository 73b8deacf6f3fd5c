//! Ends erasures of personal data: destroys the customer's key once nothing needs it, and puts that on record.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use quittance_domain::erasure::{Erasure, ErasureStep, Erasures};
use quittance_domain::error::FlowError;
use quittance_domain::flows::accept_error;
use tokio_util::sync::CancellationToken;

use super::pace::half_at_least;
use crate::trail::Trail;

/// How long the others leave alone what this process has claimed, should it die.
const CLAIM: Duration = Duration::from_secs(60);

/// Ends erasures, one after the other.
pub struct ErasureWorker {
    /// The erasures.
    pub erasures: Arc<dyn Erasures>,
    /// The record.
    pub trail: Trail,
    /// How often it looks for what is due, and how long one waits that payments hold up.
    pub poll: Duration,
}

impl ErasureWorker {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(half_at_least(self.poll)) => {}
            }
            while !stop.is_cancelled() && self.end_one().await {}
        }
    }

    /// Whether one was due.
    async fn end_one(&self) -> bool {
        // Where the database is away, the store has warned of it.
        let Ok(Some(due)) = self.erasures.claim_erasure(CLAIM).await else {
            return false;
        };
        if let Err(error) = self.step(&due).await {
            tracing::warn!(
                error.message = %error,
                "personal data could not be erased just now; it is tried again"
            );
            return false;
        }
        true
    }

    async fn step(&self, due: &Erasure) -> Result<(), FlowError> {
        let step = self.erasures.erase(due, self.poll).await;
        match step.map_err(accept_error)? {
            ErasureStep::Waits { open_payments } => {
                tracing::info!(count = open_payments, "an erasure waits for payments");
                Ok(())
            }
            // The store has raised the alarm. It stays claimed for a while, and is told of again.
            ErasureStep::NotAsked => Ok(()),
            ErasureStep::Erased { payments, behind } => {
                // On record first: what is closed is not taken up again.
                let trail = &self.trail;
                trail.personal_data_erased(due, payments, behind).await?;
                self.close(due, payments, None).await
            }
            ErasureStep::Swept {
                payments,
                recorded_at,
            } => self.close(due, payments, Some(recorded_at)).await,
        }
    }

    async fn close(
        &self,
        due: &Erasure,
        payments: u64,
        recorded_at: Option<DateTime<Utc>>,
    ) -> Result<(), FlowError> {
        let closed = self.erasures.close_erasure(due.id, payments, recorded_at);
        closed.await.map_err(accept_error)
    }
}
