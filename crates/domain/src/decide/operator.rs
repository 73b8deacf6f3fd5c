//! What a person decides about a transaction: on record, with who and why.

use quittance_evidence::EntryResult;

use crate::cases::closes_when_known;
use crate::change::{Change, OperatorActionKind, Write};
use crate::command::{Resolution, Resolve, Retry};
use crate::decline::Cause;
use crate::error::Rejection;
use crate::ids::ProviderReference;
use crate::journal::{RESOLUTION, Stamp};
use crate::left_alone::LeftAlone;
use crate::money::Money;
use crate::payment::PaymentRecord;
use crate::transaction::{Fact, FactKind, Transaction, TransactionKind, TransactionState};

use super::DecideError;
use super::attempt::prefix;
use super::fact::apply;
use super::names::{can_be_named, name_by_person, unname};
use super::step::Step;
use super::undone::booked_again;

/// Decides a transaction whose outcome nobody can learn, or closes the cases of a kind about one. What the provider
/// proves later still counts: it is applied, and opens a case again.
pub fn resolve(
    record: &PaymentRecord,
    command: &Resolve,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    let held = subject(record, command.transaction)?;
    let version = record.payment.version;
    if command.seen_version.is_some_and(|seen| seen != version) {
        return Err(Rejection::PaymentChanged { version }.into());
    }
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), String::new());
    let decided = !matches!(command.resolution, Resolution::Acknowledged(_));
    if decided {
        step.settle_cases();
    }
    decide(&mut step, record, command, stamp)?;
    step.edit(|transaction| {
        transaction.resolved_by_operator |= decided;
        transaction.updated_at = stamp.now;
    });
    step.tell(RESOLUTION, command.resolution.name());
    step.tell("reason", command.reason.as_str());
    step.tell("evidence", command.evidence.as_str());
    step.close(Some(record), None, stamp)
}

/// What the resolution makes of the transaction that the step is about.
fn decide(
    step: &mut Step,
    record: &PaymentRecord,
    command: &Resolve,
    stamp: &Stamp<'_>,
) -> Result<(), DecideError> {
    let held = subject(record, command.transaction)?;
    let seen = command.seen_version.is_some();
    match &command.resolution {
        Resolution::Acknowledged(kind) => acknowledged(step, held, *kind)?,
        Resolution::Succeeded {
            provider_reference,
            amount,
        } if may_be_done_again(held) => {
            nothing_under_way(record, stamp)?;
            really_moved(step, *amount)?;
            step.close_case(OperatorActionKind::ContradictingFact);
            booked_again(
                step,
                record,
                named(held, record, provider_reference.as_ref()),
            );
            name_by_person(step, record, provider_reference.as_ref());
        }
        Resolution::Succeeded {
            provider_reference,
            amount,
        } => {
            if !may_have_succeeded(held, seen) {
                undecided(held)?;
            }
            nothing_under_way(record, stamp)?;
            really_moved(step, *amount)?;
            let named = named(held, record, provider_reference.as_ref());
            let fact = said_to_have_succeeded(step, record, named);
            apply(step, record, &fact, stamp);
            name_by_person(step, record, provider_reference.as_ref());
            if step.event_type.is_empty() {
                // It names what is known for another one's doing: nothing would be decided.
                undecided(held)?;
            }
        }
        Resolution::NotProcessed => {
            undecided(held)?;
            nothing_under_way(record, stamp)?;
            let fact = Fact {
                kind: FactKind::Failed(Cause::ResolvedByOperator),
                provider_reference: None,
                payment_reference: None,
            };
            apply(step, record, &fact, stamp);
        }
        Resolution::TakenBack => {
            can_have_been_taken_back(held, seen)?;
            nothing_under_way(record, stamp)?;
            let fact = Fact {
                kind: FactKind::TakenBack(Cause::ResolvedByOperator),
                provider_reference: None,
                payment_reference: None,
            };
            apply(step, record, &fact, stamp);
            if held.kind.opens() {
                unname(step);
            }
        }
    }
    Ok(())
}

/// A person has dealt with the cases of a kind: nothing else changes.
fn acknowledged(
    step: &mut Step,
    held: &Transaction,
    kind: OperatorActionKind,
) -> Result<(), Rejection> {
    if !held.open_cases.contains(kind) {
        return Err(Rejection::NothingOpen);
    }
    if would_be_left_to_nobody(held, kind) {
        return Err(Rejection::OutcomeUnknown);
    }
    step.event_type = format!("{}.case_closed", prefix(held.kind));
    step.close_case(kind);
    Ok(())
}

/// What a person calls the transaction. What opens a payment that the provider has named keeps its name.
fn named(
    held: &Transaction,
    record: &PaymentRecord,
    said: Option<&ProviderReference>,
) -> Option<ProviderReference> {
    let said = said.filter(|_| !held.kind.opens() || can_be_named(record));
    said.cloned()
}

/// A person's word that the transaction of the step is done, with the amount that it has by now.
fn said_to_have_succeeded(
    step: &Step,
    record: &PaymentRecord,
    named: Option<ProviderReference>,
) -> Fact {
    let held = step.subject.row();
    let amount = Money::new(held.amount, record.payment.currency()).ok();
    Fact {
        kind: FactKind::Approved {
            amount: amount.filter(|_| held.kind != TransactionKind::Void),
            expires_at: None,
        },
        payment_reference: None,
        provider_reference: named,
    }
}

