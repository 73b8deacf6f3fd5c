//! Carrying a command out: what the card issuer and the acquirer would do.

use super::Ledger;
use super::record::{Payment, Record, Settlement, Sums};
use crate::clock;
use crate::error::ApiError;
use crate::limits::MAX_OPERATIONS_PER_PAYMENT;
use crate::parse::{Command, Currency, NewPayment};
use crate::token::{Plan, Token, Verdict};
use crate::wire::{DeclineCode, OperationKind, OperationStatus};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A later operation that was allowed, before it is entered.
pub(super) struct Draft<'a> {
    pub payment: usize,
    pub reference: &'a str,
    pub kind: OperationKind,
    pub amount: i64,
    pub releases: i64,
    pub currency: Currency,
}

impl Ledger {
    /// Gives the position of the operation that the command made or ended.
    pub(super) fn execute(
        &mut self,
        command: &Command,
        now: DateTime<Utc>,
    ) -> Result<usize, ApiError> {
        match command {
            Command::Create(new) => self.create(new, now),
            Command::Confirm {
                payment,
                reference,
                passed,
            } => self.confirm(*payment, reference, *passed, now),
            Command::Capture {
                payment,
                reference,
                amount,
                currency,
                last,
            } => {
                let payment = self.payment_at(*payment)?;
                let draft = self.draft_capture(payment, reference, *amount, *currency, *last)?;
                Ok(self.capture(&draft, now))
            }
            Command::Void { payment, reference } => {
                let payment = self.payment_at(*payment)?;
                self.void(payment, reference, now)
            }
            Command::Refund {
                payment,
                reference,
                amount,
                currency,
            } => {
                let payment = self.payment_at(*payment)?;
                let draft = self.draft_refund(payment, reference, *amount, *currency)?;
                Ok(self.enter(&draft, OperationStatus::Approved, None, now))
            }
        }
    }

    fn create(&mut self, new: &NewPayment, now: DateTime<Utc>) -> Result<usize, ApiError> {
        let plan = self.plan(&new.token)?;
        let amount = new
            .amount
            .checked_add(plan.amount_delta)
            .filter(|amount| *amount > 0);
        let amount = amount.ok_or(ApiError::invalid(
            "token",
            "invalid_fault",
            "amount_delta makes the amount zero, negative or too large",
        ))?;
        let (status, decline, settles) = self.verdict(&plan, now);
        let payment = self.add_payment(Payment {
            id: Uuid::from_u128(rand::random()),
            callers_id: new.payment_reference.as_deref().map(Into::into),
            return_url: new.return_url.as_deref().map(Into::into),
            plan,
            first: self.operations.len(),
            later: Vec::new(),
            withholds_authorized: false,
        });
        let kind = if new.capture {
            OperationKind::Purchase
        } else {
            OperationKind::Authorization
        };
        let at = self.add_operation(Record {
            id: Uuid::from_u128(rand::random()),
            payment,
            reference: new.reference.as_str().into(),
            kind,
            status,
            decline,
            amount,
            releases: 0,
            currency: new.currency,
            created_at: now,
            settles,
            lookups: 0,
        });
        self.decided(at, now);
        Ok(at)
    }

    /// How the issuer answers, and how it will end if it is pending.
    fn verdict(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
    ) -> (OperationStatus, Option<DeclineCode>, Option<Settlement>) {
        let due = clock::after(now, plan.settle_after.unwrap_or(self.rules.settle_after));
        let later = |status, decline| {
            Some(Settlement {
                due,
                status,
                decline,
            })
        };
        match plan.token.verdict() {
            Verdict::Approve => (OperationStatus::Approved, None, None),
            Verdict::Decline(code) => (OperationStatus::Declined, Some(code), None),
            Verdict::RequireAction => (OperationStatus::RequiresAction, None, None),
            Verdict::PendingThenApprove => (
                OperationStatus::Pending,
                None,
                later(OperationStatus::Approved, None),
            ),
            Verdict::PendingThenDecline => {
                let code = Some(DeclineCode::DoNotHonor);
                (
                    OperationStatus::Pending,
                    None,
                    later(OperationStatus::Declined, code),
                )
            }
        }
    }

