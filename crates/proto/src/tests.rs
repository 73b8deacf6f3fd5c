//! What the generated contract must hold: a comment on everything, and no secret in `Debug`.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::source_code_info::Location;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::v1;

/// Field numbers of `descriptor.proto`, of which the paths of comments are made.
mod path {
    pub const FILE_MESSAGE: i32 = 4;
    pub const FILE_ENUM: i32 = 5;
    pub const FILE_SERVICE: i32 = 6;
    pub const MESSAGE_FIELD: i32 = 2;
    pub const MESSAGE_NESTED: i32 = 3;
    pub const MESSAGE_ENUM: i32 = 4;
    pub const MESSAGE_ONEOF: i32 = 8;
    pub const ENUM_VALUE: i32 = 2;
    pub const SERVICE_METHOD: i32 = 2;
}

/// The contract's own files, without imports.
fn contract() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
    set.file
        .into_iter()
        .filter(|file| file.package() == "quittance.v1")
        .collect()
}

fn child(path: &[i32], kind: i32, index: usize) -> Vec<i32> {
    [path, &[kind, i32::try_from(index).unwrap()]].concat()
}

/// Everything in a file that needs a comment: its path, and its name for the message of a failed test.
fn elements(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let mut found = Vec::new();
    for (i, message) in file.message_type.iter().enumerate() {
        message_elements(message, child(&[], path::FILE_MESSAGE, i), "", &mut found);
    }
    for (i, declared) in file.enum_type.iter().enumerate() {
        enum_elements(declared, child(&[], path::FILE_ENUM, i), "", &mut found);
    }
    for (i, service) in file.service.iter().enumerate() {
        let at = child(&[], path::FILE_SERVICE, i);
        for (j, method) in service.method.iter().enumerate() {
            let name = format!("{}.{}", service.name(), method.name());
            found.push((child(&at, path::SERVICE_METHOD, j), name));
        }
        found.push((at, service.name().to_owned()));
    }
    found
}

fn message_elements(
    message: &DescriptorProto,
    at: Vec<i32>,
    within: &str,
    found: &mut Vec<(Vec<i32>, String)>,
) {
    // A map's entry is made by the compiler and has no place for a comment.
    if message
        .options
        .as_ref()
        .is_some_and(prost_types::MessageOptions::map_entry)
    {
        return;
    }
    let name = format!("{within}{}", message.name());
    let inside = format!("{name}.");
    for (i, field) in message.field.iter().enumerate() {
        found.push((
            child(&at, path::MESSAGE_FIELD, i),
            format!("{inside}{}", field.name()),
        ));
    }
    for (i, oneof) in message.oneof_decl.iter().enumerate() {
        // `optional` makes a oneof of its own, named with an underscore, which nobody wrote.
        if !oneof.name().starts_with('_') {
            found.push((
                child(&at, path::MESSAGE_ONEOF, i),
                format!("{inside}{}", oneof.name()),
            ));
        }
    }
    for (i, nested) in message.nested_type.iter().enumerate() {
        message_elements(nested, child(&at, path::MESSAGE_NESTED, i), &inside, found);
    }
    for (i, declared) in message.enum_type.iter().enumerate() {
        enum_elements(declared, child(&at, path::MESSAGE_ENUM, i), &inside, found);
    }
    found.push((at, name));
}

fn enum_elements(
    declared: &EnumDescriptorProto,
    at: Vec<i32>,
    within: &str,
    found: &mut Vec<(Vec<i32>, String)>,
) {
    for (i, value) in declared.value.iter().enumerate() {
        found.push((
            child(&at, path::ENUM_VALUE, i),
            format!("{within}{}", value.name()),
        ));
    }
    found.push((at, format!("{within}{}", declared.name())));
}

#[test]
fn everything_in_the_contract_is_commented() {
    let files = contract();
    assert_eq!(
        files.len(),
        14,
        "every file of the contract is in the descriptor set"
    );
    let mut checked = 0;
    let mut silent = Vec::new();
    for file in &files {
        let info = file.source_code_info.as_ref().expect("source info");
        let comments: BTreeMap<&[i32], &Location> = info
            .location
            .iter()
            .map(|location| (location.path.as_slice(), location))
            .collect();
        for (at, name) in elements(file) {
            checked += 1;
            let comment = comments
                .get(at.as_slice())
                .map_or("", |found| found.leading_comments());
            if comment.trim().is_empty() {
                silent.push(format!("{}: {name}", file.name()));
            }
        }
    }
    assert!(checked > 300, "only {checked} elements found");
    assert!(silent.is_empty(), "without a comment: {silent:#?}");
}

#[test]
fn the_comments_name_only_errors_that_exist() {
    let reasons: BTreeSet<String> = contract()
        .iter()
        .flat_map(|file| &file.enum_type)
        .filter(|declared| declared.name() == "ErrorReason")
        .flat_map(|declared| &declared.value)
        .filter_map(|value| {
            value
                .name()
                .strip_prefix("ERROR_REASON_")
                .map(str::to_owned)
        })
        .collect();
    assert!(reasons.contains("INTERNAL"));
    for file in contract().iter().filter(|file| !file.service.is_empty()) {
        for location in &file
            .source_code_info
            .as_ref()
            .expect("source info")
            .location
        {
            let Some((_, errors)) = location.leading_comments().split_once("Errors") else {
                continue;
            };
            // Words in capitals between backticks; the text behind the list names RPCs, not errors.
            for name in errors.split('`').skip(1).step_by(2).filter(|name| {
                name.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            }) {
                assert!(reasons.contains(name), "{}: no error {name}", file.name());
            }
        }
    }
}

