//! What the books keep of a payment and of an operation.

use crate::parse::Currency;
use crate::token::Plan;
use crate::wire::{CurrencyTotals, DeclineCode, OperationKind, OperationStatus};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// One operation, as compact as may be: a load test keeps millions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub id: Uuid,
    /// Position of its payment.
    pub payment: usize,
    pub reference: Box<str>,
    pub kind: OperationKind,
    pub status: OperationStatus,
    pub decline: Option<DeclineCode>,
    pub amount: i64,
    /// What a final capture releases with it.
    pub releases: i64,
    pub currency: Currency,
    pub created_at: DateTime<Utc>,
    /// How a pending operation ends, and from when on.
    pub settles: Option<Settlement>,
    /// How often it was looked up; `tok_refund_fails_later` counts them.
    pub lookups: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settlement {
    pub due: DateTime<Utc>,
    pub status: OperationStatus,
    pub decline: Option<DeclineCode>,
}

/// A payment is little more than the list of its operations; amounts are summed up when needed.
pub(crate) struct Payment {
    pub id: Uuid,
    /// The caller's own id of the payment.
    pub callers_id: Option<Box<str>>,
    pub return_url: Option<Box<str>>,
    pub plan: Arc<Plan>,
    /// Its authorization or purchase.
    pub first: usize,
    /// Captures, voids, refunds and disputes.
    pub later: Vec<usize>,
    /// `tok_webhook_out_of_order`: the authorization event waits for the capture event.
    pub withholds_authorized: bool,
}

/// The money of one payment, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub moved: CurrencyTotals,
    /// Captures that are not decided yet, with what they would release.
    pub capture_pending: i128,
}

impl Sums {
    pub(crate) fn add(&mut self, record: &Record) {
        post(&mut self.moved, record);
        if record.kind == OperationKind::Capture && record.status == OperationStatus::Pending {
            self.capture_pending += i128::from(record.amount) + i128::from(record.releases);
        }
    }

    /// Authorized and neither captured nor released.
    pub(crate) fn capturable(&self) -> i128 {
        self.moved.authorized - self.moved.captured - self.moved.voided - self.capture_pending
    }

    pub(crate) fn refundable(&self) -> i128 {
        self.moved.captured - self.moved.refunded
    }
}

/// Adds what an operation moved; only an approved one moves anything.
pub(crate) fn post(totals: &mut CurrencyTotals, record: &Record) {
    if record.status != OperationStatus::Approved {
        return;
    }
    let amount = i128::from(record.amount);
    match record.kind {
        OperationKind::Purchase => {
            totals.authorized += amount;
            totals.captured += amount;
            totals.charges += 1;
        }
        OperationKind::Authorization => {
            totals.authorized += amount;
            totals.charges += 1;
        }
        OperationKind::Capture => {
            totals.captured += amount;
            totals.voided += i128::from(record.releases);
        }
        OperationKind::Void => totals.voided += amount,
        OperationKind::Refund => totals.refunded += amount,
        OperationKind::Chargeback => totals.charged_back += amount,
        OperationKind::ChargebackReversal => totals.charged_back -= amount,
    }
}
