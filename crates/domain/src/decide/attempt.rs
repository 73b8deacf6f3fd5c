//! Attempts: starting one (recorded before it is made, I1), and what its outcome does.

use chrono::{DateTime, Utc};
use quittance_evidence::EntryResult;

use crate::change::{Change, Write};
use crate::decline::{Cause, Failure};
use crate::ids::{ProviderAccount, TransactionId};
use crate::journal::{Stamp, salted_digest};
use crate::money::Money;
use crate::payment::{Payment, PaymentRecord};
use crate::ports::{Operation, ProviderRules};
use crate::retry::WaitFor;
use crate::text::Sensitive;
use crate::transaction::{
    Attempt, AttemptEnd, AttemptOutcome, Fact, FactKind, MAX_STORED_RESPONSE, OperationKind,
    SendOutcome, SendReport, Transaction, TransactionKind, TransactionState,
};
use crate::transition::PaymentEvent;

use super::DecideError;
use super::fact::apply;
use super::recover::defer;
use super::resend::{MaySend, ProvedUnsent};
use super::step::Step;
use super::voiding::{releases_before, void_asked};

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

/// Prepares the request of an operation, stores it with the transaction, and starts an attempt. `opening` is what opened
/// the payment; `None` where that is the transaction.
pub(super) fn first_attempt(
    (payment, opening): (&Payment, Option<&Transaction>),
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
        opening: opening.unwrap_or(transaction),
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
/// the customer, was sent as often as is allowed, or another sender may be alive; or what allowed it is void.
///
/// `in_doubt` is how many of its sends may have been processed: those that were proved unsent wear nothing out.
pub fn start_attempt(
    record: &PaymentRecord,
    id: TransactionId,
    (allowed, in_doubt): (MaySend, u32),
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let Some(operation) = next_operation(record, held) else {
        return Ok(None);
    };
    let spent = in_doubt >= stamp.retries.max_sends.of(operation);
    if !allowed.holds(held) || !may_start(record, held, spent, stamp) {
        return Ok(None);
    }
    let mut transaction = held.clone();
    // The attempt before this one has not ended: its sender is gone, and what became of it is not known (I4).
    transaction.ever_unknown |= held.sender_is_lost(stamp.now);
    let attempt = if transaction.request.is_some() {
        begin(&mut transaction, operation, stamp)
    } else if operation == OperationKind::Confirm {
        // What the customer's authentication returned is not known any more.
        return Ok(None);
    } else {
        first_attempt(
            (&record.payment, record.opening()),
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
    step.close(Some(record), None, stamp).map(Some)
}

/// Starts an attempt of a new payment at another account, since nothing was sent to the one before; `None` where
/// that is not proved of every send, or where the payment may not be routed anew.
///
/// `record` must hold the token of the payment's method.
pub fn fail_over(
    record: &PaymentRecord,
    id: TransactionId,
    proof: ProvedUnsent,
    account: &ProviderAccount,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let Some(operation) = operation_of(held.kind).filter(|_| may_fail_over(record, held)) else {
        return Ok(None);
    };
    let unsent = proof.holds(held) && held.certainly_unprocessed();
    if !unsent || !may_start(record, held, false, stamp) {
        return Ok(None);
    }
    let mut payment = record.payment.clone();
    payment.provider_account = account.clone();
    let mut transaction = held.clone();
    transaction.provider_account = account.clone();
    let attempt = first_attempt(
        (&payment, None),
        &mut transaction,
        operation,
        &[],
        rules,
        stamp,
    )?;
    let event = "payment.failed_over".to_owned();
    let mut step = Step::on(&payment, Write::Update(transaction), event);
    step.tell("from_account", held.provider_account.as_str());
    step.attempt = Some(Write::Insert(attempt));
    step.close(Some(record), None, stamp).map(Some)
}

/// Whether a transaction can be offered to another account: it opens a payment that routing placed, and the
/// provider has never named it, so that nothing there depends on it.
pub(crate) fn may_fail_over(record: &PaymentRecord, transaction: &Transaction) -> bool {
    let payment = &record.payment;
    payment.routed
        && payment.provider_reference.is_none()
        && payment.next_action.is_none()
        && transaction.kind.opens()
        && transaction.state == TransactionState::Pending
        && transaction.attempts > 0
        && transaction.certainly_unprocessed()
}

/// Whether the provider can be asked now: whatever rests on the opening of a payment wants it decided, except a
/// void where the provider can release what is not.
pub(crate) fn can_be_sent(
    record: &PaymentRecord,
    transaction: &Transaction,
    rules: &dyn ProviderRules,
    now: DateTime<Utc>,
) -> bool {
    let opened = record
        .opening()
        .is_some_and(|opening| opening.state.ended());
    opened
        || transaction.kind.opens()
        || transaction.kind == TransactionKind::Void && releases_before(record, rules, now)
}

/// What the next send of a transaction asks for.
pub(crate) fn next_operation(
    record: &PaymentRecord,
    transaction: &Transaction,
) -> Option<OperationKind> {
    // What the customer has to do is kept until the payment is decided: once it is known, what is resent is
    // the confirmation.
    if transaction.kind.opens() && record.payment.next_action.is_some() {
        return Some(OperationKind::Confirm);
    }
    operation_of(transaction.kind)
}

/// Whether a send of the transaction is due at all; `spent` where it was sent as often as is allowed.
fn may_start(record: &PaymentRecord, held: &Transaction, spent: bool, stamp: &Stamp<'_>) -> bool {
    let leased = held.lease_until.is_some_and(|until| until > stamp.now);
    let voiding = held.kind.opens() && void_asked(record);
    // A void releases what may be held: it is never too late for it.
    let late = held.kind != TransactionKind::Void
        && !held.ever_unknown
        && stamp.now >= held.execute_before;
    // What was proved not sent does not count: `execute_before` ends it.
    let spent = spent && !held.certainly_unprocessed();
    held.state == TransactionState::Pending && !leased && !voiding && !late && !spent
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
        SendOutcome::Answered(fact) if attempt.number != held.attempts && undecided(&fact.kind) => {
            // A later attempt runs, or has told more: what an older one left open tells nothing.
            step.by_provider();
        }
        SendOutcome::Answered(fact) => {
            step.by_provider();
            apply(&mut step, record, fact, stamp);
        }
        SendOutcome::NotSent(cause) | SendOutcome::Unknown(cause)
            if attempt.number != held.attempts =>
        {
            // A later attempt runs, or has told more: its next step stands.
            step.cause = Some(*cause);
            step.result = EntryResult::Unknown;
            let unknown = matches!(report.outcome, SendOutcome::Unknown(_));
            step.edit(|transaction| transaction.ever_unknown |= unknown);
        }
        SendOutcome::NotSent(cause) => not_sent(&mut step, record, attempt, *cause, report, stamp),
        SendOutcome::Unknown(cause) => unknown(&mut step, *cause, report, stamp),
    }
    step.attempt = Some(Write::Update(ended(attempt, report, step.cause, stamp)));
    step.close(Some(record), None, stamp)
}

/// Whether a fact leaves the outcome open.
fn undecided(kind: &FactKind) -> bool {
    match kind {
        FactKind::RequiresAction(_) | FactKind::Pending => true,
        FactKind::Approved { .. }
        | FactKind::Declined(_)
        | FactKind::Failed(_)
        | FactKind::TakenBack(_)
        | FactKind::Expired => false,
    }
}

/// I4: nothing is proved. The transaction waits for a lookup.
pub(super) fn unknown(step: &mut Step, cause: Cause, report: &SendReport, stamp: &Stamp<'_>) {
    step.cause = Some(cause);
    step.result = EntryResult::Unknown;
    if step.subject.row().state.ended() {
        return;
    }
    step.event_type = format!("{}.outcome_unknown", prefix(step.subject.row().kind));
    step.edit(|transaction| transaction.ever_unknown = true);
    defer(step, WaitFor::after(cause), report.retry_after, stamp);
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
    let voiding = transaction.kind.opens() && void_asked(record);
    let known_there = transaction.provider_reference.is_some();
    // A void releases what may be held: it is never too late for it.
    let too_late =
        transaction.kind != TransactionKind::Void && stamp.now >= transaction.execute_before;
    let confirms = attempt.operation == OperationKind::Confirm;
    if confirms && (voiding || too_late || !cause.retryable()) {
        return awaits_customer_again(step, stamp);
    }
    let sent_again = cause.retryable() && !voiding && !too_late;
    // Once the provider has named it, no refusal of a send proves that it was not processed.
    if known_there || sent_again {
        return defer(step, WaitFor::after(cause), report.retry_after, stamp);
    }
    let cause = match (cause.retryable(), voiding) {
        (true, true) => Cause::Voided,
        (true, false) => Cause::NotSentInTime,
        (false, _) => cause,
    };
    let fact = Fact {
        kind: FactKind::Failed(cause),
        provider_reference: None,
        payment_reference: None,
    };
    apply(step, record, &fact, stamp);
}

/// What the customer's authentication returned did not arrive, or was refused; the payment itself is still open at the
/// provider, and may be decided there: nothing is proved about it.
pub(super) fn awaits_customer_again(step: &mut Step, stamp: &Stamp<'_>) {
    step.edit(|transaction| {
        transaction.state = TransactionState::RequiresAction;
        transaction.request = None;
        transaction.retries = 0;
        // What a provider holds without a name of its own is not unsent.
        transaction.ever_unknown |= transaction.provider_reference.is_none();
    });
    defer(step, WaitFor::Customer, None, stamp);
    step.advance(PaymentEvent::ActionRequired);
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
            (FactKind::Failed(_) | FactKind::TakenBack(_) | FactKind::Expired, _) => {
                AttemptOutcome::Failed
            }
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
