//! How a notification looks: JSON whose form is documented in `docs/notifications.md`, made of the journal entry alone.
//!
//! The same entry always gives the same bytes. Nothing of it is a token, a secret or personal data: the entry holds none.

use chrono::{DateTime, SecondsFormat, Utc};
use quittance_evidence::Leaf;
use serde::Serialize;
use uuid::Uuid;

/// The event type of `TestNotificationEndpoint`.
pub const TEST_EVENT: &str = "endpoint.test";

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Payment(Box<PaymentData<'a>>),
    Test { endpoint_id: String },
}

#[derive(Serialize)]
struct PaymentData<'a> {
    event_id: Uuid,
    tenant_id: &'a str,
    payment_id: Uuid,
    entity_seq: u64,
    state: Option<&'a str>,
    previous_state: Option<&'a str>,
    result: &'static str,
    cause: Option<&'a str>,
    decline_code: Option<&'a str>,
    currency: Option<&'a str>,
    currency_exponent: Option<u8>,
    amounts: Option<Amounts>,
    transaction: Option<TransactionData>,
    merchant_reference: Option<&'a str>,
    provider_account: Option<&'a str>,
    trace_id: Option<String>,
}

/// Minor units.
#[derive(Serialize)]
struct Amounts {
    authorized: i64,
    captured: i64,
    capture_pending: i64,
    voided: i64,
    void_pending: i64,
    refunded: i64,
    refund_pending: i64,
    charged_back: i64,
    excess: i64,
}

#[derive(Serialize)]
struct TransactionData {
    transaction_id: Uuid,
    amount: Option<i64>,
}

/// The body of a notification of this entry; `None` where it is not about a payment.
pub fn of_entry(leaf: &Leaf) -> Option<Vec<u8>> {
    let amounts = leaf.amounts.as_ref().map(|all| Amounts {
        authorized: all.authorized,
        captured: all.captured,
        capture_pending: all.capture_pending,
        voided: all.voided,
        void_pending: all.void_pending,
        refunded: all.refunded,
        refund_pending: all.refund_pending,
        charged_back: all.charged_back,
        excess: all.excess,
    });
    let transaction = leaf.transaction_id.map(|transaction_id| TransactionData {
        transaction_id,
        amount: leaf.amount_minor,
    });
    let traced = leaf.trace_id != [0; 16];
    let data = PaymentData {
        event_id: leaf.entry_id,
        tenant_id: &leaf.tenant_id,
        payment_id: leaf.payment_id?,
        entity_seq: leaf.entity_seq,
        state: leaf.state_to.as_deref(),
        previous_state: leaf.state_from.as_deref(),
        result: leaf.result.as_str(),
        cause: leaf.cause.as_ref().map(|cause| cause.code.as_str()),
        decline_code: leaf.decline_code.as_deref(),
        currency: leaf.currency.as_deref(),
        currency_exponent: leaf.currency_exponent,
        amounts,
        transaction,
        merchant_reference: leaf.merchant_reference.as_deref(),
        provider_account: leaf.provider_account.as_deref(),
        trace_id: traced.then(|| hex::encode(leaf.trace_id)),
    };
    body(
        &leaf.event_type,
        leaf.occurred_at,
        Data::Payment(Box::new(data)),
    )
}

/// The body of a test.
pub fn of_test(endpoint: Uuid, now: DateTime<Utc>) -> Option<Vec<u8>> {
    let endpoint_id = endpoint.to_string();
    body(TEST_EVENT, now, Data::Test { endpoint_id })
}

