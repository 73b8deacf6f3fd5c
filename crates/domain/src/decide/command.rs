//! Commands on a payment: allowed by the table and by the amounts, and their amount reserved.

use chrono::{DateTime, Utc};

use crate::change::{Change, Write};
use crate::command::{Capture, Confirm, DEFAULT_EXECUTE_WITHIN, Refund, Void};
use crate::error::Rejection;
use crate::journal::Stamp;
use crate::money::Money;
use crate::payment::{MAX_TRANSACTIONS, PaymentRecord, PaymentState};
use crate::ports::ProviderRules;
use crate::transaction::{OperationKind, Transaction, TransactionKind, TransactionState};
use crate::transition::{Next, PaymentEvent, transition};

use super::attempt::first_attempt;
use super::step::Step;
use super::voiding::{releases_before, releases_from};
use super::{Ask, DecideError};

/// Whether the state allows the command at all.
fn allow(record: &PaymentRecord, event: PaymentEvent) -> Result<(), Rejection> {
    let state = record.payment.state;
    if transition(state, event) == Next::Forbid {
        return Err(Rejection::StateForbids { state });
    }
    if record.transactions.len() >= MAX_TRANSACTIONS && event != PaymentEvent::ConfirmAccepted {
        return Err(Rejection::TooManyTransactions);
    }
    Ok(())
}

/// The amount asked for, or all that is left.
fn asked(record: &PaymentRecord, amount: Option<Money>, left: i64) -> Result<i64, Rejection> {
    match amount {
        None => Ok(left),
        Some(money) if money.currency() == record.payment.currency() => Ok(money.minor_units()),
        Some(_) => Err(Rejection::CurrencyDiffers),
    }
}

pub(super) fn deadline(
    asked: Option<DateTime<Utc>>,
    stamp: &Stamp<'_>,
) -> Result<DateTime<Utc>, Rejection> {
    let within = chrono::TimeDelta::from_std(DEFAULT_EXECUTE_WITHIN).unwrap_or_default();
    let until = asked.unwrap_or(stamp.now + within);
    if until > stamp.now {
        Ok(until)
    } else {
        Err(Rejection::ExecuteBeforePassed)
    }
}

/// A new transaction of the payment, accepted now.
pub(super) fn transaction(
    record: &PaymentRecord,
    kind: TransactionKind,
    amount: i64,
    execute_before: DateTime<Utc>,
    stamp: &Stamp<'_>,
) -> Transaction {
    let account = record.payment.provider_account.clone();
    Transaction::begun(stamp, kind, amount, account, execute_before)
}

/// Closes the acceptance of a new transaction, its first attempt started; `ask` where a caller asked for it.
pub(super) fn accept(
    mut step: Step,
    record: &PaymentRecord,
    ask: Option<Ask>,
    operation: OperationKind,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    let mut transaction = step.subject.row().clone();
    let attempt = first_attempt(
        (&step.payment, record.opening()),
        &mut transaction,
        operation,
        &[],
        rules,
        stamp,
    )?;
    step.edit(|row| *row = transaction);
    step.attempt = Some(Write::Insert(attempt));
    step.close(Some(record), ask, stamp)
}

/// Accepts a capture. Guards, in order: state, void under way, capture under way (final), currency, what is left, what the provider can do.
pub fn capture(
    record: &PaymentRecord,
    command: &Capture,
    ask: Ask,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    allow(record, PaymentEvent::CaptureAccepted)?;
    let amounts = &record.payment.amounts;
    if has_pending(record, TransactionKind::Void) {
        return Err(Rejection::VoidPending.into());
    }
    let capabilities = rules.capabilities();
    // Where the provider captures once, it releases the rest whether that is said or not.
    let releases = command.final_capture || !capabilities.several_captures;
    if releases && amounts.capture_pending > 0 {
        // The provider would release what the other capture is about to take.
        return Err(Rejection::CapturePending.into());
    }
    let left = amounts.capturable();
    let amount = asked(record, command.amount, left)?;
    if amount > left || amount == 0 {
        return Err(Rejection::ExceedsCapturable { left }.into());
    }
    if amount < left && !capabilities.partial_capture {
        return Err(Rejection::PartialCaptureUnsupported.into());
    }
    if amount < left && !command.final_capture && !capabilities.several_captures {
        return Err(Rejection::CaptureMustBeFinal.into());
    }
    let until = deadline(command.execute_before, stamp)?;
    let mut row = transaction(record, TransactionKind::Capture, amount, until, stamp);
    row.final_capture = releases;
    let mut step = Step::on(
        &record.payment,
        Write::Insert(row),
        "capture.accepted".to_owned(),
    );
    step.payment.amounts.capture_pending += amount;
    if releases {
        step.payment.amounts.void_pending += left - amount;
    }
    accept(
        step,
        record,
        Some(ask),
        OperationKind::Capture,
        rules,
        stamp,
    )
}

