//! What no caller asks for: done in the provider's dashboard, or by the card holder's bank.

use super::Ledger;
use super::execute::Draft;
use crate::clock;
use crate::error::ApiError;
use crate::limits::MAX_OPERATIONS_PER_PAYMENT;
use crate::parse::Currency;
use crate::wire::{Operation, OperationKind, OperationStatus};
use serde::Deserialize;
use uuid::Uuid;

/// A capture or refund in the dashboard.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InDashboard {
    /// Minor units; all that is left where absent.
    amount: Option<i64>,
}

/// A dispute.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disputed {
    /// Minor units; all that is captured where absent. May be more than that.
    amount: Option<i64>,
    /// The payment's where absent.
    currency: Option<String>,
    /// The bank only asks, for now.
    #[serde(default)]
    inquiry: bool,
}

/// How a dispute ends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    /// An inquiry is closed without a chargeback, or the bank returns the money; else the bank has it.
    won: bool,
}

impl Ledger {
    /// `POST /control/payments/{id}/refunds`: a refund in the dashboard.
    pub(crate) fn refund_in_dashboard(
        &mut self,
        payment: Uuid,
        asked: &InDashboard,
    ) -> Result<Operation, ApiError> {
        let payment = self.payment_at(payment)?;
        let (record, sums) = self.modifiable(payment)?;
        let (currency, left) = (record.currency, sums.refundable());
        let amount = amount_of(asked, left)?;
        let reference = dashboard_reference();
        let draft = self.draft_refund(payment, &reference, amount, currency)?;
        let at = self.enter(&draft, OperationStatus::Approved, None, clock::now());
        self.told(at)
    }

    /// `POST /control/payments/{id}/captures`: a capture in the dashboard.
    pub(crate) fn capture_in_dashboard(
        &mut self,
        payment: Uuid,
        asked: &InDashboard,
    ) -> Result<Operation, ApiError> {
        let payment = self.payment_at(payment)?;
        let (record, sums) = self.modifiable(payment)?;
        let (currency, left) = (record.currency, sums.capturable());
        let amount = amount_of(asked, left)?;
        let reference = dashboard_reference();
        let draft = self.draft_capture(payment, &reference, amount, currency, false)?;
        let at = self.capture(&draft, clock::now());
        self.told(at)
    }

    /// `POST /control/payments/{id}/void`: a void in the dashboard.
    pub(crate) fn void_in_dashboard(&mut self, payment: Uuid) -> Result<Operation, ApiError> {
        let payment = self.payment_at(payment)?;
        let at = self.void(payment, &dashboard_reference(), clock::now())?;
        self.told(at)
    }

    /// `POST /control/payments/{id}/chargebacks`: the bank takes money back, or asks about it.
    pub(crate) fn dispute(
        &mut self,
        payment: Uuid,
        asked: &Disputed,
    ) -> Result<Operation, ApiError> {
        let payment = self.payment_at(payment)?;
        let known = self.payments.get(payment).ok_or(NO_PAYMENT)?;
        let first = self.operations.get(known.first).ok_or(NO_PAYMENT)?;
        if known.later.len() >= MAX_OPERATIONS_PER_PAYMENT {
            return Err(ApiError::state("the payment has too many operations"));
        }
        let currency = match &asked.currency {
            Some(code) => Currency::parse(code)?,
            None => first.currency,
        };
        let captured = self.sums(known).moved.captured;
        let amount = asked
            .amount
            .unwrap_or(i64::try_from(captured).unwrap_or(i64::MAX));
        if amount <= 0 {
            return Err(ApiError::state(
                "nothing is captured that could be disputed",
            ));
        }
        let status = if asked.inquiry {
            OperationStatus::Pending
        } else {
            OperationStatus::Approved
        };
        let reference = format!("cb_{}", fresh());
        let draft = Draft {
            payment,
            reference: &reference,
            kind: OperationKind::Chargeback,
            amount,
            releases: 0,
            currency,
        };
        let at = self.enter(&draft, status, None, clock::now());
        self.told(at)
    }

    /// `POST /control/payments/{id}/close_dispute`: the newest dispute that is open ends.
    pub(crate) fn close_dispute(
        &mut self,
        payment: Uuid,
        verdict: &Verdict,
    ) -> Result<Operation, ApiError> {
        let open = |ledger: &Self, at: usize| {
            let record = ledger.operations.get(at)?;
            let reversed = ledger.under(&record.reference).any(|other| {
                let other = ledger.operations.get(other);
                other.is_some_and(|other| other.kind == OperationKind::ChargebackReversal)
            });
            let closed = record.status == OperationStatus::Failed || reversed;
            (record.kind == OperationKind::Chargeback && !closed).then(|| record.clone())
        };
        let (at, record) = self
            .newest(payment, open)?
            .ok_or(ApiError::state("no dispute of this payment is open"))?;
        let now = clock::now();
        let at = match (record.status, verdict.won) {
            (OperationStatus::Pending, won) => {
                let status = if won {
                    OperationStatus::Failed
                } else {
                    OperationStatus::Approved
                };
                self.end(at, status, None, now);
                at
            }
            (_, true) => {
                let draft = Draft {
                    payment: record.payment,
                    reference: &record.reference,
                    kind: OperationKind::ChargebackReversal,
                    amount: record.amount,
                    releases: 0,
                    currency: record.currency,
                };
                self.enter(&draft, OperationStatus::Approved, None, now)
            }
            // The bank keeps what it has.
            (_, false) => at,
        };
        self.told(at)
    }

    fn told(&mut self, at: usize) -> Result<Operation, ApiError> {
        self.write_changes();
        self.operation(at).ok_or(NO_PAYMENT)
    }
}

const NO_PAYMENT: ApiError = ApiError::not_found("no such payment");

fn amount_of(asked: &InDashboard, left: i128) -> Result<i64, ApiError> {
    let amount = asked
        .amount
        .unwrap_or(i64::try_from(left.max(0)).unwrap_or(i64::MAX));
    if amount > 0 {
        Ok(amount)
    } else {
        Err(ApiError::state("nothing is left"))
    }
}

fn dashboard_reference() -> String {
    format!("dash_{}", fresh())
}

fn fresh() -> uuid::fmt::Simple {
    Uuid::from_u128(rand::random()).simple()
}
