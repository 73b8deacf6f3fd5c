//! Every field of every request, fuzzed: the result is a command, or names the field. Never a panic.

use std::collections::BTreeMap;
use std::fmt::Debug;

use chrono::{DateTime, Utc};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost_types::Timestamp;
use quittance_proto::v1;

use super::tests::{create_request, now, resolve_request};
use super::*;

/// One value of each kind, mostly bad ones.
#[derive(Debug, Clone)]
struct Values {
    text: String,
    number: i32,
    unsigned: u32,
    amount: i64,
    time: Timestamp,
    map: BTreeMap<String, String>,
    texts: Vec<String>,
    numbers: Vec<i32>,
    flag: bool,
}

fn texts() -> impl Strategy<Value = String> + Clone {
    prop_oneof![
        Just(String::new()),
        ".{0,60}",
        any::<String>(),
        "[0-9]{12,20}",
        "https?://[a-z\\[\\]:@/.0-9]{0,30}",
        "[\\x00-\\x1f]{1,4}",
        Just("4242 4242 4242 4242".to_owned()),
        Just("\u{202E}\u{FEFF}".to_owned()),
        Just("x".repeat(70_000)),
        (1_usize..3_000).prop_map(|length| "ä".repeat(length)),
    ]
}

fn edges<T: Debug + Clone + 'static>(
    edges: Vec<T>,
    any: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![prop::sample::select(edges), any]
}

fn values() -> impl Strategy<Value = Values> {
    let number = || edges(vec![0, 1, -1, 500, 501, i32::MIN, i32::MAX], any::<i32>());
    let amount = edges(
        vec![0, 1, -1, i64::MIN, i64::MAX, 1_000_000_000_000_000],
        any::<i64>(),
    );
    let time = (
        edges(
            vec![0, i64::MIN, i64::MAX, 253_402_300_799, 253_402_300_800],
            any::<i64>(),
        ),
        edges(vec![0, -1, 999_999_999, 1_000_000_000], any::<i32>()),
    );
    let map = btree_map("(?s).{0,60}|[0-9 ]{13,19}", ".{0,30}|(?s).{490,510}", 0..60);
    (
        texts(),
        number(),
        edges(
            vec![0, 1, 12, 13, 1999, 2000, 2099, 2100, u32::MAX],
            any::<u32>(),
        ),
        amount,
        time.prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }),
        map,
        vec(texts(), 0..7),
        vec(number(), 0..14),
        any::<bool>(),
    )
        .prop_map(
            |(text, number, unsigned, amount, time, map, texts, numbers, flag)| Values {
                text,
                number,
                unsigned,
                amount,
                time,
                map,
                texts,
                numbers,
                flag,
            },
        )
}

/// A field: where a bad value of it may show, and how it is set.
type Field<R> = (&'static [&'static str], fn(&mut R, &Values));

/// Sets each field of a good request alone, then all of them; whatever is refused must name what was set.
fn fuzz<R: Clone, C>(
    good: &R,
    fields: &[Field<R>],
    values: &Values,
    parse: impl Fn(R) -> Result<C, Violations>,
) -> Result<(), TestCaseError> {
    prop_assert!(
        parse(good.clone()).is_ok(),
        "the request to begin with is good"
    );
    let mut all = good.clone();
    for (paths, set) in fields {
        let mut one = good.clone();
        set(&mut one, values);
        set(&mut all, values);
        check(parse(one), paths, values)?;
    }
    let anywhere: Vec<_> = fields
        .iter()
        .flat_map(|(paths, _)| paths.iter().copied())
        .collect();
    check(parse(all), &anywhere, values)
}

fn check<C>(
    parsed: Result<C, Violations>,
    paths: &[&str],
    values: &Values,
) -> Result<(), TestCaseError> {
    let Err(violations) = parsed else {
        return Ok(());
    };
    prop_assert!(!violations.listed().is_empty());
    prop_assert!(violations.listed().len() <= MAX_VIOLATIONS);
    for violation in violations.listed() {
        let field = &violation.field;
        prop_assert!(
            paths.iter().any(|path| field.starts_with(path)),
            "{field} of {paths:?}"
        );
        prop_assert!(field.len() < 600);
        prop_assert!(!violation.description.is_empty());
        let quoted = values.text.len() > 8 && violation.description.contains(&values.text);
        prop_assert!(!quoted, "{field}: the value is quoted");
        let code = crate::grpc::status::profile(violation.reason).code;
        prop_assert_eq!(code, tonic::Code::InvalidArgument);
    }
    Ok(())
}

fn method(request: &mut v1::CreatePaymentRequest) -> &mut v1::PaymentMethod {
    request.payment_method.get_or_insert_default()
}

fn customer(request: &mut v1::CreatePaymentRequest) -> &mut v1::Customer {
    request.customer.get_or_insert_default()
}

