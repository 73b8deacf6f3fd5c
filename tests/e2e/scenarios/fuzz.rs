//! Every field of every request, with every kind of bad value: a typed error that names the field, or a valid
//! request; never INTERNAL, and nothing stored by what was refused.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};
use quittance_proto::v1::{
    self, ErasePersonalDataRequest, ExportEvidenceRequest, GetCheckpointRequest,
    GetConsistencyProofRequest, GetEntryRequest, GetErasureRequest, GetInclusionProofRequest,
    GetWebhookRequest, ListEntriesRequest, ListOperatorActionsRequest, ListPaymentsRequest,
    ListWebhooksRequest, Payment, ReplayWebhookRequest, ResolveTransactionRequest,
    RetryTransactionRequest, SummarizeFailuresRequest, TailEntriesRequest, TransactionResolution,
    VerifyLogRequest, WatchPaymentsRequest,
};
use quittance_server::auth::Role;
use tonic::Code;

use super::card_numbers::full_purchase;
use crate::harness::fields::{Part, Place, contract, dynamic, places};
use crate::harness::site::{TENANT, TENANT_ROLES};
use crate::harness::{
    Client, Failure, World, authorization, capture, confirm, get, purchase, refund, sync, void,
};

const STREAMS: [&str; 3] = ["WatchPayments", "TailEntries", "VerifyLog"];
const QUIET: Duration = Duration::from_millis(20);
/// Why a read found nothing: that someone looked is on record.
const LOOKED: [&str; 3] = [
    "ENTRY_NOT_FOUND",
    "ENTRY_NOT_MERGED",
    "TREE_SIZE_OUT_OF_RANGE",
];
/// Whether it is on record that someone looked for what is not there.
fn looked(rpc: &str, failure: &Failure) -> bool {
    LOOKED.contains(&failure.reason.as_str())
        || (rpc == "ExportEvidence" && failure.reason == "PAYMENT_NOT_FOUND")
}

/// A transaction that no payment has.
const NO_TRANSACTION: &str = "0198c5a2-0000-7000-8000-000000000001";
/// Random combinations of bad fields that are tried.
const COMBINATIONS: u32 = 200;

/// A valid request of an RPC.
#[derive(Clone, Debug)]
struct Base {
    service: &'static str,
    rpc: &'static str,
    request: DynamicMessage,
}

