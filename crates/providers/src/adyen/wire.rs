//! Shapes of Adyen's Checkout API, version 71, and of its standard webhooks, as far as they are used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// An amount in Adyen's minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Amount {
    pub currency: String,
    pub value: i64,
}

/// `POST /payments`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatePayment<'a> {
    pub amount: Amount,
    pub merchant_account: &'a str,
    pub reference: String,
    pub payment_method: Map<String, Value>,
    pub return_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shopper_reference: Option<&'a str>,
    pub shopper_interaction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recurring_processing_model: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_payment_method: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merchant_order_reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture_delay_hours: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional_data: Option<ManualCapture>,
    /// What the client code tells of the customer and their browser.
    #[serde(flatten)]
    pub beside: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManualCapture {
    pub manual_capture: &'static str,
}

/// `POST /payments/details`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details<'a> {
    pub details: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_data: Option<&'a str>,
}

/// `POST /payments/{pspReference}/captures`, `…/cancels` (without amount) and `…/refunds`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Modification<'a> {
    pub merchant_account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    pub reference: String,
}

/// `POST /cancels`: of a payment that has no name of Adyen's yet.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CancelByReference<'a> {
    pub merchant_account: &'a str,
    pub payment_reference: String,
    pub reference: String,
}

/// What of a request is compared with its answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    pub amount: Option<Amount>,
    pub payment_reference: Option<String>,
}

/// The answer to `/payments` and `/payments/details`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PaymentAnswer {
    pub result_code: String,
    pub psp_reference: Option<String>,
    pub merchant_reference: Option<String>,
    pub amount: Option<Amount>,
    pub refusal_reason_code: Option<String>,
    pub action: Option<Map<String, Value>>,
}

/// The answer to captures, cancels and refunds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModificationAnswer {
    pub psp_reference: String,
    /// In the answer to a cancel by reference there is `payment_reference` instead.
    pub payment_psp_reference: Option<String>,
    pub payment_reference: Option<String>,
    pub reference: Option<String>,
    pub status: String,
    pub amount: Option<Amount>,
}

/// The body of an error answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ErrorAnswer {
    #[serde(default)]
    pub error_code: String,
    #[serde(default)]
    pub error_type: String,
}

/// A webhook: items that are signed one by one, and a flag that is not signed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Batch<'a> {
    pub live: Live,
    #[serde(borrow)]
    pub notification_items: Vec<Wrapped<'a>>,
}

/// One item, as it came.
#[derive(Deserialize)]
pub(super) struct Wrapped<'a> {
    #[serde(borrow, rename = "NotificationRequestItem")]
    pub item: &'a RawValue,
}

/// Whether it comes from the live platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Live {
    #[serde(rename = "true")]
    Live,
    #[serde(rename = "false")]
    Test,
}

/// A batch of one item, as one event of a larger batch is stored.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Single<'a> {
    pub live: Live,
    pub notification_items: [SingleItem<'a>; 1],
}

#[derive(Serialize)]
pub(super) struct SingleItem<'a> {
    #[serde(rename = "NotificationRequestItem")]
    pub item: &'a RawValue,
}

/// One item. The first seven are signed, the amount's two parts included; the rest informs, and decides nothing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    pub psp_reference: Option<String>,
    pub original_reference: Option<String>,
    pub merchant_account_code: Option<String>,
    pub merchant_reference: Option<String>,
    pub amount: Option<ItemAmount>,
    pub event_code: Option<String>,
    pub success: Option<Success>,
    pub reason: Option<String>,
    /// Of any form: it only informs.
    pub event_date: Option<Value>,
    pub additional_data: Option<AdditionalData>,
}

#[derive(Deserialize)]
pub(super) struct ItemAmount {
    pub value: Option<i64>,
    pub currency: Option<String>,
}

/// A text as a rule, and a truth value from some senders; both are signed as the same text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Success {
    Text(String),
    Flag(bool),
}

impl Success {
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Flag(true) => "true",
            Self::Flag(false) => "false",
        }
    }
}

/// Of any form, because a value that is only shown must not keep an item from being read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdditionalData {
    pub hmac_signature: Option<Value>,
    pub chargeback_reason_code: Option<Value>,
    pub defense_period_ends_at: Option<Value>,
}
