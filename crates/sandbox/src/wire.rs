//! The JSON that the sandbox answers with. Public and readable in both directions, so that tests
//! and reconciliation read the books with the same types.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an operation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Authorize and capture in one.
    Purchase,
    /// Reserve the amount.
    Authorization,
    /// Take all or part of an authorized amount.
    Capture,
    /// Release what is left of an authorized amount.
    Void,
    /// Give back all or part of what was captured.
    Refund,
    /// The card holder's bank took the captured amount back, or asks about it. Never asked for by the caller.
    Chargeback,
    /// The bank returned it.
    ChargebackReversal,
}

/// How far an operation got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// Carried out: money moved, or was reserved or released.
    Approved,
    /// Refused by the card issuer.
    Declined,
    /// Not decided yet.
    Pending,
    /// Waits for the customer's authentication.
    RequiresAction,
    /// Ended without effect, or its effect was reversed.
    Failed,
}

/// Why an operation was declined or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeclineCode {
    DoNotHonor,
    InsufficientFunds,
    ExpiredCard,
    LostCard,
    Fraud,
    AuthenticationFailed,
    CaptureFailed,
    RefundFailed,
    Canceled,
}

impl DeclineCode {
    pub(crate) fn to_wire(self) -> Decline {
        let (code, message) = match self {
            Self::DoNotHonor => ("do_not_honor", "The card issuer declined the payment."),
            Self::InsufficientFunds => ("insufficient_funds", "The card has too little money."),
            Self::ExpiredCard => ("expired_card", "The card has expired."),
            Self::LostCard => ("lost_card", "The card was reported lost."),
            Self::Fraud => ("fraud", "The payment was blocked as fraudulent."),
            Self::AuthenticationFailed => (
                "authentication_failed",
                "The customer failed the authentication.",
            ),
            Self::CaptureFailed => ("capture_failed", "The capture was not carried out."),
            Self::RefundFailed => ("refund_failed", "The refund was returned by the bank."),
            Self::Canceled => ("canceled", "The payment was voided before authentication."),
        };
        Decline {
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }
}

/// Why an operation was declined or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decline {
    /// `insufficient_funds`, `expired_card`, `lost_card`, `fraud`, `do_not_honor`,
    /// `authentication_failed`, `capture_failed`, `refund_failed` or `canceled`.
    pub code: String,
    /// For people; may change.
    pub message: String,
}

/// What the customer has to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextAction {
    /// Always `redirect`.
    pub r#type: String,
    /// Where to send the customer.
    pub url: String,
    /// `payment_id`, and `return_url` if one was given.
    pub data: BTreeMap<String, String>,
}

/// What a chargeback is about. The disputed amount and currency are the operation's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispute {
    /// Always `fraudulent`.
    pub reason: String,
    /// Until when evidence can be handed in.
    pub due_at: DateTime<Utc>,
}

/// One thing that was asked of the sandbox (or that was done in its dashboard, or by the bank).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `sop_` and 32 hexadecimal digits.
    pub id: String,
    /// `spay_` and 32 hexadecimal digits.
    pub payment_id: String,
    /// The caller's transaction id, 1 to 64 characters; `dash_…` and `cb_…` for what no caller asked for.
    pub reference: String,
    /// What was asked for.
    pub kind: OperationKind,
    /// How far it got.
    pub status: OperationStatus,
    /// Minor units that were really authorized, captured, released or refunded.
    pub amount: i64,
    /// ISO 4217 code, upper case.
    pub currency: String,
    /// Present if declined or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decline: Option<Decline>,
    /// Present if the customer must act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_action: Option<NextAction>,
    /// Until when an approved authorization can be captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Present for a chargeback and its reversal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispute: Option<Dispute>,
    /// When it was first processed.
    pub created_at: DateTime<Utc>,
}

/// Where a payment stands, derived from its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Not decided yet.
    Pending,
    /// Waits for the customer's authentication.
    RequiresAction,
    /// Reserved; nothing captured.
    Authorized,
    /// Some captured; the rest can still be captured or released.
    PartiallyCaptured,
    /// Everything that was not released is captured.
    Captured,
    /// Some of what was captured was given back.
    PartiallyRefunded,
    /// All that was captured was given back.
    Refunded,
    /// Released without a capture.
    Voided,
    /// Refused by the card issuer.
    Declined,
    /// Ended without effect.
    Failed,
}

