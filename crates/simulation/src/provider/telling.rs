//! What the provider tells by webhook: after any time, up to three times, so in any order.

use std::time::Duration;

use quittance_domain::ids::{ProviderAccount, TransactionId};
use quittance_domain::text::Text;
use quittance_domain::transaction::{Dispute, OperationKind};
use quittance_domain::webhook::{PaymentName, Subject, WebhookFact};

use super::SimProvider;
use super::facts::{eur, ran_out, told};
use super::ledger::{Booked, Status};
use super::unasked::Unasked;
use crate::executor::WORLD;

/// The latest that a webhook comes.
const MAX_WEBHOOK_DELAY: Duration = Duration::from_secs(40);

impl SimProvider {
    /// Tells how an operation stands: perhaps, where it can be asked; else for sure.
    pub(super) fn tell_outcome(&self, id: TransactionId) {
        let chance = self.chaos.lock().webhooks;
        if !self.nature.can_be_asked() || self.executor.chance(chance) {
            self.tell_for_sure(id);
        }
    }

    pub(super) fn tell_for_sure(&self, id: TransactionId) {
        if let Some(booked) = self.books.lock().operations.get(&id).cloned() {
            self.tell(id, &booked);
        }
    }

    fn tell(&self, id: TransactionId, booked: &Booked) {
        let Some((subject, fact)) = told(id, booked, self.nature) else {
            return;
        };
        let payment = PaymentName::Ours(booked.payment);
        self.deliver(
            &booked.account,
            &WebhookFact {
                payment,
                subject,
                fact,
            },
        );
    }

    /// Tells again what is not to be learnt by asking: a server that died may have been the only one to hear of it. What it did
    /// by itself, what it took back, and all that it did, or let run out, where it cannot be asked.
    pub fn tell_again(&self) {
        for unasked in self.unasked() {
            self.tell_unasked(&unasked);
        }
        for (id, booked) in self.operations() {
            if !self.nature.can_be_asked() {
                self.tell_expiry(id, &booked);
            }
            if booked.status == Status::TakenBack && booked.opens() {
                // That it had been authorized is an event of its own.
                let status = Status::Approved;
                self.tell(
                    id,
                    &Booked {
                        status,
                        ..booked.clone()
                    },
                );
            }
            if booked.status == Status::TakenBack || !self.nature.can_be_asked() {
                self.tell_for_sure(id);
            }
        }
    }

    pub(super) fn tell_unasked(&self, unasked: &Unasked) {
        let amount = eur(unasked.amount);
        let dispute = unasked.kind.disputes().then_some(amount).flatten();
        let subject = Subject::Operation {
            kind: unasked.kind,
            dispute: dispute.map(|amount| Dispute {
                reason: Text::default(),
                due_at: None,
                amount,
            }),
        };
        let told = WebhookFact {
            payment: PaymentName::Ours(unasked.payment),
            subject,
            fact: unasked.fact(),
        };
        self.deliver(&unasked.account, &told);
    }

    /// Tells that an authorization ran out, if it did.
    pub(super) fn tell_expiry(&self, id: TransactionId, booked: &Booked) {
        let authorizes = booked.kind == OperationKind::Authorize;
        if authorizes && self.ran_out(booked.payment) {
            let told = WebhookFact {
                payment: PaymentName::Ours(booked.payment),
                subject: Subject::Transaction(id),
                fact: ran_out(id, booked, self.nature),
            };
            self.deliver(&booked.account, &told);
        }
    }

    fn deliver(&self, account: &ProviderAccount, told: &WebhookFact) {
        let Some(listener) = self.listener.lock().clone() else {
            return;
        };
        for _ in 0..self.executor.pick(1..4) {
            let (executor, listener) = (self.executor.clone(), listener.clone());
            let (account, told) = (account.clone(), told.clone());
            self.executor.spawn(WORLD, async move {
                executor.wait_up_to(MAX_WEBHOOK_DELAY).await;
                listener(account, told);
            });
        }
    }
}
