//! What follows from a transaction being proved not done, or a success being taken back.

use chrono::{DateTime, Utc};
use quittance_evidence::EntryResult;

use crate::change::OperatorActionKind;
use crate::decline::{Cause, Decline};
use crate::ids::ProviderReference;
use crate::money::Money;
use crate::payment::{PaymentRecord, PaymentState};
use crate::transaction::{Fact, Transaction, TransactionKind, TransactionOrigin, TransactionState};
use crate::transition::PaymentEvent;

use super::attempt::{end, prefix};
use super::done::was_sent;
use super::names::{names_first, take_references};
use super::step::Step;
use super::unasked::take_amount;
use super::voiding::pending_void;

use TransactionState::{Declined, Failed, Reversed, Succeeded};

/// The transaction is proved not done: declined, or failed.
pub(super) fn not_done(step: &mut Step, record: &PaymentRecord, why: Result<Cause, Decline>) {
    let transaction = step.subject.row().clone();
    let kind = transaction.kind;
    // Whether its reservation is gone already, or it never had one.
    let ended = transaction.state.ended() || transaction.origin == TransactionOrigin::Provider;
    let reserved = transaction.reserved();
    let amounts = &mut step.payment.amounts;
    let declined = why.is_err();
    let event = match kind {
        TransactionKind::Purchase | TransactionKind::Authorization if declined => {
            PaymentEvent::Declined
        }
        TransactionKind::Purchase | TransactionKind::Authorization => PaymentEvent::NotProcessed,
        TransactionKind::Capture => {
            amounts.capture_pending -= reserved;
            if transaction.final_capture && !ended {
                amounts.void_pending = 0;
            }
            PaymentEvent::CaptureFailed
        }
        TransactionKind::Void => {
            if !ended {
                amounts.void_pending = 0;
            }
            PaymentEvent::VoidFailed
        }
        TransactionKind::Refund => {
            amounts.refund_pending -= reserved;
            PaymentEvent::RefundFailed
        }
        // Decided by `dispute_closed`, once.
        TransactionKind::Chargeback | TransactionKind::ChargebackReversal => return,
    };
    step.settle_cases();
    step.result = EntryResult::Failure;
    step.event_type = format!(
        "{}.{}",
        prefix(kind),
        if declined { "declined" } else { "failed" }
    );
    match why {
        Ok(cause) => {
            step.cause = Some(cause);
            step.end(Failed, Some(cause));
        }
        Err(decline) => {
            step.end(Declined, None);
            step.edit(|transaction| transaction.decline = Some(decline));
        }
    }
    if matches!(kind, TransactionKind::Capture | TransactionKind::Void) && gone(step, record) {
        // The authorization had run out, or was released, under it: what it had reserved is gone as well.
        step.payment.amounts.add_voided_rest();
    }
    step.rebook(record);
    if kind.opens() && opening_not_done(step, record) {
        return step.advance(PaymentEvent::VoidSucceeded);
    }
    step.advance(event);
}

/// Whether what is left of the authorization cannot be captured any more.
fn gone(step: &Step, record: &PaymentRecord) -> bool {
    step.payment.expired || was_closed(record, step.subject.row())
}

/// Whether another transaction than this one released what was left of the authorization: nothing can be captured of it
/// any more, also of what is taken back later.
fn was_closed(record: &PaymentRecord, but: &Transaction) -> bool {
    record.transactions.iter().any(|held| {
        let closes = held.kind == TransactionKind::Void
            || held.kind == TransactionKind::Capture && held.final_capture;
        closes && held.id != but.id && held.state == Succeeded
    })
}

/// The payment never came to be: it says why, and a void that waited for it ends. Whether that void is what ended it.
fn opening_not_done(step: &mut Step, record: &PaymentRecord) -> bool {
    let subject = step.subject.row();
    step.payment.decline = subject.decline.clone();
    step.payment.failure = subject.failure;
    step.payment.next_action = None;
    let Some(void) = pending_void(record).filter(|void| !was_sent(void)) else {
        return false;
    };
    let mut void = void.clone();
    let released = step.cause == Some(Cause::Voided);
    if released {
        end(&mut void, Succeeded, None);
        step.payment.failure = None;
    } else {
        end(&mut void, Failed, Some(Cause::NothingToVoid));
    }
    step.close_known(&mut void);
    step.others.push(void);
    released
}

/// The provider says that a success is none: it took it back later; or it was an operator who called it so.
pub(super) fn taken_back(
    step: &mut Step,
    record: &PaymentRecord,
    cause: Cause,
    decline: Option<Decline>,
) {
    let refuted = step.subject.row().resolved_by_operator && step.subject.row().kind.opens();
    if refuted && rests_on_opening_alone(record) {
        return refute(step, cause, decline);
    }
    if step.subject.row().kind.opens() {
        return contradicted(step, &format!("FAILED {cause}"), Some(cause));
    }
    reversed(step, record, cause);
}

