//! An authorization that runs out without a word of it: the provider is asked, once its time has passed, or once a capture or
//! a void of it was refused. Time alone ends nothing, nor does a refusal.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::change::{Change, Write};
use crate::decline::Cause;
use crate::journal::Stamp;
use crate::payment::{Payment, PaymentRecord};
use crate::transaction::{Transaction, TransactionKind, TransactionState};

use super::DecideError;
use super::attempt::prefix;
use super::recover::asked_for;
use super::step::Step;

/// Says when the provider is asked about the authorization as it is after the step: not before it is known to be made, nor once
/// nothing is left of it; and only where the provider has said until when it holds.
pub(super) fn watch(step: &mut Step, record: &PaymentRecord, stamp: &Stamp<'_>) {
    // Without its outcome it is taken up for that.
    let made = |opening: &Transaction| opening.state == TransactionState::Succeeded;
    let Some(opening) = opening_after(step, record).filter(made) else {
        return;
    };
    let until = step.payment.expires_at;
    let open = holds(&step.payment, &opening);
    let opened = record.opening();
    let was_open = opened.is_some_and(|opening| holds(&record.payment, opening));
    let said_before = was_open && record.payment.expires_at.is_some();
    let next = match until.filter(|_| open) {
        None => None,
        Some(until) if !said_before => Some(left_alone(
            &opening,
            stamp.retries.looked_at(until, stamp.jitter),
        )),
        Some(_) if was_refused(step, record) => {
            let due = opening
                .next_step_at
                .map_or(stamp.now, |due| due.min(stamp.now));
            Some(left_alone(&opening, due))
        }
        Some(_) => opening.next_step_at,
    };
    if next != opening.next_step_at {
        put(step, opening, |row| {
            row.next_step_at = next;
            if !said_before {
                // What it took to learn that it was made is none of the looks at whether it still is.
                row.retries = 0;
            }
        });
    }
}

/// The provider was asked about an authorization, and told no news of it: it is asked again later, a few times, and then not by
/// itself. `None` where that was not due.
pub(super) fn looked(
    record: &PaymentRecord,
    held: &Transaction,
    (cause, retry_after): (Option<Cause>, Option<Duration>),
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    if held.next_step_at.is_none_or(|due| due > stamp.now) {
        return Ok(None);
    }
    let event = format!("{}.looked_up", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), event);
    step.cause = cause;
    if let Some(asked) = asked_for(cause, retry_after) {
        let until = stamp.retries.honoured_until(asked, stamp.now);
        step.edit(|row| row.leave_alone(&held.provider_account, until, stamp.now));
    }
    let until = record.payment.expires_at;
    let next = until.and_then(|until| {
        let retries = stamp.retries;
        retries.looked_at_again(until, held.retries, stamp.now, stamp.jitter)
    });
    let next = next.map(|next| left_alone(step.subject.row(), next));
    step.edit(|transaction| {
        // What is asked before its time, since something of it was refused, uses up none of the looks after it.
        if until.is_some_and(|until| until <= stamp.now) {
            transaction.retries = transaction.retries.saturating_add(1);
        }
        transaction.next_step_at = next;
    });
    step.close(Some(record), None, stamp).map(Some)
}

/// When its provider can be asked that is to be asked at `due`, and may want to be left alone until later.
fn left_alone(opening: &Transaction, due: DateTime<Utc>) -> DateTime<Utc> {
    opening
        .left_alone_until()
        .map_or(due, |until| due.max(until))
}

/// Whether something can still run out of what is authorized.
fn holds(payment: &Payment, opening: &Transaction) -> bool {
    let amounts = &payment.amounts;
    opening.kind == TransactionKind::Authorization
        && opening.state == TransactionState::Succeeded
        && !payment.expired
        && amounts.captured + amounts.voided < amounts.authorized
}

/// Whether the step ends a capture or a void that the provider refused.
fn was_refused(step: &Step, record: &PaymentRecord) -> bool {
    let row = step.subject.row();
    let rests = matches!(row.kind, TransactionKind::Capture | TransactionKind::Void);
    let ended = |state| matches!(state, TransactionState::Declined | TransactionState::Failed);
    let before = record.transaction(row.id);
    rests && row.attempts > 0 && ended(row.state) && before.is_some_and(|it| !ended(it.state))
}

/// The authorization as it is after the step.
fn opening_after(step: &Step, record: &PaymentRecord) -> Option<Transaction> {
    let id = record.opening()?.id;
    let mut written = std::iter::once(step.subject.row()).chain(&step.others);
    let opening = written.rfind(|row| row.id == id).or(record.opening())?;
    (opening.kind == TransactionKind::Authorization).then(|| opening.clone())
}

/// Has the step write the authorization.
fn put(step: &mut Step, mut opening: Transaction, edit: impl FnOnce(&mut Transaction)) {
    edit(&mut opening);
    if step.subject.row().id == opening.id {
        return step.edit(|row| *row = opening);
    }
    step.others.retain(|row| row.id != opening.id);
    step.others.push(opening);
}
