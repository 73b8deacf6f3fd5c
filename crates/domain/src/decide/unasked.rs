//! Operations that nobody here asked for: made in the provider's dashboard, or by the network.
//!
//! What the provider proves is recorded whatever our limits say, as a transaction of its own. It never holds anything
//! back, and is never sent: the provider tells what becomes of it.

use chrono::SecondsFormat;
use quittance_evidence::EntryResult;

use crate::change::{Change, Write};
use crate::decline::{Cause, Decline};
use crate::error::Rejection;
use crate::ids::{ProviderAccount, TransactionId};
use crate::journal::Stamp;
use crate::money::Money;
use crate::payment::{MAX_RECORDED_TRANSACTIONS, PaymentRecord, PaymentState};
use crate::transaction::{
    Dispute, Fact, FactKind, Transaction, TransactionKind, TransactionOrigin, TransactionState,
};
use crate::transition::PaymentEvent;

use super::DecideError;
use super::attempt::prefix;
use super::done::{approved, voided_purchase};
use super::fact::{as_asked, mismatch};
use super::names::take_references;
use super::step::Step;

/// An operation as a provider reports it, by its own reference.
#[derive(Debug, Clone, Copy)]
pub struct Unasked<'a> {
    /// What it does; not one that opens a payment.
    pub kind: TransactionKind,
    /// What a chargeback, or its reversal, is about.
    pub dispute: Option<&'a Dispute>,
    /// The account that reports it.
    pub account: &'a ProviderAccount,
    /// Whether a capture releases the rest, as where the provider captures once.
    pub captures_once: bool,
}

/// What a reported operation is, for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// This transaction.
    Known(TransactionId),
    /// It may be one of ours whose reference is not known yet, or rests on what is not decided yet: that first.
    Early,
    /// None that we know.
    Unknown,
    /// The report names nothing.
    Nameless,
}

/// Which transaction of the payment a reported operation is.
pub fn reported(record: &PaymentRecord, kind: TransactionKind, fact: &Fact) -> Reported {
    let Some(reference) = fact.provider_reference.as_ref().filter(|_| !kind.opens()) else {
        return Reported::Nameless;
    };
    let alike = || record.transactions.iter().filter(|held| held.kind == kind);
    if let Some(held) = alike().find(|held| held.provider_reference.as_ref() == Some(reference)) {
        return Reported::Known(held.id);
    }
    let told = match &fact.kind {
        FactKind::Approved { amount, .. } => amount.map(Money::minor_units),
        FactKind::Declined(_)
        | FactKind::RequiresAction(_)
        | FactKind::Pending
        | FactKind::Failed(_)
        | FactKind::TakenBack(_)
        | FactKind::Expired => None,
    };
    let mut open = alike().filter(|held| !held.state.ended());
    let done = matches!(fact.kind, FactKind::Approved { .. });
    if kind == TransactionKind::Void && done {
        // It releases all that is left, whoever made it: so it is the one that was asked for.
        let open = open.next().map(|held| Reported::Known(held.id));
        return open.unwrap_or(Reported::Unknown);
    }
    let may_be_ours = open.any(|held| {
        let nameless = held.attempts > 0 && held.provider_reference.is_none();
        nameless && told.is_none_or(|told| told == held.amount)
    });
    if may_be_ours || rests_on_undecided(record) {
        return Reported::Early;
    }
    Reported::Unknown
}

/// Whether the payment's opening is not decided, and may be without a person.
fn rests_on_undecided(record: &PaymentRecord) -> bool {
    record.opening().is_some_and(Transaction::is_taken_up)
}

/// Records an operation that nobody here asked for. `None` where there is nothing to record (yet): a void of nothing,
/// or one that has not ended, an inquiry of the issuer apart.
pub fn unasked(
    record: &PaymentRecord,
    told: &Unasked<'_>,
    fact: &Fact,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    if record.transactions.len() >= MAX_RECORDED_TRANSACTIONS {
        return Err(Rejection::TooManyTransactions.into());
    }
    let row = transaction(record, told, stamp);
    let mut step = Step::on(&record.payment, Write::Insert(row), String::new());
    step.by_provider();
    take_references(&mut step, fact);
    match &fact.kind {
        FactKind::Approved { .. } if releases_nothing(record, told.kind) => return Ok(None),
        FactKind::Approved { amount, .. } if as_asked(&mut step, *amount) => {
            approved(&mut step, record, stamp);
        }
        FactKind::Approved { amount, .. } => mismatch(&mut step, record, *amount),
        FactKind::Failed(cause) => never_done(&mut step, Ok(*cause)),
        // That nothing is returned (any more), where nothing was.
        FactKind::TakenBack(_) if told.kind.disputes() => return Ok(None),
        FactKind::TakenBack(cause) => {
            never_done(&mut step, Ok(*cause));
            step.edit(|transaction| transaction.state = TransactionState::Reversed);
        }
        // Closed before it was told: as where it was told first.
        FactKind::Declined(_) if told.kind.disputes() => {
            never_done(&mut step, Ok(Cause::ProviderReportedFailure));
        }
        FactKind::Declined(decline) => never_done(&mut step, Err(decline.clone())),
        FactKind::Pending if told.kind == TransactionKind::Chargeback => {
            inquiry_opened(&mut step, record);
        }
        FactKind::Pending | FactKind::RequiresAction(_) | FactKind::Expired => return Ok(None),
    }
    tell_dispute(&mut step);
    step.close(Some(record), None, stamp).map(Some)
}

