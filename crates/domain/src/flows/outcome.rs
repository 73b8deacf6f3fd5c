//! Committing what a call proved: offered until the database has it, or recovery has to find out.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::change::Change;
use crate::context::Caller;
use crate::decide;
use crate::error::FlowError;
use crate::payment::PaymentRecord;
use crate::ports::{Commit, StoreError};
use crate::transaction::{Attempt, SendReport};

use super::{Flows, read_error};

/// First wait before an outcome is offered to the database again; doubles up to [`MAX_OUTCOME_WAIT`].
const FIRST_OUTCOME_WAIT: Duration = Duration::from_millis(50);
/// Longest wait between two offers of an outcome.
const MAX_OUTCOME_WAIT: Duration = Duration::from_secs(2);

impl Flows {
    /// Commits what a call proved. The payment may have moved meanwhile: then it is read and decided again.
    /// A database out of reach is offered the outcome again for a while; after that, recovery asks the provider.
    pub(super) async fn commit_outcome(
        &self,
        caller: &Caller,
        mut record: PaymentRecord,
        attempt: &Attempt,
        report: &SendReport,
    ) -> Result<PaymentRecord, FlowError> {
        let trace = self.ports().observer.current_trace();
        let give_up_at = self.ports().clock.now() + self.settings().outcome_patience;
        let mut wait = FIRST_OUTCOME_WAIT;
        loop {
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            let change = decide::outcome(&record, attempt, report, &stamp)?;
            let error = match self
                .offer(change, record.clone(), &mut wait, give_up_at)
                .await
            {
                Ok(Some(record)) => return Ok(record),
                // An answer is never thrown away for a lost race: it is decided upon again.
                Ok(None) => {
                    match self
                        .ports()
                        .store
                        .payment(&caller.tenant, record.payment.id)
                        .await
                    {
                        Ok(Some(moved)) if self.ports().clock.now() < give_up_at => {
                            record = moved;
                            continue;
                        }
                        Ok(Some(_)) => return Err(FlowError::ConcurrentChange),
                        Ok(None) => return Err(FlowError::PaymentNotFound),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if self.ports().clock.now() >= give_up_at {
                return Err(read_error(error));
            }
            self.ports().clock.sleep(wait).await;
            wait = (wait * 2).min(MAX_OUTCOME_WAIT);
        }
    }

    /// Offers one change to the database until it answers. The very same change: after an unknown commit it finds
    /// its own entry. `None` on a conflict.
    async fn offer(
        &self,
        change: Change,
        before: PaymentRecord,
        wait: &mut Duration,
        give_up_at: DateTime<Utc>,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        loop {
            match self.commit(&change).await {
                Ok(Commit::Committed) => return Ok(Some(change.apply_to(Some(before)))),
                Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => return Ok(None),
                Err(error @ (StoreError::Refused(_) | StoreError::Corrupt(_))) => {
                    return Err(error);
                }
                Err(error) if self.ports().clock.now() >= give_up_at => return Err(error),
                Err(
                    StoreError::Unavailable | StoreError::CommitUnknown | StoreError::Overloaded,
                ) => {
                    self.ports().clock.sleep(*wait).await;
                    *wait = (*wait * 2).min(MAX_OUTCOME_WAIT);
                }
            }
        }
    }
}