/// Whether nothing has happened to the payment but its opening.
fn rests_on_opening_alone(record: &PaymentRecord) -> bool {
    record.transactions.iter().all(|transaction| {
        transaction.kind.opens() || matches!(transaction.state, Declined | Failed)
    })
}

/// An operator had called the payment authorized or captured, and the provider proves that it is not.
fn refute(step: &mut Step, cause: Cause, decline: Option<Decline>) {
    step.payment.amounts = crate::amounts::Amounts::default();
    step.result = EntryResult::Failure;
    step.event_type = "payment.resolution_refuted".to_owned();
    let event = if decline.is_some() {
        step.end(Declined, None);
        PaymentEvent::ResolutionDeclined
    } else {
        step.cause = Some(cause);
        step.end(Failed, Some(cause));
        PaymentEvent::ResolutionNotProcessed
    };
    step.edit(|transaction| transaction.decline.clone_from(&decline));
    step.payment.decline = decline;
    step.payment.failure = step.subject.row().failure;
    step.advance(event);
    step.open_case(OperatorActionKind::ContradictingFact);
}

/// Contradicts what is known without saying where the money is: recorded for a person, once for what is `told`.
fn contradicted(step: &mut Step, told: &str, cause: Option<Cause>) {
    if !step.contradict(told) {
        return;
    }
    step.cause = cause;
    step.result = EntryResult::Unknown;
    step.event_type = format!("{}.contradicted", prefix(step.subject.row().kind));
}

/// The provider took it back, and says so before its older word that it was done.
pub(super) fn undone_before_told(step: &mut Step, record: &PaymentRecord, cause: Cause) {
    let transaction = step.subject.row().clone();
    let held_back = transaction.reserved() > 0;
    not_done(step, record, Ok(cause));
    step.edit(|transaction| transaction.state = Reversed);
    if transaction
        .open_cases
        .contains(OperatorActionKind::AmountMismatch)
    {
        // It was told to be done, though for another amount: a person finds out, as where that is told after this.
        step.open_case(OperatorActionKind::ContradictingFact);
    }
    if held_back && transaction.final_capture {
        // While it was done, it released the rest.
        let amounts = &mut step.payment.amounts;
        let kept = amounts.captured + amounts.capture_pending + transaction.amount;
        amounts.voided = amounts.voided.max(amounts.authorized - kept);
    }
}

/// The provider says that what it took back is done. That may be its older word, or it did it again: a person finds out
/// which, and the amounts stay.
pub(super) fn done_again(step: &mut Step, amount: Option<Money>) {
    if step.subject.row().origin == TransactionOrigin::Provider && step.subject.row().amount == 0 {
        take_amount(step, amount);
    }
    contradicted(step, "APPROVED", None);
}

/// The provider did again what it had taken back: a person has found that out, since its word does not tell it from the
/// older one.
pub(super) fn booked_again(
    step: &mut Step,
    record: &PaymentRecord,
    named: Option<ProviderReference>,
) {
    let transaction = step.subject.row().clone();
    let beyond_before = step.payment.amounts.beyond();
    let amounts = &mut step.payment.amounts;
    let (event, name) = match transaction.kind {
        // Of a purchase, its capture: what was authorized had stayed so.
        TransactionKind::Capture | TransactionKind::Purchase => {
            amounts.add_captured(transaction.amount);
            if transaction.final_capture {
                amounts.add_voided_rest();
            }
            let name = if transaction.kind.opens() {
                "payment.captured"
            } else {
                "capture.succeeded"
            };
            (PaymentEvent::CaptureSucceeded, name)
        }
        TransactionKind::Refund => {
            amounts.add_refunded(transaction.amount);
            (PaymentEvent::RefundSucceeded, "refund.succeeded")
        }
        TransactionKind::ChargebackReversal => {
            (PaymentEvent::ChargebackReversed, "chargeback.reversed")
        }
        TransactionKind::Authorization | TransactionKind::Void | TransactionKind::Chargeback => {
            return contradicted(step, "APPROVED", None);
        }
    };
    step.end(Succeeded, None);
    step.book_dispute(record);
    step.edit(|transaction| {
        transaction.decline = None;
        if named.is_some() {
            transaction.provider_reference = named;
        }
    });
    name.clone_into(&mut step.event_type);
    step.rebook(record);
    step.advance(event);
    step.report_excess(beyond_before);
}

/// The provider says that it opened the payment once more, under another reference than the one that is known: the
/// customer may have paid twice. A person finds out, and what is known stays.
pub(super) fn done_by_another(step: &mut Step, fact: &Fact) {
    let named = fact.payment_reference.as_ref();
    let named = named.map_or("", |reference| reference.as_str());
    step.tell("told_reference", named);
    contradicted(step, &format!("APPROVED {named}"), None);
}

/// The provider says that what is known to be done is done: nothing new, unless it says more.
pub(super) fn done_already(
    step: &mut Step,
    record: &PaymentRecord,
    (fact, amount, expires_at): (&Fact, Option<Money>, Option<DateTime<Utc>>),
) {
    if taken_once_more(record, step.subject.row()) {
        return contradicted(step, "RETURNED_AGAIN", None);
    }
    done_for_another_amount(step, amount);
    if step.event_type.is_empty() {
        says_more(step, fact, expires_at);
    }
}

