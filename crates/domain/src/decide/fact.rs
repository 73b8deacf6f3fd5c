//! Applying what a provider proved: the one path for answers, lookups and webhooks.

use quittance_evidence::EntryResult;

use crate::change::{Change, OperatorActionKind, Write};
use crate::decline::{Cause, Decline};
use crate::ids::{ProviderAccount, TransactionId};
use crate::journal::Stamp;
use crate::money::Money;
use crate::payment::{NextAction, Payment, PaymentRecord, PaymentState};
use crate::retry::WaitFor;
use crate::transaction::{Fact, FactKind, Transaction, TransactionKind, TransactionState};
use crate::transition::PaymentEvent;

use super::attempt::{end, pending_void, prefix};
use super::recover::defer;
use super::resend::ProvedUnsent;
use super::step::Step;
use super::{DecideError, WAITING_VOID_SENT_WITHIN};

/// Applies a fact that the provider told outside a send (a lookup, a webhook). `None` where it tells nothing
/// new.
pub fn fact(
    record: &PaymentRecord,
    id: TransactionId,
    fact: &Fact,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    learned(record, id, fact, true, stamp)
}

/// Applies a fact learned outside a send; `told` where the provider itself said so, rather than we concluded it.
pub(super) fn learned(
    record: &PaymentRecord,
    id: TransactionId,
    fact: &Fact,
    told: bool,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    if matches!(fact.kind, FactKind::RequiresAction(_)) && confirmation_open(record, held) {
        // It may have been said before the confirmation arrived: it tells nothing about it.
        return Ok(None);
    }
    applied(record, held, fact, told, stamp)
}

/// Applies that a payment still waits for its customer, where that proves that a confirmation of unknown outcome
/// did not arrive: it was said after every request had. The customer can confirm again.
pub fn confirmation_lost(
    record: &PaymentRecord,
    id: TransactionId,
    fact: &Fact,
    proof: ProvedUnsent,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    if !proof.holds(held) || !confirmation_open(record, held) {
        return Ok(None);
    }
    applied(record, held, fact, true, stamp)
}

/// The change that a fact makes; `None` where it tells nothing new.
fn applied(
    record: &PaymentRecord,
    held: &Transaction,
    fact: &Fact,
    told: bool,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), String::new());
    if told {
        step.by_provider();
    }
    apply(&mut step, record, fact, stamp);
    let news = step.subject.row() != held || step.payment != record.payment;
    if step.event_type.is_empty() || !news {
        return Ok(None);
    }
    step.edit(|transaction| transaction.updated_at = stamp.now);
    step.close(None, stamp).map(Some)
}

/// Records what an account says about a transaction that was proved not sent through it, and went to another: a
/// case for a person, since it may have been carried out twice. `None` where it says that nothing was done, or
/// where that case is open already.
pub fn told_by_former_account(
    record: &PaymentRecord,
    id: TransactionId,
    account: &ProviderAccount,
    fact: &Fact,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let harmless = match &fact.kind {
        FactKind::Declined(_) | FactKind::Failed(_) | FactKind::Expired => true,
        FactKind::Approved { .. } | FactKind::RequiresAction(_) | FactKind::Pending => false,
    };
    if harmless || held.open_case == Some(OperatorActionKind::ContradictingFact) {
        return Ok(None);
    }
    let event = format!("{}.contradicted", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), event);
    step.by_provider();
    if let Some(actor) = &mut step.actor {
        account.as_str().clone_into(&mut actor.id);
    }
    step.result = EntryResult::Unknown;
    step.tell("told_by_account", account.as_str());
    if let Some(reference) = &fact.provider_reference {
        step.tell("told_reference", reference.as_str());
    }
    step.open_case(OperatorActionKind::ContradictingFact);
    step.close(None, stamp).map(Some)
}

/// Whether what became of a confirmation is not known: it is under way, or was never answered.
pub(crate) fn confirmation_open(record: &PaymentRecord, held: &Transaction) -> bool {
    held.kind.opens()
        && held.state == Pending
        && held.lease_until.is_some()
        && held.request.is_some()
        && record.payment.next_action.is_some()
}

