//! What follows from a transaction being proved done.

use crate::change::OperatorActionKind;
use crate::decline::Cause;
use crate::journal::Stamp;
use crate::payment::{Payment, PaymentRecord};
use crate::transaction::{Transaction, TransactionKind, TransactionOrigin, TransactionState};
use crate::transition::PaymentEvent;

use super::WAITING_VOID_SENT_WITHIN;
use super::attempt::end;
use super::step::Step;
use super::voiding::pending_void;

use TransactionState::{Failed, Reversed, Succeeded};

/// The transaction is proved done.
pub(super) fn approved(step: &mut Step, record: &PaymentRecord, stamp: &Stamp<'_>) {
    let transaction = step.subject.row().clone();
    step.settle_cases();
    let beyond_before = step.payment.amounts.beyond();
    let released = was_released(record, &transaction);
    let ran_out = ran_out(&record.payment, &transaction);
    let purchased = transaction.kind == TransactionKind::Purchase;
    let (event, name) = move_amounts(&mut step.payment, &transaction, released);
    if released && purchased {
        // It was authorized, and never captured.
        step.end(Reversed, Some(Cause::Voided));
    } else {
        step.end(Succeeded, None);
    }
    step.edit(|transaction| transaction.decline = None);
    step.event_type = name.to_owned();
    step.book_dispute(record);
    // What rests on it may have been proved before it.
    step.rebook(record);
    if transaction.kind.opens() {
        step.payment.decline = None;
        step.payment.failure = None;
        step.payment.next_action = None;
        // What is captured at once does not run out.
        step.payment.expired &= transaction.kind == TransactionKind::Authorization;
        settle_waiting_void(step, record, transaction.kind, stamp);
    }
    if transaction.kind == TransactionKind::Void {
        end_unauthorized_opening(step, record);
        take_back_purchase(step, record);
    }
    if ran_out {
        // Told late, and no contradiction: it has run out all the same.
        step.derive_state();
        return step.report_excess(beyond_before);
    }
    step.advance(event);
    // That the issuer gave up a dispute may be told before what it had taken, which stays until its reversal.
    let closed_before = transaction.kind == TransactionKind::Chargeback
        && transaction.state == Failed
        && !transaction.resolved_by_operator;
    if transaction.state.ended() && (purchased || !released) && !closed_before {
        // It was told not to be done, perhaps to a customer; or a purchase and its void are both proved done.
        step.open_case(OperatorActionKind::ContradictingFact);
    }
    step.report_excess(beyond_before);
}

/// Books what a transaction moved; the event, and its name in the journal.
fn move_amounts(
    payment: &mut Payment,
    transaction: &Transaction,
    released: bool,
) -> (PaymentEvent, &'static str) {
    let reserved = transaction.reserved();
    let amounts = &mut payment.amounts;
    match transaction.kind {
        TransactionKind::Authorization | TransactionKind::Purchase if released => {
            amounts.authorized += transaction.amount;
            amounts.add_voided_rest();
            (PaymentEvent::VoidSucceeded, "payment.authorized")
        }
        TransactionKind::Purchase => {
            amounts.authorized += transaction.amount;
            amounts.captured += transaction.amount;
            (PaymentEvent::Approved, "payment.captured")
        }
        TransactionKind::Authorization => {
            amounts.authorized += transaction.amount;
            if payment.expired {
                // It was made before it ran out, which was told first: nothing is left of it.
                amounts.add_voided_rest();
            }
            (PaymentEvent::Approved, "payment.authorized")
        }
        TransactionKind::Capture => {
            amounts.capture_pending -= reserved;
            amounts.add_captured(transaction.amount);
            if transaction.final_capture {
                amounts.add_voided_rest();
            }
            (PaymentEvent::CaptureSucceeded, "capture.succeeded")
        }
        TransactionKind::Void => {
            amounts.add_voided_rest();
            (PaymentEvent::VoidSucceeded, "void.succeeded")
        }
        TransactionKind::Refund => {
            amounts.refund_pending -= reserved;
            amounts.add_refunded(transaction.amount);
            (PaymentEvent::RefundSucceeded, "refund.succeeded")
        }
        // What they move follows from all of them: see `Step::book_dispute`.
        TransactionKind::Chargeback => (PaymentEvent::ChargebackOpened, "chargeback.opened"),
        TransactionKind::ChargebackReversal => {
            (PaymentEvent::ChargebackReversed, "chargeback.reversed")
        }
    }
}