/// What was not known of it when it was said to be done: how the provider names it, where a person said so, and until when it
/// holds what it authorized.
fn says_more(step: &mut Step, fact: &Fact, expires_at: Option<DateTime<Utc>>) {
    let row = step.subject.row();
    let until = expires_at.filter(|_| {
        row.kind == TransactionKind::Authorization && step.payment.expires_at.is_none()
    });
    if until.is_none() && !names_first(step, fact) {
        return;
    }
    take_references(step, fact);
    step.payment.expires_at = until.or(step.payment.expires_at);
    step.event_type = format!("{}.updated", prefix(step.subject.row().kind));
}

/// Whether the dispute whose money this returned took it a second time, and has not returned that: then the word that it is
/// returned may be about the second time, which has no name of its own, or the older one. A person finds out which. What a
/// dispute takes a second time goes by its name, `/` and more.
fn taken_once_more(record: &PaymentRecord, returned: &Transaction) -> bool {
    let named = returned.provider_reference.as_ref();
    let Some(dispute) = named.filter(|_| returned.kind == TransactionKind::ChargebackReversal)
    else {
        return false;
    };
    record.transactions.iter().any(|taken| {
        let name = taken.provider_reference.as_ref();
        let rest = name.and_then(|name| name.as_str().strip_prefix(dispute.as_str()));
        taken.kind == TransactionKind::Chargeback
            && taken.state == Succeeded
            && rest.is_some_and(|rest| rest.starts_with('/'))
    })
}

/// The provider names another amount of what is known to be done: what is booked stays, and a person finds out.
fn done_for_another_amount(step: &mut Step, named: Option<Money>) {
    let (row, currency) = (step.subject.row(), step.payment.currency());
    let Some(named) = named.filter(|_| row.kind != TransactionKind::Void) else {
        return;
    };
    let same = named.minor_units() == row.amount && named.currency() == currency;
    // What was not asked for is booked in the payment's currency, whatever the provider names it in.
    let otherwise_said = row.origin == TransactionOrigin::Provider && named.currency() != currency;
    if same || otherwise_said {
        return;
    }
    step.tell_named(named);
    let told = format!(
        "APPROVED {} {}",
        named.minor_units(),
        named.currency().code()
    );
    contradicted(step, &told, Some(Cause::AmountMismatch));
}

/// A success that the provider took back later.
pub(super) fn reversed(step: &mut Step, record: &PaymentRecord, cause: Cause) {
    let transaction = step.subject.row().clone();
    let beyond_before = step.payment.amounts.beyond();
    let event = match transaction.kind {
        TransactionKind::Refund => {
            step.payment.amounts.take_back_refund(transaction.amount);
            PaymentEvent::RefundReversed
        }
        // The capture of a purchase is part of it: what was authorized stays so.
        TransactionKind::Capture | TransactionKind::Purchase => {
            step.payment.amounts.take_back_capture(transaction.amount);
            if gone(step, record) {
                step.payment.amounts.add_voided_rest();
            }
            PaymentEvent::CaptureFailed
        }
        // The issuer took once more what it had returned: how much, follows from all of them.
        TransactionKind::ChargebackReversal => PaymentEvent::ChargebackOpened,
        TransactionKind::Authorization | TransactionKind::Void | TransactionKind::Chargeback => {
            return contradicted(step, &format!("TAKEN_BACK {cause}"), Some(cause));
        }
    };
    step.cause = Some(cause);
    step.result = EntryResult::Failure;
    step.event_type = format!("{}.reversed", prefix(transaction.kind));
    step.end(Reversed, Some(cause));
    step.book_dispute(record);
    step.rebook(record);
    step.advance(event);
    step.open_case(OperatorActionKind::ContradictingFact);
    step.report_excess(beyond_before);
}

/// The provider says that the authorization ran out; what is captured stays captured, and what is under way ends as the
/// provider says: what it held back is gone with it where it fails.
pub(super) fn expired(step: &mut Step, record: &PaymentRecord) {
    let amounts = &step.payment.amounts;
    let left = amounts.authorized - amounts.captured - amounts.voided;
    if step.payment.state == PaymentState::Expired || left <= 0 && amounts.authorized > 0 {
        return;
    }
    step.settle_cases();
    step.payment.expired = true;
    step.payment.next_action = None;
    if step.payment.amounts.authorized > 0 {
        step.payment.amounts.add_voided_rest();
    }
    if !step.subject.row().state.ended() {
        step.end(Failed, Some(Cause::Expired));
    }
    if let Some(void) = pending_void(record).filter(|void| !was_sent(void)) {
        let mut void = void.clone();
        end(&mut void, Failed, Some(Cause::NothingToVoid));
        step.close_known(&mut void);
        step.others.push(void);
    }
    step.cause = Some(Cause::Expired);
    step.result = EntryResult::Failure;
    step.event_type = "payment.expired".to_owned();
    step.advance(PaymentEvent::Expired);
}