fn bases(payment: &Payment, waiting: &Payment) -> Vec<Base> {
    let request = |rpc: &str| format!("{rpc}Request");
    macro_rules! base {
        ($service:literal, $rpc:literal, $message:expr) => {
            Base {
                service: $service,
                rpc: $rpc,
                request: dynamic(&request($rpc), &$message),
            }
        };
    }
    vec![
        base!("PaymentService", "CreatePayment", full_purchase()),
        base!(
            "PaymentService",
            "ConfirmPayment",
            confirm(waiting, "passed")
        ),
        base!("PaymentService", "CapturePayment", capture(payment, 1)),
        base!("PaymentService", "VoidPayment", void(payment)),
        base!("PaymentService", "RefundPayment", refund(payment, 1)),
        base!("PaymentService", "SyncPayment", sync(payment)),
        base!("PaymentService", "GetPayment", get(&payment.payment_id)),
        base!(
            "PaymentService",
            "ListPayments",
            ListPaymentsRequest::default()
        ),
        base!(
            "PaymentService",
            "WatchPayments",
            WatchPaymentsRequest::default()
        ),
        base!("AuditService", "ListEntries", ListEntriesRequest::default()),
        base!("AuditService", "GetEntry", GetEntryRequest::default()),
        base!("AuditService", "TailEntries", TailEntriesRequest::default()),
        base!("AuditService", "GetCheckpoint", GetCheckpointRequest {}),
        base!(
            "AuditService",
            "GetInclusionProof",
            GetInclusionProofRequest::default()
        ),
        base!(
            "AuditService",
            "GetConsistencyProof",
            GetConsistencyProofRequest::default()
        ),
        base!(
            "AuditService",
            "ExportEvidence",
            ExportEvidenceRequest::default()
        ),
        base!(
            "AuditService",
            "SummarizeFailures",
            SummarizeFailuresRequest::default()
        ),
        base!("AuditService", "VerifyLog", VerifyLogRequest::default()),
        base!(
            "AdminService",
            "ListOperatorActions",
            ListOperatorActionsRequest::default()
        ),
        base!(
            "AdminService",
            "ResolveTransaction",
            ResolveTransactionRequest {
                payment_id: payment.payment_id.clone(),
                transaction_id: NO_TRANSACTION.to_owned(),
                resolution: TransactionResolution::NotProcessed.into(),
                reason: "fuzzed".to_owned(),
                ..ResolveTransactionRequest::default()
            }
        ),
        base!(
            "AdminService",
            "RetryTransaction",
            RetryTransactionRequest {
                payment_id: payment.payment_id.clone(),
                transaction_id: NO_TRANSACTION.to_owned(),
                reason: "fuzzed".to_owned(),
                ..RetryTransactionRequest::default()
            }
        ),
        base!(
            "AdminService",
            "ListWebhooks",
            ListWebhooksRequest::default()
        ),
        base!(
            "AdminService",
            "GetWebhook",
            GetWebhookRequest {
                webhook_id: NO_TRANSACTION.to_owned(),
            }
        ),
        base!(
            "AdminService",
            "ReplayWebhook",
            ReplayWebhookRequest {
                webhook_id: NO_TRANSACTION.to_owned(),
                reason: "fuzzed".to_owned(),
            }
        ),
        base!(
            "AdminService",
            "CreateNotificationEndpoint",
            v1::CreateNotificationEndpointRequest {
                url: "https://receiver.invalid/hooks".to_owned(),
                ..v1::CreateNotificationEndpointRequest::default()
            }
        ),
        base!(
            "AdminService",
            "ListNotificationEndpoints",
            v1::ListNotificationEndpointsRequest::default()
        ),
        base!(
            "AdminService",
            "UpdateNotificationEndpoint",
            v1::UpdateNotificationEndpointRequest {
                endpoint_id: NO_TRANSACTION.to_owned(),
                ..v1::UpdateNotificationEndpointRequest::default()
            }
        ),
        base!(
            "AdminService",
            "DeleteNotificationEndpoint",
            v1::DeleteNotificationEndpointRequest {
                endpoint_id: NO_TRANSACTION.to_owned(),
                ..v1::DeleteNotificationEndpointRequest::default()
            }
        ),
        base!(
            "AdminService",
            "TestNotificationEndpoint",
            v1::TestNotificationEndpointRequest {
                endpoint_id: NO_TRANSACTION.to_owned(),
                ..v1::TestNotificationEndpointRequest::default()
            }
        ),
        base!(
            "AdminService",
            "RotateNotificationEndpointSecret",
            v1::RotateNotificationEndpointSecretRequest {
                endpoint_id: NO_TRANSACTION.to_owned(),
                ..v1::RotateNotificationEndpointSecretRequest::default()
            }
        ),
        base!(
            "AdminService",
            "ListNotifications",
            v1::ListNotificationsRequest::default()
        ),
        base!(
            "AdminService",
            "GetNotification",
            v1::GetNotificationRequest {
                notification_id: NO_TRANSACTION.to_owned(),
                ..v1::GetNotificationRequest::default()
            }
        ),
        base!(
            "AdminService",
            "ReplayNotifications",
            v1::ReplayNotificationsRequest {
                notification_id: NO_TRANSACTION.to_owned(),
                ..v1::ReplayNotificationsRequest::default()
            }
        ),
        base!(
            "AdminService",
            "ErasePersonalData",
            ErasePersonalDataRequest {
                customer_reference: "nobody".to_owned(),
                reason: "fuzzed".to_owned(),
                ..ErasePersonalDataRequest::default()
            }
        ),
        base!(
            "AdminService",
            "GetErasure",
            GetErasureRequest {
                erasure_id: NO_TRANSACTION.to_owned(),
                ..GetErasureRequest::default()
            }
        ),
    ]
}

