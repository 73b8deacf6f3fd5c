//! What the provider does that nobody here asked for.

use quittance_domain::ids::{PaymentId, ProviderAccount, ProviderReference, TransactionId};
use quittance_domain::transaction::{Fact, FactKind, OperationKind, TransactionKind};

use super::facts::eur;
use super::ledger::{Balance, Booked, Ledger, Status};
use super::shape::{Nature, Shape};
use crate::executor::Executor;

/// What the provider did by itself: in its dashboard, or for the bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unasked {
    /// What.
    pub kind: TransactionKind,
    /// Its reference; a chargeback and its reversal share theirs.
    pub reference: String,
    /// On which payment.
    pub payment: PaymentId,
    /// How much, in minor units.
    pub amount: i64,
    /// Through which account.
    pub account: ProviderAccount,
}

impl Unasked {
    pub(super) fn fact(&self) -> Fact {
        Fact {
            kind: FactKind::Approved {
                amount: eur(self.amount),
                expires_at: None,
            },
            provider_reference: ProviderReference::parse(self.reference.as_str()).ok(),
            payment_reference: None,
        }
    }
}

impl Ledger {
    /// Does something to a payment with money in it, by itself: what it did.
    pub(super) fn act(&mut self, executor: &Executor, nature: Nature) -> Vec<Unasked> {
        let opened = self.operations.values();
        let opened = opened.filter(|held| held.opens() && held.status == Status::Approved);
        let opened: Vec<_> = opened
            .map(|booked| (booked.payment, booked.account.clone()))
            .collect();
        let Ok(count @ 1..) = u32::try_from(opened.len()) else {
            return Vec::new();
        };
        let chosen = usize::try_from(executor.pick(0..count)).unwrap_or(0);
        let Some((payment, account)) = opened.get(chosen).cloned() else {
            return Vec::new();
        };
        let reference = format!("by-itself-{}", self.unasked.len());
        let balance = self.balances.entry(payment).or_default();
        let acted: Vec<_> = moved(balance, executor, nature)
            .into_iter()
            .map(|(kind, amount)| Unasked {
                kind,
                reference: reference.clone(),
                payment,
                amount,
                account: account.clone(),
            })
            .collect();
        self.unasked.extend(acted.iter().cloned());
        acted
    }

    /// Takes back something that was done for us: a refund, or a capture that nothing is refunded of.
    pub(super) fn take_back(
        &mut self,
        executor: &Executor,
        nature: Nature,
    ) -> Option<TransactionId> {
        let done = self.operations.iter();
        let done = done.filter(|(_, held)| held.status == Status::Approved);
        let done: Vec<_> = done
            .filter(|(_, held)| self.can_be_taken_back(held, nature))
            .map(|(id, _)| *id)
            .collect();
        let count = u32::try_from(done.len()).ok().filter(|count| *count > 0)?;
        let id = *done.get(usize::try_from(executor.pick(0..count)).unwrap_or(0))?;
        let booked = self.operations.get_mut(&id)?;
        booked.status = Status::TakenBack;
        let (kind, payment, amount) = (booked.kind, booked.payment, booked.amount);
        // An authorization that was released, or ran out, is not there again for what was captured of it before.
        let ran_out = self.expired.contains(&payment);
        let closed = ran_out
            || self.of(payment).any(|other| {
                let closes = other.kind == OperationKind::Void
                    || other.kind == OperationKind::Capture && other.last;
                closes && other.status == Status::Approved
            });
        let balance = self.balances.entry(payment).or_default();
        if kind == OperationKind::Refund {
            balance.refunded -= amount;
            return Some(id);
        }
        balance.captured -= amount;
        if closed {
            balance.voided = balance.authorized - balance.captured;
        }
        Some(id)
    }

    /// Lets what is left of an authorization run out: which.
    pub(super) fn run_out(&mut self, executor: &Executor, nature: Nature) -> Option<TransactionId> {
        let open = self.operations.iter();
        let open = open.filter(|(_, held)| {
            let authorized = held.kind == OperationKind::Authorize;
            authorized && held.status == Status::Approved && self.can_run_out(held, nature)
        });
        let open: Vec<_> = open.map(|(id, held)| (*id, held.payment)).collect();
        let count = u32::try_from(open.len()).ok().filter(|count| *count > 0)?;
        let (id, payment) = *open.get(usize::try_from(executor.pick(0..count)).unwrap_or(0))?;
        let balance = self.balances.entry(payment).or_default();
        balance.voided = balance.authorized - balance.captured;
        self.expired.insert(payment);
        if let Some(held) = self.operations.get_mut(&id) {
            held.ran_out = true;
        }
        Some(id)
    }

    /// Whether something is left, and nothing is under way that was judged by it. Where a lookup says that it ran out, and no
    /// more, nothing was captured of it that is told only once it is known to be authorized.
    fn can_run_out(&self, booked: &Booked, nature: Nature) -> bool {
        let balance = self.balance(booked.payment);
        let mut by_itself = self.unasked.iter();
        let rests = self
            .of(booked.payment)
            .any(|other| other.status == Status::Pending)
            || by_itself.any(|unasked| unasked.payment == booked.payment);
        balance.captured + balance.voided < balance.authorized
            && !(rests && nature.shape == Shape::Plain)
    }

    fn can_be_taken_back(&self, booked: &Booked, nature: Nature) -> bool {
        let balance = self.balance(booked.payment);
        let refunds = self
            .of(booked.payment)
            .any(|other| other.kind == OperationKind::Refund && other.status == Status::Pending);
        let untouched = balance.refunded == 0 && balance.charged_back == 0 && !refunds;
        match (booked.kind, nature.shape) {
            (OperationKind::Refund, _) => true,
            // The capture of a purchase is a part of it.
            (OperationKind::Capture, Shape::Plain | Shape::Adyen)
            | (OperationKind::Purchase, Shape::Adyen) => untouched,
            (OperationKind::Capture, Shape::Stripe)
            | (OperationKind::Purchase, Shape::Plain | Shape::Stripe)
            | (OperationKind::Authorize | OperationKind::Confirm | OperationKind::Void, _) => false,
        }
    }
}

/// Moves something of a payment, and says what.
fn moved(
    balance: &mut Balance,
    executor: &Executor,
    nature: Nature,
) -> Vec<(TransactionKind, i64)> {
    let amount = i64::from(executor.pick(1..60));
    match executor.pick(0..4) {
        0 if balance.captured + balance.voided + amount <= balance.authorized => {
            balance.captured += amount;
            if !nature.several_captures {
                balance.voided = balance.authorized - balance.captured;
            }
            vec![(TransactionKind::Capture, amount)]
        }
        1 if balance.captured > 0 => {
            let mut acted = vec![(TransactionKind::Chargeback, balance.captured)];
            if executor.chance(500) {
                acted.push((TransactionKind::ChargebackReversal, balance.captured));
            }
            if balance.charged_back > 0 {
                // Once is enough: the bank cannot take it twice.
                acted.clear();
            } else if acted.len() == 1 {
                balance.charged_back = balance.captured;
            }
            acted
        }
        _ if balance.refunded + amount <= balance.captured => {
            balance.refunded += amount;
            vec![(TransactionKind::Refund, amount)]
        }
        _ => Vec::new(),
    }
}
