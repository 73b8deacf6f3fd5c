//! How pending operations end, and refunds that fail later.

use super::Ledger;
use super::record::Settlement;
use super::submit::{Reply, ReplyBody};
use crate::clock;
use crate::error::ApiError;
use crate::token::Token;
use crate::wire::{DeclineCode, Operation, OperationKind, OperationStatus};
use chrono::{DateTime, Utc};
use std::cmp::Reverse;
use uuid::Uuid;

impl Ledger {
    /// Looks an operation up by the caller's reference. Of several, an approved one is told before
    /// a declined one, then the newest. Looking is what lets a pending operation end.
    pub(crate) fn look_up(&mut self, reference: &str) -> Reply {
        let now = clock::now();
        let visible: Vec<usize> = self
            .under(reference)
            .filter(|at| {
                self.operations.get(*at).is_some_and(|record| {
                    clock::after(record.created_at, self.rules.lookup_window) <= now
                })
            })
            .collect();
        for at in &visible {
            self.asked_about(*at, now);
        }
        self.write_changes();
        let approved = visible.iter().find(|at| {
            let record = self.operations.get(**at);
            record.is_some_and(|record| record.status == OperationStatus::Approved)
        });
        match approved
            .or(visible.last())
            .and_then(|at| self.operation(*at))
        {
            Some(operation) => Reply::operation(operation),
            None => Reply {
                body: ReplyBody::NotFound {
                    authoritative: self.rules.lookup_window.is_zero(),
                },
                replayed: false,
                malformed: false,
            },
        }
    }

    fn asked_about(&mut self, at: usize, now: DateTime<Utc>) {
        let Some(record) = self.operations.get(at) else {
            return;
        };
        if let Some(settlement) = record.settles.filter(|settlement| settlement.due <= now) {
            self.settle(at, settlement, now);
            return;
        }
        let plan = self
            .payments
            .get(record.payment)
            .map(|payment| &payment.plan);
        let fails = plan.is_some_and(|plan| plan.token == Token::RefundFailsLater)
            && record.kind == OperationKind::Refund
            && record.status == OperationStatus::Approved;
        if fails {
            let seen_before = record.lookups > 0;
            self.change(at, |record| {
                record.lookups = record.lookups.saturating_add(1);
            });
            if seen_before {
                self.end(
                    at,
                    OperationStatus::Failed,
                    Some(DeclineCode::RefundFailed),
                    now,
                );
            }
        }
    }

    fn settle(&mut self, at: usize, settlement: Settlement, now: DateTime<Utc>) {
        self.change(at, |record| record.settles = None);
        self.end(at, settlement.status, settlement.decline, now);
    }

    /// Ends an operation one way or the other, and tells.
    pub(super) fn end(
        &mut self,
        at: usize,
        status: OperationStatus,
        decline: Option<DeclineCode>,
        now: DateTime<Utc>,
    ) {
        self.change(at, |record| {
            record.status = status;
            record.decline = decline;
        });
        self.decided(at, now);
    }

    /// Remembers that a pending operation ends without being asked, if there is a webhook to tell
    /// it with.
    pub(super) fn remember_unasked(&mut self, at: usize) {
        if !self.events.are_sent() {
            return;
        }
        if let Some(settlement) = self.operations.get(at).and_then(|record| record.settles) {
            let due = clock::after(settlement.due, self.rules.settle_unasked);
            self.unasked.push(Reverse((due, at)));
        }
    }

    /// Ends what is due without having been asked about.
    pub(crate) fn settle_unasked(&mut self) {
        let now = clock::now();
        while let Some(Reverse((due, at))) = self.unasked.peek().copied() {
            if due > now {
                break;
            }
            self.unasked.pop();
            if let Some(settlement) = self.operations.get(at).and_then(|record| record.settles) {
                self.settle(at, settlement, now);
            }
        }
        self.write_changes();
    }

    /// `POST /control/payments/{id}/settle`: ends the newest pending operation now.
    pub(crate) fn settle_now(&mut self, payment: Uuid) -> Result<Operation, ApiError> {
        let (at, settlement) = self
            .newest(payment, |ledger, at| ledger.operations.get(at)?.settles)?
            .ok_or(ApiError::state("nothing of this payment is pending"))?;
        self.settle(at, settlement, clock::now());
        self.write_changes();
        self.operation(at)
            .ok_or(ApiError::not_found("no such operation"))
    }

    /// `POST /control/payments/{id}/fail_refund`: reverses the newest refund.
    pub(crate) fn fail_refund(&mut self, payment: Uuid) -> Result<Operation, ApiError> {
        let (at, ()) = self
            .newest(payment, |ledger, at| {
                let record = ledger.operations.get(at)?;
                let done = record.status == OperationStatus::Approved;
                (record.kind == OperationKind::Refund && done).then_some(())
            })?
            .ok_or(ApiError::state("the payment has no refund that could fail"))?;
        let code = DeclineCode::RefundFailed;
        self.end(at, OperationStatus::Failed, Some(code), clock::now());
        self.write_changes();
        self.operation(at)
            .ok_or(ApiError::not_found("no such operation"))
    }

    pub(super) fn newest<T>(
        &self,
        payment: Uuid,
        pick: impl Fn(&Self, usize) -> Option<T>,
    ) -> Result<Option<(usize, T)>, ApiError> {
        let payment = self.payment_at(payment)?;
        let payment = self
            .payments
            .get(payment)
            .ok_or(ApiError::not_found("no such payment"))?;
        let mut operations = payment
            .later
            .iter()
            .rev()
            .chain(std::iter::once(&payment.first));
        Ok(operations.find_map(|at| Some((*at, pick(self, *at)?))))
    }
}
