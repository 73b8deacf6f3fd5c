//! Rendering what the books hold. Nothing here changes anything: the books can be read without
//! a pending operation ending.

use super::Ledger;
use super::record::{Payment, Record, Sums};
use crate::clock;
use crate::error::ApiError;
use crate::limits::{AUTHORIZATION_LIFETIME, DISPUTE_EVIDENCE_TIME, MAX_PAGE};
use crate::wire::{
    Books, Charged, DeclineCode, Dispute, NextAction, Operation, OperationKind, OperationPage,
    OperationStatus, PaymentStatus, PaymentView,
};
use std::collections::BTreeMap;
use uuid::Uuid;

impl Ledger {
    /// An operation as it is now.
    pub(super) fn operation(&self, at: usize) -> Option<Operation> {
        let record = self.operations.get(at)?;
        self.operation_as(at, record.status, record.decline)
    }

    /// An operation as it was when it had this status.
    pub(super) fn operation_as(
        &self,
        at: usize,
        status: OperationStatus,
        decline: Option<DeclineCode>,
    ) -> Option<Operation> {
        let record = self.operations.get(at)?;
        let payment = self.payments.get(record.payment)?;
        let waits = status == OperationStatus::RequiresAction;
        let authorized =
            record.kind == OperationKind::Authorization && status == OperationStatus::Approved;
        let disputed = matches!(
            record.kind,
            OperationKind::Chargeback | OperationKind::ChargebackReversal
        );
        Some(Operation {
            id: format!("sop_{}", record.id.simple()),
            payment_id: payment_id(payment),
            reference: record.reference.to_string(),
            kind: record.kind,
            status,
            amount: record.amount,
            currency: record.currency.to_string(),
            decline: decline.map(DeclineCode::to_wire),
            next_action: waits.then(|| self.next_action(payment)),
            expires_at: authorized.then(|| clock::after(record.created_at, AUTHORIZATION_LIFETIME)),
            dispute: disputed.then(|| Dispute {
                reason: "fraudulent".to_owned(),
                due_at: clock::after(record.created_at, DISPUTE_EVIDENCE_TIME),
            }),
            created_at: record.created_at,
        })
    }

    fn next_action(&self, payment: &Payment) -> NextAction {
        let id = payment_id(payment);
        let url = format!("{}/challenge/{id}", self.rules.base_url);
        let mut data = BTreeMap::from([("payment_id".to_owned(), id)]);
        if let Some(return_url) = &payment.return_url {
            data.insert("return_url".to_owned(), return_url.to_string());
        }
        NextAction {
            r#type: "redirect".to_owned(),
            url,
            data,
        }
    }

    pub(crate) fn payment_view(&self, id: Uuid) -> Result<PaymentView, ApiError> {
        let not_found = ApiError::not_found("no such payment");
        let at = self.payment_at(id)?;
        let Some(payment) = self.payments.get(at) else {
            return Err(not_found);
        };
        let Some(first) = self.operations.get(payment.first) else {
            return Err(not_found);
        };
        let sums = self.sums(payment);
        let operations = std::iter::once(&payment.first).chain(&payment.later);
        Ok(PaymentView {
            id: payment_id(payment),
            reference: first.reference.to_string(),
            payment_reference: payment.callers_id.as_deref().map(str::to_owned),
            status: status_of(first, &sums),
            amount: first.amount,
            currency: first.currency.to_string(),
            captured: narrow(sums.moved.captured),
            voided: narrow(sums.moved.voided),
            refunded: narrow(sums.moved.refunded),
            charged_back: narrow(sums.moved.charged_back),
            operations: operations.filter_map(|at| self.operation(*at)).collect(),
        })
    }

    pub(crate) fn books(&self) -> Books {
        self.totals
            .report(self.payments.len(), self.operations.len())
    }

    pub(crate) fn charged(&self, reference: &str) -> Charged {
        let (mut charges, mut amount, mut operations) = (0, 0, Vec::new());
        for at in self.under(reference) {
            let Some(record) = self.operations.get(at) else {
                continue;
            };
            if record.status == OperationStatus::Approved {
                charges += 1;
                amount += i128::from(record.amount);
            }
            operations.extend(self.operation(at));
        }
        Charged {
            reference: reference.to_owned(),
            charges,
            amount,
            operations,
        }
    }

    /// Operations from position `after` on.
    pub(crate) fn operation_page(&self, after: u64, limit: usize) -> OperationPage {
        let start = usize::try_from(after)
            .unwrap_or(usize::MAX)
            .min(self.operations.len());
        let limit = limit.clamp(1, MAX_PAGE);
        let end = start.saturating_add(limit).min(self.operations.len());
        OperationPage {
            operations: (start..end).filter_map(|at| self.operation(at)).collect(),
            next: (end < self.operations.len()).then(|| u64::try_from(end).unwrap_or(u64::MAX)),
        }
    }
}

fn payment_id(payment: &Payment) -> String {
    format!("spay_{}", payment.id.simple())
}

/// Sums of one payment never exceed its amount, which is an `i64`.
fn narrow(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

fn status_of(first: &Record, sums: &Sums) -> PaymentStatus {
    match first.status {
        OperationStatus::Pending => PaymentStatus::Pending,
        OperationStatus::RequiresAction => PaymentStatus::RequiresAction,
        OperationStatus::Declined => PaymentStatus::Declined,
        OperationStatus::Failed => PaymentStatus::Failed,
        OperationStatus::Approved => {
            let moved = &sums.moved;
            if moved.refunded > 0 && moved.refunded >= moved.captured {
                PaymentStatus::Refunded
            } else if moved.refunded > 0 {
                PaymentStatus::PartiallyRefunded
            } else if moved.captured > 0 && sums.capturable() + sums.capture_pending > 0 {
                PaymentStatus::PartiallyCaptured
            } else if moved.captured > 0 {
                PaymentStatus::Captured
            } else if moved.voided > 0 {
                PaymentStatus::Voided
            } else {
                PaymentStatus::Authorized
            }
        }
    }
}
