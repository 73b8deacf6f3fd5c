//! A card number in any field is refused, and is nowhere afterwards.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};
use quittance_proto::v1::{
    ConfirmPaymentRequest, CreateNotificationEndpointRequest, CreatePaymentRequest, Customer,
    NotificationEventTypes, Payment, PaymentState, PostalAddress, ReplayWebhookRequest,
    ResolveTransactionRequest, RetryTransactionRequest, TransactionResolution,
    UpdateNotificationEndpointRequest,
};
use quittance_server::auth::Role;
use tonic::Code;

use crate::harness::collector::Collector;
use crate::harness::fields::{dynamic, message_name, places};
use crate::harness::process::ServerProcess;
use crate::harness::site::{TENANT, TENANT_ROLES};
use crate::harness::{
    CreateRequest as _, Failure, Keyed as _, Site, SiteOptions, authorization, capture, confirm,
    get, get_by_key, purchase, refund, sync, void,
};

/// Test numbers of card schemes, in the ways in which people write them.
const NUMBERS: [&str; 4] = [
    "4242424242424242",
    "5555 5555 5555 4444",
    "3782-822463-10005",
    "card: 4000056655665556.",
];
/// What to look for afterwards: the digits of each.
const DIGITS: [&str; 8] = [
    "4242424242424242",
    "5555555555554444",
    "5555 5555 5555 4444",
    "378282246310005",
    "3782-822463-10005",
    "4000056655665556",
    "5555%205555",
    "822463",
];
/// Fields that take nothing but their own form, so that a card number is refused for that already.
const OWN_FORM: [&str; 9] = [
    "endpoint_id",
    "webhook_id",
    "payment_id",
    "transaction_id",
    "amount.currency_code",
    "payment_method.last4",
    "customer.ip_address",
    "customer.address.country_code",
    "page_token",
];

/// A request with something in every field.
pub fn full_purchase() -> CreatePaymentRequest {
    let mut request = purchase("tok_approve", 100)
        .merchant_reference("order")
        .meta("key", "value");
    request.description = "description".to_owned();
    request.return_url = "https://shop.example/back".to_owned();
    request.provider_account = "sandbox".to_owned();
    request.initiator = quittance_proto::v1::Initiator::Merchant.into();
    request.mandate_reference = "mandate".to_owned();
    request.customer = Some(Customer {
        customer_reference: "customer".to_owned(),
        name: "name".to_owned(),
        email: "name@customer.example".to_owned(),
        ip_address: "192.0.2.1".to_owned(),
        address: Some(PostalAddress {
            lines: vec!["line".to_owned()],
            city: "city".to_owned(),
            region: "region".to_owned(),
            postal_code: "postal".to_owned(),
            country_code: "DE".to_owned(),
        }),
    });
    request
}

/// Every request with a text field that moves or finds payments.
fn requests(payment: &Payment) -> Vec<(&'static str, DynamicMessage)> {
    let mut voiding = void(payment);
    voiding.reason = "reason".to_owned();
    let mut refunding = refund(payment, 1);
    refunding.reason = "reason".to_owned();
    let parameters = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
    let confirming = ConfirmPaymentRequest {
        parameters,
        ..confirm(payment, "passed")
    };
    vec![
        (
            "CreatePayment",
            dynamic("CreatePaymentRequest", &full_purchase()),
        ),
        (
            "ConfirmPayment",
            dynamic("ConfirmPaymentRequest", &confirming),
        ),
        (
            "CapturePayment",
            dynamic("CapturePaymentRequest", &capture(payment, 1)),
        ),
        ("VoidPayment", dynamic("VoidPaymentRequest", &voiding)),
        ("RefundPayment", dynamic("RefundPaymentRequest", &refunding)),
        ("SyncPayment", dynamic("SyncPaymentRequest", &sync(payment))),
        (
            "GetPayment",
            dynamic("GetPaymentRequest", &get(&payment.payment_id)),
        ),
        (
            "GetPayment",
            dynamic("GetPaymentRequest", &get_by_key("key")),
        ),
        (
            "ListPayments",
            dynamic(
                "ListPaymentsRequest",
                &quittance_proto::v1::ListPaymentsRequest::default(),
            ),
        ),
    ]
}

