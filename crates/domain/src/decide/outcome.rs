//! How an attempt ended: what that proves of its transaction.

use quittance_evidence::EntryResult;

use crate::change::{Change, Write};
use crate::decline::Cause;
use crate::journal::{Stamp, salted_digest};
use crate::payment::PaymentRecord;
use crate::retry::WaitFor;
use crate::text::Sensitive;
use crate::transaction::{
    Attempt, AttemptEnd, AttemptOutcome, Fact, FactKind, MAX_STORED_RESPONSE, OperationKind,
    SendOutcome, SendReport, TransactionKind, TransactionState,
};
use crate::transition::PaymentEvent;

use super::DecideError;
use super::attempt::prefix;
use super::fact::{apply, take_up_waiting_void};
use super::recover::{asked_for, defer, leave_alone};
use super::step::Step;
use super::voiding::void_asked;

/// Records how an attempt ended, and applies what it proved.
///
/// Whatever comes is recorded with the attempt, also when the transaction has ended meanwhile.
pub fn outcome(
    record: &PaymentRecord,
    attempt: &Attempt,
    report: &SendReport,
    stamp: &Stamp<'_>,
) -> Result<Change, DecideError> {
    let id = attempt.transaction;
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let mut transaction = held.clone();
    // A request whose answer was given up on may still arrive: its lease is left to run out.
    let over = !matches!(report.outcome, SendOutcome::Unknown(_));
    if attempt.number == transaction.attempts && over {
        transaction.lease_until = None;
    }
    transaction.updated_at = stamp.now;
    let name = format!("{}.attempt_ended", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(transaction), name);
    // Whichever attempt it was, and wherever the transaction has gone since.
    let cause = match &report.outcome {
        SendOutcome::Answered(_) => None,
        SendOutcome::NotSent(cause) | SendOutcome::Unknown(cause) => Some(*cause),
    };
    let asked = asked_for(cause, report.retry_after);
    leave_alone(&mut step, &attempt.provider_account, asked, stamp);
    match &report.outcome {
        SendOutcome::Answered(fact) if attempt.number != held.attempts && undecided(&fact.kind) => {
            // A later attempt runs, or has told more: what an older one left open tells nothing.
            step.by_provider();
        }
        SendOutcome::Answered(fact) => {
            step.by_provider();
            apply(&mut step, record, fact, stamp);
        }
        SendOutcome::NotSent(cause) | SendOutcome::Unknown(cause)
            if attempt.number != held.attempts =>
        {
            // A later attempt runs, or has told more: its next step stands.
            step.cause = Some(*cause);
            step.result = EntryResult::Unknown;
            let unknown = matches!(report.outcome, SendOutcome::Unknown(_));
            step.edit(|transaction| transaction.ever_unknown |= unknown);
        }
        SendOutcome::NotSent(cause) => not_sent(&mut step, record, attempt, *cause, stamp),
        SendOutcome::Unknown(cause) => unknown(&mut step, *cause, stamp),
    }
    step.attempt = Some(Write::Update(ended(attempt, report, step.cause, stamp)));
    step.close(Some(record), None, stamp)
}

/// Whether a fact leaves the outcome open.
fn undecided(kind: &FactKind) -> bool {
    match kind {
        FactKind::RequiresAction(_) | FactKind::Pending => true,
        FactKind::Approved { .. }
        | FactKind::Declined(_)
        | FactKind::Failed(_)
        | FactKind::TakenBack(_)
        | FactKind::Expired => false,
    }
}

/// I4: nothing is proved. The transaction waits for a lookup.
pub(super) fn unknown(step: &mut Step, cause: Cause, stamp: &Stamp<'_>) {
    step.cause = Some(cause);
    step.result = EntryResult::Unknown;
    if step.subject.row().state.ended() {
        return;
    }
    step.event_type = format!("{}.outcome_unknown", prefix(step.subject.row().kind));
    step.edit(|transaction| transaction.ever_unknown = true);
    defer(step, WaitFor::after(cause), stamp);
}

