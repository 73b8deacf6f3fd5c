//! How the provider deals with requests, and decides what it did not decide at once.

use std::time::Duration;

use chrono::TimeDelta;
use quittance_domain::decline::Cause;
use quittance_domain::ids::TransactionId;
use quittance_domain::transaction::{OperationKind, SendOutcome};

use super::facts::{fact, received};
use super::ledger::{Booked, Ledger, Remembered, Status, opens};
use super::shape::Shape;
use super::wire::Wire;
use super::{ProviderChaos, SimProvider};
use crate::executor::WORLD;

/// The latest that what was received is decided.
const DECIDES_WITHIN: Duration = Duration::from_secs(20);
/// The latest that a customer acts who does.
const CUSTOMER_ACTS_WITHIN: Duration = Duration::from_secs(60);

impl SimProvider {
    /// Takes a request that has arrived.
    pub(super) fn process(&self, request: &[u8]) -> Option<SendOutcome> {
        let wire = Wire::read(request)?;
        let chaos = *self.chaos.lock();
        let roll = self.executor.pick(0..1_000);
        let mut books = self.books.lock();
        let now = self.executor.now();
        let key = (self.account.clone(), wire.transaction, wire.confirmation);
        let kept = TimeDelta::from_std(self.nature.keys_kept).unwrap_or(TimeDelta::MAX);
        let known = books.keys.get(&key).cloned();
        let known = known.filter(|known| now - known.since < kept && !self.only_asks(&wire));
        if let Some(known) = known {
            if known.request != request {
                books.violations.push(format!(
                    "I2: {} was sent with other bytes",
                    wire.transaction
                ));
            }
            return match self.nature.shape {
                Shape::Plain => self.standing(&books, &wire),
                Shape::Stripe | Shape::Adyen => known.answer,
            };
        }
        let answer = self.carry_out(&mut books, &wire, roll, chaos);
        let remembered = Remembered {
            request: request.to_vec(),
            since: now,
            answer: answer.clone(),
        };
        // What was refused before it was processed leaves nothing.
        if !matches!(answer, Some(SendOutcome::NotSent(_))) {
            books.keys.insert(key, remembered);
        }
        answer
    }

    /// Whether a request only asks how the payment stands: what the customer did is at the provider already.
    fn only_asks(&self, wire: &Wire) -> bool {
        self.nature.shape == Shape::Stripe && wire.kind == OperationKind::Confirm
    }

    fn carry_out(
        &self,
        books: &mut Ledger,
        wire: &Wire,
        roll: u32,
        chaos: ProviderChaos,
    ) -> Option<SendOutcome> {
        if wire.kind == OperationKind::Confirm {
            // Whoever comes back has not always finished.
            if !self.only_asks(wire) || self.executor.chance(800) {
                books.confirm(wire.transaction, roll < chaos.declines);
            }
            return self.standing(books, wire);
        }
        let mut wire_booked = wire.clone();
        wire_booked.last |= wire.kind == OperationKind::Capture && !self.nature.several_captures;
        wire_booked.moves = self.moves(wire, chaos);
        let wire = &wire_booked;
        let at = (&self.account, self.executor.now());
        let judged = books.judge(wire, roll, chaos);
        let decided = match (self.nature.shape, judged) {
            (Shape::Stripe, Status::Declined) if !opens(wire.kind) => {
                return Some(SendOutcome::NotSent(Cause::RequestRefused));
            }
            (Shape::Stripe, _) if wire.kind == OperationKind::Capture => Status::Approved,
            (Shape::Adyen, _) if !opens(wire.kind) => {
                books.book(wire, at, Status::Pending);
                self.decide_later(wire.transaction);
                let booked = books.operations.get(&wire.transaction)?;
                let fact = received(wire.transaction, booked, wire.by_their_name);
                return Some(SendOutcome::Answered(fact));
            }
            (Shape::Plain | Shape::Stripe | Shape::Adyen, status) => status,
        };
        books.book(wire, at, decided);
        if decided == Status::Challenged && self.nature.shape != Shape::Plain {
            self.customer_may_act(wire.transaction);
        }
        self.standing(books, wire)
    }

    /// How much of what is asked for is moved.
    fn moves(&self, wire: &Wire, chaos: ProviderChaos) -> i64 {
        let less = self.executor.chance(chaos.moves_less);
        match u32::try_from(wire.amount) {
            Ok(asked @ 2..) if less => i64::from(self.executor.pick(1..asked)),
            Ok(_) | Err(_) => wire.amount,
        }
    }

    /// How the operation stands that a request is about.
    fn standing(&self, books: &Ledger, wire: &Wire) -> Option<SendOutcome> {
        let booked = books.operations.get(&wire.transaction)?;
        let fact = fact(wire.transaction, booked, self.nature);
        Some(SendOutcome::Answered(fact))
    }

    /// Decides what was received, and tells it; some of it not before everybody is left in peace.
    fn decide_later(&self, id: TransactionId) {
        if self.executor.chance(self.chaos.lock().pends) {
            return;
        }
        let provider = self.clone();
        self.executor.spawn(WORLD, async move {
            provider.executor.wait_up_to(DECIDES_WITHIN).await;
            let declines = provider.chaos.lock().declines;
            provider.decide(id, !provider.executor.chance(declines));
            provider.tell_outcome(id);
        });
    }

    /// The customer may finish at the provider, and never come back to us.
    fn customer_may_act(&self, id: TransactionId) {
        if !self.executor.chance(400) {
            return;
        }
        let provider = self.clone();
        self.executor.spawn(WORLD, async move {
            provider.executor.wait_up_to(CUSTOMER_ACTS_WITHIN).await;
            let often = provider.chaos.lock().declines;
            let declined = provider.executor.chance(often);
            provider.books.lock().confirm(id, declined);
            provider.tell_outcome(id);
        });
    }

    /// Decides what was left pending, one way or the other, and stops challenging.
    pub fn decide_pending(&self) {
        let declines = self.chaos.lock().declines.max(300);
        let left = |(_, booked): &(&TransactionId, &Booked)| {
            matches!(booked.status, Status::Pending | Status::Challenged)
        };
        let open: Vec<_> = {
            let books = self.books.lock();
            books
                .operations
                .iter()
                .filter(left)
                .map(|(id, _)| *id)
                .collect()
        };
        for id in open {
            self.decide(id, !self.executor.chance(declines));
        }
    }

    /// Decides one that is not decided, as its balance allows where it is judged only now.
    fn decide(&self, id: TransactionId, approve: bool) {
        let uncaptures = self.executor.chance(500);
        let mut books = self.books.lock();
        let Some(booked) = books.operations.get(&id).cloned() else {
            return;
        };
        if !matches!(booked.status, Status::Pending | Status::Challenged) {
            return;
        }
        let (kind, payment) = (booked.kind, booked.payment);
        let judged = self.nature.shape == Shape::Plain || booked.opens();
        let mut can_be = judged || books.covers(kind, payment, booked.amount);
        if approve && !can_be && kind == OperationKind::Void {
            let purchase = books.purchase_untouched(payment).filter(|_| uncaptures);
            can_be = purchase.is_some();
            if let Some(id) = purchase {
                books.uncapture(id);
            }
        }
        let status = if approve && can_be {
            Status::Approved
        } else {
            Status::Declined
        };
        books.conclude(id, status);
    }
}