/// Applies a fact to the step. An event type is set where it tells something new; an equal or older fact
/// changes nothing.
pub(super) fn apply(step: &mut Step, record: &PaymentRecord, fact: &Fact, stamp: &Stamp<'_>) {
    let state = step.subject.row().state;
    let kind = step.subject.row().kind;
    match (&fact.kind, state) {
        (
            FactKind::Approved { amount, expires_at },
            Pending | RequiresAction | Declined | Failed,
        ) => {
            if mismatches(step, *amount) {
                take_references(step, fact);
                return mismatch(step, *amount);
            }
            take_references(step, fact);
            step.payment.expires_at = expires_at.or(step.payment.expires_at);
            approved(step, record, stamp);
        }
        (FactKind::Declined(decline), Pending | RequiresAction | Failed) => {
            take_references(step, fact);
            let ended = state.ended();
            not_done(step, record, ended, Err(decline.clone()));
        }
        (FactKind::Failed(cause), Pending | RequiresAction) => {
            take_references(step, fact);
            not_done(step, record, false, Ok(*cause));
        }
        (FactKind::Failed(cause), Succeeded) => {
            let decline = None;
            taken_back(step, record, *cause, decline);
        }
        (FactKind::Declined(decline), Succeeded) if step.subject.row().resolved_by_operator => {
            let decline = Some(decline.clone());
            taken_back(step, record, Cause::ProviderReportedFailure, decline);
        }
        (FactKind::RequiresAction(action), Pending | RequiresAction) if kind.opens() => {
            take_references(step, fact);
            requires_action(step, record, action, stamp);
        }
        (FactKind::Pending, Pending | RequiresAction) => {
            let row = step.subject.row();
            let named = row.provider_reference.is_some() || row.ever_unknown;
            let known = state == Pending && named && !names_anew(step, fact);
            take_references(step, fact);
            still_pending(step, known, stamp);
        }
        (FactKind::Expired, Pending | RequiresAction | Succeeded) if kind.opens() => {
            expired(step, record);
        }
        // Equal or older than what is known, or impossible for this kind: nothing new.
        (FactKind::Approved { .. }, Succeeded | Reversed)
        | (FactKind::Declined(_), Succeeded | Declined | Reversed)
        | (FactKind::Failed(_), Declined | Failed | Reversed)
        | (FactKind::Pending, Succeeded | Declined | Failed | Reversed)
        | (FactKind::RequiresAction(_) | FactKind::Expired, _) => {}
    }
}

use TransactionState::{Declined, Failed, Pending, RequiresAction, Reversed, Succeeded};

/// Whether the provider names another amount or currency than was asked. A void's is never compared.
fn mismatches(step: &Step, amount: Option<Money>) -> bool {
    let transaction = step.subject.row();
    let as_asked = amount.is_some_and(|amount| {
        amount.minor_units() == transaction.amount && amount.currency() == step.payment.currency()
    });
    transaction.kind != TransactionKind::Void && !as_asked
}

/// Not called successful: it waits for a person.
fn mismatch(step: &mut Step, named: Option<Money>) {
    if let Some(named) = named {
        step.tell("named_amount_minor", &named.minor_units().to_string());
        step.tell("named_currency", named.currency().code());
    }
    step.cause = Some(Cause::AmountMismatch);
    step.result = EntryResult::Unknown;
    step.event_type = format!("{}.amount_mismatch", prefix(step.subject.row().kind));
    step.open_case(OperatorActionKind::AmountMismatch);
    step.edit(|transaction| {
        transaction.ever_unknown = true;
        // Asking again would tell the same.
        transaction.next_step_at = None;
    });
}

/// Whether a fact brings a reference of the provider's that is not known yet.
fn names_anew(step: &Step, fact: &Fact) -> bool {
    let new = |told: &Option<_>, held: &Option<_>| told.is_some() && told != held;
    new(
        &fact.provider_reference,
        &step.subject.row().provider_reference,
    ) || new(&fact.payment_reference, &step.payment.provider_reference)
}

fn take_references(step: &mut Step, fact: &Fact) {
    if let Some(reference) = &fact.payment_reference {
        step.payment.provider_reference = Some(reference.clone());
    }
    if let Some(reference) = &fact.provider_reference {
        step.edit(|transaction| transaction.provider_reference = Some(reference.clone()));
    }
}

