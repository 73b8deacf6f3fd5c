//! Replays: the same key, the same transaction (I6).

use std::time::Duration;

use crate::change::IdempotencyRecord;
use crate::context::Caller;
use crate::error::FlowError;
use crate::payment::PaymentRecord;

use super::command::Request;
use super::{Answer, Flows, read_error};

/// First wait between two looks at a call that is still running; grows by half up to [`MAX_LOOK_WAIT`].
const FIRST_LOOK_WAIT: Duration = Duration::from_millis(10);
/// Longest wait between two looks.
const MAX_LOOK_WAIT: Duration = Duration::from_millis(250);

impl Flows {
    /// Answers a request whose key is taken.
    pub(super) async fn replay(
        &self,
        caller: &Caller,
        request: &Request,
    ) -> Result<Answer, FlowError> {
        let known = self
            .known_answer(caller, request)
            .await
            .map_err(|error| match error {
                // What is stored under the key cannot be believed: asking again would not help. It leaves open what became
                // of the request, too.
                FlowError::IdempotencyKeyReused { .. } | FlowError::Internal(_) => error,
                other => accepted_already(&other),
            })?;
        // Taken, and not there: only a database restored to an earlier time could say so.
        known.ok_or(FlowError::AcceptanceUnknown)
    }

    /// The answer to a request whose key is known: from its payment if it is the same request, else the first
    /// differing field. While the first call is still running, it is waited for.
    pub(super) async fn known_answer(
        &self,
        caller: &Caller,
        request: &Request,
    ) -> Result<Option<Answer>, FlowError> {
        let store = &self.ports().store;
        let found = store
            .idempotency_record(&caller.tenant, &request.ask.key)
            .await;
        let Some(known) = found.map_err(read_error)? else {
            return Ok(None);
        };
        same_request(&known, request)?;
        self.ports().observer.replayed(known.command);
        // The key is known, so it was accepted: an error from here on must not say that nothing was (I13).
        let settled = self.settled(caller, &known).await;
        let record = settled.map_err(|error| accepted_already(&error))?;
        Ok(Some(Answer {
            record,
            transaction: known.transaction,
            replayed: true,
        }))
    }

    /// The payment once the first call has ended. The caller's own deadline bounds the wait: this runs on the
    /// command's task, and is bounded there by the sender's lease.
    async fn settled(
        &self,
        caller: &Caller,
        known: &IdempotencyRecord,
    ) -> Result<PaymentRecord, FlowError> {
        let mut wait = FIRST_LOOK_WAIT;
        let started = self.ports().clock.now();
        let until =
            caller
                .deadline
                .map_or(started + self.settings().default_wait / 2, |deadline| {
                    let left = (deadline - started).to_std().unwrap_or_default();
                    started + left.saturating_sub(self.margin(left) * 2)
                });
        loop {
            let record = self.read(caller, known.payment).await?;
            let now = self.ports().clock.now();
            let running = record
                .transaction(known.transaction)
                .is_some_and(|transaction| transaction.is_being_sent(now));
            if !running || now >= until {
                return Ok(record);
            }
            // Never past the end: what is left after it is for one more look.
            let left = (until - now).to_std().unwrap_or_default();
            self.ports().clock.sleep(wait.min(left)).await;
            wait = (wait * 3 / 2).min(MAX_LOOK_WAIT);
        }
    }
}

/// What a failure to read means for a request that is known to be accepted.
fn accepted_already(error: &FlowError) -> FlowError {
    tracing::warn!(error = %error, "a request that was accepted before could not be answered");
    FlowError::AcceptanceUnknown
}

/// Whether the known request is this one; else names what differs.
fn same_request(known: &IdempotencyRecord, request: &Request) -> Result<(), FlowError> {
    if known.command != request.ask.command {
        return Err(FlowError::IdempotencyKeyReused { field: "rpc" });
    }
    match known
        .fingerprint
        .first_difference(&request.ask.fingerprint, &request.fields)
    {
        None => Ok(()),
        Some(field) => Err(FlowError::IdempotencyKeyReused { field }),
    }
}
