//! What is told and asks a person: of what may be a second payment, by an account that the payment has left, or of another
//! payment at the provider that bears our names; and what does not say what was moved.

use quittance_evidence::EntryResult;

use crate::change::{Change, Write};
use crate::ids::{ProviderAccount, ProviderReference, TransactionId};
use crate::journal::Stamp;
use crate::payment::PaymentRecord;
use crate::transaction::{Fact, FactKind, Transaction, TransactionKind};

use super::DecideError;
use super::attempt::prefix;
use super::step::Step;

/// How what was told to be done is put on record.
const APPROVED: &str = "APPROVED";

/// Records what an account says about a transaction that was proved not sent through it, and went to another: a
/// case for a person, since it may have been carried out twice. `None` where it says that nothing was done, or
/// where that is on record and its case open.
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
    contradicted_by(record, held, (account, held.kind), fact, stamp)
}

/// Records what was told of another payment at the provider that bears our names: a case for a person, since the
/// customer may have paid twice. `None` where it says that nothing was done, or that it was undone, or where that is on
/// record and its case open. `kind` is what was done there.
pub(crate) fn told_of_another(
    record: &PaymentRecord,
    id: TransactionId,
    (kind, fact): (TransactionKind, &Fact),
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let held = record
        .transaction(id)
        .ok_or(DecideError::NoTransaction(id))?;
    contradicted_by(record, held, (&held.provider_account, kind), fact, stamp)
}

/// Records that a capture or refund of ours, which is known to be done, was told to be done under another name: a case for a
/// person, since it may have been done twice. `None` where that is on record and its case open.
pub(crate) fn told_by_another_name(
    record: &PaymentRecord,
    held: &Transaction,
    fact: &Fact,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let named = fact.provider_reference.as_ref();
    let told = (APPROVED, named, APPROVED);
    put_on_record(record, held, &held.provider_account, told, stamp)
}

/// A case for a person: what an account says may be a second payment.
fn contradicted_by(
    record: &PaymentRecord,
    held: &Transaction,
    (account, kind): (&ProviderAccount, TransactionKind),
    fact: &Fact,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let Some(told) = taking(kind, &fact.kind) else {
        return Ok(None);
    };
    let named = fact.payment_reference.as_ref();
    let named = named.or(fact.provider_reference.as_ref());
    let line = format!("{kind} {told}");
    put_on_record(record, held, account, (told, named, &line), stamp)
}

/// Records what the provider did, in words that do not say what was moved: a case for a person, about the transaction that
/// has the name which it gives, else about what opened the payment. `None` where that is on record and its case open.
pub(crate) fn told_unclearly(
    record: &PaymentRecord,
    (account, event): (&ProviderAccount, &str),
    fact: &Fact,
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let named = fact.provider_reference.as_ref();
    let mut rows = record.transactions.iter();
    let meant = rows.find(|row| named.is_some() && row.provider_reference.as_ref() == named);
    let Some(held) = meant.or_else(|| record.opening()) else {
        return Ok(None);
    };
    put_on_record(record, held, account, (event, named, event), stamp)
}

/// Opens a case about what an account told: once for this `line` of it and the name that it gives.
fn put_on_record(
    record: &PaymentRecord,
    held: &Transaction,
    account: &ProviderAccount,
    (told, named, line): (&str, Option<&ProviderReference>, &str),
    stamp: &Stamp<'_>,
) -> Result<Option<Change>, DecideError> {
    let event = format!("{}.contradicted", prefix(held.kind));
    let mut step = Step::on(&record.payment, Write::Update(held.clone()), event);
    step.by_provider();
    if let Some(actor) = &mut step.actor {
        account.as_str().clone_into(&mut actor.id);
    }
    step.result = EntryResult::Unknown;
    step.tell("told_by_account", account.as_str());
    let named = named.map_or("", |reference| reference.as_str());
    step.tell("told_reference", named);
    step.tell("told_fact", told);
    if !step.contradict(&format!("{line} {account} {named}")) {
        return Ok(None);
    }
    step.close(Some(record), None, stamp).map(Some)
}

/// What is told of what may be a second payment, where that takes money from the customer, or from us, or may: it was not
/// refused, and does not give back or release what was taken.
fn taking(kind: TransactionKind, told: &FactKind) -> Option<&'static str> {
    let takes = match kind {
        TransactionKind::Purchase
        | TransactionKind::Authorization
        | TransactionKind::Capture
        | TransactionKind::Chargeback => true,
        TransactionKind::Void | TransactionKind::Refund | TransactionKind::ChargebackReversal => {
            false
        }
    };
    let told = match told {
        FactKind::Approved { .. } => APPROVED,
        FactKind::RequiresAction(_) => "REQUIRES_ACTION",
        FactKind::Pending => "PENDING",
        FactKind::Declined(_)
        | FactKind::Failed(_)
        | FactKind::TakenBack(_)
        | FactKind::Expired => return None,
    };
    takes.then_some(told)
}
