//! Tests of what events prove, on objects of the shapes that Stripe's API reference has.

use chrono::DateTime;
use quittance_domain::decline::Cause;
use quittance_domain::ids::{PaymentId, ProviderReference};
use quittance_domain::money::{Currency, Money};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::stripe::API_VERSION;

#[path = "webhook_dispute_tests.rs"]
mod disputes;
#[path = "webhook_docs_tests.rs"]
mod docs;

const SUCCEEDED: &str = include_str!("fixtures/intent_succeeded.json");
const REQUIRES_CAPTURE: &str = include_str!("fixtures/intent_requires_capture.json");
const REQUIRES_ACTION: &str = include_str!("fixtures/intent_requires_action.json");
const REFUND: &str = include_str!("fixtures/refund.json");
const DISPUTE: &str = include_str!("fixtures/dispute.json");

const OPENING: Subject = Subject::Transaction(TransactionId(Uuid::from_u128(7)));
const OURS: PaymentName = PaymentName::Ours(PaymentId(Uuid::from_u128(3)));

/// The fixture as events have it: nothing is expanded; and with changes.
fn object(fixture: &str, changes: &[(&str, Value)]) -> Value {
    let mut object: Value = serde_json::from_str(fixture).unwrap();
    if let Some(id) = object.pointer("/latest_charge/id").cloned() {
        object["latest_charge"] = id;
    }
    for (name, value) in changes {
        object[*name] = value.clone();
    }
    object
}

fn event(kind: &str, object: &Value) -> String {
    json!({
        "id": "evt_1", "object": "event", "api_version": API_VERSION, "created": 1_767_225_600,
        "type": kind, "livemode": false, "data": {"object": object, "previous_attributes": {}},
    })
    .to_string()
}

fn told(
    kind: &str,
    fixture: &str,
    changes: &[(&str, Value)],
) -> Result<Vec<WebhookFact>, Unreadable> {
    read(event(kind, &object(fixture, changes)).as_bytes(), false)
}

fn one(kind: &str, fixture: &str, changes: &[(&str, Value)]) -> WebhookFact {
    let mut facts = told(kind, fixture, changes).unwrap();
    assert_eq!(facts.len(), 1, "{kind}: {facts:?}");
    facts.remove(0)
}

fn moved(minor_units: i64) -> FactKind {
    FactKind::Approved {
        amount: Money::new(minor_units, Currency::parse("EUR").unwrap()).ok(),
        expires_at: None,
    }
}

fn theirs(reference: &str) -> PaymentName {
    PaymentName::Theirs(ProviderReference::parse(reference).unwrap())
}

#[test]
fn s07_what_became_of_a_payment_is_told_about_its_transaction() {
    let error = json!({"type": "card_error", "code": "expired_card"});
    for (kind, fixture, changes) in [
        ("payment_intent.succeeded", SUCCEEDED, vec![]),
        (
            "payment_intent.amount_capturable_updated",
            REQUIRES_CAPTURE,
            vec![],
        ),
        (
            "payment_intent.processing",
            SUCCEEDED,
            vec![("status", json!("processing"))],
        ),
        ("payment_intent.requires_action", REQUIRES_ACTION, vec![]),
        (
            "payment_intent.payment_failed",
            SUCCEEDED,
            vec![
                ("status", json!("requires_payment_method")),
                ("last_payment_error", error),
            ],
        ),
    ] {
        let told = one(kind, fixture, &changes);
        assert_eq!((told.payment, told.subject), (OURS, OPENING), "{kind}");
        match (kind, told.fact.kind) {
            ("payment_intent.processing", FactKind::Pending)
            | ("payment_intent.requires_action", FactKind::RequiresAction(_))
            | ("payment_intent.payment_failed", FactKind::Declined(_)) => {}
            (_, approved) => assert_eq!(approved, moved(1_000), "{kind}"),
        }
    }
}

#[test]
fn a_capture_is_ours_where_it_left_our_id_and_else_was_made_in_the_dashboard() {
    let captured = [
        ("status", json!("succeeded")),
        ("amount_received", json!(600)),
    ];
    let dashboard = one("payment_intent.succeeded", REQUIRES_CAPTURE, &captured);
    let kind = TransactionKind::Capture;
    assert_eq!(dashboard.subject, by_reference(kind));
    assert_eq!(dashboard.payment, OURS);
    assert_eq!(dashboard.fact.kind, moved(600));
    assert_eq!(dashboard.fact.provider_reference.unwrap().as_str(), "ch_1");
    let mut metadata = object(REQUIRES_CAPTURE, &[])["metadata"].clone();
    metadata[CAPTURE] = json!(Uuid::from_u128(9).to_string());
    let mut changes = captured.to_vec();
    changes.push(("metadata", metadata));
    let ours = one("payment_intent.succeeded", REQUIRES_CAPTURE, &changes);
    let capture = Subject::Transaction(TransactionId(Uuid::from_u128(9)));
    assert_eq!(ours.subject, capture);
}