/// Accepts a refund. Guards, in order: state, currency, what is left.
pub fn refund(
    record: &PaymentRecord,
    command: &Refund,
    ask: Ask,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    allow(record, PaymentEvent::RefundAccepted)?;
    let left = record.payment.amounts.refundable();
    let amount = asked(record, command.amount, left)?;
    if amount > left || amount == 0 {
        return Err(Rejection::ExceedsRefundable { left }.into());
    }
    let until = deadline(command.execute_before, stamp)?;
    let mut row = transaction(record, TransactionKind::Refund, amount, until, stamp);
    row.reason = command.reason.clone();
    let mut step = Step::on(
        &record.payment,
        Write::Insert(row),
        "refund.accepted".to_owned(),
    );
    step.payment.amounts.refund_pending += amount;
    accept(step, record, Some(ask), OperationKind::Refund, rules, stamp)
}

/// Accepts a void. Guards, in order: state, void under way, capture under way, something left.
///
/// While the payment is pending it records the intent, which stops resends: what the authorization proves
/// decides whether there is something to release. Where the provider can be asked by our name of the payment, it is,
/// once nothing of the authorization can be under way.
pub fn void(
    record: &PaymentRecord,
    command: &Void,
    ask: Ask,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    allow(record, PaymentEvent::VoidAccepted)?;
    let payment = &record.payment;
    if has_pending(record, TransactionKind::Void) {
        return Err(Rejection::VoidPending.into());
    }
    if payment.amounts.capture_pending > 0 {
        return Err(Rejection::CapturePending.into());
    }
    let unauthorized = matches!(
        payment.state,
        PaymentState::Pending | PaymentState::RequiresAction
    );
    let amount = payment.amounts.capturable();
    if !unauthorized && amount == 0 {
        return Err(Rejection::StateForbids {
            state: payment.state,
        }
        .into());
    }
    let until = deadline(None, stamp)?;
    let mut row = transaction(record, TransactionKind::Void, amount, until, stamp);
    row.reason = command.reason.clone();
    let can_send = !unauthorized || releases_before(record, rules, stamp.now);
    if !can_send {
        row.next_step_at = releases_from(record, rules);
    }
    let mut step = Step::on(payment, Write::Insert(row), "void.accepted".to_owned());
    step.payment.amounts.void_pending += amount;
    if can_send {
        accept(step, record, Some(ask), OperationKind::Void, rules, stamp)
    } else {
        step.close(Some(record), Some(ask), stamp)
    }
}

/// Accepts what the customer's authentication returned, for the transaction that waits for it.
pub fn confirm(
    record: &PaymentRecord,
    command: &Confirm,
    ask: Ask,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    allow(record, PaymentEvent::ConfirmAccepted)?;
    let state = record.payment.state;
    let opening = record
        .opening()
        .filter(|opening| opening.state == TransactionState::RequiresAction)
        .ok_or(Rejection::StateForbids { state })?;
    if has_pending(record, TransactionKind::Void) {
        return Err(Rejection::VoidPending.into());
    }
    let mut row = opening.clone();
    row.state = TransactionState::Pending;
    row.retries = 0;
    // The confirmation is a request of its own: what is not known of earlier ones says nothing about it, and the payment
    // is open at the provider whatever becomes of it.
    row.ever_unknown = false;
    // The customer may return long after the payment was accepted.
    row.execute_before = deadline(None, stamp)?;
    let parameters = command.parameters.expose();
    let attempt = first_attempt(
        (&record.payment, None),
        &mut row,
        OperationKind::Confirm,
        parameters,
        rules,
        stamp,
    )?;
    let mut step = Step::on(
        &record.payment,
        Write::Update(row),
        "confirm.accepted".to_owned(),
    );
    step.attempt = Some(Write::Insert(attempt));
    step.advance(PaymentEvent::ConfirmAccepted);
    step.close(Some(record), Some(ask), stamp)
}

fn has_pending(record: &PaymentRecord, kind: TransactionKind) -> bool {
    record
        .transactions
        .iter()
        .any(|transaction| transaction.kind == kind && !transaction.state.ended())
}