/// The provider proved that this send was not processed; what that proves of the transaction depends on
/// its other sends.
fn not_sent(
    step: &mut Step,
    record: &PaymentRecord,
    attempt: &Attempt,
    cause: Cause,
    stamp: &Stamp<'_>,
) {
    step.cause = Some(cause);
    step.result = EntryResult::Failure;
    let transaction = step.subject.row();
    if transaction.state.ended() {
        return;
    }
    if transaction.ever_unknown {
        // I4: an earlier send may have been processed, so this refusal proves nothing.
        return unknown(step, cause, stamp);
    }
    step.event_type = format!("{}.not_sent", prefix(transaction.kind));
    let voiding = transaction.kind.opens() && void_asked(record);
    let known_there = transaction.provider_reference.is_some();
    // A void releases what may be held: it is never too late for it.
    let too_late =
        transaction.kind != TransactionKind::Void && stamp.now >= transaction.execute_before;
    let confirms = attempt.operation == OperationKind::Confirm;
    if confirms && (voiding || too_late || !cause.retryable()) {
        return awaits_customer_again(step, record, stamp);
    }
    let sent_again = cause.retryable() && !voiding && !too_late;
    // Once the provider has named it, no refusal of a send proves that it was not processed.
    if known_there || sent_again {
        return defer(step, WaitFor::after(cause), stamp);
    }
    let cause = match (cause.retryable(), voiding) {
        (true, true) => Cause::Voided,
        (true, false) => Cause::NotSentInTime,
        (false, _) => cause,
    };
    let fact = Fact {
        kind: FactKind::Failed(cause),
        provider_reference: None,
        payment_reference: None,
    };
    apply(step, record, &fact, stamp);
}

/// What the customer's authentication returned did not arrive, or was refused; the payment itself is still open at the
/// provider, and may be decided there: nothing is proved about it.
pub(super) fn awaits_customer_again(step: &mut Step, record: &PaymentRecord, stamp: &Stamp<'_>) {
    step.edit(|transaction| {
        transaction.state = TransactionState::RequiresAction;
        transaction.request = None;
        transaction.retries = 0;
        // What a provider holds without a name of its own is not unsent.
        transaction.ever_unknown |= transaction.provider_reference.is_none();
    });
    defer(step, WaitFor::Customer, stamp);
    take_up_waiting_void(step, record, stamp);
    step.advance(PaymentEvent::ActionRequired);
}

/// The attempt's row with its end.
fn ended(
    attempt: &Attempt,
    report: &SendReport,
    cause: Option<Cause>,
    stamp: &Stamp<'_>,
) -> Attempt {
    let outcome = match &report.outcome {
        SendOutcome::Answered(fact) => match (&fact.kind, cause) {
            (FactKind::Approved { .. }, Some(_)) => AttemptOutcome::Unknown,
            (FactKind::Approved { .. }, None) => AttemptOutcome::Approved,
            (FactKind::Declined(_), _) => AttemptOutcome::Declined,
            (FactKind::RequiresAction(_), _) => AttemptOutcome::RequiresAction,
            (FactKind::Pending, _) => AttemptOutcome::Pending,
            (FactKind::Failed(_) | FactKind::TakenBack(_) | FactKind::Expired, _) => {
                AttemptOutcome::Failed
            }
        },
        SendOutcome::NotSent(_) => AttemptOutcome::NotSent,
        SendOutcome::Unknown(_) => AttemptOutcome::Unknown,
    };
    let own_cause = match &report.outcome {
        SendOutcome::NotSent(cause) | SendOutcome::Unknown(cause) => Some(*cause),
        SendOutcome::Answered(_) => cause,
    };
    let whole = report
        .response
        .as_ref()
        .map(|bytes| bytes.expose().as_slice());
    let response_digest = whole.map(|bytes| salted_digest(&attempt.digest_salt, bytes));
    let stored = whole.map(|bytes| bytes.get(..MAX_STORED_RESPONSE).unwrap_or(bytes));
    let response = stored.map(|bytes| Sensitive::new(bytes.to_vec()));
    Attempt {
        ended: Some(AttemptEnd {
            ended_at: stamp.now,
            latency_micros: report.latency_micros,
            outcome,
            cause: own_cause,
            http_status: report.http_status,
            response,
            response_digest,
        }),
        ..attempt.clone()
    }
}