/// A void accepted while the payment was pending: it now has something to release, or came too late.
fn settle_waiting_void(
    step: &mut Step,
    record: &PaymentRecord,
    opened: TransactionKind,
    stamp: &Stamp<'_>,
) {
    let Some(void) = pending_void(record) else {
        return;
    };
    let mut void = void.clone();
    // The provider may have captured some of it by itself, and have told that before.
    let left = step.payment.amounts.capturable();
    if opened == TransactionKind::Purchase || left == 0 {
        if was_sent(&void) {
            return;
        }
        end(&mut void, Failed, Some(Cause::AlreadyCaptured));
        step.close_known(&mut void);
    } else {
        void.amount = left;
        if !was_sent(&void) {
            void.take_up_at(stamp.now + WAITING_VOID_SENT_WITHIN);
        }
        step.payment.amounts.void_pending += left;
    }
    step.others.push(void);
}

/// Whether an authorization, that of a purchase too, taken for never made when its void succeeded, had been made before
/// it: the same void released it.
fn was_released(record: &PaymentRecord, opening: &Transaction) -> bool {
    let voided = opening
        .failure
        .is_some_and(|failure| failure.cause == Cause::Voided);
    let by_void = record.transactions.iter().any(|transaction| {
        transaction.kind == TransactionKind::Void
            && transaction.state == Succeeded
            && was_sent(transaction)
    });
    opening.kind.opens() && voided && by_void
}

/// Whether an authorization is known to have run out, and not yet to have been made before.
pub(crate) fn ran_out(payment: &Payment, opening: &Transaction) -> bool {
    let expired = opening
        .failure
        .is_some_and(|failure| failure.cause == Cause::Expired);
    let authorizes = opening.kind == TransactionKind::Authorization;
    payment.expired && authorizes && opening.state == Failed && expired
}

/// Whether a void may be at the provider, so that its own outcome decides it; or was made there.
pub(super) fn was_sent(void: &Transaction) -> bool {
    void.attempts > 0 || void.origin == TransactionOrigin::Provider
}

/// A void that succeeded before the authorization did ends the authorization too.
fn end_unauthorized_opening(step: &mut Step, record: &PaymentRecord) {
    if let Some(opening) = record.opening().filter(|opening| !opening.state.ended()) {
        let mut opening = opening.clone();
        end(&mut opening, Failed, Some(Cause::Voided));
        step.close_known(&mut opening);
        step.others.push(opening);
        step.payment.next_action = None;
    }
}

/// The purchase whose capture a void undoes that is proved done: a provider that books captures later was told to
/// forget it before. What was authorized stays so, and is released.
pub(super) fn voided_purchase(record: &PaymentRecord) -> Option<&Transaction> {
    let purchase = |opening: &&Transaction| opening.kind == TransactionKind::Purchase;
    let opening = record.opening().filter(purchase)?;
    (opening.state == Succeeded).then_some(opening)
}

/// A void that is proved done takes back the capture of a purchase: what is released is not captured any more.
fn take_back_purchase(step: &mut Step, record: &PaymentRecord) {
    let Some(purchase) = voided_purchase(record) else {
        return;
    };
    let mut purchase = purchase.clone();
    step.payment.amounts.take_back_capture(purchase.amount);
    step.payment.amounts.add_voided_rest();
    // It was told to be captured.
    step.rebook_without(record, Some(purchase.id));
    step.open_case(OperatorActionKind::ContradictingFact);
    end(&mut purchase, Reversed, Some(Cause::Voided));
    step.others.push(purchase);
}