#[test]
fn an_authorization_that_ran_out_is_told_from_one_that_was_released() {
    let canceled = |reason: &str| {
        let changes = [
            ("status", json!("canceled")),
            ("cancellation_reason", json!(reason)),
        ];
        one("payment_intent.canceled", REQUIRES_CAPTURE, &changes)
    };
    for reason in ["automatic", "expired"] {
        let told = canceled(reason);
        assert_eq!(
            (told.subject, told.fact.kind),
            (OPENING, FactKind::Expired),
            "{reason}"
        );
    }
    for reason in [
        "requested_by_customer",
        "abandoned",
        "duplicate",
        "fraudulent",
    ] {
        let told = canceled(reason);
        assert_eq!(
            told.subject,
            by_reference(TransactionKind::Void),
            "{reason}"
        );
        assert_eq!(told.fact.provider_reference.unwrap().as_str(), "pi_1");
    }
    let charge = json!({
        "id": "ch_1", "status": "succeeded", "payment_intent": "pi_1",
        "metadata": object(REQUIRES_CAPTURE, &[])["metadata"],
    });
    let expired = one("charge.expired", &charge.to_string(), &[]);
    assert_eq!(
        (expired.subject, expired.fact.kind),
        (OPENING, FactKind::Expired)
    );
    assert_eq!(expired.fact.payment_reference.unwrap().as_str(), "pi_1");
}

#[test]
fn refunds_are_told_apart_by_their_own_names() {
    let ours = one("refund.created", REFUND, &[]);
    let transaction = Subject::Transaction(TransactionId(Uuid::from_u128(8)));
    assert_eq!(
        (ours.payment, ours.subject, ours.fact.kind),
        (OURS, transaction, moved(400))
    );
    for id in ["re_2", "re_3"] {
        let changes = [("id", json!(id)), ("metadata", json!({}))];
        let dashboard = one("refund.updated", REFUND, &changes);
        assert_eq!(dashboard.payment, theirs("pi_1"));
        assert_eq!(dashboard.subject, by_reference(TransactionKind::Refund));
        assert_eq!(dashboard.fact.provider_reference.unwrap().as_str(), id);
    }
    let without_intent = [("payment_intent", Value::Null), ("metadata", json!({}))];
    let by_charge = one("charge.refund.updated", REFUND, &without_intent);
    assert_eq!(by_charge.payment, theirs("ch_1"));
    let failed = one("refund.failed", REFUND, &[("status", json!("failed"))]);
    let reported = FactKind::Failed(Cause::ProviderReportedFailure);
    assert_eq!(failed.fact.kind, reported);
}

/// An endpoint of an older version hears of a dashboard's refund by `charge.refunded` alone, which does not name it.
#[test]
fn s51_that_a_charge_was_refunded_has_its_refunds_asked_for() {
    let charge = |metadata: Value| {
        json!({
            "id": "ch_1", "status": "succeeded", "payment_intent": "pi_1", "amount_refunded": 400,
            "metadata": metadata,
        })
    };
    let refunds = Subject::Unnamed {
        kind: TransactionKind::Refund,
    };
    let metadata = object(SUCCEEDED, &[])["metadata"].clone();
    for (metadata, payment) in [(metadata, OURS), (json!({}), theirs("pi_1"))] {
        let told = one("charge.refunded", &charge(metadata).to_string(), &[]);
        assert_eq!((told.payment, &told.subject), (payment, &refunds));
        assert_eq!(told.fact.payment_reference.unwrap().as_str(), "pi_1");
    }
    let without = [("payment_intent", Value::Null)];
    let told = one("charge.refunded", &charge(json!({})).to_string(), &without);
    assert_eq!(told.payment, theirs("ch_1"));
}

#[test]
fn a_refund_without_metadata_or_status_can_be_read() {
    let dashboard = one("refund.created", REFUND, &[("metadata", Value::Null)]);
    assert_eq!(dashboard.subject, by_reference(TransactionKind::Refund));
    let open = one("refund.updated", REFUND, &[("status", Value::Null)]);
    assert_eq!(open.fact.kind, FactKind::Pending);
}

#[test]
fn what_releases_an_authorization_is_no_refund() {
    let changes = [
        ("balance_transaction", Value::Null),
        ("metadata", json!({})),
    ];
    assert_eq!(told("refund.created", REFUND, &changes), Ok(Vec::new()));
    // One of ours is booked, whenever Stripe moves the money.
    let changes = [
        ("balance_transaction", Value::Null),
        ("status", json!("pending")),
    ];
    assert_eq!(
        one("refund.created", REFUND, &changes).fact.kind,
        FactKind::Pending
    );
}