#[test]
fn the_fuzzed_requests_are_all_of_the_contract() {
    let payment = Payment {
        amount: Some(crate::harness::money(1, "EUR")),
        ..Payment::default()
    };
    let mut fuzzed: Vec<_> = bases(&payment, &payment)
        .into_iter()
        .map(|base| format!("quittance.v1.{}.{}", base.service, base.rpc))
        .collect();
    let pool = contract();
    let services = pool
        .services()
        .filter(|s| s.full_name().starts_with("quittance.v1."));
    let mut declared: Vec<_> = services
        .flat_map(|s| {
            // What a caller streams is not one message: reconciliation has tests of its own.
            s.methods()
                .filter(|m| !m.is_client_streaming())
                .map(|m| m.full_name().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    fuzzed.sort();
    declared.sort();
    assert_eq!(fuzzed, declared);
}

/// Values that a field of this kind may not expect.
fn nasty(kind: &Kind) -> Vec<Value> {
    let text = |text: &str| Value::String(text.to_owned());
    match kind {
        Kind::String => vec![
            text(""),
            text(" "),
            text("\u{0}"),
            text("a\nb\r\nc"),
            text("\u{1b}[2J"),
            text("\u{202e}\u{feff}"),
            text("💳💳💳"),
            text("' or 1=1; drop table payments; --"),
            text("../../../etc/passwd"),
            text("%s%n{}${jndi:x}"),
            text("-1"),
            text("00000000-0000-0000-0000-000000000000"),
            text("0198c5a2-0000-7000-8000-00000000000g"),
            text(&"x".repeat(300)),
            text(&"é".repeat(20_000)),
        ],
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            let numbers = [
                0,
                1,
                -1,
                i64::MIN,
                i64::MAX,
                1_000_000_000_000_000,
                253_402_300_800,
            ];
            numbers.map(Value::I64).to_vec()
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            [0, 1, -1, i32::MIN, i32::MAX, 501, 1_000_000_000]
                .map(Value::I32)
                .to_vec()
        }
        Kind::Uint32 | Kind::Fixed32 => [0, 1, 13, 1999, 10_000, 70_000, u32::MAX]
            .map(Value::U32)
            .to_vec(),
        Kind::Uint64 | Kind::Fixed64 => [0, 1, u64::MAX].map(Value::U64).to_vec(),
        Kind::Enum(_) => [0, 1, -1, 99, i32::MIN, i32::MAX]
            .map(Value::EnumNumber)
            .to_vec(),
        Kind::Bool => [false, true].map(Value::Bool).to_vec(),
        Kind::Double | Kind::Float | Kind::Bytes | Kind::Message(_) => {
            panic!("no request has such a field")
        }
    }
}

/// Fields that another one makes wrong: `initiator` decides whether a mandate is needed, and so on.
fn may_blame(place: &Place, field: &str) -> bool {
    let pairs = [
        ("initiator", "mandate_reference"),
        ("payment_method.expiry_month", "payment_method.expiry_year"),
        ("payment_method.expiry_year", "payment_method.expiry_month"),
        ("from_now", "resume_token"),
        ("resume_token", "from_now"),
        ("create_time_from", "create_time_to"),
        ("create_time_to", "create_time_from"),
        ("occurred_from", "occurred_to"),
        ("occurred_to", "occurred_from"),
        ("from_time", "to_time"),
        ("to_time", "from_time"),
        ("first_tree_size", "second_tree_size"),
        ("second_tree_size", "first_tree_size"),
        // The other arm of the oneof is what the base request has.
        ("tree_size", "entry"),
        ("form", "payment_id"),
        ("leaf_index", "entry"),
        ("idempotency_key", "lookup"),
        ("payment_id", "lookup"),
    ];
    pairs
        .iter()
        .any(|(changed, blamed)| place.name.starts_with(changed) && field == *blamed)
}

async fn send(client: &Client, base: &Base, request: &DynamicMessage) -> Option<Failure> {
    let method = format!("quittance.v1.{}/{}", base.service, base.rpc);
    let bytes = request.encode_to_vec();
    let status = if STREAMS.contains(&base.rpc) {
        client.raw_stream(&method, bytes, QUIET).await.err()
    } else {
        client.raw(&method, bytes).await.err()
    };
    status.map(Failure::from)
}

/// What any refusal must be.
fn is_typed(failure: &Failure, what: &str) {
    let never = [
        Code::Internal,
        Code::Unknown,
        Code::DataLoss,
        Code::Unavailable,
    ];
    assert!(!never.contains(&failure.code), "{what}: {failure:?}");
    // An equal call may have been accepted before the account went, or the time passed; one under the key was.
    let is_late = ["UNKNOWN_PROVIDER_ACCOUNT", "IDEMPOTENCY_KEY_REUSED"]
        .contains(&failure.reason.as_str())
        || failure.message == "execute_before has passed"
        || failure.message == "no request under this key was accepted so far";
    let denies = !failure.money_may_have_moved();
    assert_eq!(denies, !is_late, "{what}: {failure:?}");
}

/// A fresh key, so that one request is not taken for a repetition of another.
fn fresh(base: &Base) -> DynamicMessage {
    let mut request = base.request.clone();
    let is_mutation = request.descriptor().get_field_by_name("amount").is_some()
        || ["VoidPayment", "ConfirmPayment"].contains(&base.rpc);
    if is_mutation {
        let key = Value::String(uuid::Uuid::new_v4().to_string());
        request.set_field_by_name("idempotency_key", key);
    }
    request
}

async fn fuzzed_world() -> (World, Client, Payment, Payment) {
    let world = World::start().await;
    let mut roles = TENANT_ROLES.to_vec();
    roles.extend([Role::PlatformAudit, Role::Admin, Role::PlatformAdmin]);
    let client = world.as_role(TENANT, &roles).await;
    let payment = client.create(authorization("tok_approve", 1_000_000)).await;
    client.ok(capture(&payment, 500_000)).await;
    let waiting = client.create(purchase("tok_requires_action", 100)).await;
    (world, client, payment, waiting)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_every_request_refuses_bad_values_by_name_and_stores_nothing() {
    let (world, client, payment, waiting) = Box::pin(fuzzed_world()).await;
    let (mut sent, mut refused) = (0, 0);
    for base in bases(&payment, &waiting) {
        for place in places(&base.request.descriptor()) {
            for value in nasty(&place.kind) {
                let mut request = fresh(&base);
                let shown = format!("{value:?}").chars().take(60).collect::<String>();
                let what = format!("{} {} {:?} = {shown}", base.rpc, place.name, place.part);
                place.put(&mut request, value);
                let before = world.db.volume().await;
                sent += 1;
                let Some(failure) = send(&client, &base, &request).await else {
                    continue;
                };
                refused += 1;
                is_typed(&failure, &what);
                // That someone looked for an entry that is not there is on record.
                let looked = looked(base.rpc, &failure);
                let after = world.db.volume().await;
                assert!(
                    looked || after == before,
                    "{what} stored something: {failure:?}"
                );
                let token = ["INVALID_PAGE_TOKEN", "INVALID_RESUME_TOKEN"];
                if failure.code == Code::InvalidArgument
                    && !token.contains(&failure.reason.as_str())
                {
                    let mut fields = failure.violations.iter().map(|(field, _)| field.as_str());
                    let named = fields.any(|f| place.is_named_by(f) || may_blame(&place, f));
                    // The empty requests for what is read by id lack more than what was changed.
                    let lacking = ["GetEntry", "GetInclusionProof", "ExportEvidence"];
                    assert!(
                        named || lacking.contains(&base.rpc),
                        "{what} is not named: {failure:?}"
                    );
                }
            }
        }
    }
    assert!(
        sent > 800 && refused > 400,
        "{sent} sent, {refused} refused"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_maps_that_are_too_long_are_refused_by_name() {
    let (world, client, payment, waiting) = Box::pin(fuzzed_world()).await;
    for base in bases(&payment, &waiting) {
        for place in places(&base.request.descriptor()) {
            let mut request = fresh(&base);
            let field = place.name.rsplit('.').next().unwrap();
            match place.part {
                Part::MapKey => {
                    let pairs = (0..1000).map(|number| {
                        let key = prost_reflect::MapKey::String(format!("k{number}"));
                        (key, Value::String("v".to_owned()))
                    });
                    request.set_field_by_name(field, Value::Map(pairs.collect()));
                }
                Part::ListItem if place.name == field => {
                    let item = nasty(&place.kind).remove(1);
                    request.set_field_by_name(field, Value::List(vec![item; 1000]));
                }
                Part::ListItem | Part::MapValue | Part::Whole => continue,
            }
            let before = world.db.volume().await;
            let failure = send(&client, &base, &request).await;
            let failure =
                failure.unwrap_or_else(|| panic!("{} took 1000 {}", base.rpc, place.name));
            failure
                .is(Code::InvalidArgument, "INVALID_FIELD")
                .names(&[&place.name]);
            assert_eq!(world.db.volume().await, before);
        }
    }
}

/// A random value that fits the kind on the wire.
fn any_value(kind: &Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::String => prop_oneof![
            any::<String>().prop_map(Value::String),
            "\\PC{0,40}".prop_map(Value::String),
            "[ -~]{250,260}".prop_map(Value::String),
        ]
        .boxed(),
        Kind::Int64 => any::<i64>().prop_map(Value::I64).boxed(),
        Kind::Int32 => any::<i32>().prop_map(Value::I32).boxed(),
        Kind::Uint32 => any::<u32>().prop_map(Value::U32).boxed(),
        Kind::Uint64 => any::<u64>().prop_map(Value::U64).boxed(),
        Kind::Enum(_) => (-2..16_i32).prop_map(Value::EnumNumber).boxed(),
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        other => panic!("no request has a field of kind {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_combinations_of_bad_fields_are_typed_errors_or_valid_requests() {
    let (world, client, payment, waiting) = Box::pin(fuzzed_world()).await;
    let cases: Vec<(Base, Place)> = bases(&payment, &waiting)
        .into_iter()
        .flat_map(|base| {
            let places = places(&base.request.descriptor());
            places
                .into_iter()
                .map(move |place| (base.clone(), place))
                .collect::<Vec<_>>()
        })
        .collect();
    let strategy = proptest::sample::select(cases).prop_flat_map(|(base, first)| {
        let others = places(&base.request.descriptor());
        let others = proptest::sample::select(others);
        let valued = |place: Place| any_value(&place.kind).prop_map(move |v| (place.clone(), v));
        let others = proptest::collection::vec(others.prop_flat_map(valued), 0..3);
        let base = Just(base);
        (base, valued(first), others)
    });
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        let config = Config {
            cases: COMBINATIONS,
            failure_persistence: None,
            ..Config::default()
        };
        let outcome = TestRunner::new(config).run(&strategy, |(base, first, others)| {
            let mut request = fresh(&base);
            for (place, value) in std::iter::once(first).chain(others) {
                place.put(&mut request, value);
            }
            let checked = runtime.block_on(async {
                let before = world.db.volume().await;
                match send(&client, &base, &request).await {
                    None => true,
                    Some(failure) => {
                        is_typed(&failure, base.rpc);
                        looked(base.rpc, &failure) || world.db.volume().await == before
                    }
                }
            });
            if checked {
                Ok(())
            } else {
                Err(TestCaseError::fail("something was stored"))
            }
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
    });
}
