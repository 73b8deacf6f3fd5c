//! Voids of what is not authorized yet: whether the provider can be asked, and what else is not done then.

use chrono::{DateTime, TimeDelta, Utc};

use crate::command::DEFAULT_EXECUTE_WITHIN;
use crate::payment::{PaymentRecord, PaymentState};
use crate::ports::{ProviderRules, VoidBefore};
use crate::transaction::{Fact, FactKind, Transaction, TransactionKind, TransactionState};

/// Whether a void can be sent before the payment is authorized. Not while a send of its opening may still arrive: a void
/// that comes before it would release nothing.
pub(super) fn releases_before(
    record: &PaymentRecord,
    rules: &dyn ProviderRules,
    now: DateTime<Utc>,
) -> bool {
    let payment = &record.payment;
    let waits = payment.state == PaymentState::RequiresAction;
    match rules.capabilities().void_before_authorization {
        VoidBefore::Never => false,
        VoidBefore::Named => waits && payment.provider_reference.is_some(),
        VoidBefore::Ours => may_be_there(record)
            .is_some_and(|opening| opening.lease_until.is_none_or(|until| until <= now)),
    }
}

/// When a void that was accepted before the authorization can be sent, though nothing becomes known of that; `None`
/// where it waits for that alone.
pub(super) fn releases_from(
    record: &PaymentRecord,
    rules: &dyn ProviderRules,
) -> Option<DateTime<Utc>> {
    let by_our_name = rules.capabilities().void_before_authorization == VoidBefore::Ours;
    may_be_there(record).filter(|_| by_our_name)?.lease_until
}

/// The opening of a payment that is not decided, where the provider may hold it.
fn may_be_there(record: &PaymentRecord) -> Option<&Transaction> {
    let open = matches!(
        record.payment.state,
        PaymentState::Pending | PaymentState::RequiresAction
    );
    let undecided = |opening: &&Transaction| !opening.state.ended();
    let opening = record.opening().filter(undecided)?;
    (open && !opening.certainly_unprocessed()).then_some(opening)
}

/// The void that waits for this payment's authorization, if one does.
pub(super) fn pending_void(record: &PaymentRecord) -> Option<&Transaction> {
    let waiting = matches!(
        record.payment.state,
        PaymentState::Pending | PaymentState::RequiresAction
    );
    record.transactions.iter().find(|transaction| {
        transaction.kind == TransactionKind::Void
            && transaction.state == TransactionState::Pending
            && waiting
    })
}

/// Whether what is told of a void that was not done is the success of another one, which is known: a provider that has no
/// name of its own for a void tells of whichever released the payment.
pub(super) fn released_by_another(record: &PaymentRecord, held: &Transaction, fact: &Fact) -> bool {
    let not_done = matches!(
        held.state,
        TransactionState::Declined | TransactionState::Failed
    );
    let told_done = matches!(fact.kind, FactKind::Approved { .. });
    let named = fact.provider_reference.as_ref();
    let by_another = record.transactions.iter().any(|other| {
        let succeeded = other.kind == held.kind && other.state == TransactionState::Succeeded;
        other.id != held.id && succeeded && other.provider_reference.as_ref() == named
    });
    held.kind == TransactionKind::Void && not_done && told_done && named.is_some() && by_another
}

/// Whether a payment that is not decided was to be voided, so that nothing of it is sent (again): also where the provider
/// had nothing to release when it was asked, since it could only be sent for the first time now. What the customer was
/// asked to do may still be confirmed after that: it is at the provider.
pub(super) fn void_asked(record: &PaymentRecord) -> bool {
    let confirmed_at = record
        .payment
        .next_action
        .as_ref()
        .and_then(|_| record.opening())
        .map(confirmed_at);
    let refused = |held: &Transaction| {
        let ended = matches!(
            held.state,
            TransactionState::Declined | TransactionState::Failed
        );
        let later = confirmed_at.is_none_or(|at| held.created_at >= at);
        held.kind == TransactionKind::Void && held.attempts > 0 && ended && later
    };
    let undecided = record.payment.state == PaymentState::Pending;
    pending_void(record).is_some() || undecided && record.transactions.iter().any(refused)
}

/// When an opening whose customer was asked to act was confirmed: its confirmation is carried out within the default time.
fn confirmed_at(opening: &Transaction) -> DateTime<Utc> {
    let within = TimeDelta::from_std(DEFAULT_EXECUTE_WITHIN).unwrap_or_default();
    opening
        .execute_before
        .checked_sub_signed(within)
        .unwrap_or(opening.created_at)
}