fn transaction(record: &PaymentRecord, told: &Unasked<'_>, stamp: &Stamp<'_>) -> Transaction {
    let amounts = &record.payment.amounts;
    let left = amounts.authorized - amounts.captured - amounts.capture_pending - amounts.voided;
    let amount = if told.kind == TransactionKind::Void {
        left.max(0)
    } else {
        0
    };
    Transaction {
        origin: TransactionOrigin::Provider,
        final_capture: told.kind == TransactionKind::Capture && told.captures_once,
        dispute: told.dispute.filter(|_| told.kind.disputes()).cloned(),
        ..Transaction::begun(stamp, told.kind, amount, told.account.clone(), stamp.now)
    }
}

/// Whether a void has nothing to release: another one has, or there never was anything.
fn releases_nothing(record: &PaymentRecord, kind: TransactionKind) -> bool {
    let amounts = &record.payment.amounts;
    let unauthorized = matches!(
        record.payment.state,
        PaymentState::Pending | PaymentState::RequiresAction
    );
    let left = amounts.authorized - amounts.captured - amounts.voided;
    let nothing = left <= 0 && voided_purchase(record).is_none();
    kind == TransactionKind::Void && !unauthorized && nothing
}

/// Takes over what the provider says it moved; whether it says so in the payment's currency.
pub(super) fn take_amount(step: &mut Step, amount: Option<Money>) -> bool {
    let currency = step.payment.currency();
    let disputed = step.subject.row().dispute.as_ref();
    let mut named = amount.into_iter().chain(disputed.map(|about| about.amount));
    let Some(moved) = named.find(|money| money.currency() == currency) else {
        return false;
    };
    step.edit(|transaction| transaction.amount = moved.minor_units());
    true
}

/// It was tried, and is proved not done: kept, so that an older word that it was done is not believed.
fn never_done(step: &mut Step, why: Result<Cause, Decline>) {
    let kind = prefix(step.subject.row().kind);
    step.result = EntryResult::Failure;
    let about = step.subject.row().dispute.as_ref();
    let amount = about.map(|about| about.amount);
    if amount.is_some() {
        // As of an inquiry: in another currency it stays 0.
        take_amount(step, amount);
    }
    match why {
        Ok(cause) => {
            step.event_type = format!("{kind}.failed");
            step.cause = Some(cause);
            step.end(TransactionState::Failed, Some(cause));
        }
        Err(decline) => {
            step.event_type = format!("{kind}.declined");
            step.end(TransactionState::Declined, None);
            step.edit(|transaction| transaction.decline = Some(decline));
        }
    }
}

/// The issuer asks about a payment, and has taken nothing yet.
fn inquiry_opened(step: &mut Step, record: &PaymentRecord) {
    step.event_type = "chargeback.inquiry_opened".to_owned();
    let amount = step
        .subject
        .row()
        .dispute
        .as_ref()
        .map(|about| about.amount);
    // In another currency it stays 0: nothing is moved.
    take_amount(step, amount);
    step.judge_dispute(record);
    step.advance(PaymentEvent::ChargebackOpened);
}

/// An inquiry, or a dispute that waited for a person, is closed, and nothing was moved.
pub(super) fn dispute_closed(step: &mut Step, record: &PaymentRecord, told: &FactKind) {
    let cause = match told {
        FactKind::Failed(cause) | FactKind::TakenBack(cause) => *cause,
        FactKind::Approved { .. }
        | FactKind::Declined(_)
        | FactKind::RequiresAction(_)
        | FactKind::Pending
        | FactKind::Expired => Cause::ProviderReportedFailure,
    };
    step.settle_cases();
    step.event_type = format!("{}.closed", prefix(step.subject.row().kind));
    step.end(TransactionState::Failed, Some(cause));
    step.judge_dispute(record);
    step.advance(PaymentEvent::ChargebackReversed);
}

/// Puts what a dispute is about into the journal entry.
pub(super) fn tell_dispute(step: &mut Step) {
    let Some(dispute) = step.subject.row().dispute.clone() else {
        return;
    };
    step.tell("dispute_reason", dispute.reason.as_str());
    step.tell(
        "dispute_amount_minor",
        &dispute.amount.minor_units().to_string(),
    );
    step.tell("dispute_currency", dispute.amount.currency().code());
    if let Some(due_at) = dispute.due_at {
        let due_at = due_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        step.tell("dispute_due_at", &due_at);
    }
}
