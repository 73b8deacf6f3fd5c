//! Attempts: starting one, recorded before it is made (I1).

use chrono::{DateTime, Utc};

use crate::change::{Change, Write};
use crate::decline::{Cause, Failure};
use crate::ids::{ProviderAccount, TransactionId};
use crate::journal::{Stamp, salted_digest};
use crate::left_alone::LeftAlone;
use crate::money::Money;
use crate::payment::{Payment, PaymentRecord};
use crate::ports::{Operation, ProviderRules};
use crate::transaction::{Attempt, OperationKind, Transaction, TransactionKind, TransactionState};

use super::DecideError;
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
/// that is not proved of every send, where the payment may not be routed anew, or where that account is to be left alone
/// about it.
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
    let left_alone = held.left_alone.holds(account, stamp.now);
    if !unsent || left_alone || !may_start(record, held, false, stamp) {
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

/// Ends a transaction: its stored request is no longer needed, nor is a next step. An authorization may be asked about again
/// once it is made (`watch`), and not before its provider wants to be.
pub(super) fn end(transaction: &mut Transaction, state: TransactionState, failure: Option<Cause>) {
    transaction.state = state;
    transaction.failure = failure.map(|cause| Failure { cause });
    transaction.request = None;
    transaction.lease_until = None;
    transaction.next_step_at = None;
    let made = state == TransactionState::Succeeded;
    if !made || transaction.kind != TransactionKind::Authorization {
        transaction.left_alone = LeftAlone::default();
    }
}
