//! What is told of what may be a second payment: by an account that the payment has left, or of another payment at the
//! provider that bears our names.

use quittance_evidence::EntryResult;

use crate::change::{Change, OperatorActionKind, Write};
use crate::ids::{ProviderAccount, TransactionId};
use crate::journal::Stamp;
use crate::payment::{Payment, PaymentRecord};
use crate::transaction::{Fact, FactKind, Transaction};

use super::DecideError;
use super::attempt::prefix;
use super::step::Step;

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
    contradicted_by(record, held, account, fact, stamp)
}

/// Whether a fact about the opening of a payment speaks of another payment at the provider than the one that is known
/// to be ours.
pub(crate) fn names_another(held: &Transaction, fact: &Fact) -> bool {
    let known = held.provider_reference.as_ref();
    let told = fact.provider_reference.as_ref();
    held.kind.opens() && known.zip(told).is_some_and(|(known, told)| known != told)
}

/// Whether a fact speaks of another payment at the provider than the one that is known to be ours.
pub(super) fn of_another_payment(payment: &Payment, fact: &Fact) -> bool {
    let known = payment.provider_reference.as_ref();
    let told = fact.payment_reference.as_ref();
    known.zip(told).is_some_and(|(known, told)| known != told)
}

/// Records what was told of another payment at the provider that bears our names: a case for a person, since the
/// customer may have paid twice. `None` where it says that nothing was done, or where that case is open already.
pub(crate) fn told_of_another(
    record: &PaymentRecord,
    id: TransactionId,
    fact: &Fact,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    contradicted_by(record, held, &held.provider_account, fact, stamp)
}

/// A case for a person: what an account says may be a second payment.
fn contradicted_by(
    record: &PaymentRecord,
    held: &Transaction,
    account: &ProviderAccount,
    fact: &Fact,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let harmless = match &fact.kind {
        FactKind::Declined(_)
        | FactKind::Failed(_)
        | FactKind::TakenBack(_)
        | FactKind::Expired => true,
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
    step.close(Some(record), None, stamp).map(Some)
}
