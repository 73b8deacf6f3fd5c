//! How the provider's books say that a transaction stands, and whether ours say so too.

use std::collections::BTreeMap;

use quittance_domain::decline::Cause;
use quittance_domain::ids::TransactionId;
use quittance_domain::transaction::{Transaction, TransactionKind, TransactionState};

use crate::provider::{Booked, Shape, Status};

/// The provider's books, as far as one payment is concerned.
#[derive(Clone, Copy)]
pub(super) struct Theirs<'a> {
    /// Every operation.
    pub booked: &'a BTreeMap<TransactionId, Booked>,
    /// Whose ways the provider has.
    pub shape: Shape,
    /// Whether the payment's authorization ran out.
    pub ran_out: bool,
}

impl<'a> Theirs<'a> {
    /// A transaction in the books.
    pub fn of(self, row: &Transaction) -> Option<&'a Booked> {
        self.booked.get(&row.id)
    }

    /// Whether it can be learnt how an operation stands: Adyen says nothing of what a void kept from being authorized.
    pub fn tells(self, booked: &Booked) -> bool {
        self.shape != Shape::Adyen || booked.status != Status::Voided
    }

    /// Whether a transaction stands as the books say.
    pub fn agrees(self, row: &Transaction) -> bool {
        let shape = self.shape;
        match (row.state, self.of(row).map(|booked| booked.status)) {
            (TransactionState::Succeeded, Some(Status::Approved))
            | (TransactionState::Declined, Some(Status::Declined))
            | (TransactionState::Failed, None | Some(Status::Voided))
            | (TransactionState::Reversed, Some(Status::TakenBack | Status::Uncaptured)) => true,
            // Some providers do not say why; and what was voided before it was authorized is "cancelled".
            (TransactionState::Failed, Some(Status::Declined))
            | (TransactionState::Declined, Some(Status::Voided)) => shape != Shape::Plain,
            // It does not tell a refund that it has not done from one that it took back. And whoever calls not done what opened
            // a payment, and is taken back, is right about the money.
            (TransactionState::Failed, Some(Status::TakenBack)) => {
                let by_person = row.kind.opens() && row.resolved_by_operator;
                shape == Shape::Stripe || ended_by_release(row) || by_person
            }
            // Released by the void that was believed to have kept it from being made; known only when it had run out; or run
            // out, after a person had called it not done.
            (TransactionState::Failed, Some(Status::Approved)) => {
                let run_out =
                    self.of(row).is_some_and(|booked| booked.ran_out) && row.resolved_by_operator;
                row.kind == TransactionKind::Authorization && (ended_by_release(row) || run_out)
            }
            (TransactionState::Failed, Some(Status::Uncaptured)) => ended_by_release(row),
            // A void that ended with the authorization that it was waiting for was never sent. Stripe's payment is canceled
            // where it ran out, whoever asks for that.
            (TransactionState::Succeeded, None | Some(Status::Declined)) => {
                let never_sent = row.attempts == 0 && self.of(row).is_none();
                let canceled = self.ran_out && shape == Shape::Stripe;
                row.kind == TransactionKind::Void && (never_sent || canceled)
            }
            (
                TransactionState::Pending
                | TransactionState::RequiresAction
                | TransactionState::Succeeded
                | TransactionState::Declined
                | TransactionState::Failed
                | TransactionState::Reversed,
                _,
            ) => false,
        }
    }
}

/// Whether it ended by a void, or by running out.
pub(super) fn ended_by_release(row: &Transaction) -> bool {
    row.failure
        .is_some_and(|failure| matches!(failure.cause, Cause::Voided | Cause::Expired))
}
