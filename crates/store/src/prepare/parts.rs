//! Rows of a payment's transactions and attempts.

use quittance_domain::cases::OpenCases;
use quittance_domain::decline::Cause;
use quittance_domain::payment::Payment;
use quittance_domain::ports::StoreError;
use quittance_domain::transaction::{Attempt, Transaction};
use uuid::Uuid;

use super::{Sealer, decline_columns, failure_column, number};
use crate::rows::{AttemptInsert, AttemptUpdate, TransactionInsert, TransactionUpdate};
use crate::sealing::Place;

pub(super) fn new_transaction(
    payment_id: Uuid,
    row: Transaction,
    sealer: &Sealer<'_>,
) -> Result<TransactionInsert, StoreError> {
    let (decline_code, decline_provider_code) = decline_columns(row.decline.as_ref());
    let dispute = row.dispute.as_ref();
    Ok(TransactionInsert {
        payment_id,
        transaction_id: row.id.0,
        kind: row.kind.name(),
        origin: row.origin.name(),
        state: row.state.name(),
        amount: row.amount,
        request: sealer.request(&row)?,
        provider_account: row.provider_account.as_str().to_owned(),
        provider_reference: row.provider_reference.map(|it| it.as_str().to_owned()),
        decline_code,
        decline_provider_code,
        failure_cause: failure_column(row.failure),
        reason: row.reason.as_str().to_owned(),
        final_capture: row.final_capture,
        attempts: number(row.attempts)?,
        ever_unknown: row.ever_unknown,
        retries: number(row.retries)?,
        resolved_by_operator: row.resolved_by_operator,
        open_case: cases_column(row.open_cases),
        execute_before: row.execute_before,
        lease_until: row.lease_until,
        next_step_at: row.next_step_at,
        created_at: row.created_at,
        updated_at: row.updated_at,
        dispute_reason: dispute.map(|about| about.reason.as_str().to_owned()),
        dispute_due_at: dispute.and_then(|about| about.due_at),
        dispute_amount: dispute.map(|about| about.amount.minor_units()),
        dispute_currency: dispute.map(|about| about.amount.currency().code()),
        contradictions: row.contradictions.to_stored(),
        left_alone: row.left_alone.to_stored(),
    })
}

pub(super) fn old_transaction(
    payment_id: Uuid,
    row: Transaction,
    sealer: &Sealer<'_>,
) -> Result<TransactionUpdate, StoreError> {
    let (decline_code, decline_provider_code) = decline_columns(row.decline.as_ref());
    let dispute = row.dispute.as_ref();
    Ok(TransactionUpdate {
        payment_id,
        transaction_id: row.id.0,
        state: row.state.name(),
        amount: row.amount,
        request: sealer.request(&row)?,
        provider_account: row.provider_account.as_str().to_owned(),
        provider_reference: row.provider_reference.map(|it| it.as_str().to_owned()),
        decline_code,
        decline_provider_code,
        failure_cause: failure_column(row.failure),
        attempts: number(row.attempts)?,
        ever_unknown: row.ever_unknown,
        retries: number(row.retries)?,
        resolved_by_operator: row.resolved_by_operator,
        open_case: cases_column(row.open_cases),
        execute_before: row.execute_before,
        lease_until: row.lease_until,
        next_step_at: row.next_step_at,
        updated_at: row.updated_at,
        dispute_reason: dispute.map(|about| about.reason.as_str().to_owned()),
        dispute_due_at: dispute.and_then(|about| about.due_at),
        dispute_amount: dispute.map(|about| about.amount.minor_units()),
        dispute_currency: dispute.map(|about| about.amount.currency().code()),
        contradictions: row.contradictions.to_stored(),
        left_alone: row.left_alone.to_stored(),
    })
}

/// Their names; null where there is none.
fn cases_column(cases: OpenCases) -> Option<String> {
    (!cases.is_empty()).then(|| cases.to_string())
}

pub(super) fn new_attempt(
    payment: &Payment,
    row: &Attempt,
    sealer: &Sealer<'_>,
) -> Result<AttemptInsert, StoreError> {
    let end = ended_attempt(payment.id.0, row, sealer)?;
    let digest_salt = sealer.personal(
        Place::new("attempts", "digest_salt", row.id.0),
        &row.digest_salt,
    )?;
    Ok(AttemptInsert {
        payment_id: end.payment_id,
        transaction_id: end.transaction_id,
        number: end.number,
        attempt_id: row.id.0,
        tenant_id: payment.tenant.as_str().to_owned(),
        operation: row.operation.name(),
        provider_account: row.provider_account.as_str().to_owned(),
        digest_salt,
        request_digest: row.request_digest.to_vec(),
        started_at: row.started_at,
        ended_at: end.ended_at,
        latency_micros: end.latency_micros,
        outcome: end.outcome,
        cause: end.cause,
        http_status: end.http_status,
        response: end.response,
        response_digest: end.response_digest,
    })
}

pub(super) fn ended_attempt(
    payment_id: Uuid,
    row: &Attempt,
    sealer: &Sealer<'_>,
) -> Result<AttemptUpdate, StoreError> {
    let end = row.ended.as_ref();
    Ok(AttemptUpdate {
        payment_id,
        transaction_id: row.transaction.0,
        number: number(row.number)?,
        ended_at: end.map(|end| end.ended_at),
        latency_micros: end.map(|end| number(end.latency_micros)).transpose()?,
        outcome: end.map(|end| end.outcome.name()),
        cause: end.and_then(|end| end.cause).map(Cause::name),
        http_status: end
            .and_then(|end| end.http_status)
            .map(number)
            .transpose()?,
        response: sealer.response(row)?,
        response_digest: end
            .and_then(|end| end.response_digest)
            .map(|digest| digest.to_vec()),
    })
}