/// A test card number, which stands for whatever a caller may write.
const SECRET: &str = "4111111111111111";

fn secret() -> String {
    SECRET.to_owned()
}

fn secrets() -> BTreeMap<String, String> {
    BTreeMap::from([(secret(), secret())])
}

fn secret_money() -> v1::Money {
    v1::Money {
        minor_units: 1,
        currency_code: secret(),
    }
}

#[test]
fn s67_debug_of_a_new_payment_shows_nothing_that_a_caller_wrote() {
    let customer = v1::Customer {
        customer_reference: secret(),
        name: secret(),
        email: secret(),
        ip_address: secret(),
        address: Some(v1::PostalAddress {
            lines: vec![secret()],
            ..Default::default()
        }),
    };
    let payment_method = v1::PaymentMethod {
        provider_token: secret(),
        brand: secret(),
        last4: secret(),
        ..Default::default()
    };
    let create = v1::CreatePaymentRequest {
        idempotency_key: secret(),
        amount: Some(secret_money()),
        payment_method: Some(payment_method),
        merchant_reference: secret(),
        description: secret(),
        return_url: secret(),
        provider_account: secret(),
        customer: Some(customer.clone()),
        mandate_reference: secret(),
        metadata: secrets(),
        ..Default::default()
    };
    let shown = format!("{create:?}{customer:?}{:?}", customer.address);
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(
        shown.starts_with("CreatePaymentRequest { minor_units: Some(1)"),
        "{shown}"
    );
}

#[test]
fn s67_debug_of_a_later_request_shows_nothing_that_a_caller_wrote() {
    let confirm = v1::ConfirmPaymentRequest {
        payment_id: secret(),
        idempotency_key: secret(),
        parameters: secrets(),
    };
    let capture = v1::CapturePaymentRequest {
        idempotency_key: secret(),
        amount: Some(secret_money()),
        ..Default::default()
    };
    let void = v1::VoidPaymentRequest {
        reason: secret(),
        ..Default::default()
    };
    let refund = v1::RefundPaymentRequest {
        reason: secret(),
        amount: Some(secret_money()),
        ..Default::default()
    };
    let get = v1::GetPaymentRequest {
        lookup: Some(v1::get_payment_request::Lookup::IdempotencyKey(secret())),
    };
    let list = v1::ListPaymentsRequest {
        merchant_reference: secret(),
        ..Default::default()
    };
    let next = v1::NextAction {
        redirect_url: secret(),
        data: secrets(),
    };
    let shown = format!("{confirm:?}{capture:?}{void:?}{refund:?}{get:?}{list:?}{next:?}");
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn s67_debug_of_what_an_operator_decides_shows_nothing_that_they_wrote() {
    let resolve = v1::ResolveTransactionRequest {
        payment_id: secret(),
        transaction_id: secret(),
        resolution: v1::TransactionResolution::Succeeded.into(),
        provider_reference: secret(),
        reason: secret(),
        evidence: secret(),
        tenant_id: secret(),
        amount: None,
        seen_version: 0,
        acknowledged_kind: 0,
    };
    let retry = v1::RetryTransactionRequest {
        reason: secret(),
        ..Default::default()
    };
    let replay = v1::ReplayWebhookRequest {
        reason: secret(),
        ..Default::default()
    };
    let shown = format!("{resolve:?}{retry:?}{replay:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(
        shown.starts_with("ResolveTransactionRequest { resolution: Succeeded"),
        "{shown}"
    );
}

#[test]
fn debug_of_an_endpoint_shows_neither_its_url_nor_its_secret() {
    let endpoint = || {
        Some(v1::NotificationEndpoint {
            url: secret(),
            description: secret(),
            event_types: vec![secret()],
            ..Default::default()
        })
    };
    let asked = v1::CreateNotificationEndpointRequest {
        url: secret(),
        description: secret(),
        event_types: vec![secret()],
        tenant_id: secret(),
    };
    let changed = v1::UpdateNotificationEndpointRequest {
        url: Some(secret()),
        description: Some(secret()),
        ..Default::default()
    };
    let made = v1::CreateNotificationEndpointResponse {
        endpoint: endpoint(),
        secret: secret(),
    };
    let rotated = v1::RotateNotificationEndpointSecretResponse {
        endpoint: endpoint(),
        secret: secret(),
    };
    let listed = v1::ListNotificationEndpointsResponse {
        endpoints: endpoint().into_iter().collect(),
        ..Default::default()
    };
    let shown = format!("{asked:?}{changed:?}{made:?}{rotated:?}{listed:?}");
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn error_reasons_are_named_as_clients_see_them() {
    let reason = v1::ErrorReason::IdempotencyKeyReused;
    assert_eq!(reason.as_str_name(), "ERROR_REASON_IDEMPOTENCY_KEY_REUSED");
    assert_eq!(
        v1::ErrorReason::from_str_name("ERROR_REASON_NONSENSE"),
        None
    );
}
