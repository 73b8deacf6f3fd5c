//! What operators ask for: cases, resolutions, retries.

use std::time::Duration;

use crate::change::Change;
use crate::command::{Resolve, Retry};
use crate::context::Caller;
use crate::decide::{self, DecideError};
use crate::error::FlowError;
use crate::ids::{EntryId, PaymentId, TenantId, TransactionId};
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::ports::{CaseFilter, Commit, StoredCase};

use super::execute::{Progress, Report};
use super::{Answer, Flows, accept_error, read_error};

impl Flows {
    /// Lists cases for a person, oldest first; `tenant` = `None` reads across tenants (platform roles).
    pub async fn cases(
        &self,
        tenant: Option<&TenantId>,
        filter: &CaseFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredCase>, FlowError> {
        let store = &self.ports().store;
        let cases = store.list_cases(tenant, filter, after, limit).await;
        cases.map_err(read_error)
    }

    /// Decides a transaction whose outcome nobody can learn, or closes the case about one; on record, with who and
    /// why. What the provider proves later still counts.
    pub async fn resolve(&self, caller: &Caller, command: Resolve) -> Result<Answer, FlowError> {
        let (payment, transaction) = (command.payment, command.transaction);
        self.run(caller, move |flows, caller, report| async move {
            let decide =
                |record: &PaymentRecord, stamp: &Stamp<'_>| decide::resolve(record, &command, stamp);
            let answer = flows
                .decide_by_person(&caller, payment, transaction, decide, &report)
                .await?;
            let mut record = answer.record.clone();
            // What was resolved may be what a void waited for.
            let moved = match flows.start_waiting_void(&caller, &mut record).await {
                Ok(Some(started)) => flows.carry_on(&caller, record, started).await,
                Ok(None) => Ok(record),
                Err(error) => Err(error),
            };
            Ok(match moved {
                Ok(record) => Answer { record, ..answer },
                Err(error) => {
                    tracing::error!(payment.id = %payment, error = %error, "a void was left to recovery");
                    answer
                }
            })
        })
        .await
    }

    /// Lets recovery take a transaction up again now, from the beginning of its schedule; on record, with who and why.
    pub async fn retry(&self, caller: &Caller, command: Retry) -> Result<Answer, FlowError> {
        let (payment, transaction) = (command.payment, command.transaction);
        self.run(caller, move |flows, caller, report| async move {
            let decide =
                |record: &PaymentRecord, stamp: &Stamp<'_>| decide::retry(record, &command, stamp);
            flows
                .decide_by_person(&caller, payment, transaction, decide, &report)
                .await
        })
        .await
    }

    async fn decide_by_person<D>(
        &self,
        caller: &Caller,
        payment: PaymentId,
        transaction: TransactionId,
        decide: D,
        report: &Report,
    ) -> Result<Answer, FlowError>
    where
        D: Fn(&PaymentRecord, &Stamp<'_>) -> Result<Change, DecideError>,
    {
        for _ in 0..=self.settings().max_decisions {
            let record = self.read(caller, payment).await?;
            let trace = self.ports().observer.current_trace();
            let stamp = self.stamp(caller, trace, Duration::ZERO);
            let change = decide(&record, &stamp)?;
            match self.commit(&change).await {
                Ok(Commit::Committed) => {
                    let answer = Answer {
                        record: change.apply_to(Some(record)),
                        transaction,
                        replayed: false,
                    };
                    // Nobody listens once the caller is gone.
                    let _ = report.unbounded_send(Progress::Accepted(answer.clone()));
                    return Ok(answer);
                }
                Ok(Commit::VersionConflict | Commit::IdempotencyKeyTaken) => {}
                Err(error) => return Err(accept_error(error)),
            }
        }
        Err(FlowError::ConcurrentChange)
    }
}
