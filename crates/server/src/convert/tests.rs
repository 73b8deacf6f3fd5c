use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use quittance_domain::amounts::Amounts;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::command::{MAX_EXECUTE_WITHIN, Resolution};
use quittance_domain::decline::DeclineCode;
use quittance_domain::ids::{PaymentId, ProviderAccount, TenantId};
use quittance_domain::payment::{
    CaptureMethod, Initiator, NextAction, Payment, PaymentRecord, PaymentState,
};
use quittance_domain::text::Sensitive;
use quittance_proto::v1;

use super::payment::timestamp;
use super::*;

pub(super) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).unwrap()
}

/// The least that a payment needs.
pub(super) fn create_request() -> v1::CreatePaymentRequest {
    v1::CreatePaymentRequest {
        idempotency_key: "order-1".to_owned(),
        amount: Some(v1::Money {
            minor_units: 1234,
            currency_code: "EUR".to_owned(),
        }),
        payment_method: Some(v1::PaymentMethod {
            r#type: v1::PaymentMethodType::Card.into(),
            provider_token: "tok_approve".to_owned(),
            ..Default::default()
        }),
        customer: Some(v1::Customer {
            customer_reference: "c-17".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Changes the good request.
fn create_with(
    change: impl FnOnce(&mut v1::CreatePaymentRequest),
) -> Result<quittance_domain::command::Create, Violations> {
    let mut request = create_request();
    change(&mut request);
    create(request, now())
}

fn fields(violations: &Violations) -> Vec<&str> {
    violations
        .listed()
        .iter()
        .map(|violation| violation.field.as_str())
        .collect()
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let command = create(create_request(), now()).unwrap();
    assert_eq!(command.capture_method, CaptureMethod::Automatic);
    assert_eq!(command.initiator, Initiator::Customer);
    assert_eq!(command.execute_before, None);
    assert_eq!(command.provider_account, None);
    assert_eq!(command.method.token.unwrap().expose(), "tok_approve");
}

#[test]
fn every_bad_field_is_named_not_only_the_first() {
    let violations = create_with(|request| {
        request.idempotency_key.clear();
        request.amount = Some(v1::Money {
            minor_units: -5,
            currency_code: "eur".to_owned(),
        });
        request.capture_method = 99;
        request.description = "a\nb".to_owned();
        request.metadata = BTreeMap::from([("order".to_owned(), "x".repeat(501))]);
        request.payment_method = None;
    });
    let violations = violations.unwrap_err();
    assert_eq!(
        fields(&violations),
        [
            "idempotency_key",
            "amount.currency_code",
            "amount.minor_units",
            "payment_method",
            "capture_method",
            "description",
            "metadata[\"order\"]",
        ]
    );
    assert_eq!(violations.reason(), v1::ErrorReason::InvalidField);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn s67_card_numbers_are_refused_in_every_text_of_a_payment() {
    const CARD: &str = "4242 4242 4242 4242";
    type Set = fn(&mut v1::CreatePaymentRequest);
    let places: [(&str, Set); 19] = [
        ("idempotency_key", |r| r.idempotency_key = CARD.to_owned()),
        ("payment_method.provider_token", |r| {
            method(r).provider_token = CARD.to_owned();
        }),
        ("payment_method.brand", |r| {
            method(r).brand = CARD.to_owned();
        }),
        ("payment_method.last4", |r| {
            method(r).last4 = CARD.to_owned();
        }),
        ("merchant_reference", |r| {
            r.merchant_reference = CARD.to_owned();
        }),
        ("description", |r| r.description = CARD.to_owned()),
        ("return_url", |r| {
            r.return_url = "https://shop.example/?pan=4242424242424242".to_owned();
        }),
        ("provider_account", |r| r.provider_account = CARD.to_owned()),
        ("customer.customer_reference", |r| {
            customer(r).customer_reference = CARD.to_owned();
        }),
        ("customer.name", |r| customer(r).name = CARD.to_owned()),
        ("customer.email", |r| customer(r).email = CARD.to_owned()),
        ("customer.ip_address", |r| {
            customer(r).ip_address = CARD.to_owned();
        }),
        ("customer.address.lines[0]", |r| {
            address(r).lines = vec![CARD.to_owned()];
        }),
        ("customer.address.city", |r| {
            address(r).city = CARD.to_owned();
        }),
        ("customer.address.region", |r| {
            address(r).region = CARD.to_owned();
        }),
        ("customer.address.postal_code", |r| {
            address(r).postal_code = CARD.to_owned();
        }),
        ("customer.address.country_code", |r| {
            address(r).country_code = CARD.to_owned();
        }),
        ("metadata[\"note\"]", |r| {
            drop(r.metadata.insert("note".to_owned(), CARD.to_owned()));
        }),
        ("metadata", |r| {
            drop(r.metadata.insert(CARD.to_owned(), "note".to_owned()));
        }),
    ];
    for (field, set) in places {
        let violations = create_with(set).unwrap_err();
        assert_eq!(fields(&violations), [field]);
        assert_eq!(
            violations.reason(),
            v1::ErrorReason::CardNumberNotAllowed,
            "{field}"
        );
        assert!(!format!("{violations:?}").contains("4242"), "{field}");
    }
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

#[test]
fn s67_card_numbers_are_refused_in_commands() {
    let id = "01920b3a-4242-7424-8242-424242424242";
    let refund = refund(
        v1::RefundPaymentRequest {
            payment_id: id.to_owned(),
            idempotency_key: "k".to_owned(),
            reason: "card 4242424242424242".to_owned(),
            ..Default::default()
        },
        now(),
    );
    assert_eq!(fields(&refund.unwrap_err()), ["reason"]);
    let pair = ("pan".to_owned(), "4242424242424242".to_owned());
    let confirm = confirm(v1::ConfirmPaymentRequest {
        payment_id: id.to_owned(),
        idempotency_key: "k".to_owned(),
        parameters: BTreeMap::from([pair]),
    });
    assert_eq!(fields(&confirm.unwrap_err()), ["parameters[\"pan\"]"]);
}

#[test]
fn what_a_challenge_returned_may_have_lines() {
    let parameters = |value: &str| {
        confirm(v1::ConfirmPaymentRequest {
            payment_id: "01920b3a-4242-7424-8242-424242424242".to_owned(),
            idempotency_key: "k".to_owned(),
            parameters: BTreeMap::from([("PaRes".to_owned(), value.to_owned())]),
        })
    };
    let kept = parameters("eJxVUl\r\nFvwjAQ/").unwrap();
    assert_eq!(kept.parameters.expose()[0].1, "eJxVUl\r\nFvwjAQ/");
    assert!(parameters("a\0b").is_err());
}

#[test]
fn return_urls_are_https_or_loopback() {
    let url = |url: &str| create_with(|request| request.return_url = url.to_owned()).is_ok();
    for good in [
        "",
        "https://shop.example/return?order=1",
        "http://localhost:8080/return",
        "http://127.0.0.1/",
        "http://[::1]:3000/x",
    ] {
        assert!(url(good), "{good}");
    }
    for bad in [
        "http://shop.example/",
        "http://127.0.0.1.evil.example/",
        "/return",
        "shop.example",
        "javascript:alert(1)",
        "ftp://shop.example/",
        "https://",
        "https://shop.example@evil.example/",
        "https://shop.example/ with space",
    ] {
        assert!(!url(bad), "{bad}");
    }
}

#[test]
fn a_mandate_belongs_to_the_merchants_own_payments() {
    let with = |initiator: v1::Initiator, mandate: &str| {
        create_with(|request| {
            request.initiator = initiator.into();
            request.mandate_reference = mandate.to_owned();
        })
    };
    assert!(with(v1::Initiator::Merchant, "m-1").is_ok());
    assert!(with(v1::Initiator::Customer, "").is_ok());
    assert!(with(v1::Initiator::Merchant, "").is_err());
    assert!(with(v1::Initiator::Unspecified, "m-1").is_err());
}

#[test]
fn display_fields_of_a_card_are_checked() {
    let with = |last4: &str, month, year| {
        create_with(|request| {
            let method = method(request);
            method.last4 = last4.to_owned();
            (method.expiry_month, method.expiry_year) = (month, year);
        })
    };
    assert!(with("4242", 12, 2030).is_ok());
    assert!(with("", 0, 0).is_ok());
    for (last4, month, year, field) in [
        ("424", 0, 0, "payment_method.last4"),
        ("42a2", 0, 0, "payment_method.last4"),
        ("", 13, 2030, "payment_method.expiry_month"),
        ("", 0, 2030, "payment_method.expiry_month"),
        ("", 12, 0, "payment_method.expiry_year"),
        ("", 12, 30, "payment_method.expiry_year"),
    ] {
        assert_eq!(fields(&with(last4, month, year).unwrap_err()), [field]);
    }
}

#[test]
fn personal_fields_are_sorted_by_name_and_never_empty() {
    let command = create_with(|request| {
        let customer = request.customer.get_or_insert_default();
        customer.name = "Ada".to_owned();
        customer.ip_address = "2001:DB8::1".to_owned();
        customer.address = Some(v1::PostalAddress {
            lines: vec!["1 Main St".to_owned()],
            country_code: "DE".to_owned(),
            ..Default::default()
        });
    });
    let customer = command.unwrap().customer.unwrap();
    let given: Vec<_> = customer
        .fields
        .iter()
        .map(|(name, value)| (*name, value.expose().as_str()))
        .collect();
    assert_eq!(
        given,
        [
            ("customer.address.country_code", "DE"),
            ("customer.address.line1", "1 Main St"),
            ("customer.ip", "2001:db8::1"),
            ("customer.name", "Ada"),
        ]
    );
}

#[test]
fn i6_a_repetition_after_execute_before_is_not_refused_here() {
    let at =
        |time: DateTime<Utc>| create_with(|request| request.execute_before = Some(timestamp(time)));
    let passed = now() - TimeDelta::minutes(1);
    assert_eq!(at(passed).unwrap().execute_before, Some(passed));
    let furthest = now() + TimeDelta::from_std(MAX_EXECUTE_WITHIN).unwrap();
    assert!(at(furthest).is_ok());
    let beyond = at(furthest + TimeDelta::microseconds(1)).unwrap_err();
    assert_eq!(fields(&beyond), ["execute_before"]);
}

#[test]
fn pages_have_limits() {
    let size = |page_size| {
        let request = v1::ListPaymentsRequest {
            page_size,
            ..Default::default()
        };
        list_payments(request).map(|query| query.page_size)
    };
    assert_eq!(size(0).unwrap(), DEFAULT_PAGE);
    assert_eq!(size(500).unwrap(), MAX_PAGE);
    assert!(size(501).is_err());
    assert!(size(-1).is_err());
}

#[test]
fn filters_are_refused_by_the_element() {
    let violations = list_payments(v1::ListPaymentsRequest {
        states: vec![v1::PaymentState::Pending.into(), 0, 77],
        create_time_from: Some(timestamp(now())),
        create_time_to: Some(timestamp(now())),
        ..Default::default()
    });
    let violations = violations.unwrap_err();
    assert_eq!(
        fields(&violations),
        ["states[1]", "states[2]", "create_time_to"]
    );
}

/// Names of the fields of a message, those of its own messages included.
fn contract_fields(set: &FileDescriptorSet, name: &str, prefix: &str, into: &mut BTreeSet<String>) {
    let short = name.trim_start_matches(".quittance.v1.");
    let messages = set.file.iter().flat_map(|file| &file.message_type);
    let message = messages
        .into_iter()
        .find(|message| message.name() == short)
        .unwrap();
    for field in &message.field {
        let path = format!("{prefix}{}", field.name());
        let ours = field.type_name().starts_with(".quittance.v1.");
        let is_message = field.r#type() == prost_types::field_descriptor_proto::Type::Message;
        let is_map = field.type_name().ends_with("Entry");
        if ours && is_message && !is_map {
            contract_fields(set, field.type_name(), &format!("{path}."), into);
        } else {
            into.insert(path);
        }
    }
}

#[test]
fn every_field_of_the_largest_request_is_fuzzed() {
    let set = FileDescriptorSet::decode(quittance_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut contract = BTreeSet::new();
    contract_fields(
        &set,
        ".quittance.v1.CreatePaymentRequest",
        "",
        &mut contract,
    );
    let source: String = include_str!("fuzz_tests.rs").split_whitespace().collect();
    for field in contract {
        let last = field.rsplit('.').next().unwrap();
        let set = [format!("{last}.clone_from("), format!("{last}=")];
        assert!(set.iter().any(|set| source.contains(set)), "{field}");
    }
}

fn record() -> PaymentRecord {
    let command = create(create_request(), now()).unwrap();
    let payment = Payment {
        id: PaymentId(uuid::Uuid::nil()),
        tenant: TenantId::parse("acme").unwrap(),
        state: PaymentState::PartiallyCaptured,
        disputed: false,
        expired: false,
        livemode: false,
        amount: command.amount,
        amounts: Amounts {
            authorized: 1234,
            captured: 1000,
            refunded: 300,
            ..Amounts::default()
        },
        method: command.method,
        capture_method: CaptureMethod::Manual,
        merchant_reference: command.merchant_reference,
        description: command.description,
        return_url: command.return_url,
        initiator: command.initiator,
        mandate_reference: command.mandate_reference,
        metadata: BTreeMap::from([("order".to_owned(), "7".to_owned())]),
        customer_reference: None,
        customer_erased: false,
        provider_account: ProviderAccount::parse("sandbox").unwrap(),
        routed: false,
        provider_reference: None,
        named_by_operator: false,
        next_action: Some(NextAction {
            redirect_url: Sensitive::new("https://issuer.example/session".to_owned()),
            data: Sensitive::default(),
            may_take_days: false,
        }),
        decline: None,
        failure: None,
        created_at: now(),
        updated_at: now(),
        expires_at: None,
        version: 3,
        last_leaf_hash: None,
    };
    PaymentRecord {
        payment,
        transactions: Vec::new(),
    }
}

#[test]
fn i10_a_payment_is_shown_without_its_token() {
    let shown = payment::payment(&record());
    assert_eq!(shown.payment_method.as_ref().unwrap().provider_token, "");
    let bytes = shown.encode_to_vec();
    let token = b"tok_approve";
    assert!(!bytes.windows(token.len()).any(|part| part == token));
}

#[test]
fn a_payment_shows_what_is_left_and_the_details_of_its_state() {
    let mut record = record();
    let shown = payment::payment(&record);
    let minor = |money: Option<v1::Money>| money.map(|money| money.minor_units);
    assert_eq!(minor(shown.amount_capturable), Some(234));
    assert_eq!(minor(shown.amount_refundable), Some(700));
    assert_eq!((shown.version, shown.metadata["order"].as_str()), (3, "7"));
    assert_eq!(shown.next_action, None, "the customer's step is over");
    record.payment.state = PaymentState::RequiresAction;
    let action = payment::payment(&record).next_action.unwrap();
    assert_eq!(action.redirect_url, "https://issuer.example/session");
}

#[test]
fn every_state_is_shown_under_its_own_name() {
    for state in PaymentState::ALL {
        let shown = payment::state(*state);
        assert_eq!(shown.as_str_name(), format!("PAYMENT_STATE_{state}"));
        assert_eq!(payment::state_of(shown), Some(*state));
    }
    for kind in OperatorActionKind::ALL {
        let shown = payment::action_kind(*kind);
        assert_eq!(shown.as_str_name(), format!("OPERATOR_ACTION_KIND_{kind}"));
        let request = v1::ListOperatorActionsRequest {
            kind: shown.into(),
            ..Default::default()
        };
        let query = list_operator_actions(request).unwrap();
        assert_eq!(query.filter.kind, Some(*kind));
    }
    for code in DeclineCode::ALL {
        let shown = payment::decline_code(*code);
        assert_eq!(shown.as_str_name(), format!("DECLINE_CODE_{}", code.name()));
    }
}

/// A resolution that may be asked for.
pub(super) fn resolve_request() -> v1::ResolveTransactionRequest {
    v1::ResolveTransactionRequest {
        payment_id: "0198c5a2-0000-7000-8000-000000000001".to_owned(),
        transaction_id: "0198c5a2-0000-7000-8000-000000000002".to_owned(),
        resolution: v1::TransactionResolution::Succeeded.into(),
        provider_reference: "ch_1".to_owned(),
        reason: "seen in the dashboard".to_owned(),
        evidence: "statement 7".to_owned(),
        tenant_id: String::new(),
        amount: None,
        seen_version: 0,
        acknowledged_kind: 0,
    }
}

#[test]
fn what_is_acknowledged_is_said_and_nothing_else_is_by_the_way() {
    let told = v1::OperatorActionKind::ContradictingFact;
    for (resolution, kind, other) in [
        (
            v1::TransactionResolution::NotProcessed,
            v1::OperatorActionKind::Unspecified,
            told,
        ),
        (
            v1::TransactionResolution::Acknowledged,
            told,
            v1::OperatorActionKind::Unspecified,
        ),
    ] {
        let mut request = resolve_request();
        request.set_resolution(resolution);
        request.set_acknowledged_kind(kind);
        assert_eq!(
            fields(&resolve(request.clone()).unwrap_err()),
            ["provider_reference"]
        );
        request.provider_reference.clear();
        assert!(resolve(request.clone()).is_ok());
        request.set_acknowledged_kind(other);
        let refused = resolve(request).unwrap_err();
        assert_eq!(fields(&refused), ["acknowledged_kind"]);
    }
}

#[test]
fn a_resolution_says_what_was_found_out_and_why() {
    let parsed = resolve(resolve_request()).unwrap();
    assert_eq!(parsed.tenant, None);
    let Resolution::Succeeded {
        provider_reference,
        amount: None,
    } = parsed.command.resolution
    else {
        panic!("{parsed:?}")
    };
    assert_eq!(provider_reference.unwrap().as_str(), "ch_1");

    let with = |change: fn(&mut v1::ResolveTransactionRequest)| {
        let mut request = resolve_request();
        change(&mut request);
        let refused = resolve(request).unwrap_err();
        let fields: Vec<_> = fields(&refused).into_iter().map(str::to_owned).collect();
        (fields.join(","), refused.reason())
    };
    let bad = |field: &str| (field.to_owned(), v1::ErrorReason::InvalidField);
    let card = |field: &str| (field.to_owned(), v1::ErrorReason::CardNumberNotAllowed);
    assert_eq!(with(|r| r.resolution = 0), bad("resolution"));
    assert_eq!(with(|r| r.resolution = 99), bad("resolution"));
    assert_eq!(with(|r| r.acknowledged_kind = 99), bad("acknowledged_kind"));
    assert_eq!(with(|r| r.reason = "  ".to_owned()), bad("reason"));
    assert_eq!(with(|r| r.reason = "x".repeat(501)), bad("reason"));
    assert_eq!(with(|r| r.reason = "a\u{1b}[2J".to_owned()), bad("reason"));
    assert_eq!(with(|r| r.evidence = "x".repeat(2_001)), bad("evidence"));
    assert_eq!(
        with(|r| r.evidence = "4242 4242 4242 4242".to_owned()),
        card("evidence")
    );
    assert_eq!(
        with(|r| r.reason = "card 4242424242424242".to_owned()),
        card("reason")
    );
    assert_eq!(with(|r| r.tenant_id = " ".to_owned()), bad("tenant_id"));
}

#[test]
fn a_retry_has_a_reason() {
    let request = v1::RetryTransactionRequest {
        payment_id: resolve_request().payment_id,
        transaction_id: resolve_request().transaction_id,
        reason: "the provider is back".to_owned(),
        tenant_id: "acme".to_owned(),
    };
    let parsed = retry(request.clone()).unwrap();
    assert_eq!(parsed.tenant.unwrap().as_str(), "acme");
    let silent = v1::RetryTransactionRequest {
        reason: String::new(),
        ..request
    };
    assert_eq!(fields(&retry(silent).unwrap_err()), ["reason"]);
}