#[test]
fn s44_a_dispute_takes_the_money_back_and_a_won_one_returns_it() {
    let kinds = |event: &str, status: &str| -> Vec<TransactionKind> {
        let facts = told(event, DISPUTE, &[("status", json!(status))]).unwrap();
        let kinds = facts.into_iter().map(|told| match told.subject {
            Subject::Operation { kind, .. } => kind,
            Subject::Transaction(_) | Subject::Unnamed { .. } | Subject::Unclear { .. } => {
                panic!("by another name")
            }
        });
        kinds.collect()
    };
    let (taken, returned) = (
        TransactionKind::Chargeback,
        TransactionKind::ChargebackReversal,
    );
    for (event, status, expected) in [
        ("charge.dispute.created", "needs_response", vec![taken]),
        (
            "charge.dispute.funds_withdrawn",
            "needs_response",
            vec![taken],
        ),
        ("charge.dispute.updated", "under_review", vec![taken]),
        // Nothing of it was returned: see `disputes` for where a part is.
        ("charge.dispute.closed", "lost", vec![taken]),
        ("charge.dispute.closed", "won", vec![taken, returned]),
        (
            "charge.dispute.funds_reinstated",
            "won",
            vec![taken, returned],
        ),
        (
            "charge.dispute.updated",
            "appeal_needs_response",
            vec![taken],
        ),
        ("charge.dispute.updated", "appeal_under_review", vec![taken]),
        (
            "charge.dispute.created",
            "warning_needs_response",
            vec![taken],
        ),
        (
            "charge.dispute.updated",
            "warning_under_review",
            vec![taken],
        ),
        ("charge.dispute.closed", "warning_closed", vec![taken]),
        ("charge.dispute.closed", "prevented", vec![]),
    ] {
        assert_eq!(kinds(event, status), expected, "{event} {status}");
    }
}

#[test]
fn s44_an_inquiry_takes_nothing_and_is_closed_or_becomes_a_chargeback() {
    for (status, taken, pending) in [
        ("warning_needs_response", false, true),
        ("warning_under_review", false, true),
        ("warning_closed", false, false),
        ("needs_response", true, false),
    ] {
        let told = one(
            "charge.dispute.updated",
            DISPUTE,
            &[("status", json!(status))],
        );
        let kind = told.fact.kind;
        assert_eq!(matches!(kind, FactKind::Approved { .. }), taken, "{status}");
        assert_eq!(kind == FactKind::Pending, pending, "{status}");
    }
}

#[test]
fn s44_a_dispute_says_why_until_when_and_how_much_in_its_own_currency() {
    let told = one(
        "charge.dispute.created",
        DISPUTE,
        &[("currency", json!("usd"))],
    );
    assert_eq!(told.payment, theirs("pi_1"));
    assert_eq!(told.fact.provider_reference.unwrap().as_str(), "du_1");
    let Subject::Operation {
        dispute: Some(dispute),
        ..
    } = told.subject
    else {
        panic!("no dispute");
    };
    assert_eq!(dispute.reason.as_str(), "fraudulent");
    assert_eq!(dispute.due_at, DateTime::from_timestamp(1_768_003_199, 0));
    assert_eq!(dispute.amount.to_string(), "10.00 USD");
    let without = [("evidence_details", json!({"due_by": 0}))];
    let told = one("charge.dispute.created", DISPUTE, &without);
    let Subject::Operation {
        dispute: Some(dispute),
        ..
    } = told.subject
    else {
        panic!("no dispute");
    };
    assert_eq!(dispute.due_at, None);
}

#[test]
fn s61_an_event_of_the_other_mode_is_about_nothing_of_this_account() {
    let test = event("payment_intent.succeeded", &object(SUCCEEDED, &[]));
    let live = test.replacen(
        "\"livemode\":false,\"object\":\"event\"",
        "\"livemode\":true",
        1,
    );
    assert_ne!(test, live);
    for (body, livemode) in [(&test, true), (&live, false)] {
        let refused = Err(Unreadable::Unexpected);
        assert_eq!(read(body.as_bytes(), livemode), refused, "{livemode}");
    }
    assert!(read(test.as_bytes(), false).is_ok());
    assert!(read(live.as_bytes(), true).is_ok());
}

#[test]
fn s51_a_change_is_read_from_one_of_the_events_about_it() {
    for kind in TOLD_BY_OTHERS {
        assert_eq!(told(kind, SUCCEEDED, &[]), Ok(Vec::new()), "{kind}");
    }
}

#[test]
fn s55_events_that_are_not_handled_are_told_from_those_that_cannot_be_read() {
    for kind in [
        "invoice.paid",
        "radar.early_fraud_warning.created",
        "customer.created",
    ] {
        assert_eq!(
            told(kind, SUCCEEDED, &[]),
            Err(Unreadable::Unexpected),
            "{kind}"
        );
    }
    // Payments that somebody else made.
    for metadata in [
        json!({}),
        json!({"quittance_payment": "1", "quittance_transaction": "2"}),
    ] {
        let said = told(
            "payment_intent.succeeded",
            SUCCEEDED,
            &[("metadata", metadata)],
        );
        assert_eq!(said, Err(Unreadable::Unexpected));
    }
    for (name, value) in [
        ("status", json!("settled")),
        ("amount_received", json!("1000")),
        ("amount_received", json!(-1)),
        ("currency", json!("euro")),
    ] {
        let said = told("payment_intent.succeeded", SUCCEEDED, &[(name, value)]);
        assert_eq!(said, Err(Unreadable::Malformed), "{name}");
    }
    for body in [&b""[..], b"{}", b"\xff\xfe", b"[]", br#"{"id": "evt_1"}"#] {
        assert_eq!(read(body, false), Err(Unreadable::Malformed));
    }
}
