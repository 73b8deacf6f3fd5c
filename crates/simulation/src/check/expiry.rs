//! What ran out at the provider has run out here, and nothing else has.

use quittance_domain::payment::{PaymentRecord, PaymentState};
use quittance_domain::transaction::{TransactionKind, TransactionState};

/// A payment whose authorization ran out ends EXPIRED where nothing is captured, else captured; and nothing of it can be
/// captured any more. One whose authorization did not is not called expired.
pub(super) fn ended_as_it_ran_out(
    record: &PaymentRecord,
    ran_out: bool,
    violations: &mut Vec<String>,
) {
    let (id, state) = (record.payment.id, record.payment.state);
    if !ran_out {
        if state == PaymentState::Expired {
            violations.push(format!("{id} is {state}, and did not run out"));
        }
        return;
    }
    let mut rows = record.transactions.iter();
    let voided = rows
        .any(|row| row.kind == TransactionKind::Void && row.state == TransactionState::Succeeded);
    let ends = match state {
        PaymentState::Expired
        | PaymentState::Captured
        | PaymentState::PartiallyRefunded
        | PaymentState::Refunded => true,
        PaymentState::Voided => voided,
        PaymentState::Pending
        | PaymentState::RequiresAction
        | PaymentState::Authorized
        | PaymentState::PartiallyCaptured
        | PaymentState::Declined
        | PaymentState::Failed => false,
    };
    if !ends || record.payment.amounts.capturable() > 0 {
        violations.push(format!("{id} ran out, and is {state}"));
    }
}