fn body(event_type: &str, at: DateTime<Utc>, data: Data<'_>) -> Option<Vec<u8>> {
    let payload = Payload {
        event_type,
        timestamp: at.to_rfc3339_opts(SecondsFormat::Micros, true),
        data,
    };
    serde_json::to_vec(&payload).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quittance_evidence::{
        Actor, Amounts, Cause, EntryResult, SCHEMA_VERSION, Source, StreamId,
    };

    use super::*;

    const PAYMENT: Uuid = Uuid::from_u128(1);

    #[allow(clippy::too_many_lines)] // one field a line
    fn leaf() -> Leaf {
        let at = DateTime::from_timestamp_micros(1_764_363_845_123_456).unwrap();
        Leaf {
            schema_version: SCHEMA_VERSION,
            leaf_salt: [9; 16],
            entry_id: Uuid::from_u128(2),
            tenant_id: "shop".to_owned(),
            stream_id: StreamId::Payment(PAYMENT),
            entity_seq: 6,
            prev_leaf_hash: None,
            payment_id: Some(PAYMENT),
            transaction_id: Some(Uuid::from_u128(3)),
            merchant_reference: Some("order-1".to_owned()),
            capture_method: Some("MANUAL".to_owned()),
            decline_code: Some("INSUFFICIENT_FUNDS".to_owned()),
            amounts: Some(Amounts {
                authorized: 1_000,
                captured: 1_000,
                refunded: 300,
                ..Amounts::default()
            }),
            payment_row_digest: None,
            event_type: "refund.declined".to_owned(),
            occurred_at: at,
            recorded_at: at,
            actor: Actor {
                kind: "service".to_owned(),
                id: "who called".to_owned(),
                auth_method: None,
            },
            source: Source {
                service: "quittance".to_owned(),
                version: "1".to_owned(),
                instance: "host/1".to_owned(),
                peer: Some("192.0.2.1".to_owned()),
                rpc_method: None,
            },
            result: EntryResult::Failure,
            grpc_status: None,
            cause: Some(Cause {
                code: "INSUFFICIENT_FUNDS".to_owned(),
                retryable: false,
            }),
            state_from: Some("CAPTURED".to_owned()),
            state_to: Some("PARTIALLY_REFUNDED".to_owned()),
            amount_minor: Some(300),
            currency: Some("EUR".to_owned()),
            currency_exponent: Some(2),
            attempt: Some(1),
            max_attempts: None,
            next_retry_at: None,
            provider_account: Some("sandbox".to_owned()),
            provider_reference: Some("re_1".to_owned()),
            provider_request_digest: None,
            provider_response_digest: None,
            idempotency_key_digest: None,
            request_id: Some("the caller's".to_owned()),
            trace_id: [0xab; 16],
            span_id: [1; 8],
            trace_flags: 1,
            remote_trace_id: None,
            remote_span_id: None,
            personal_data: BTreeMap::new(),
            details: BTreeMap::from([("reason".to_owned(), "a person's words".to_owned())]),
        }
    }

    #[test]
    fn the_form_of_a_notification_is_the_documented_one_and_does_not_change() {
        let expected = "{\"type\":\"refund.declined\",\"timestamp\":\"2025-11-28T21:04:05.123456Z\",\"data\":{\
            \"event_id\":\"00000000-0000-0000-0000-000000000002\",\"tenant_id\":\"shop\",\
            \"payment_id\":\"00000000-0000-0000-0000-000000000001\",\"entity_seq\":6,\
            \"state\":\"PARTIALLY_REFUNDED\",\"previous_state\":\"CAPTURED\",\"result\":\"failure\",\
            \"cause\":\"INSUFFICIENT_FUNDS\",\"decline_code\":\"INSUFFICIENT_FUNDS\",\
            \"currency\":\"EUR\",\"currency_exponent\":2,\
            \"amounts\":{\"authorized\":1000,\"captured\":1000,\"capture_pending\":0,\"voided\":0,\
            \"void_pending\":0,\"refunded\":300,\"refund_pending\":0,\"charged_back\":0,\"excess\":0},\
            \"transaction\":{\"transaction_id\":\"00000000-0000-0000-0000-000000000003\",\"amount\":300},\
            \"merchant_reference\":\"order-1\",\"provider_account\":\"sandbox\",\
            \"trace_id\":\"abababababababababababababababab\"}}";
        let body = String::from_utf8(of_entry(&leaf()).unwrap()).unwrap();
        assert_eq!(body, expected);
        // Every field of it is in the document.
        let document = include_str!("../../../../docs/notifications.md");
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        let fields = json["data"].as_object().unwrap().keys();
        for field in fields.chain(json["data"]["amounts"].as_object().unwrap().keys()) {
            assert!(document.contains(&format!("\"{field}\": ")), "{field}");
        }
    }

    #[test]
    fn what_is_no_change_of_a_payment_is_no_notification() {
        let other = Leaf {
            payment_id: None,
            ..leaf()
        };
        assert_eq!(of_entry(&other), None);
    }
}
