//! Decide purely: (payment, command or outcome, stamp) → [`Change`] or a typed rejection.
//!
//! No I/O, no clock, no randomness: ids, salts and time come in with the [`Stamp`](crate::journal::Stamp). The flows execute what
//! is decided here, and decide again where the payment has moved meanwhile.

mod abandon;
mod another;
mod attempt;
mod command;
mod create;
mod done;
mod fact;
mod names;
mod operator;
mod outcome;
mod recover;
mod resend;
mod step;
mod unasked;
mod undone;
mod voiding;
mod watch;

#[cfg(test)]
mod tests;

use quittance_evidence::LeafError;
use thiserror::Error;

use crate::change::{Change, CommandKind, Write};
use crate::error::Rejection;
use crate::fingerprint::Fingerprint;
use crate::ids::{IdempotencyKey, TransactionId};
use crate::payment::PaymentRecord;
use crate::ports::Unpreparable;
use crate::transaction::Transaction;

pub use abandon::abandon;
pub use another::told_by_former_account;
pub(crate) use another::{told_by_another_name, told_of_another, told_unclearly};
pub(crate) use attempt::{can_be_sent, may_fail_over, next_operation};
pub use attempt::{fail_over, start_attempt};
pub use command::{capture, confirm, refund, void};
pub use create::{NewPayment, create};
pub use fact::{confirmation_lost, fact};
pub(crate) use fact::{
    confirmation_open, confirmation_waits, end_unsaid, fact_about, made_before_it_ran_out,
    taken_back_early, tells_details,
};
pub(crate) use names::{Meant, done_by_another_name, payment_meant};
pub use operator::{resolve, retry};
pub use outcome::outcome;
pub(crate) use recover::still_wanted;
pub use recover::{
    give_up_unsent, held_off, key_expired, refuted_by_lookup, sender_lost, too_late_to_begin,
    unresolved,
};
pub(crate) use resend::is_named;
pub use resend::{KeyAlive, MaySend, ProvedUnsent, Quiet};
pub use unasked::{Reported, Unasked, reported, unasked};

/// How long whoever learns of an authorization may take to send the void that waited for it, before recovery
/// does.
const WAITING_VOID_SENT_WITHIN: chrono::TimeDelta = chrono::TimeDelta::seconds(5);

/// Why nothing was decided.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecideError {
    /// The command is not allowed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The entry cannot be written down: a defect.
    #[error("journal entry: {0}")]
    Journal(#[from] LeafError),
    /// The transaction is not the payment's: a defect.
    #[error("no transaction {0} in this payment")]
    NoTransaction(TransactionId),
}

impl From<Unpreparable> for DecideError {
    fn from(error: Unpreparable) -> Self {
        Self::Rejected(error.into())
    }
}

/// The idempotency part of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The caller's key.
    pub key: IdempotencyKey,
    /// Which RPC.
    pub command: CommandKind,
    /// The request, as keyed MACs.
    pub fingerprint: Fingerprint,
    /// The key's keyed digest, for the journal.
    pub key_digest: [u8; 32],
}

impl Change {
    /// The transaction that the change is about: the one its journal entry names.
    pub fn subject(&self) -> Option<TransactionId> {
        self.entry.transaction
    }

    /// The record after the change, given the record before it (`None` for a new payment).
    pub fn apply_to(&self, before: Option<PaymentRecord>) -> PaymentRecord {
        let mut transactions = before.map(|record| record.transactions).unwrap_or_default();
        for write in &self.transactions {
            match write {
                Write::Insert(row) => {
                    // In the order in which the database gives them: another replica's clock may be behind.
                    let order = |row: &Transaction| (row.created_at, row.id);
                    let at = transactions.partition_point(|held| order(held) < order(row));
                    transactions.insert(at, row.clone());
                }
                Write::Update(row) => {
                    if let Some(held) = transactions.iter_mut().find(|held| held.id == row.id) {
                        held.clone_from(row);
                    }
                }
            }
        }
        PaymentRecord {
            payment: self.payment.clone(),
            transactions,
        }
    }
}
