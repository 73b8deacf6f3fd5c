//! What recovery decides: a sender that is lost, a step without news, and when a person is asked.

use std::time::Duration;

use chrono::{DateTime, Utc};
use quittance_evidence::EntryResult;

use crate::change::{Change, OperatorActionKind, Write};
use crate::decline::Cause;
use crate::ids::{ProviderAccount, TransactionId};
use crate::journal::Stamp;
use crate::payment::{PaymentRecord, PaymentState};
use crate::retry::{NextStep, WaitFor};
use crate::text::Sensitive;
use crate::transaction::{
    Attempt, AttemptEnd, AttemptOutcome, Fact, FactKind, OperationKind, Transaction,
    TransactionKind, TransactionOrigin, TransactionState,
};

use super::DecideError;
use super::abandon::{after_failed_look, after_refusals};
use super::attempt::{next_operation, prefix};
use super::outcome::awaits_customer_again;
use super::resend::{ProvedUnsent, Quiet, known_there};
use super::step::Step;
use super::voiding::void_asked;
use super::watch::looked;

/// Sets when the transaction is taken up again; or gives up, and asks a person (I3: it stays pending).
pub(super) fn defer(step: &mut Step, wait: WaitFor, stamp: &Stamp<'_>) {
    let row = step.subject.row();
    if row.origin == TransactionOrigin::Provider {
        // We never sent it: the provider tells what becomes of it.
        return step.edit(|transaction| transaction.next_step_at = None);
    }
    let next = stamp.retries.next_step(row, wait, stamp.now, stamp.jitter);
    match next {
        NextStep::At(due) => step.edit(|transaction| {
            transaction.retries += 1;
            transaction.set_next_step(due);
        }),
        // Left by its customer, most likely: it stays as it is, and nobody is asked.
        NextStep::GiveUp if row.state == TransactionState::RequiresAction => {
            step.edit(|transaction| transaction.next_step_at = None);
        }
        NextStep::GiveUp => give_up(step),
    }
}

/// For how long the provider asked to be left alone. An open circuit is ours: the provider has not asked for anything, and the
/// circuit of another server may be closed.
pub(super) fn asked_for(cause: Option<Cause>, retry_after: Option<Duration>) -> Option<Duration> {
    retry_after.filter(|_| cause != Some(Cause::CircuitOpen))
}

/// Keeps that an account asked to be left alone about the transaction, until that is over, if it did.
pub(super) fn leave_alone(
    step: &mut Step,
    account: &ProviderAccount,
    asked: Option<Duration>,
    stamp: &Stamp<'_>,
) {
    if let Some(asked) = asked.filter(|_| !step.subject.row().state.ended()) {
        let until = stamp.retries.honoured_until(asked, stamp.now);
        step.edit(|transaction| transaction.leave_alone(account, until, stamp.now));
    }
}

/// Asks a person. The transaction stays as it is (I3).
pub(super) fn give_up(step: &mut Step) {
    step.event_type = format!("{}.recovery_exhausted", prefix(step.subject.row().kind));
    step.result = EntryResult::Unknown;
    step.edit(|transaction| transaction.next_step_at = None);
    step.open_case(OperatorActionKind::RecoveryExhausted);
}

/// The process that made an attempt is gone: what became of the attempt is not known (I4). `None` where it has
/// ended, or may still run.
pub fn sender_lost(
    record: &PaymentRecord,
    attempt: &Attempt,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let id = attempt.transaction;
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    if !held.sender_is_lost(stamp.now) || attempt.number != held.attempts {
        return Ok(None);
    }
    let event = format!("{}.sender_lost", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), event);
    step.cause = Some(Cause::SenderLost);
    step.result = EntryResult::Unknown;
    step.edit(|transaction| {
        transaction.ever_unknown = true;
        // Not the lease's end any more: the attempt has ended, and the lookup is due as soon as may be.
        transaction.take_up_at(stamp.now);
    });
    let ran = (stamp.now - attempt.started_at).num_microseconds();
    let end = AttemptEnd {
        ended_at: stamp.now,
        latency_micros: ran
            .and_then(|micros| u64::try_from(micros).ok())
            .unwrap_or(0),
        outcome: AttemptOutcome::Unknown,
        cause: Some(Cause::SenderLost),
        http_status: None,
        response: None::<Sensitive<Vec<u8>>>,
        response_digest: None,
    };
    step.attempt = Some(Write::Update(Attempt {
        ended: Some(end),
        ..attempt.clone()
    }));
    step.close(Some(record), None, stamp).map(Some)
}

/// A step of recovery brought no news: the next one waits longer, or a person is asked. Where no step is due any more, only
/// what the provider asked for is kept; `None` where that is nothing new.
pub fn unresolved(
    record: &PaymentRecord,
    id: TransactionId,
    (wait, cause, retry_after): (WaitFor, Option<Cause>, Option<Duration>),
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    if held.state == TransactionState::Succeeded {
        return looked(record, held, (cause, retry_after), stamp);
    }
    if !is_due(held, stamp) {
        return held_off(record, id, (cause, retry_after), stamp);
    }
    // Whoever was asked, and said nothing new, has not decided.
    let failed = cause.is_some() || wait != WaitFor::Decision;
    let wait = if held.state == TransactionState::RequiresAction {
        WaitFor::Customer
    } else {
        wait
    };
    let event = format!("{}.unresolved", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), event);
    step.cause = cause;
    step.result = EntryResult::Unknown;
    let asked = asked_for(cause, retry_after);
    leave_alone(&mut step, &held.provider_account, asked, stamp);
    defer(&mut step, wait, stamp);
    after_failed_look((&mut step, failed), record, stamp);
    after_refusals(&mut step, record, stamp);
    step.close(Some(record), None, stamp).map(Some)
}

