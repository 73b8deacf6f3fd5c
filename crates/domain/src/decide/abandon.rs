//! A payment that its customer has left: time proves nothing, it only starts a void; and where the provider refuses that,
//! further ones, and in the end a person is asked.

use crate::change::{Change, Write};
use crate::ids::TransactionId;
use crate::journal::Stamp;
use crate::payment::{MAX_TRANSACTIONS, PaymentRecord};
use crate::ports::ProviderRules;
use crate::retry::NextStep;
use crate::text::Text;
use crate::transaction::{
    OperationKind, Transaction, TransactionKind, TransactionOrigin, TransactionState,
};

use super::DecideError;
use super::command::{accept, deadline, transaction};
use super::recover::give_up;
use super::step::Step;
use super::voiding::releases_before;

/// What the void says of itself.
const REASON: &str = "The customer did not finish the payment in time.";
/// Detail of the entry by which a person is asked: how often the provider refused.
const REFUSED: &str = "releases_refused";
/// Detail of the entry by which a person is asked about what was abandoned, and could not be asked about.
const UNASKED: &str = "provider_not_asked";

/// Asks the provider to release a payment whose customer has not acted for as long as the policy allows. `None` where it
/// is not that late, the provider cannot release it before it is authorized, a void is under way, or it was
/// refused: then not before its wait is over, and only as often as is allowed.
///
/// To be decided after the provider was asked, where it can be: what the customer finished is not abandoned.
pub fn abandon(
    record: &PaymentRecord,
    id: TransactionId,
    rules: &dyn ProviderRules,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    let due = match next_release(record, held, stamp) {
        Some(NextStep::At(at)) => at <= stamp.now,
        Some(NextStep::GiveUp) | None => false,
    };
    if !due || void_under_way(record) || !releases_before(record, rules, stamp.now) {
        return Ok(None);
    }
    let until = deadline(None, stamp)?;
    let mut row = transaction(record, TransactionKind::Void, 0, until, stamp);
    row.origin = TransactionOrigin::Service;
    row.reason = Text::parse(REASON).unwrap_or_default();
    let event = "void.accepted".to_owned();
    let step = Step::on(&record.payment, Write::Insert(row), event);
    accept(step, record, None, OperationKind::Void, rules, stamp).map(Some)
}

/// The provider has just refused a void of ours: the payment is taken up when the next one is due, or now where none is,
/// so that a person is asked. That of a caller is the caller's to repeat.
pub(super) fn release_refused(step: &mut Step, record: &PaymentRecord, stamp: &Stamp<'_>) {
    let row = step.subject.row();
    let waits = |opening: &&Transaction| opening.state == TransactionState::RequiresAction;
    let Some(opening) = record.opening().filter(waits) else {
        return;
    };
    if !was_refused(row) {
        return;
    }
    let (refused, _) = refusals(step.after(record));
    let mut opening = opening.clone();
    let next = stamp.retries.released_again(&opening, refused, stamp.now);
    opening.take_up_at(match next {
        NextStep::At(due) => due,
        NextStep::GiveUp => stamp.now,
    });
    step.others.push(opening);
}

/// After a look at a payment whose release was refused: it is taken up again no later than the next release is due, or
/// than the provider wants to be asked; where none is to come, a person is asked.
pub(super) fn after_refusals(step: &mut Step, record: &PaymentRecord, stamp: &Stamp<'_>) {
    let (refused, last) = refusals(record.transactions.iter());
    if last.is_none() || void_under_way(record) {
        // The end of a void says when the payment is taken up again.
        return;
    }
    match next_release(record, step.subject.row(), stamp) {
        Some(NextStep::At(at)) if at > stamp.now => step.edit(|transaction| {
            let due = transaction.next_step_at.unwrap_or(at);
            transaction.take_up_at(due.min(at));
        }),
        // It is due, and could not be started: at the next step, while there is one.
        Some(NextStep::At(_)) if step.subject.row().next_step_at.is_some() => {}
        Some(NextStep::At(_) | NextStep::GiveUp) => {
            step.tell(REFUSED, &refused.to_string());
            give_up(step);
        }
        None => {}
    }
}

/// After a look that may have `failed` at an abandoned payment, while no further one is due: where the provider could not be
/// asked, it is taken up again for a while, and then a person is asked, so that nothing is left without having been released.
pub(super) fn after_failed_look(
    (step, failed): (&mut Step, bool),
    record: &PaymentRecord,
    stamp: &Stamp<'_>,
) {
    let row = step.subject.row();
    let released = void_under_way(record) || refusals(record.transactions.iter()).1.is_some();
    if !failed || row.next_step_at.is_some() || released || may_take_days(record) {
        return;
    }
    let again = stamp.retries.abandoned_again(row, stamp.now, stamp.jitter);
    match again {
        Some(NextStep::At(due)) => step.edit(|transaction| {
            transaction.retries = transaction.retries.saturating_add(1);
            transaction.take_up_at(due);
        }),
        Some(NextStep::GiveUp) => {
            step.tell(UNASKED, "abandoned");
            give_up(step);
        }
        None => {}
    }
}

/// When the provider is asked to release the payment; `None` where it does not wait for its customer, or may for as long
/// as the provider lets it.
fn next_release(
    record: &PaymentRecord,
    opening: &Transaction,
    stamp: &Stamp<'_>,
) -> Option<NextStep> {
    if may_take_days(record) {
        return None;
    }
    let abandoned_at = stamp.retries.abandoned_at(opening)?;
    if record.transactions.len() >= MAX_TRANSACTIONS {
        return Some(NextStep::GiveUp);
    }
    let (refused, last) = refusals(record.transactions.iter());
    let Some(last) = last else {
        return Some(NextStep::At(abandoned_at));
    };
    Some(match stamp.retries.released_again(opening, refused, last) {
        // The customer may have come back meanwhile, and left again.
        NextStep::At(due) => NextStep::At(due.max(abandoned_at)),
        NextStep::GiveUp => NextStep::GiveUp,
    })
}

/// How many voids of ours the provider has refused, and when the last.
fn refusals<'a>(
    rows: impl Iterator<Item = &'a Transaction>,
) -> (u32, Option<chrono::DateTime<chrono::Utc>>) {
    rows.filter(|row| was_refused(row))
        .fold((0, None), |(count, last), row| {
            (count.saturating_add(1), last.max(Some(row.updated_at)))
        })
}

fn was_refused(row: &Transaction) -> bool {
    row.kind == TransactionKind::Void
        && row.origin == TransactionOrigin::Service
        && matches!(
            row.state,
            TransactionState::Declined | TransactionState::Failed
        )
}

fn may_take_days(record: &PaymentRecord) -> bool {
    let action = record.payment.next_action.as_ref();
    action.is_some_and(|action| action.may_take_days)
}

fn void_under_way(record: &PaymentRecord) -> bool {
    let mut all = record.transactions.iter();
    all.any(|row| row.kind == TransactionKind::Void && !row.state.ended())
}
