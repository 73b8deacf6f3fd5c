//! How the provider names a payment and what is done with it; and which payment there a fact is about.

use crate::ids::ProviderReference;
use crate::payment::{Payment, PaymentRecord};
use crate::transaction::{
    Fact, FactKind, Transaction, TransactionKind, TransactionOrigin, TransactionState,
};

use super::step::Step;

/// Which payment at the provider a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meant {
    /// The one that is ours, as far as is known.
    Ours,
    /// Another one, which bears our names.
    Another,
    /// One that is not known to be ours: what opens it has to be told first.
    NotYetOurs,
}

/// Which payment at the provider a fact is about: `held` is the transaction that it names, `None` where it names an
/// operation by its own reference.
///
/// A provider that can be asked (`named_once`) names a payment once and for all. Of others the name is known when it is
/// decided: until then what opens a payment may still give it another name, and nothing else may.
pub(crate) fn payment_meant(
    record: &PaymentRecord,
    held: Option<&Transaction>,
    fact: &Fact,
    named_once: bool,
) -> Meant {
    let opening = held.filter(|held| held.kind.opens());
    let renamed = named_once && opening.is_some_and(|held| names_another(held, fact));
    // A person's word of it proves nothing.
    let of_another = !record.payment.named_by_operator && of_another_payment(&record.payment, fact);
    if !renamed && !of_another {
        return Meant::Ours;
    }
    if named_once || record.opening().is_some_and(settled) {
        return Meant::Another;
    }
    let opens = match &fact.kind {
        FactKind::Approved { .. }
        | FactKind::Declined(_)
        | FactKind::RequiresAction(_)
        | FactKind::Pending => opening.is_some(),
        FactKind::Failed(_) | FactKind::TakenBack(_) | FactKind::Expired => false,
    };
    if opens {
        Meant::Ours
    } else {
        Meant::NotYetOurs
    }
}

/// Whether it is decided which payment at the provider is ours.
fn settled(opening: &Transaction) -> bool {
    matches!(
        opening.state,
        TransactionState::Succeeded | TransactionState::Reversed
    )
}

/// Whether a fact about a transaction gives it another name than the one that is known.
fn names_another(held: &Transaction, fact: &Fact) -> bool {
    let known = held.provider_reference.as_ref();
    let told = fact.provider_reference.as_ref();
    known.zip(told).is_some_and(|(known, told)| known != told)
}

/// Whether a fact speaks of another payment at the provider than the one that is known to be ours.
pub(super) fn of_another_payment(payment: &Payment, fact: &Fact) -> bool {
    let known = payment.provider_reference.as_ref();
    let told = fact.payment_reference.as_ref();
    known.zip(told).is_some_and(|(known, told)| known != told)
}

/// Whether a fact tells a capture or refund of ours to be done under another name than the one that is known to be done: the
/// provider may have done it twice. It has one name from its first answer to its last event. What a person called it proves
/// nothing; and what the provider did by itself is known by its name.
pub(crate) fn done_by_another_name(held: &Transaction, fact: &Fact) -> bool {
    let ours = held.origin != TransactionOrigin::Provider && !held.resolved_by_operator;
    let moves = matches!(
        held.kind,
        TransactionKind::Capture | TransactionKind::Refund
    );
    let done =
        matches!(fact.kind, FactKind::Approved { .. }) && held.state == TransactionState::Succeeded;
    ours && moves && done && names_another(held, fact)
}

/// Whether a fact brings a reference of the provider's that is not known yet.
pub(super) fn names_anew(step: &Step, fact: &Fact) -> bool {
    let new = |told: &Option<_>, held: &Option<_>| told.is_some() && told != held;
    new(
        &fact.provider_reference,
        &step.subject.row().provider_reference,
    ) || new(&fact.payment_reference, &step.payment.provider_reference)
}

/// Whether a fact names what has no name of the provider's yet.
pub(super) fn names_first(step: &Step, fact: &Fact) -> bool {
    let row = step.subject.row();
    let operation = row.provider_reference.is_none() && fact.provider_reference.is_some();
    let unnamed = step.payment.provider_reference.is_none() || step.payment.named_by_operator;
    operation || unnamed && fact.payment_reference.is_some() && row.kind.opens()
}

/// Whether a person can name what opens a payment: where the provider has not, or what it named was not done, and they say
/// that something was.
pub(super) fn can_be_named(record: &PaymentRecord) -> bool {
    let not_done = |opening: &Transaction| {
        matches!(
            opening.state,
            TransactionState::Declined | TransactionState::Failed
        )
    };
    record.payment.provider_reference.is_none()
        || record.payment.named_by_operator
        || record.opening().is_some_and(not_done)
}

/// Takes over what a person calls a payment.
pub(super) fn name_by_person(
    step: &mut Step,
    record: &PaymentRecord,
    named: Option<&ProviderReference>,
) {
    let opens = step.subject.row().kind.opens();
    if let Some(named) = named.filter(|_| opens && can_be_named(record)) {
        step.payment.provider_reference = Some(named.clone());
        step.payment.named_by_operator = true;
    }
}

/// The person's word that a payment was done is taken back, and with it what they called it.
pub(super) fn unname(step: &mut Step) {
    if !step.payment.named_by_operator {
        return;
    }
    let named = step.payment.provider_reference.take();
    step.payment.named_by_operator = false;
    if step.subject.row().provider_reference == named {
        step.edit(|opening| opening.provider_reference = None);
    }
}

/// Takes over the names that the provider gives. That of a payment stays, once it is known: only what opens it, and is not
/// done yet, can give it another one. What a person called it is replaced; that an operation on it repeats what it was sent to
/// confirms nothing.
pub(super) fn take_references(step: &mut Step, fact: &Fact) {
    let row = step.subject.row();
    let opens = row.kind.opens() && !settled(row);
    let payment = &step.payment;
    let known = payment.provider_reference.is_some() && !payment.named_by_operator;
    let repeated = payment.provider_reference == fact.payment_reference && !row.kind.opens();
    let named = fact.payment_reference.as_ref();
    if let Some(reference) = named.filter(|_| opens || !known && !repeated) {
        step.payment.provider_reference = Some(reference.clone());
        step.payment.named_by_operator = false;
    }
    if let Some(reference) = &fact.provider_reference {
        step.edit(|transaction| transaction.provider_reference = Some(reference.clone()));
    }
}
