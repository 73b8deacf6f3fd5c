//! Applying what a provider proved: the one path for answers, lookups and webhooks.

use chrono::{DateTime, Utc};
use quittance_evidence::EntryResult;

use crate::change::{Change, OperatorActionKind, Write};
use crate::decline::{Cause, Decline};
use crate::ids::TransactionId;
use crate::journal::Stamp;
use crate::money::Money;
use crate::payment::{NextAction, PaymentRecord};
use crate::retry::WaitFor;
use crate::transaction::{
    Dispute, Fact, FactKind, Transaction, TransactionKind, TransactionOrigin, TransactionState,
};
use crate::transition::PaymentEvent;

use super::abandon::release_refused;
use super::attempt::prefix;
use super::done::{approved, ran_out, was_sent};
use super::names::{names_anew, of_another_payment, take_references};
use super::recover::defer;
use super::resend::ProvedUnsent;
use super::step::Step;
use super::unasked::{dispute_closed, take_amount, tell_dispute};
use super::undone::{
    done_again, done_already, done_by_another, expired, not_done, reversed, taken_back,
    undone_before_told,
};
use super::voiding::{pending_void, released_by_another};
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

/// The same for a fact that comes with what a dispute is about.
pub(crate) fn fact_about(
    record: &PaymentRecord,
    id: TransactionId,
    (fact, dispute): (&Fact, Option<&Dispute>),
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let Some(dispute) = dispute else {
        return learned(record, id, fact, true, stamp);
    };
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let mut about = held.clone();
    about.dispute = Some(dispute.clone());
    if let Some(change) = applied(record, &about, fact, true, stamp)? {
        return Ok(Some(change));
    }
    if !tells_details(held, fact, Some(dispute)) {
        return Ok(None);
    }
    // What the dispute is about has changed, and nothing else.
    let event = format!("{}.updated", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(about), event);
    step.by_provider();
    tell_dispute(&mut step);
    step.edit(|transaction| transaction.updated_at = stamp.now);
    step.close(Some(record), None, stamp).map(Some)
}

/// Whether a fact tells of a dispute that it is about something else than is known, and nothing else that is new.
pub(crate) fn tells_details(held: &Transaction, fact: &Fact, dispute: Option<&Dispute>) -> bool {
    dispute.is_some() && held.dispute.as_ref() != dispute && still_so(held, &fact.kind)
}

/// Whether a fact says of a dispute what is known of it: what is older than that is not taken over.
fn still_so(held: &Transaction, told: &FactKind) -> bool {
    held.kind.disputes()
        && match told {
            FactKind::Approved { .. } => held.state == Succeeded,
            FactKind::Pending => held.state == Pending,
            FactKind::Failed(_) => held.state == Failed,
            FactKind::TakenBack(_) => matches!(held.state, Failed | Reversed),
            FactKind::Declined(_) | FactKind::RequiresAction(_) | FactKind::Expired => false,
        }
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
    tell_dispute(&mut step);
    step.edit(|transaction| transaction.updated_at = stamp.now);
    step.close(Some(record), None, stamp).map(Some)
}

/// Whether a fact takes back what the opening of a payment is not known to have done: that has to be told first.
pub(crate) fn taken_back_early(held: &Transaction, fact: &Fact) -> bool {
    let done = matches!(held.state, Succeeded | Reversed);
    matches!(fact.kind, FactKind::TakenBack(_)) && held.kind.opens() && !done
}

/// Whether a fact tells that an authorization was made, of one that is known to have run out since: told late, it
/// contradicts nothing.
pub(crate) fn made_before_it_ran_out(
    record: &PaymentRecord,
    held: &Transaction,
    fact: &Fact,
) -> bool {
    matches!(fact.kind, FactKind::Approved { .. }) && ran_out(&record.payment, held)
}

/// Whether a fact tells an authorization to be made, and not until when it holds: nobody would look whether it ran out.
pub(crate) fn end_unsaid(record: &PaymentRecord, held: &Transaction, fact: &Fact) -> bool {
    let made = matches!(fact.kind, FactKind::Approved { .. }) && !fact.says_until();
    let unsaid = record.payment.expires_at.is_none();
    held.kind == TransactionKind::Authorization && !held.state.ended() && made && unsaid
}