/// `GET /v1/payments/{id}`. Amounts in minor units of `currency`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentView {
    /// `spay_` and 32 hexadecimal digits.
    pub id: String,
    /// The reference of its authorization or purchase.
    pub reference: String,
    /// The caller's payment id, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_reference: Option<String>,
    /// Where it stands.
    pub status: PaymentStatus,
    /// Amount of its authorization or purchase.
    pub amount: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// Captured so far.
    pub captured: i64,
    /// Released so far.
    pub voided: i64,
    /// Given back so far.
    pub refunded: i64,
    /// Taken back by the card holder's bank.
    pub charged_back: i64,
    /// Everything that was done to it, in order.
    pub operations: Vec<Operation>,
}

/// What really happened in one currency, in minor units. Pending and declined operations count
/// nothing; a refund that failed later counts no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrencyTotals {
    /// Reserved, purchases included.
    pub authorized: i128,
    /// Captured, purchases included.
    pub captured: i128,
    /// Released by voids and final captures.
    pub voided: i128,
    /// Given back.
    pub refunded: i128,
    /// Taken back by card holders' banks, and not returned.
    pub charged_back: i128,
    /// Number of approved authorizations and purchases.
    pub charges: u64,
}

/// How many of each there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Payments, declined ones included.
    pub payments: u64,
    /// Operations of every kind and status.
    pub operations: u64,
    /// Approved purchases.
    pub purchases: u64,
    /// Approved authorizations.
    pub authorizations: u64,
    /// Approved captures.
    pub captures: u64,
    /// Approved voids.
    pub voids: u64,
    /// Approved refunds that did not fail later.
    pub refunds: u64,
    /// Chargebacks, won ones included.
    pub chargebacks: u64,
    /// Chargebacks that were won.
    #[serde(default)]
    pub chargeback_reversals: u64,
    /// Operations that were declined.
    pub declined: u64,
    /// Operations that wait for the issuer or the customer.
    pub open: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Requests answered from the idempotency store, since the start of the process.
    pub replays: u64,
}

/// `GET /books`: what was really charged, in total.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// Totals by ISO 4217 code.
    pub currencies: BTreeMap<String, CurrencyTotals>,
    /// Numbers over all currencies.
    pub counts: Counts,
}

/// `GET /books/{reference}`: what was really charged for one transaction of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charged {
    /// The reference that was asked for, known or not.
    pub reference: String,
    /// How many operations under this reference are approved: how often money was really
    /// authorized, captured, released or refunded for it. More than 1 is a double charge.
    pub charges: u64,
    /// The sum of those, in minor units.
    pub amount: i128,
    /// Every operation under this reference, in order.
    pub operations: Vec<Operation>,
}

/// `GET /books?after=&limit=`: operations in the order of their first processing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationPage {
    /// At most `limit`.
    pub operations: Vec<Operation>,
    /// What to ask for next; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    /// An authorization was approved.
    #[serde(rename = "payment.authorized")]
    PaymentAuthorized,
    /// A purchase or capture was approved.
    #[serde(rename = "payment.captured")]
    PaymentCaptured,
    /// An authorization or purchase was declined.
    #[serde(rename = "payment.declined")]
    PaymentDeclined,
    /// A void was carried out.
    #[serde(rename = "payment.voided")]
    PaymentVoided,
    /// A pending capture failed.
    #[serde(rename = "payment.capture_failed")]
    PaymentCaptureFailed,
    /// A refund was carried out.
    #[serde(rename = "refund.succeeded")]
    RefundSucceeded,
    /// A refund that had been carried out was returned.
    #[serde(rename = "refund.failed")]
    RefundFailed,
    /// The card holder's bank asks about a payment; nothing is taken yet.
    #[serde(rename = "chargeback.inquiry_opened")]
    ChargebackInquiryOpened,
    /// The card holder's bank took the money back.
    #[serde(rename = "chargeback.opened")]
    ChargebackOpened,
    /// An inquiry was closed without a chargeback.
    #[serde(rename = "chargeback.closed")]
    ChargebackClosed,
    /// The bank returned the money: the chargeback was won.
    #[serde(rename = "chargeback.reversed")]
    ChargebackReversed,
}

/// One event: the body of a webhook, and an element of `GET /events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `evt_` and 32 hexadecimal digits; also the `webhook-id`.
    pub id: String,
    /// What it tells.
    pub r#type: EventType,
    /// When it happened.
    pub created_at: DateTime<Utc>,
    /// `spay_…`.
    pub payment_id: String,
    /// The caller's payment id, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_reference: Option<String>,
    /// The operation as it was then.
    pub operation: Operation,
}

/// `GET /events?after=&limit=`: events in order, the oldest kept first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// At most `limit`.
    pub events: Vec<Event>,
    /// What to ask for next; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}