/// What the transaction moved is not what was asked for: from now on that is its amount, and what was held back for
/// the rest is not any more.
fn really_moved(step: &mut Step, amount: Option<Money>) -> Result<(), Rejection> {
    let row = step.subject.row();
    let (kind, asked) = (row.kind, row.amount);
    let Some(moved) = amount.filter(|_| kind != TransactionKind::Void) else {
        return Ok(());
    };
    if moved.currency() != step.payment.currency() {
        return Err(Rejection::CurrencyDiffers);
    }
    let moved = moved.minor_units();
    let reserved_before = row.reserved();
    step.edit(|transaction| transaction.amount = moved);
    let released = reserved_before - step.subject.row().reserved();
    let amounts = &mut step.payment.amounts;
    match kind {
        TransactionKind::Capture => amounts.capture_pending -= released,
        TransactionKind::Refund => amounts.refund_pending -= released,
        TransactionKind::Purchase
        | TransactionKind::Authorization
        | TransactionKind::Void
        | TransactionKind::Chargeback
        | TransactionKind::ChargebackReversal => {}
    }
    if moved != asked {
        step.tell("asked_amount_minor", &asked.to_string());
    }
    Ok(())
}

/// Takes a transaction up again now, from the beginning of its schedule, whatever time its provider asked for. Of one that
/// waits for its customer: the provider is asked once more. How often it is asked to release it is limited all the same.
pub fn retry(
    record: &PaymentRecord,
    command: &Retry,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    let held = subject(record, command.transaction)?;
    undecided(held)?;
    if held.is_being_sent(stamp.now) {
        return Err(Rejection::BeingSent.into());
    }
    let event = format!("{}.retry_requested", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), event);
    step.result = EntryResult::Success;
    // Whatever else a person was asked about it is not dealt with by asking the provider again.
    step.close_case(OperatorActionKind::RecoveryExhausted);
    // A sender that was lost is still to be told from one that ended: its lease's end is left as it is.
    let lost = held.sender_is_lost(stamp.now);
    // How long its customer has been away counts from when it was left.
    let left = held.state == TransactionState::RequiresAction;
    step.edit(|transaction| {
        transaction.retries = 0;
        transaction.left_alone = LeftAlone::default();
        if !lost {
            transaction.next_step_at = Some(stamp.now);
        }
        if !left {
            transaction.updated_at = stamp.now;
        }
    });
    step.tell("reason", command.reason.as_str());
    step.close(Some(record), None, stamp)
}

fn subject(
    record: &PaymentRecord,
    id: crate::ids::TransactionId,
) -> Result<&Transaction, DecideError> {
    record
        .transaction(id)
        .ok_or_else(|| Rejection::NoSuchTransaction.into())
}

/// A person decides only what is not decided.
fn undecided(held: &Transaction) -> Result<(), Rejection> {
    if held.state.ended() {
        return Err(Rejection::TransactionEnded { state: held.state });
    }
    Ok(())
}

/// Whether closing the cases of a kind about a transaction would leave its unknown outcome to nobody: the service does not
/// ask about it any more, and no person would be asked.
fn would_be_left_to_nobody(held: &Transaction, kind: OperatorActionKind) -> bool {
    let given_up =
        held.state == TransactionState::Pending && held.attempts > 0 && held.next_step_at.is_none();
    let asked = held.open_cases.without(kind).iter().any(closes_when_known);
    !held.state.ended() && (closes_when_known(kind) || given_up && !asked)
}

/// Whether a transaction that ended otherwise may have succeeded after that: what was sent may be done late, for another amount
/// than was asked too, and what the provider told of it may have been lost. Then a person who has seen how it stands says so.
fn may_have_succeeded(held: &Transaction, seen: bool) -> bool {
    let not_done = matches!(
        held.state,
        TransactionState::Declined | TransactionState::Failed
    );
    let told = held.open_cases.contains(OperatorActionKind::AmountMismatch);
    not_done && (told || seen && held.attempts > 0)
}

/// What is known to be done may have been taken back after that, and what the provider told of it may have been lost. Then a
/// person who has seen how it stands says so; of what was never known to be done, that it was not.
fn can_have_been_taken_back(held: &Transaction, seen: bool) -> Result<(), Rejection> {
    if !held.state.ended() {
        return Err(Rejection::OutcomeUnknown);
    }
    let done = held.state == TransactionState::Succeeded && held.kind.can_be_taken_back();
    if !(done && seen) {
        return Err(Rejection::TransactionEnded { state: held.state });
    }
    Ok(())
}

/// Whether a person may say that the provider did again what it had taken back: while they are asked to look into it.
fn may_be_done_again(held: &Transaction) -> bool {
    held.state == TransactionState::Reversed
        && held.kind.can_be_taken_back()
        && held.amount > 0
        && held
            .open_cases
            .contains(OperatorActionKind::ContradictingFact)
}

/// Nor does a person decide what a send can still decide. What becomes of one transaction can end another: a void that is
/// done ends what was to be authorized.
fn nothing_under_way(record: &PaymentRecord, stamp: &Stamp<'_>) -> Result<(), Rejection> {
    let mut all = record.transactions.iter();
    if all.any(|other| other.lease_until.is_some_and(|until| until > stamp.now)) {
        return Err(Rejection::BeingSent);
    }
    Ok(())
}
