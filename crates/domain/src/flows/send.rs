//! One send: whether it may still begin, the call, and how many sends may have been processed.

use std::time::Duration;

use chrono::TimeDelta;

use crate::decide;
use crate::decline::Cause;
use crate::error::FlowError;
use crate::ids::TransactionId;
use crate::payment::PaymentRecord;
use crate::ports::Provider;
use crate::transaction::{
    Attempt, OperationKind, PreparedRequest, SendOutcome, SendReport, TransactionKind,
};

use super::{Flows, read_error};

impl Flows {
    /// Whether a send begun now ends while its lease lasts on every replica's clock; a first send also has to
    /// begin before `execute_before`. The commit before it may have taken any time.
    pub(super) async fn may_still_send(
        &self,
        record: &PaymentRecord,
        attempt: &Attempt,
        provider: &dyn Provider,
    ) -> bool {
        let Some(row) = record.transaction(attempt.transaction) else {
            return false;
        };
        let own_rules = row.kind == TransactionKind::Void || row.provider_reference.is_some();
        if !own_rules && self.ports().clock.now() >= row.execute_before {
            // Where nobody knows, recovery finds it out.
            let of = (attempt.transaction, attempt.operation);
            let begun = row.ever_unknown && self.has_begun(record, of).await.unwrap_or(false);
            if !begun {
                return false;
            }
        }
        let now = self.ports().clock.now();
        let takes = provider.send_timeout() + self.settings().lease_margin * 2 / 3;
        let takes = TimeDelta::from_std(takes).unwrap_or(TimeDelta::MAX);
        row.lease_until.is_some_and(|until| now + takes <= until)
    }

    /// What is known of a send that never began, since it would have begun too late: nothing was sent, for nobody
    /// else makes this attempt.
    pub(super) fn overdue(&self, record: &PaymentRecord, attempt: &Attempt) -> SendReport {
        let cause = Cause::SendOverdue;
        tracing::warn!(
            payment.id = %record.payment.id,
            transaction.id = %attempt.transaction,
            cause = %cause,
            "committing took too long to send under this lease: left to recovery"
        );
        let account = &attempt.provider_account;
        let (operation, outcome) = (attempt.operation, "not_sent");
        let observer = &self.ports().observer;
        observer.attempt_ended(account, operation, outcome, Some(cause), 0.0);
        SendReport {
            outcome: SendOutcome::NotSent(cause),
            latency_micros: 0,
            http_status: None,
            response: None,
            retry_after: None,
        }
    }

    /// Makes one call, and measures it.
    pub(super) async fn send(
        &self,
        provider: &dyn Provider,
        attempt: &Attempt,
        request: &PreparedRequest,
    ) -> SendReport {
        let report = provider.send(request, attempt.number).await;
        let (outcome, cause) = match &report.outcome {
            SendOutcome::Answered(_) => ("answered", None),
            SendOutcome::NotSent(cause) => ("not_sent", Some(*cause)),
            SendOutcome::Unknown(cause) => ("unknown", Some(*cause)),
        };
        let seconds = Duration::from_micros(report.latency_micros).as_secs_f64();
        self.ports().observer.attempt_ended(
            &attempt.provider_account,
            attempt.operation,
            outcome,
            cause,
            seconds,
        );
        report
    }

    /// How many sends of a transaction may have been processed, as far as that matters: they are counted only where
    /// all sends together are above the limit of those.
    pub(super) async fn sends_in_doubt(
        &self,
        record: &PaymentRecord,
        id: TransactionId,
    ) -> Result<u32, FlowError> {
        let Some((held, operation)) = record
            .transaction(id)
            .and_then(|held| Some((held, decide::next_operation(record, held)?)))
        else {
            return Ok(0);
        };
        let limit = self.settings().retries.max_sends.of(operation);
        if held.attempts < limit || held.certainly_unprocessed() {
            return Ok(held.attempts);
        }
        let store = &self.ports().store;
        let counted = store
            .attempts_in_doubt(record.payment.id, id, operation)
            .await;
        counted.map(|counted| counted.sends).map_err(read_error)
    }

    /// Whether a request of a transaction may be made after its time, since one has certainly left before. A process that
    /// died may have done so before it sent.
    pub(super) async fn has_begun(
        &self,
        record: &PaymentRecord,
        (id, operation): (TransactionId, OperationKind),
    ) -> Result<bool, FlowError> {
        let store = &self.ports().store;
        let counted = store
            .attempts_in_doubt(record.payment.id, id, operation)
            .await;
        Ok(counted.map_err(read_error)?.begun > 0)
    }
}
