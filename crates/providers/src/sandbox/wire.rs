//! The sandbox's JSON, as `docs/sandbox.md` has it. Fields that we do not use are left out: a
//! provider may add some at any time.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// `POST /v1/payments`
#[derive(Serialize)]
pub(super) struct CreatePayment<'a> {
    pub reference: String,
    pub payment_reference: String,
    pub amount: i64,
    pub currency: &'a str,
    pub token: &'a str,
    pub capture: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_url: Option<&'a str>,
    pub initiator: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mandate_reference: Option<&'a str>,
}

/// `POST /v1/payments/{id}/confirm`
#[derive(Serialize)]
pub(super) struct Confirm<'a> {
    pub reference: String,
    pub parameters: BTreeMap<&'a str, &'a str>,
}

/// `POST /v1/payments/{id}/captures`
#[derive(Serialize)]
pub(super) struct Capture<'a> {
    pub reference: String,
    pub amount: i64,
    pub currency: &'a str,
    pub r#final: bool,
}

/// `POST /v1/payments/{id}/void`
#[derive(Serialize)]
pub(super) struct Void {
    pub reference: String,
}

/// `POST /v1/payments/{id}/refunds`
#[derive(Serialize)]
pub(super) struct Refund<'a> {
    pub reference: String,
    pub amount: i64,
    pub currency: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Purchase,
    Authorization,
    Capture,
    Void,
    Refund,
    Chargeback,
    ChargebackReversal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Approved,
    Declined,
    Pending,
    RequiresAction,
    Failed,
}

/// The answer to every call above, and to `GET /v1/operations/{reference}`.
#[derive(Deserialize)]
pub(super) struct Operation {
    pub id: String,
    pub payment_id: String,
    pub reference: String,
    pub kind: Kind,
    pub status: Status,
    pub amount: i64,
    pub currency: String,
    pub decline: Option<Decline>,
    pub next_action: Option<NextAction>,
    pub expires_at: Option<DateTime<Utc>>,
    pub dispute: Option<Dispute>,
}

/// `GET /v1/payments/{id}`
#[derive(Deserialize)]
pub(super) struct Payment {
    pub operations: Vec<Operation>,
}

/// What a chargeback is about; its amount and currency are the operation's.
#[derive(Deserialize)]
pub(super) struct Dispute {
    #[serde(default)]
    pub reason: String,
    pub due_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
pub(super) struct Decline {
    pub code: String,
}

#[derive(Deserialize)]
pub(super) struct NextAction {
    pub url: String,
    #[serde(default)]
    pub data: BTreeMap<String, String>,
}

/// What a webhook is about: this first, because the rest is known for handled events only.
#[derive(Deserialize)]
pub(super) struct EventHead {
    pub r#type: String,
}

/// A webhook.
#[derive(Deserialize)]
pub(super) struct Event {
    /// Our payment's id, as we gave it; not there for payments that somebody else made.
    pub payment_reference: Option<String>,
    pub operation: Operation,
}

/// The body of an error answer.
#[derive(Deserialize)]
pub(super) struct ErrorBody {
    pub error: ErrorDetail,
    /// Beside a lookup's `not_found`: whether it proves that nothing was processed.
    #[serde(default)]
    pub authoritative: bool,
}

#[derive(Deserialize)]
pub(super) struct ErrorDetail {
    pub r#type: String,
    #[serde(default)]
    pub code: String,
}

/// `GET /books?after=&limit=`
#[derive(Deserialize)]
pub(super) struct BooksPage {
    pub operations: Vec<BookedOperation>,
    pub next: Option<u64>,
}

/// An operation as the books have it.
#[derive(Deserialize)]
pub(super) struct BookedOperation {
    pub id: String,
    pub reference: String,
    pub kind: Kind,
    pub status: Status,
    pub amount: i64,
    pub currency: String,
    pub created_at: DateTime<Utc>,
}