/// The transaction is proved done.
fn approved(step: &mut Step, record: &PaymentRecord, stamp: &Stamp<'_>) {
    let transaction = step.subject.row().clone();
    step.settle_case();
    let excess_before = step.payment.amounts.excess;
    let released = was_released(record, &transaction);
    let (event, name) = move_amounts(&mut step.payment, &transaction, released);
    step.end(Succeeded, None);
    step.edit(|transaction| transaction.decline = None);
    step.event_type = name.to_owned();
    if transaction.kind.opens() {
        step.payment.decline = None;
        step.payment.failure = None;
        step.payment.next_action = None;
        step.payment.expired = false;
        settle_waiting_void(step, record, transaction.kind, transaction.amount, stamp);
    }
    if transaction.kind == TransactionKind::Void {
        end_unauthorized_opening(step, record);
    }
    step.advance(event);
    if transaction.state.ended() && !released {
        // It was told not to be done, perhaps to a customer.
        step.open_case(OperatorActionKind::ContradictingFact);
    }
    step.report_excess(excess_before);
}

/// Books what a transaction moved; the event, and its name in the journal.
fn move_amounts(
    payment: &mut Payment,
    transaction: &Transaction,
    released: bool,
) -> (PaymentEvent, &'static str) {
    let reserved = if transaction.state.ended() {
        0
    } else {
        transaction.amount
    };
    let amounts = &mut payment.amounts;
    match transaction.kind {
        TransactionKind::Authorization if released => {
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
        TransactionKind::Chargeback => {
            amounts.charged_back += transaction.amount;
            payment.disputed = true;
            (PaymentEvent::ChargebackOpened, "chargeback.opened")
        }
        TransactionKind::ChargebackReversal => {
            amounts.charged_back = (amounts.charged_back - transaction.amount).max(0);
            payment.disputed = amounts.charged_back > 0;
            (PaymentEvent::ChargebackReversed, "chargeback.reversed")
        }
    }
}

/// A void accepted while the payment was pending: it now has something to release, or came too late.
fn settle_waiting_void(
    step: &mut Step,
    record: &PaymentRecord,
    opened: TransactionKind,
    amount: i64,
    stamp: &Stamp<'_>,
) {
    let Some(void) = pending_void(record) else {
        return;
    };
    let mut void = void.clone();
    if opened == TransactionKind::Purchase {
        if was_sent(&void) {
            return;
        }
        end(&mut void, Failed, Some(Cause::AlreadyCaptured));
    } else {
        void.amount = amount;
        if !was_sent(&void) {
            void.next_step_at = Some(stamp.now + WAITING_VOID_SENT_WITHIN);
        }
        step.payment.amounts.void_pending += amount;
    }
    step.others.push(void);
}

/// Whether an authorization, taken for never made when its void succeeded, had been made before it: the same
/// void released it.
fn was_released(record: &PaymentRecord, opening: &Transaction) -> bool {
    let voided = opening
        .failure
        .is_some_and(|failure| failure.cause == Cause::Voided);
    let by_void = record.transactions.iter().any(|transaction| {
        transaction.kind == TransactionKind::Void
            && transaction.state == Succeeded
            && was_sent(transaction)
    });
    opening.kind == TransactionKind::Authorization && voided && by_void
}

/// Whether a void may be at the provider, so that its own outcome decides it.
fn was_sent(void: &Transaction) -> bool {
    void.attempts > 0
}

/// A void that succeeded before the authorization did ends the authorization too.
fn end_unauthorized_opening(step: &mut Step, record: &PaymentRecord) {
    if let Some(opening) = record.opening().filter(|opening| !opening.state.ended()) {
        let mut opening = opening.clone();
        end(&mut opening, Failed, Some(Cause::Voided));
        step.others.push(opening);
        step.payment.next_action = None;
    }
}

/// The transaction is proved not done: declined, or failed. `ended` when its reservation is gone already.
fn not_done(step: &mut Step, record: &PaymentRecord, ended: bool, why: Result<Cause, Decline>) {
    let transaction = step.subject.row().clone();
    let kind = transaction.kind;
    let reserved = if ended { 0 } else { transaction.amount };
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
        TransactionKind::Chargeback | TransactionKind::ChargebackReversal => return,
    };
    step.settle_case();
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
    if kind == TransactionKind::Capture && step.payment.expired {
        // The authorization had run out under it: what it had reserved is gone as well.
        step.payment.amounts.add_voided_rest();
    }
    step.rebook(record);
    if kind.opens() && opening_not_done(step, record) {
        return step.advance(PaymentEvent::VoidSucceeded);
    }
    step.advance(event);
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
    step.others.push(void);
    released
}