/// Whether what became of a confirmation is not known: it is under way, or was never answered.
pub(crate) fn confirmation_open(record: &PaymentRecord, held: &Transaction) -> bool {
    held.kind.opens()
        && held.state == Pending
        && held.lease_until.is_some()
        && held.request.is_some()
        && record.payment.next_action.is_some()
}

/// Whether a confirmation waits to be sent again, or was answered and is not decided yet: none of its sends is of unknown
/// outcome or under way.
pub(crate) fn confirmation_waits(record: &PaymentRecord, held: &Transaction) -> bool {
    held.kind.opens()
        && held.state == Pending
        && !held.ever_unknown
        && held.lease_until.is_none()
        && held.request.is_some()
        && record.payment.next_action.is_some()
}

/// Applies a fact to the step. An event type is set where it tells something new; an equal or older fact
/// changes nothing.
pub(super) fn apply(step: &mut Step, record: &PaymentRecord, fact: &Fact, stamp: &Stamp<'_>) {
    let state = step.subject.row().state;
    let kind = step.subject.row().kind;
    if released_by_another(record, step.subject.row(), fact) {
        return;
    }
    match (&fact.kind, state) {
        (
            FactKind::Approved { amount, expires_at },
            Pending | RequiresAction | Declined | Failed,
        ) => {
            proved_done(step, record, (fact, *amount, *expires_at), stamp);
        }
        (FactKind::Failed(_) | FactKind::Declined(_), Pending) if kind.disputes() => {
            take_references(step, fact);
            dispute_closed(step, record, &fact.kind);
        }
        (FactKind::Declined(decline), Pending | RequiresAction | Failed) => {
            proved_not_done(step, record, (fact, Err(decline.clone())), stamp);
        }
        (FactKind::Failed(cause), Pending | RequiresAction) => {
            proved_not_done(step, record, (fact, Ok(*cause)), stamp);
        }
        (FactKind::Failed(cause), Succeeded) => {
            let decline = None;
            taken_back(step, record, *cause, decline);
        }
        (FactKind::TakenBack(cause), _) if kind.can_be_taken_back() => {
            take_back(step, record, fact, *cause);
        }
        // What a dispute returns follows from how it stands.
        (FactKind::Approved { amount, expires_at }, Reversed) if kind.disputes() => {
            proved_done(step, record, (fact, *amount, *expires_at), stamp);
        }
        (FactKind::Approved { amount, .. }, Reversed) => done_again(step, *amount),
        (FactKind::Approved { .. }, Succeeded)
            if kind.opens() && of_another_payment(&step.payment, fact) =>
        {
            done_by_another(step, fact);
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
            told_pending(step, fact, stamp);
        }
        (FactKind::Expired, Pending | RequiresAction | Succeeded | Reversed) if kind.opens() => {
            expired(step, record);
        }
        (FactKind::Approved { amount, expires_at }, Succeeded) => {
            done_already(step, record, (fact, *amount, *expires_at));
        }
        // Equal or older than what is known, or impossible for this kind: nothing new.
        (FactKind::Declined(_), Succeeded | Declined | Reversed)
        | (FactKind::Failed(_), Declined | Failed | Reversed)
        | (FactKind::Pending, Succeeded | Declined | Failed | Reversed)
        | (FactKind::TakenBack(_) | FactKind::RequiresAction(_) | FactKind::Expired, _) => {}
    }
}

/// The provider has done it, until then for what authorizes.
fn proved_done(
    step: &mut Step,
    record: &PaymentRecord,
    (fact, amount, expires_at): (&Fact, Option<Money>, Option<DateTime<Utc>>),
    stamp: &Stamp<'_>,
) {
    take_references(step, fact);
    if !as_asked(step, amount) {
        return mismatch(step, record, amount);
    }
    step.payment.expires_at = expires_at.or(step.payment.expires_at);
    approved(step, record, stamp);
}

