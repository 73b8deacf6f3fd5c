//! What a person decided: they may err, and others may have built upon it. Still nothing is lost.

use quittance_domain::payment::{PaymentRecord, PaymentState};
use quittance_domain::transaction::{
    Transaction, TransactionKind, TransactionOrigin, TransactionState,
};

use super::cases::Open;
use super::theirs::{Theirs, ended_by_release};
use crate::provider::{Balance, Shape, Status};

/// Where the provider's books and ours differ about a transaction, a case is open about it, or a person decided it and the
/// provider has nothing to say about it. Beside what those transactions moved, here or there, the amounts differ by no more
/// than the excess, which has a case of its own.
pub(super) fn nothing_is_lost(
    record: &PaymentRecord,
    theirs: Theirs<'_>,
    balance: &Balance,
    open: &Open,
    violations: &mut Vec<String>,
) {
    let waits_for = record.opening().filter(|row| !row.state.ended());
    for row in own(record).filter(|row| !theirs.agrees(row)) {
        let booked = theirs.of(row);
        // What is in its books can be asked for, or is told.
        let told = booked.is_some_and(|booked| theirs.tells(booked));
        let only_decided = row.resolved_by_operator && !told;
        // The case about what is taken back by a void, or believed to be kept from being made by it, is about that void.
        let mut voids = record.transactions.iter();
        let asked_about_void = voids.any(|it| it.kind == TransactionKind::Void && open.any(it));
        let taken_back = row.state == TransactionState::Reversed;
        let by_void = ended_by_release(row) && (taken_back || asked_about_void);
        // Stripe's payment is canceled, whichever void asked for that.
        let by_another = theirs.shape == Shape::Stripe
            && row.kind == TransactionKind::Void
            && row.state == TransactionState::Failed
            && record.payment.state == PaymentState::Voided;
        let waits = row.kind == TransactionKind::Void && row.attempts == 0;
        let asked = open.any(row) || waits && waits_for.is_some_and(|opening| open.any(opening));
        if !only_decided && !asked && !by_void && !by_another {
            let (kind, id, state) = (row.kind, row.id, row.state);
            let status = booked.map(|booked| booked.status);
            violations.push(format!(
                "{kind} {id} is {state}, at the provider {status:?}, and nobody is asked"
            ));
        }
    }
    let amounts = &record.payment.amounts;
    let (captured, refunded) = moved(record, theirs);
    let beside = [
        amounts.captured - balance.captured - captured,
        amounts.refunded - balance.refunded - refunded,
        amounts.charged_back - balance.charged_back,
    ];
    if beside.iter().any(|beside| beside.abs() > amounts.excess) {
        let id = record.payment.id;
        violations.push(format!(
            "{id}: we say {amounts:?}, the provider {balance:?}, which is not what was decided"
        ));
    }
}

fn own(record: &PaymentRecord) -> impl Iterator<Item = &Transaction> {
    let rows = record.transactions.iter();
    rows.filter(|row| row.origin != TransactionOrigin::Provider)
}

/// By how much what our transactions captured and refunded here exceeds what they did there.
fn moved(record: &PaymentRecord, theirs: Theirs<'_>) -> (i64, i64) {
    let mut all = (0, 0);
    for row in own(record) {
        let here = if row.state == TransactionState::Succeeded {
            row.amount
        } else {
            0
        };
        let booked = theirs.of(row);
        let there = booked.filter(|booked| booked.status == Status::Approved);
        let more = here - there.map_or(0, |booked| booked.amount);
        match row.kind {
            TransactionKind::Purchase | TransactionKind::Capture => all.0 += more,
            TransactionKind::Refund => all.1 += more,
            TransactionKind::Authorization
            | TransactionKind::Void
            | TransactionKind::Chargeback
            | TransactionKind::ChargebackReversal => {}
        }
    }
    all
}