    fn confirm(
        &mut self,
        payment: Uuid,
        reference: &str,
        passed: bool,
        now: DateTime<Utc>,
    ) -> Result<usize, ApiError> {
        let payment = self.payment_at(payment)?;
        let at = self.first_of(payment)?;
        let record = self.operations.get(at).ok_or(NO_PAYMENT)?;
        if record.reference.as_ref() != reference {
            return Err(ApiError::beyond(
                "reference",
                "reference_mismatch",
                "a confirmation carries the reference of the authorization or purchase",
            ));
        }
        if record.status != OperationStatus::RequiresAction {
            return Err(ApiError::state(
                "the payment does not wait for authentication",
            ));
        }
        if passed {
            self.end(at, OperationStatus::Approved, None, now);
        } else {
            let code = DeclineCode::AuthenticationFailed;
            self.end(at, OperationStatus::Declined, Some(code), now);
        }
        Ok(at)
    }

    pub(super) fn draft_capture<'a>(
        &self,
        payment: usize,
        reference: &'a str,
        amount: i64,
        currency: Currency,
        last: bool,
    ) -> Result<Draft<'a>, ApiError> {
        let (record, sums) = self.modifiable(payment)?;
        if record.status != OperationStatus::Approved || sums.capturable() <= 0 {
            return Err(ApiError::state("nothing is left to capture"));
        }
        check_currency(record, currency)?;
        let rest = sums.capturable() - i128::from(amount);
        if rest < 0 {
            return Err(AMOUNT_TOO_LARGE);
        }
        let releases = if last {
            i64::try_from(rest).unwrap_or(i64::MAX)
        } else {
            0
        };
        Ok(Draft {
            payment,
            reference,
            kind: OperationKind::Capture,
            amount,
            releases,
            currency,
        })
    }

    pub(super) fn capture(&mut self, draft: &Draft<'_>, now: DateTime<Utc>) -> usize {
        let plan = self
            .payments
            .get(draft.payment)
            .map(|payment| &payment.plan);
        let fails = plan.filter(|plan| plan.token == Token::CaptureFails);
        let settles = fails.map(|plan| Settlement {
            due: clock::after(now, plan.settle_after.unwrap_or(self.rules.settle_after)),
            status: OperationStatus::Failed,
            decline: Some(DeclineCode::CaptureFailed),
        });
        let status = if settles.is_some() {
            OperationStatus::Pending
        } else {
            OperationStatus::Approved
        };
        self.enter(draft, status, settles, now)
    }

    pub(super) fn void(
        &mut self,
        payment: usize,
        reference: &str,
        now: DateTime<Utc>,
    ) -> Result<usize, ApiError> {
        let first = self.first_of(payment)?;
        let (record, sums) = self.modifiable(payment)?;
        let currency = record.currency;
        let waits = record.status == OperationStatus::RequiresAction;
        let amount = match record.status {
            OperationStatus::RequiresAction => 0,
            OperationStatus::Approved if sums.capture_pending > 0 => {
                return Err(ApiError::state(
                    "a capture is pending: nothing can be released now",
                ));
            }
            OperationStatus::Approved if sums.capturable() > 0 => {
                i64::try_from(sums.capturable()).unwrap_or(i64::MAX)
            }
            OperationStatus::Pending => {
                return Err(ApiError::state(
                    "the payment is pending: nothing can be released yet",
                ));
            }
            OperationStatus::Approved | OperationStatus::Declined | OperationStatus::Failed => {
                return Err(ApiError::state("nothing is left to release"));
            }
        };
        if waits {
            self.end(
                first,
                OperationStatus::Failed,
                Some(DeclineCode::Canceled),
                now,
            );
        }
        let kind = OperationKind::Void;
        let draft = Draft {
            payment,
            reference,
            kind,
            amount,
            releases: 0,
            currency,
        };
        Ok(self.enter(&draft, OperationStatus::Approved, None, now))
    }

    pub(super) fn draft_refund<'a>(
        &self,
        payment: usize,
        reference: &'a str,
        amount: i64,
        currency: Currency,
    ) -> Result<Draft<'a>, ApiError> {
        let (record, sums) = self.modifiable(payment)?;
        if sums.refundable() <= 0 {
            return Err(ApiError::state("nothing is left to refund"));
        }
        check_currency(record, currency)?;
        if i128::from(amount) > sums.refundable() {
            return Err(AMOUNT_TOO_LARGE);
        }
        let kind = OperationKind::Refund;
        Ok(Draft {
            payment,
            reference,
            kind,
            amount,
            releases: 0,
            currency,
        })
    }

    pub(super) fn enter(
        &mut self,
        draft: &Draft<'_>,
        status: OperationStatus,
        settles: Option<Settlement>,
        now: DateTime<Utc>,
    ) -> usize {
        let at = self.add_operation(Record {
            id: Uuid::from_u128(rand::random()),
            payment: draft.payment,
            reference: draft.reference.into(),
            kind: draft.kind,
            status,
            decline: None,
            amount: draft.amount,
            releases: draft.releases,
            currency: draft.currency,
            created_at: now,
            settles,
            lookups: 0,
        });
        if let Some(payment) = self.payments.get_mut(draft.payment) {
            payment.later.push(at);
        }
        self.touch_payment(draft.payment);
        self.decided(at, now);
        at
    }

    /// `tok_chargeback`: the bank takes back what was captured, once.
    pub(super) fn charge_back(&mut self, payment: usize, captured: usize, now: DateTime<Utc>) {
        let Some(record) = self.operations.get(captured) else {
            return;
        };
        let (amount, currency) = (record.amount, record.currency);
        let Some(known) = self.payments.get(payment) else {
            return;
        };
        let mut later = known.later.iter().filter_map(|at| self.operations.get(*at));
        if later.any(|record| record.kind == OperationKind::Chargeback) {
            return;
        }
        let reference = format!("cb_{}", known.id.simple());
        let kind = OperationKind::Chargeback;
        let draft = Draft {
            payment,
            reference: &reference,
            kind,
            amount,
            releases: 0,
            currency,
        };
        self.enter(&draft, OperationStatus::Approved, None, now);
    }

    fn first_of(&self, payment: usize) -> Result<usize, ApiError> {
        self.payments
            .get(payment)
            .map(|payment| payment.first)
            .ok_or(NO_PAYMENT)
    }

    /// The authorization or purchase, and the sums; refuses once the payment has too many
    /// operations.
    pub(super) fn modifiable(&self, payment: usize) -> Result<(&Record, Sums), ApiError> {
        let known = self.payments.get(payment).ok_or(NO_PAYMENT)?;
        if known.later.len() >= MAX_OPERATIONS_PER_PAYMENT {
            return Err(ApiError::state("the payment has too many operations"));
        }
        let record = self.operations.get(known.first).ok_or(NO_PAYMENT)?;
        Ok((record, self.sums(known)))
    }
}

const NO_PAYMENT: ApiError = ApiError::not_found("no such payment");
const AMOUNT_TOO_LARGE: ApiError = ApiError::beyond(
    "amount",
    "amount_too_large",
    "the amount is more than what is left",
);

fn check_currency(record: &Record, currency: Currency) -> Result<(), ApiError> {
    if record.currency == currency {
        Ok(())
    } else {
        Err(ApiError::beyond(
            "currency",
            "currency_mismatch",
            "the payment has another currency",
        ))
    }
}
