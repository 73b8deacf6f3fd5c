//! What the provider moved otherwise than it was asked to: I9, never called successful, and a person is asked.

use std::collections::BTreeMap;

use quittance_domain::amounts::Amounts;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::ids::TransactionId;
use quittance_domain::payment::PaymentRecord;
use quittance_domain::transaction::{Transaction, TransactionKind, TransactionState};

use super::cases::Open;
use super::theirs::ended_by_release;
use crate::provider::{Balance, Booked, Status};

/// The operations of a payment that moved another amount than was asked for, and that nobody has said to be right: each
/// waits for a person, or has been undone since.
pub(super) struct Otherwise<'a>(Vec<(&'a Transaction, &'a Booked)>);

impl<'a> Otherwise<'a> {
    /// Those of a payment, of which each has its case.
    pub fn of(
        record: &'a PaymentRecord,
        booked: &'a BTreeMap<TransactionId, Booked>,
        open: &Open,
        violations: &mut Vec<String>,
    ) -> Self {
        let rows = record.transactions.iter();
        let all = rows.filter_map(|row| Some((row, booked.get(&row.id)?)));
        let all = all.filter(|(_, booked)| booked.moved_otherwise());
        let unsaid = all.filter(|(row, booked)| {
            !(row.state == TransactionState::Succeeded && row.amount == booked.amount)
        });
        let unsaid: Vec<_> = unsaid
            .filter(|(row, booked)| !is_undone(row, booked))
            .collect();
        for (row, booked) in &unsaid {
            let (kind, id, state) = (row.kind, row.id, row.state);
            let (asked, moved) = (booked.asked, booked.amount);
            if row.state == TransactionState::Succeeded && !row.resolved_by_operator {
                violations.push(format!("I9: {kind} {id} of {asked} moved {moved}"));
            }
            let asked_about = open.has(row, OperatorActionKind::AmountMismatch)
                || row.resolved_by_operator && open.any(row);
            if !asked_about {
                violations.push(format!(
                    "I9: nobody is asked about {kind} {id} ({state}) of {asked} that moved {moved}"
                ));
            }
        }
        Self(unsaid)
    }

    /// Whether there is none.
    pub fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a transaction is one of them, or a void that waits for one.
    pub fn holds(&self, row: &Transaction) -> bool {
        let waits = row.kind == TransactionKind::Void && row.attempts == 0;
        self.0
            .iter()
            .any(|(held, _)| held.id == row.id || waits && held.kind.opens())
    }

    /// The provider's balance as it would be without them. What they released, and what was released while they waited, is
    /// not compared.
    pub fn without(&self, balance: Balance, ours: &Amounts) -> Balance {
        let mut balance = balance;
        for (row, booked) in &self.0 {
            let moved = if booked.status == Status::Approved {
                booked.amount
            } else {
                0
            };
            match row.kind {
                TransactionKind::Purchase => {
                    balance.authorized -= booked.amount;
                    balance.captured -= moved;
                }
                TransactionKind::Authorization => balance.authorized -= booked.amount,
                TransactionKind::Capture => balance.captured -= moved,
                TransactionKind::Refund => balance.refunded -= moved,
                TransactionKind::Void
                | TransactionKind::Chargeback
                | TransactionKind::ChargebackReversal => {}
            }
        }
        if !self.0.is_empty() {
            balance.voided = ours.voided;
        }
        balance
    }
}

/// Whether it was released since, or taken back; or ran out, after a person had decided it.
fn is_undone(row: &Transaction, booked: &Booked) -> bool {
    // Some providers do not tell what they have not done from what they took back.
    let taken_back = booked.status == Status::TakenBack;
    row.state == TransactionState::Reversed
        || booked.ran_out && row.resolved_by_operator
        || row.state == TransactionState::Failed && (ended_by_release(row) || taken_back)
}