/// What operators write beside their decisions.
fn operators_requests(payment: &Payment) -> Vec<(&'static str, DynamicMessage)> {
    let transaction_id = payment.transactions[0].transaction_id.clone();
    let resolving = ResolveTransactionRequest {
        payment_id: payment.payment_id.clone(),
        transaction_id: transaction_id.clone(),
        resolution: TransactionResolution::Succeeded.into(),
        reason: "reason".to_owned(),
        ..ResolveTransactionRequest::default()
    };
    let retrying = RetryTransactionRequest {
        payment_id: payment.payment_id.clone(),
        transaction_id,
        reason: "reason".to_owned(),
        ..RetryTransactionRequest::default()
    };
    let replaying = ReplayWebhookRequest {
        webhook_id: payment.payment_id.clone(),
        reason: "reason".to_owned(),
    };
    let endpoint = CreateNotificationEndpointRequest {
        url: "https://8.8.8.8/hooks".to_owned(),
        ..CreateNotificationEndpointRequest::default()
    };
    let update = UpdateNotificationEndpointRequest {
        endpoint_id: payment.payment_id.clone(),
        event_types: Some(NotificationEventTypes::default()),
        ..UpdateNotificationEndpointRequest::default()
    };
    vec![
        (
            "CreateNotificationEndpoint",
            dynamic("CreateNotificationEndpointRequest", &endpoint),
        ),
        (
            "UpdateNotificationEndpoint",
            dynamic("UpdateNotificationEndpointRequest", &update),
        ),
        (
            "ResolveTransaction",
            dynamic("ResolveTransactionRequest", &resolving),
        ),
        (
            "RetryTransaction",
            dynamic("RetryTransactionRequest", &retrying),
        ),
        ("ReplayWebhook", dynamic("ReplayWebhookRequest", &replaying)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s67_a_card_number_in_any_field_is_refused_and_is_in_no_log_span_row_or_error() {
    let site = Site::new(SiteOptions::default()).await;
    let collector = Collector::start().await;
    let settings = vec![
        ("telemetry.otlp_endpoint", collector.endpoint().into()),
        ("telemetry.otlp_protocol", "grpc".into()),
        ("telemetry.log_filter", "trace".into()),
    ];
    let server = ServerProcess::start(&site, settings).await;
    let roles = [&TENANT_ROLES[..], &[Role::Admin, Role::PlatformAdmin]].concat();
    let client = site.caller(server.address, TENANT, &roles).await;
    let payment = client
        .create(authorization("tok_approve", 100).key("own"))
        .await;
    let before = site.db.volume().await;

    let mut everything_said = String::new();
    let mut tried = 0;
    let payments = requests(&payment).into_iter();
    let payments = payments.map(|request| ("PaymentService", request));
    let operators = operators_requests(&payment).into_iter();
    let operators = operators.map(|request| ("AdminService", request));
    for (service, (rpc, request)) in payments.chain(operators) {
        let texts = places(&request.descriptor()).into_iter();
        for place in texts.filter(|place| matches!(place.kind, Kind::String)) {
            for number in NUMBERS {
                let mut request = request.clone();
                place.put(&mut request, Value::String(number.to_owned()));
                let method = format!("quittance.v1.{service}/{rpc}");
                let status = client.raw(&method, request.encode_to_vec()).await;
                let place_name = format!("{}.{}", message_name(&request), place.name);
                let status = status
                    .err()
                    .unwrap_or_else(|| panic!("{place_name} took {number}"));
                write!(everything_said, "{status:?}").unwrap();
                let failure = Failure::from(status);
                assert_eq!(
                    failure.code,
                    Code::InvalidArgument,
                    "{place_name}: {failure:?}"
                );
                if !OWN_FORM.contains(&place.name.as_str()) {
                    let reason = failure.reason.as_str();
                    assert_eq!(
                        reason, "CARD_NUMBER_NOT_ALLOWED",
                        "{place_name}: {failure:?}"
                    );
                }
                if failure.reason != "INVALID_PAGE_TOKEN" {
                    let named = failure
                        .violations
                        .iter()
                        .any(|(field, _)| place.is_named_by(field));
                    assert!(named, "{place_name} is not named: {failure:?}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
    assert_eq!(site.db.volume().await, before, "nothing was stored");
    assert_eq!(site.books().counts.operations, 1);

    // Also where no field is: in what comes with the request.
    let strange = client
        .with("x-request-id", NUMBERS[0])
        .with("x-card", NUMBERS[0]);
    strange.create(purchase("tok_approve", 1)).await;
    let failure = client
        .with_key(NUMBERS[0])
        .refused(get(&payment.payment_id))
        .await;
    write!(everything_said, "{failure:?}").unwrap();

    let log = server.stop().await;
    let spans = format!("{:?}", collector.spans());
    assert!(log.contains("payment.audit.recorded") && spans.contains("CreatePayment"));
    for digits in DIGITS {
        assert!(!log.contains(digits), "in the log: {digits}");
        assert!(!spans.contains(digits), "in a span: {digits}");
        assert!(!everything_said.contains(digits), "in an error: {digits}");
        assert_eq!(
            site.db.places_of(digits).await,
            Vec::<String>::new(),
            "in the database: {digits}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s67_what_only_looks_like_a_card_number_passes() {
    let world = crate::harness::World::start().await;
    // Fails the Luhn check; of no card scheme; too short; part of an identifier.
    for innocent in [
        "4242424242424241",
        "1234567890123",
        "424242424242",
        "inv4242424242424242x",
        "2031-12-31",
    ] {
        let request = purchase("tok_approve", 100).merchant_reference(innocent);
        assert_eq!(
            world.client.create(request).await.state(),
            PaymentState::Captured,
            "{innocent}"
        );
    }
}