fn address(request: &mut v1::CreatePaymentRequest) -> &mut v1::PostalAddress {
    customer(request).address.get_or_insert_default()
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn create_fields() -> Vec<Field<v1::CreatePaymentRequest>> {
    vec![
        (&["idempotency_key"], |r, v| {
            r.idempotency_key.clone_from(&v.text);
        }),
        (&["amount"], |r, _| r.amount = None),
        (&["amount.minor_units"], |r, v| {
            r.amount.get_or_insert_default().minor_units = v.amount;
        }),
        (&["amount.currency_code", "amount.minor_units"], |r, v| {
            r.amount
                .get_or_insert_default()
                .currency_code
                .clone_from(&v.text);
        }),
        (&["payment_method.type"], |r, v| method(r).r#type = v.number),
        (&["payment_method.provider_token"], |r, v| {
            method(r).provider_token.clone_from(&v.text);
        }),
        (&["payment_method.brand"], |r, v| {
            method(r).brand.clone_from(&v.text);
        }),
        (&["payment_method.last4"], |r, v| {
            method(r).last4.clone_from(&v.text);
        }),
        (&["payment_method.expiry_"], |r, v| {
            method(r).expiry_month = v.unsigned;
        }),
        (&["payment_method.expiry_"], |r, v| {
            method(r).expiry_year = v.unsigned;
        }),
        (&["capture_method"], |r, v| r.capture_method = v.number),
        (&["merchant_reference"], |r, v| {
            r.merchant_reference.clone_from(&v.text);
        }),
        (&["description"], |r, v| r.description.clone_from(&v.text)),
        (&["return_url"], |r, v| r.return_url.clone_from(&v.text)),
        (&["provider_account"], |r, v| {
            r.provider_account.clone_from(&v.text);
        }),
        (&["customer.customer_reference"], |r, v| {
            customer(r).customer_reference.clone_from(&v.text);
        }),
        (&["customer.name"], |r, v| {
            customer(r).name.clone_from(&v.text);
        }),
        (&["customer.email"], |r, v| {
            customer(r).email.clone_from(&v.text);
        }),
        (&["customer.ip_address"], |r, v| {
            customer(r).ip_address.clone_from(&v.text);
        }),
        (&["customer.address.lines"], |r, v| {
            address(r).lines.clone_from(&v.texts);
        }),
        (&["customer.address.city"], |r, v| {
            address(r).city.clone_from(&v.text);
        }),
        (&["customer.address.region"], |r, v| {
            address(r).region.clone_from(&v.text);
        }),
        (&["customer.address.postal_code"], |r, v| {
            address(r).postal_code.clone_from(&v.text);
        }),
        (&["customer.address.country_code"], |r, v| {
            address(r).country_code.clone_from(&v.text);
        }),
        (&["initiator", "mandate_reference"], |r, v| {
            r.initiator = v.number;
        }),
        (&["mandate_reference"], |r, v| {
            r.mandate_reference.clone_from(&v.text);
        }),
        (&["execute_before"], |r, v| r.execute_before = Some(v.time)),
        (&["metadata"], |r, v| r.metadata.clone_from(&v.map)),
    ]
}

const ID: &str = "01920b3a-4242-7424-8242-424242424242";

fn money(v: &Values) -> v1::Money {
    v1::Money {
        minor_units: v.amount,
        currency_code: v.text.clone(),
    }
}

fn at() -> DateTime<Utc> {
    now()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn s66_create_payment(values in values()) {
        fuzz(&create_request(), &create_fields(), &values, |request| create(request, at()))?;
    }

    #[test]
    fn s66_confirm_payment(values in values()) {
        let good = v1::ConfirmPaymentRequest {
            payment_id: ID.to_owned(),
            idempotency_key: "k".to_owned(),
            ..Default::default()
        };
        let fields: &[Field<v1::ConfirmPaymentRequest>] = &[
            (&["payment_id"], |r, v| r.payment_id.clone_from(&v.text)),
            (&["idempotency_key"], |r, v| r.idempotency_key.clone_from(&v.text)),
            (&["parameters"], |r, v| r.parameters.clone_from(&v.map)),
        ];
        fuzz(&good, fields, &values, confirm)?;
    }

    #[test]
    fn s66_capture_payment(values in values()) {
        let good = v1::CapturePaymentRequest {
            payment_id: ID.to_owned(),
            idempotency_key: "k".to_owned(),
            ..Default::default()
        };
        let fields: &[Field<v1::CapturePaymentRequest>] = &[
            (&["payment_id"], |r, v| r.payment_id.clone_from(&v.text)),
            (&["idempotency_key"], |r, v| r.idempotency_key.clone_from(&v.text)),
            (&["amount."], |r, v| r.amount = Some(money(v))),
            (&["final_capture"], |r, v| r.final_capture = v.flag),
            (&["execute_before"], |r, v| r.execute_before = Some(v.time)),
        ];
        fuzz(&good, fields, &values, |request| capture(request, at()))?;
    }

    #[test]
    fn s66_void_payment(values in values()) {
        let good = v1::VoidPaymentRequest {
            payment_id: ID.to_owned(),
            idempotency_key: "k".to_owned(),
            ..Default::default()
        };
        let fields: &[Field<v1::VoidPaymentRequest>] = &[
            (&["payment_id"], |r, v| r.payment_id.clone_from(&v.text)),
            (&["idempotency_key"], |r, v| r.idempotency_key.clone_from(&v.text)),
            (&["reason"], |r, v| r.reason.clone_from(&v.text)),
        ];
        fuzz(&good, fields, &values, void)?;
    }

    #[test]
    fn s66_refund_payment(values in values()) {
        let good = v1::RefundPaymentRequest {
            payment_id: ID.to_owned(),
            idempotency_key: "k".to_owned(),
            ..Default::default()
        };
        let fields: &[Field<v1::RefundPaymentRequest>] = &[
            (&["payment_id"], |r, v| r.payment_id.clone_from(&v.text)),
            (&["idempotency_key"], |r, v| r.idempotency_key.clone_from(&v.text)),
            (&["amount."], |r, v| r.amount = Some(money(v))),
            (&["reason"], |r, v| r.reason.clone_from(&v.text)),
            (&["execute_before"], |r, v| r.execute_before = Some(v.time)),
        ];
        fuzz(&good, fields, &values, |request| refund(request, at()))?;
    }

    #[test]
    fn s66_sync_and_get_payment(values in values()) {
        use v1::get_payment_request::Lookup;
        let good = v1::SyncPaymentRequest { payment_id: ID.to_owned() };
        let fields: &[Field<v1::SyncPaymentRequest>] =
            &[(&["payment_id"], |r, v| r.payment_id.clone_from(&v.text))];
        fuzz(&good, fields, &values, |request| sync(&request))?;
        let good = v1::GetPaymentRequest { lookup: Some(Lookup::PaymentId(ID.to_owned())) };
        let fields: &[Field<v1::GetPaymentRequest>] = &[
            (&["lookup"], |r, _| r.lookup = None),
            (&["payment_id"], |r, v| r.lookup = Some(Lookup::PaymentId(v.text.clone()))),
            (&["idempotency_key"], |r, v| r.lookup = Some(Lookup::IdempotencyKey(v.text.clone()))),
        ];
        fuzz(&good, fields, &values, get)?;
    }

    #[test]
    fn s66_list_and_watch_payments(values in values()) {
        let fields: &[Field<v1::ListPaymentsRequest>] = &[
            (&["page_size"], |r, v| r.page_size = v.number),
            (&["states"], |r, v| r.states.clone_from(&v.numbers)),
            (&["create_time_"], |r, v| r.create_time_from = Some(v.time)),
            (&["create_time_"], |r, v| r.create_time_to = Some(v.time)),
            (&["provider_account"], |r, v| r.provider_account.clone_from(&v.text)),
            (&["merchant_reference"], |r, v| r.merchant_reference.clone_from(&v.text)),
        ];
        fuzz(&v1::ListPaymentsRequest::default(), fields, &values, list_payments)?;
        let fields: &[Field<v1::WatchPaymentsRequest>] = &[
            (&["from_now"], |r, v| r.resume_token.clone_from(&v.text)),
            (&["from_now"], |r, v| r.follow = v.flag),
            (&["from_now"], |r, v| r.from_now = v.flag),
        ];
        fuzz(&v1::WatchPaymentsRequest::default(), fields, &values, watch)?;
    }

    #[test]
    fn s66_audit_queries(values in values()) {
        let fields: &[Field<v1::ListEntriesRequest>] = &[
            (&["page_size"], |r, v| r.page_size = v.number),
            (&["payment_id"], |r, v| r.payment_id.clone_from(&v.text)),
            (&["transaction_id"], |r, v| r.transaction_id.clone_from(&v.text)),
            (&["trace_id"], |r, v| r.trace_id.clone_from(&v.text)),
            (&["actor_id"], |r, v| r.actor_id.clone_from(&v.text)),
            (&["event_type"], |r, v| r.event_type.clone_from(&v.text)),
            (&["source"], |r, v| r.source.clone_from(&v.text)),
            (&["result"], |r, v| r.result = v.number),
            (&["cause"], |r, v| r.cause.clone_from(&v.text)),
            (&["occurred_"], |r, v| r.occurred_from = Some(v.time)),
            (&["occurred_"], |r, v| r.occurred_to = Some(v.time)),
            (&["tenant_id"], |r, v| r.tenant_id.clone_from(&v.text)),
        ];
        fuzz(&v1::ListEntriesRequest::default(), fields, &values, list_entries)?;
        let fields: &[Field<v1::SummarizeFailuresRequest>] = &[
            (&["from_time", "to_time"], |r, v| r.from_time = Some(v.time)),
            (&["from_time", "to_time"], |r, v| r.to_time = Some(v.time)),
            (&["tenant_id"], |r, v| r.tenant_id.clone_from(&v.text)),
            (&["max_buckets"], |r, v| r.max_buckets = v.number),
        ];
        let good = v1::SummarizeFailuresRequest::default();
        fuzz(&good, fields, &values, |request| summarize(request, at()))?;
        let fields: &[Field<v1::TailEntriesRequest>] = &[
            (&["from_now"], |r, v| r.resume_token.clone_from(&v.text)),
            (&["from_now"], |r, v| r.from_now = v.flag),
            (&["tenant_id"], |r, v| r.tenant_id.clone_from(&v.text)),
        ];
        fuzz(&v1::TailEntriesRequest::default(), fields, &values, tail)?;
        let good = v1::GetEntryRequest { entry_id: ID.to_owned() };
        let fields: &[Field<v1::GetEntryRequest>] =
            &[(&["entry_id"], |r, v| r.entry_id.clone_from(&v.text))];
        fuzz(&good, fields, &values, |request| get_entry(&request))?;
    }

    #[test]
    fn s66_admin_requests(values in values()) {
        let fields: &[Field<v1::ListOperatorActionsRequest>] = &[
            (&["page_size"], |r, v| r.page_size = v.number),
            (&["payment_id"], |r, v| r.payment_id.clone_from(&v.text)),
            (&["kind"], |r, v| r.kind = v.number),
            (&["tenant_id"], |r, v| r.tenant_id.clone_from(&v.text)),
        ];
        let good = v1::ListOperatorActionsRequest::default();
        fuzz(&good, fields, &values, list_operator_actions)?;
        let fields: &[Field<v1::ResolveTransactionRequest>] = &[
            (&["payment_id"], |r, v| r.payment_id.clone_from(&v.text)),
            (&["transaction_id"], |r, v| r.transaction_id.clone_from(&v.text)),
            (&["resolution", "provider_reference", "acknowledged_kind"], |r, v| r.resolution = v.number),
            (&["provider_reference"], |r, v| r.provider_reference.clone_from(&v.text)),
            (&["reason"], |r, v| r.reason.clone_from(&v.text)),
            (&["evidence"], |r, v| r.evidence.clone_from(&v.text)),
            (&["acknowledged_kind"], |r, v| r.acknowledged_kind = v.number),
            (&["tenant_id"], |r, v| r.tenant_id.clone_from(&v.text)),
        ];
        fuzz(&resolve_request(), fields, &values, resolve)?;
        let good = v1::RetryTransactionRequest {
            payment_id: ID.to_owned(),
            transaction_id: ID.to_owned(),
            reason: "r".to_owned(),
            ..Default::default()
        };
        let fields: &[Field<v1::RetryTransactionRequest>] = &[
            (&["payment_id"], |r, v| r.payment_id.clone_from(&v.text)),
            (&["transaction_id"], |r, v| r.transaction_id.clone_from(&v.text)),
            (&["reason"], |r, v| r.reason.clone_from(&v.text)),
            (&["tenant_id"], |r, v| r.tenant_id.clone_from(&v.text)),
        ];
        fuzz(&good, fields, &values, retry)?;
    }

    #[test]
    fn s66_requests_about_webhooks(values in values()) {
        let fields: &[Field<v1::ListWebhooksRequest>] = &[
            (&["page_size"], |r, v| r.page_size = v.number),
            (&["states"], |r, v| r.states.clone_from(&v.numbers)),
            (&["provider_account"], |r, v| r.provider_account.clone_from(&v.text)),
            (&["cause"], |r, v| r.cause = v.number),
        ];
        let good = v1::ListWebhooksRequest::default();
        fuzz(&good, fields, &values, list_webhooks)?;
        let good = v1::GetWebhookRequest { webhook_id: ID.to_owned() };
        let fields: &[Field<v1::GetWebhookRequest>] =
            &[(&["webhook_id"], |r, v| r.webhook_id.clone_from(&v.text))];
        fuzz(&good, fields, &values, |request| get_webhook(&request))?;
        let good = v1::ReplayWebhookRequest {
            webhook_id: ID.to_owned(),
            reason: "r".to_owned(),
        };
        let fields: &[Field<v1::ReplayWebhookRequest>] = &[
            (&["webhook_id"], |r, v| r.webhook_id.clone_from(&v.text)),
            (&["reason"], |r, v| r.reason.clone_from(&v.text)),
        ];
        fuzz(&good, fields, &values, replay_webhook)?;
    }
}
