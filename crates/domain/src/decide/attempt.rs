//! Attempts: starting one (recorded before it is made, I1), and what its outcome does.

use quittance_evidence::EntryResult;

use crate::change::{Change, Write};
use crate::decline::{Cause, Failure};
use crate::ids::TransactionId;
use crate::journal::{Stamp, salted_digest};
use crate::money::Money;
use crate::payment::{Payment, PaymentRecord, PaymentState};
use crate::ports::{Operation, ProviderRules};
use crate::text::Sensitive;
use crate::transaction::{
    Attempt, AttemptEnd, AttemptOutcome, Fact, FactKind, MAX_STORED_RESPONSE, OperationKind,
    SendOutcome, SendReport, Transaction, TransactionKind, TransactionState,
};
use crate::transition::PaymentEvent;

use super::fact::apply;
use super::step::Step;
use super::{DecideError, NEXT_STEP_AFTER};

/// The dotted prefix of event types about this kind of transaction.
pub(super) fn prefix(kind: TransactionKind) -> &'static str {
    match kind {
        TransactionKind::Purchase | TransactionKind::Authorization => "payment",
        TransactionKind::Capture => "capture",
        TransactionKind::Void => "void",
        TransactionKind::Refund => "refund",
        TransactionKind::Chargeback => "chargeback",
        TransactionKind::ChargebackReversal => "chargeback_reversal",
    }
}

/// The operation that a transaction's first send asks for; `None` for kinds that we never send.
pub(super) fn operation_of(kind: TransactionKind) -> Option<OperationKind> {
    match kind {
        TransactionKind::Purchase => Some(OperationKind::Purchase),
        TransactionKind::Authorization => Some(OperationKind::Authorize),
        TransactionKind::Capture => Some(OperationKind::Capture),
        TransactionKind::Void => Some(OperationKind::Void),
        TransactionKind::Refund => Some(OperationKind::Refund),
        TransactionKind::Chargeback | TransactionKind::ChargebackReversal => None,
    }
}