/// Keeps what the provider asked for that was asked about a transaction whose step is not due: its payment has moved
/// meanwhile, or nobody waited for it to be due. `None` where it did not ask to be left alone for longer than is known.
pub fn held_off(
    record: &PaymentRecord,
    id: TransactionId,
    (cause, retry_after): (Option<Cause>, Option<Duration>),
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let event = format!("{}.unresolved", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), event);
    step.cause = cause;
    step.result = EntryResult::Unknown;
    let asked = asked_for(cause, retry_after);
    leave_alone(&mut step, &held.provider_account, asked, stamp);
    if step.subject.row().left_alone_until() <= held.left_alone_until() {
        return Ok(None);
    }
    step.close(Some(record), None, stamp).map(Some)
}

/// The provider no longer remembers the transaction's key, and cannot say whether it holds it: a person is asked.
pub fn key_expired(
    record: &PaymentRecord,
    id: TransactionId,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    ask_a_person(record, id, ("idempotency_key", "expired"), stamp)
}

/// Nothing but one send whose process died can have been processed, the provider cannot say whether it was, and
/// `execute_before` has passed: sending it again may be the first send there, so a person is asked.
pub fn too_late_to_begin(
    record: &PaymentRecord,
    id: TransactionId,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    ask_a_person(record, id, ("execute_before", "passed"), stamp)
}

/// Nothing is sent any more, and nothing can be learned: `why` is told. `None` where no step is due.
fn ask_a_person(
    record: &PaymentRecord,
    id: TransactionId,
    (why, what): (&str, &str),
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    if !is_due(held, stamp) {
        return Ok(None);
    }
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), String::new());
    step.tell(why, what);
    give_up(&mut step);
    step.close(Some(record), None, stamp).map(Some)
}

fn is_due(held: &Transaction, stamp: &Stamp<'_>) -> bool {
    let due = held.next_step_at.is_some_and(|due| due <= stamp.now);
    !held.state.ended() && due && !held.is_being_sent(stamp.now)
}

/// Ends a transaction that is proved not processed, where it is too late to send it, or no longer wanted. Of a
/// confirmation that proves only that it did not arrive.
pub fn give_up_unsent(
    record: &PaymentRecord,
    id: TransactionId,
    proof: ProvedUnsent,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let leased = held.lease_until.is_some_and(|until| until > stamp.now);
    let pending = held.state == TransactionState::Pending;
    let confirms = next_operation(record, held) == Some(OperationKind::Confirm);
    if confirms && pending && held.certainly_unprocessed() && proof.holds(held) {
        let event = format!("{}.confirmation_not_sent", prefix(held.kind));
        let mut step = Step::on(&record.payment, Write::Update(held.clone()), event);
        step.cause = Some(Cause::NotSentInTime);
        step.result = EntryResult::Failure;
        awaits_customer_again(&mut step, record, stamp);
        return step.close(Some(record), None, stamp).map(Some);
    }
    if !pending || leased || known_there(record, held) || !proof.holds(held) {
        return Ok(None);
    }
    let voiding = held.kind.opens() && void_asked(record);
    let cause = match (voiding, held.ever_unknown) {
        _ if nothing_to_release(record, held) => Cause::NothingToVoid,
        (true, _) => Cause::Voided,
        (false, true) => Cause::NotProcessed,
        (false, false) => Cause::NotSentInTime,
    };
    let fact = Fact {
        kind: FactKind::Failed(cause),
        provider_reference: None,
        payment_reference: None,
    };
    super::fact::learned(record, id, &fact, false, stamp)
}

/// The provider's authoritative lookup, asked after all was quiet, does not hold a transaction that an operator had called done. `None` where no operator did: a
/// lookup that misses something does not take back what the provider itself has proved.
pub fn refuted_by_lookup(
    record: &PaymentRecord,
    id: TransactionId,
    quiet: Quiet,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let by_person = held.resolved_by_operator && held.state == TransactionState::Succeeded;
    if !by_person || !quiet.holds(held) {
        return Ok(None);
    }
    let fact = Fact {
        kind: FactKind::Failed(Cause::NotProcessed),
        provider_reference: None,
        payment_reference: None,
    };
    super::fact::learned(record, id, &fact, true, stamp)
}

/// Whether a transaction that is proved unsent is to be sent now, rather than ended.
pub(crate) fn still_wanted(record: &PaymentRecord, held: &Transaction, now: DateTime<Utc>) -> bool {
    let voiding = held.kind.opens() && void_asked(record);
    let pointless = voiding || nothing_to_release(record, held);
    let in_time = held.kind == TransactionKind::Void || now < held.execute_before;
    next_operation(record, held).is_some() && in_time && !pointless
}

/// Whether a void has become pointless: the payment that it was to release never came to be.
fn nothing_to_release(record: &PaymentRecord, held: &Transaction) -> bool {
    let open = matches!(
        record.payment.state,
        PaymentState::Pending | PaymentState::RequiresAction
    );
    held.kind == TransactionKind::Void && !open && record.payment.amounts.void_pending == 0
}
