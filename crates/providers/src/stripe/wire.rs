//! Stripe's JSON, as its API reference has it for [`API_VERSION`](super::API_VERSION). Fields that we do not use are
//! left out: Stripe adds some at any time.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};

/// Pairs that we gave an object; whoever else uses the account gives others.
pub(super) type Metadata = HashMap<String, String>;

/// What may also be `null`: then it is empty.
fn or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// <https://docs.stripe.com/api/payment_intents/object>
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PaymentIntent {
    pub id: String,
    pub status: IntentStatus,
    pub amount: i64,
    /// Authorized, and not captured yet.
    pub amount_capturable: i64,
    /// Captured.
    pub amount_received: i64,
    pub currency: String,
    pub capture_method: CaptureMethod,
    #[serde(default)]
    pub metadata: Metadata,
    pub latest_charge: Option<LatestCharge>,
    pub last_payment_error: Option<ErrorDetail>,
    pub next_action: Option<NextAction>,
    pub client_secret: Option<String>,
    pub cancellation_reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CaptureMethod {
    Automatic,
    AutomaticAsync,
    Manual,
}

/// Its id, or all of it where we asked for that (`expand`).
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum LatestCharge {
    Id(String),
    Whole(Box<Charge>),
}

/// <https://docs.stripe.com/api/charges/object>
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Charge {
    pub id: String,
    pub status: ChargeStatus,
    pub payment_intent: Option<String>,
    /// A copy of the payment intent's, made with the charge.
    #[serde(default)]
    pub metadata: Metadata,
    pub payment_method_details: Option<MethodDetails>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChargeStatus {
    Succeeded,
    Pending,
    Failed,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct MethodDetails {
    pub card: Option<CardDetails>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct CardDetails {
    /// When an authorization runs out; seconds since 1970.
    pub capture_before: Option<i64>,
}

/// What the customer has to do: beside its type, what it is about under the type's name.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NextAction {
    pub r#type: String,
    #[serde(flatten)]
    pub about: serde_json::Map<String, serde_json::Value>,
}

/// <https://docs.stripe.com/api/refunds/object>
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refund {
    pub id: String,
    /// Absent or `null` for refunds that Stripe does not follow: then nothing is decided as far as it says.
    pub status: Option<RefundStatus>,
    pub amount: i64,
    pub currency: String,
    pub payment_intent: Option<String>,
    pub charge: Option<String>,
    #[serde(default, deserialize_with = "or_none")]
    pub metadata: Metadata,
    /// Whether it has moved money: what releases the rest of an authorization has none.
    pub balance_transaction: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefundStatus {
    Pending,
    RequiresAction,
    Succeeded,
    Failed,
    Canceled,
}

/// <https://docs.stripe.com/api/disputes/object>
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Dispute {
    pub id: String,
    pub status: DisputeStatus,
    pub amount: i64,
    pub currency: String,
    pub charge: Option<String>,
    pub payment_intent: Option<String>,
    #[serde(default)]
    pub reason: String,
    pub evidence_details: Option<EvidenceDetails>,
    /// What was withdrawn for it, and reinstated.
    pub balance_transactions: Option<Vec<BalanceTransaction>>,
}

/// <https://docs.stripe.com/api/balance_transactions/object>
#[derive(Debug, Clone, Deserialize)]
pub(super) struct BalanceTransaction {
    /// Gross, without Stripe's fees: above 0 reinstated, below 0 withdrawn.
    pub amount: i64,
    /// The account's, which need not be the dispute's.
    pub currency: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct EvidenceDetails {
    /// Seconds since 1970; 0 where no evidence is taken.
    pub due_by: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DisputeStatus {
    WarningNeedsResponse,
    WarningUnderReview,
    WarningClosed,
    Prevented,
    NeedsResponse,
    UnderReview,
    AppealNeedsResponse,
    AppealUnderReview,
    Won,
    Lost,
}

/// A page of a list, or of what a search found.
#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

/// The body of an error answer.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorBody {
    pub error: ErrorDetail,
}

/// <https://docs.stripe.com/api/errors>; also why a payment intent's last attempt failed.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ErrorDetail {
    #[serde(default)]
    pub r#type: String,
    pub code: Option<String>,
    pub decline_code: Option<String>,
    pub payment_intent: Option<Named>,
}

/// The same of a request about a payment intent, which comes with it.
#[derive(Debug, Deserialize)]
pub(super) struct RefusedBody {
    pub error: RefusedDetail,
}

/// The payment intent as it stands.
#[derive(Debug, Deserialize)]
pub(super) struct RefusedDetail {
    pub payment_intent: PaymentIntent,
}

/// An object of which only the name matters.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Named {
    pub id: String,
}

/// A webhook, as far as every one is alike.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub r#type: String,
    pub livemode: bool,
    pub data: EventData,
}

#[derive(Debug, Deserialize)]
pub(super) struct EventData {
    /// The object as it was when the event happened; its shape depends on the event's type.
    pub object: serde_json::Value,
}