/// The provider has not done it, nor will it: that of ours is asked for again, where it is a release.
fn proved_not_done(
    step: &mut Step,
    record: &PaymentRecord,
    (fact, why): (&Fact, Result<Cause, Decline>),
    stamp: &Stamp<'_>,
) {
    take_references(step, fact);
    not_done(step, record, why);
    release_refused(step, record, stamp);
}

/// The provider takes back what it did, whether that is known already or not. What opens a payment has to be known.
fn take_back(step: &mut Step, record: &PaymentRecord, fact: &Fact, cause: Cause) {
    match step.subject.row().state {
        Succeeded => reversed(step, record, cause),
        Pending if step.subject.row().kind.disputes() => {
            take_references(step, fact);
            dispute_closed(step, record, &fact.kind);
        }
        RequiresAction | Declined | Failed if step.subject.row().kind.disputes() => {}
        Pending | RequiresAction | Declined | Failed if !step.subject.row().kind.opens() => {
            take_references(step, fact);
            undone_before_told(step, record, cause);
        }
        Pending | RequiresAction | Declined | Failed | Reversed => {}
    }
}

/// The provider has it, and has not carried it out yet.
fn told_pending(step: &mut Step, fact: &Fact, stamp: &Stamp<'_>) {
    let row = step.subject.row();
    let named = row.provider_reference.is_some() || row.ever_unknown;
    let known = row.state == Pending && named && !names_anew(step, fact);
    take_references(step, fact);
    still_pending(step, known, stamp);
}

use TransactionState::{Declined, Failed, Pending, RequiresAction, Reversed, Succeeded};

/// Whether the provider moved what was asked for, in amount and currency. A void's is never compared; what we did
/// not ask for is what the provider says it is, if it says so in the payment's currency.
pub(super) fn as_asked(step: &mut Step, amount: Option<Money>) -> bool {
    let (transaction, currency) = (step.subject.row(), step.payment.currency());
    match (transaction.kind, transaction.origin) {
        (TransactionKind::Void, _) => true,
        (_, TransactionOrigin::Provider) => take_amount(step, amount),
        (
            _,
            TransactionOrigin::Caller | TransactionOrigin::Operator | TransactionOrigin::Service,
        ) => amount.is_some_and(|amount| {
            amount.minor_units() == transaction.amount && amount.currency() == currency
        }),
    }
}

/// Not called successful: it waits for a person.
pub(super) fn mismatch(step: &mut Step, record: &PaymentRecord, named: Option<Money>) {
    if let Some(named) = named {
        step.tell_named(named);
    }
    if step.subject.row().kind.disputes() {
        step.judge_dispute(record);
    }
    step.cause = Some(Cause::AmountMismatch);
    step.result = EntryResult::Unknown;
    step.event_type = format!("{}.amount_mismatch", prefix(step.subject.row().kind));
    // Of what ran out since, there is nothing to decide.
    if !ran_out(&step.payment, step.subject.row()) {
        step.open_case(OperatorActionKind::AmountMismatch);
    }
    step.edit(|transaction| {
        transaction.ever_unknown = true;
        // Asking again would tell the same.
        transaction.next_step_at = None;
    });
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
        // What a provider holds without a name of its own is not unsent.
        transaction.ever_unknown |= transaction.provider_reference.is_none();
        transaction.state = RequiresAction;
        transaction.lease_until = None;
    });
    if news {
        // The customer may finish without anybody telling us.
        step.edit(|transaction| transaction.retries = 0);
        defer(step, WaitFor::Customer, stamp);
    }
    take_up_waiting_void(step, record, stamp);
    step.advance(PaymentEvent::ActionRequired);
}

/// The payment waits for its customer: where the provider can release that, a void that waited can be sent now.
pub(super) fn take_up_waiting_void(step: &mut Step, record: &PaymentRecord, stamp: &Stamp<'_>) {
    if let Some(void) = pending_void(record).filter(|void| !was_sent(void)) {
        let mut void = void.clone();
        void.take_up_at(stamp.now + WAITING_VOID_SENT_WITHIN);
        step.others.push(void);
    }
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
        defer(step, WaitFor::Decision, stamp);
    }
    if kind.opens() {
        step.advance(PaymentEvent::Processing);
    }
}