/// Prepares the request of an operation, stores it with the transaction, and starts an attempt.
pub(super) fn first_attempt(
    payment: &Payment,
    transaction: &mut Transaction,
    kind: OperationKind,
    parameters: &[(String, String)],
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Attempt, DecideError> {
    let amount = match kind {
        OperationKind::Void | OperationKind::Confirm => None,
        OperationKind::Purchase
        | OperationKind::Authorize
        | OperationKind::Capture
        | OperationKind::Refund => Money::new(transaction.amount, payment.currency()).ok(),
    };
    let request = rules.prepare(&Operation {
        kind,
        payment,
        transaction,
        amount,
        parameters,
    })?;
    transaction.request = Some(request);
    Ok(begin(transaction, kind, stamp))
}

/// Starts an attempt that sends the stored bytes.
fn begin(transaction: &mut Transaction, operation: OperationKind, stamp: &Stamp<'_>) -> Attempt {
    let bytes = transaction
        .request
        .as_ref()
        .map_or(&[][..], |request| request.bytes.expose());
    let request_digest = salted_digest(&stamp.digest_salt, bytes);
    transaction.attempts += 1;
    transaction.lease_until = Some(stamp.now + stamp.sender_lease);
    transaction.next_step_at = transaction.lease_until;
    transaction.updated_at = stamp.now;
    Attempt {
        id: stamp.attempt_id,
        transaction: transaction.id,
        number: transaction.attempts,
        operation,
        provider_account: transaction.provider_account.clone(),
        digest_salt: stamp.digest_salt,
        request_digest,
        started_at: stamp.now,
        ended: None,
    }
}

/// Starts an attempt of a transaction that waits for one: a resend of its stored bytes (I2), or the first send
/// of a void that waited for the authorization. `None` where no send is due: it has ended, waits for
/// the customer, or another sender may be alive.
pub fn start_attempt(
    record: &PaymentRecord,
    id: TransactionId,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let leased = held.lease_until.is_some_and(|until| until > stamp.now);
    let voiding = held.kind.opens() && pending_void(record).is_some();
    // A void releases what may be held: it is never too late for it.
    let late = held.kind != TransactionKind::Void
        && !held.ever_unknown
        && stamp.now >= held.execute_before;
    let Some(operation) = operation_of(held.kind) else {
        return Ok(None);
    };
    if held.state != TransactionState::Pending || leased || voiding || late {
        return Ok(None);
    }
    let mut transaction = held.clone();
    // The attempt before this one has not ended: its sender is gone, and what became of it is not known (I4).
    transaction.ever_unknown |= held.lease_until.is_some() && held.lease_until == held.next_step_at;
    // What the customer has to do is kept until the payment is decided: once it is known, what is resent is
    // the confirmation.
    let confirms = held.kind.opens() && record.payment.next_action.is_some();
    let operation = if confirms {
        OperationKind::Confirm
    } else {
        operation
    };
    let attempt = if transaction.request.is_some() {
        begin(&mut transaction, operation, stamp)
    } else {
        first_attempt(
            &record.payment,
            &mut transaction,
            operation,
            &[],
            rules,
            stamp,
        )?
    };
    let event = format!("{}.attempt_started", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(transaction), event);
    step.attempt = Some(Write::Insert(attempt));
    step.close(None, stamp).map(Some)
}

/// Records how an attempt ended, and applies what it proved.
///
/// Whatever comes is recorded with the attempt, also when the transaction has ended meanwhile.
pub fn outcome(
    record: &PaymentRecord,
    attempt: &Attempt,
    report: &SendReport,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    let id = attempt.transaction;
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let mut transaction = held.clone();
    // A request whose answer was given up on may still arrive: its lease is left to run out.
    let over = !matches!(report.outcome, SendOutcome::Unknown(_));
    if attempt.number == transaction.attempts && over {
        transaction.lease_until = None;
    }
    transaction.updated_at = stamp.now;
    let name = format!("{}.attempt_ended", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(transaction), name);
    match &report.outcome {
        SendOutcome::Answered(fact) => {
            step.by_provider();
            apply(&mut step, record, fact, stamp);
        }
        SendOutcome::NotSent(cause) => not_sent(&mut step, record, attempt, *cause, report, stamp),
        SendOutcome::Unknown(cause) => unknown(&mut step, *cause, report, stamp),
    }
    step.attempt = Some(Write::Update(ended(attempt, report, step.cause, stamp)));
    step.close(None, stamp)
}

/// I4: nothing is proved. The transaction waits for a lookup.
pub(super) fn unknown(step: &mut Step, cause: Cause, report: &SendReport, stamp: &Stamp<'_>) {
    step.cause = Some(cause);
    step.result = EntryResult::Unknown;
    if step.subject.row().state.ended() {
        return;
    }
    step.event_type = format!("{}.outcome_unknown", prefix(step.subject.row().kind));
    step.result = EntryResult::Unknown;
    let next = stamp.now + wait(report);
    step.edit(|transaction| {
        transaction.ever_unknown = true;
        transaction.next_step_at = Some(next);
    });
}

fn wait(report: &SendReport) -> chrono::TimeDelta {
    report
        .retry_after
        .and_then(|wait| chrono::TimeDelta::from_std(wait).ok())
        .unwrap_or(NEXT_STEP_AFTER)
}

/// The provider proved that this send was not processed; what that proves of the transaction depends on
/// its other sends.
fn not_sent(
    step: &mut Step,
    record: &PaymentRecord,
    attempt: &Attempt,
    cause: Cause,
    report: &SendReport,
    stamp: &Stamp<'_>,
) {
    step.cause = Some(cause);
    step.result = EntryResult::Failure;
    let transaction = step.subject.row();
    if transaction.state.ended() {
        return;
    }
    if transaction.ever_unknown {
        // I4: an earlier send may have been processed, so this refusal proves nothing.
        return unknown(step, cause, report, stamp);
    }
    step.event_type = format!("{}.not_sent", prefix(transaction.kind));
    let voiding = transaction.kind.opens() && pending_void(record).is_some();
    let known_there = transaction.provider_reference.is_some();
    if attempt.operation == OperationKind::Confirm && (voiding || !cause.retryable()) {
        // What was handed over did not arrive, or was refused; the payment itself is still open at the
        // provider, and may be decided there: nothing is proved about it.
        step.edit(|transaction| {
            transaction.state = TransactionState::RequiresAction;
            transaction.request = None;
            transaction.next_step_at = None;
        });
        return step.advance(PaymentEvent::ActionRequired);
    }
    let too_late = stamp.now >= transaction.execute_before;
    let cause = match (cause.retryable(), voiding, too_late) {
        // Once the provider has named it, no refusal of a send proves that it was not processed.
        _ if known_there => {
            let next = stamp.now + wait(report);
            return step.edit(|transaction| transaction.next_step_at = Some(next));
        }
        (true, false, false) => {
            let next = stamp.now + wait(report);
            return step.edit(|transaction| transaction.next_step_at = Some(next));
        }
        (true, true, _) => Cause::Voided,
        (true, false, true) => Cause::NotSentInTime,
        (false, _, _) => cause,
    };
    let fact = Fact {
        kind: FactKind::Failed(cause),
        provider_reference: None,
        payment_reference: None,
    };
    apply(step, record, &fact, stamp);
}

/// Ends a transaction that is proved not processed: no send was, or the provider's authoritative lookup does
/// not hold it, no sender can be alive, and it is too late (or no longer wanted) to send it.
pub fn give_up_unsent(
    record: &PaymentRecord,
    id: TransactionId,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let leased = held.lease_until.is_some_and(|until| until > stamp.now);
    // A provider that has named a transaction holds it, whatever a lookup misses.
    let known_there = held.provider_reference.is_some();
    if held.state != TransactionState::Pending || leased || known_there {
        return Ok(None);
    }
    let voiding = held.kind.opens() && pending_void(record).is_some();
    let cause = match (voiding, held.ever_unknown) {
        (true, _) => Cause::Voided,
        (false, true) => Cause::NotProcessed,
        (false, false) => Cause::NotSentInTime,
    };
    let fact = Fact {
        kind: FactKind::Failed(cause),
        provider_reference: None,
        payment_reference: None,
    };
    super::fact::learned(record, id, &fact, false, stamp)
}

/// The void that waits for this payment's authorization, if one does.
pub(super) fn pending_void(record: &PaymentRecord) -> Option<&Transaction> {
    let waiting = matches!(
        record.payment.state,
        PaymentState::Pending | PaymentState::RequiresAction
    );
    record.transactions.iter().find(|transaction| {
        transaction.kind == TransactionKind::Void
            && transaction.state == TransactionState::Pending
            && waiting
    })
}

/// The attempt's row with its end.
fn ended(
    attempt: &Attempt,
    report: &SendReport,
    cause: Option<Cause>,
    stamp: &Stamp<'_>,
) -> Attempt {
    let outcome = match &report.outcome {
        SendOutcome::Answered(fact) => match (&fact.kind, cause) {
            (FactKind::Approved { .. }, Some(_)) => AttemptOutcome::Unknown,
            (FactKind::Approved { .. }, None) => AttemptOutcome::Approved,
            (FactKind::Declined(_), _) => AttemptOutcome::Declined,
            (FactKind::RequiresAction(_), _) => AttemptOutcome::RequiresAction,
            (FactKind::Pending, _) => AttemptOutcome::Pending,
            (FactKind::Failed(_) | FactKind::Expired, _) => AttemptOutcome::Failed,
        },
        SendOutcome::NotSent(_) => AttemptOutcome::NotSent,
        SendOutcome::Unknown(_) => AttemptOutcome::Unknown,
    };
    let own_cause = match &report.outcome {
        SendOutcome::NotSent(cause) | SendOutcome::Unknown(cause) => Some(*cause),
        SendOutcome::Answered(_) => cause,
    };
    let whole = report
        .response
        .as_ref()
        .map(|bytes| bytes.expose().as_slice());
    let response_digest = whole.map(|bytes| salted_digest(&attempt.digest_salt, bytes));
    let stored = whole.map(|bytes| bytes.get(..MAX_STORED_RESPONSE).unwrap_or(bytes));
    let response = stored.map(|bytes| Sensitive::new(bytes.to_vec()));
    Attempt {
        ended: Some(AttemptEnd {
            ended_at: stamp.now,
            latency_micros: report.latency_micros,
            outcome,
            cause: own_cause,
            http_status: report.http_status,
            response,
            response_digest,
        }),
        ..attempt.clone()
    }
}

impl Step {
    /// Edits the transaction that the step is about.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut Transaction)) {
        match &mut self.subject {
            Write::Insert(row) | Write::Update(row) => edit(row),
        }
    }

    /// Ends the transaction that the step is about.
    pub(super) fn end(&mut self, state: TransactionState, failure: Option<Cause>) {
        self.edit(|transaction| end(transaction, state, failure));
    }
}

/// Ends a transaction: its stored request is no longer needed, nor is a next step.
pub(super) fn end(transaction: &mut Transaction, state: TransactionState, failure: Option<Cause>) {
    transaction.state = state;
    transaction.failure = failure.map(|cause| Failure { cause });
    transaction.request = None;
    transaction.lease_until = None;
    transaction.next_step_at = None;
}