/// The provider says that a success is none: it took it back later; or it was an operator who called it so.
fn taken_back(step: &mut Step, record: &PaymentRecord, cause: Cause, decline: Option<Decline>) {
    let refuted = step.subject.row().resolved_by_operator && step.subject.row().kind.opens();
    if refuted && rests_on_opening_alone(record) {
        return refute(step, cause, decline);
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

/// A success that the provider took back later.
fn reversed(step: &mut Step, record: &PaymentRecord, cause: Cause) {
    let transaction = step.subject.row().clone();
    let excess_before = step.payment.amounts.excess;
    let event = match transaction.kind {
        TransactionKind::Refund => {
            step.payment.amounts.take_back_refund(transaction.amount);
            PaymentEvent::RefundReversed
        }
        TransactionKind::Capture => {
            step.payment.amounts.take_back_capture(transaction.amount);
            PaymentEvent::CaptureFailed
        }
        TransactionKind::Purchase
        | TransactionKind::Authorization
        | TransactionKind::Void
        | TransactionKind::Chargeback
        | TransactionKind::ChargebackReversal => {
            // Contradicts a success without saying where the money is: recorded for a person.
            step.cause = Some(cause);
            step.result = EntryResult::Unknown;
            step.event_type = format!("{}.contradicted", prefix(transaction.kind));
            step.open_case(OperatorActionKind::ContradictingFact);
            return;
        }
    };
    step.cause = Some(cause);
    step.result = EntryResult::Failure;
    step.event_type = format!("{}.reversed", prefix(transaction.kind));
    step.end(Reversed, Some(cause));
    step.rebook(record);
    step.advance(event);
    step.open_case(OperatorActionKind::ContradictingFact);
    step.report_excess(excess_before);
}

fn requires_action(
    step: &mut Step,
    record: &PaymentRecord,
    action: &NextAction,
    stamp: &Stamp<'_>,
) {
    let news = step.subject.row().state != RequiresAction
        || step.payment.next_action.as_ref() != Some(action);
    if news {
        step.event_type = "payment.requires_action".to_owned();
    }
    step.payment.next_action = Some(action.clone());
    step.edit(|transaction| {
        transaction.retries = 0;
        // What a provider holds without a name of its own is not unsent.
        transaction.ever_unknown |= transaction.provider_reference.is_none();
        transaction.state = RequiresAction;
        transaction.lease_until = None;
        transaction.next_step_at = None;
    });
    if let Some(void) = pending_void(record).filter(|void| !was_sent(void)) {
        // Where the provider can release what waits for the customer, this can be sent now.
        let mut void = void.clone();
        void.next_step_at = Some(stamp.now + WAITING_VOID_SENT_WITHIN);
        step.others.push(void);
    }
    step.advance(PaymentEvent::ActionRequired);
}

/// `known` where the provider had said so before: asking again is no news.
fn still_pending(step: &mut Step, known: bool, stamp: &Stamp<'_>) {
    let kind = step.subject.row().kind;
    step.result = EntryResult::Unknown;
    if known && step.event_type.is_empty() {
        return;
    }
    step.event_type = format!("{}.processing", prefix(kind));
    // While a send is under way, or its sender is lost, its lease says when the next step is due.
    let row = step.subject.row();
    let leased = row.is_being_sent(stamp.now) || row.sender_is_lost(stamp.now);
    step.edit(|transaction| {
        transaction.state = Pending;
        transaction.ever_unknown |= transaction.provider_reference.is_none();
        if !known {
            transaction.retries = 0;
        }
    });
    if !leased {
        defer(step, WaitFor::Decision, None, stamp);
    }
    if kind.opens() {
        step.advance(PaymentEvent::Processing);
    }
}

/// The provider says that the authorization ran out; what is captured stays captured.
fn expired(step: &mut Step, record: &PaymentRecord) {
    let before = (step.payment.state, step.payment.amounts);
    if before.0 == PaymentState::Expired
        || step.payment.amounts.capturable() == 0 && step.payment.amounts.authorized > 0
    {
        return;
    }
    step.settle_case();
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
        step.others.push(void);
    }
    step.cause = Some(Cause::Expired);
    step.result = EntryResult::Failure;
    step.event_type = "payment.expired".to_owned();
    step.advance(PaymentEvent::Expired);
}
