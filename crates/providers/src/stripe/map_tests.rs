//! Tests of the mapping, on the answers in `fixtures/`, which have the shapes of Stripe's API reference.

use quittance_domain::decline::DeclineCode;
use quittance_domain::money::Currency;

use super::*;

const SUCCEEDED: &str = include_str!("fixtures/intent_succeeded.json");
const REQUIRES_CAPTURE: &str = include_str!("fixtures/intent_requires_capture.json");
const REQUIRES_ACTION: &str = include_str!("fixtures/intent_requires_action.json");
const DECLINED: &str = include_str!("fixtures/card_declined.json");
const REFUND: &str = include_str!("fixtures/refund.json");

const OPENING: TransactionId = TransactionId(Uuid::from_u128(7));
const REFUNDING: TransactionId = TransactionId(Uuid::from_u128(8));

fn eur(minor_units: i64) -> Money {
    Money::new(minor_units, Currency::parse("EUR").unwrap()).unwrap()
}

fn said(body: &str, transaction: TransactionId, operation: OperationKind) -> Option<Fact> {
    match answered(body.as_bytes(), transaction, operation) {
        SendOutcome::Answered(fact) => Some(fact),
        SendOutcome::Unknown(Cause::UnreadableResponse) => None,
        other => panic!("{other:?}"),
    }
}

fn kind(body: &str, operation: OperationKind) -> Option<FactKind> {
    said(body, OPENING, operation).map(|fact| fact.kind)
}

fn moved(minor_units: i64) -> FactKind {
    FactKind::Approved {
        amount: Some(eur(minor_units)),
        expires_at: None,
    }
}

/// The intent with another status, and what goes with it.
fn with(body: &str, changes: &[(&str, Value)]) -> String {
    let mut intent: Value = serde_json::from_str(body).unwrap();
    for (name, value) in changes {
        intent[*name] = value.clone();
    }
    intent.to_string()
}

fn status(body: &str, status: &str) -> String {
    with(body, &[("status", status.into())])
}

#[test]
fn a_purchase_is_approved_with_what_was_received() {
    let fact = said(SUCCEEDED, OPENING, OperationKind::Purchase).unwrap();
    assert_eq!(Some(fact.kind), Some(moved(1_000)));
    for reference in [fact.provider_reference, fact.payment_reference] {
        assert_eq!(reference.unwrap().as_str(), "pi_1");
    }
    let less = with(SUCCEEDED, &[("amount_received", 900.into())]);
    assert_eq!(kind(&less, OperationKind::Purchase), Some(moved(900)));
}

#[test]
fn an_authorization_is_approved_with_what_can_be_captured_and_until_when() {
    let expected = FactKind::Approved {
        amount: Some(eur(1_000)),
        expires_at: DateTime::from_timestamp(1_767_830_400, 0),
    };
    let authorize = OperationKind::Authorize;
    assert_eq!(kind(REQUIRES_CAPTURE, authorize), Some(expected));
    let part = with(
        REQUIRES_CAPTURE,
        &[
            ("amount_capturable", 700.into()),
            ("latest_charge", "ch_1".into()),
        ],
    );
    assert_eq!(kind(&part, authorize), Some(moved(700)));
    // Captured in part since: it had been authorized whole.
    let captured = with(
        REQUIRES_CAPTURE,
        &[
            ("status", "succeeded".into()),
            ("amount_received", 400.into()),
            ("latest_charge", "ch_1".into()),
        ],
    );
    assert_eq!(kind(&captured, authorize), Some(moved(1_000)));
}

#[test]
fn every_status_of_a_payment_intent_is_mapped() {
    let purchase = OperationKind::Purchase;
    let tried = serde_json::json!({"type": "card_error", "code": "card_declined", "decline_code": "lost_card"});
    let failed = with(
        SUCCEEDED,
        &[
            ("status", "requires_payment_method".into()),
            ("last_payment_error", tried),
        ],
    );
    let Some(FactKind::Declined(decline)) = kind(&failed, purchase) else {
        panic!("not declined");
    };
    assert_eq!(decline.code, DeclineCode::CardLostOrStolen);
    assert_eq!(decline.provider_code.as_str(), "lost_card");
    for (now, expected) in [
        ("requires_payment_method", Some(FactKind::Pending)),
        ("requires_confirmation", Some(FactKind::Pending)),
        ("processing", Some(FactKind::Pending)),
        // A purchase captures at once; with no action to take, none can be asked for.
        ("requires_capture", None),
        ("requires_action", None),
        ("on_holiday", None),
    ] {
        assert_eq!(kind(&status(SUCCEEDED, now), purchase), expected, "{now}");
    }
}

#[test]
fn what_was_canceled_may_have_been_authorized_before() {
    let canceled = |changes: &[(&str, Value)]| {
        let body = with(&status(REQUIRES_CAPTURE, "canceled"), changes);
        kind(&body, OperationKind::Authorize)
    };
    let voided = Some(FactKind::Failed(Cause::Voided));
    for (reason, charge, expected) in [
        ("automatic", Some("succeeded"), Some(FactKind::Expired)),
        ("expired", None, Some(FactKind::Expired)),
        ("requested_by_customer", None, voided.clone()),
        ("abandoned", Some("failed"), voided),
    ] {
        let charge = charge.map(|status| serde_json::json!({"id": "ch_1", "status": status}));
        let changes = [
            ("cancellation_reason", reason.into()),
            ("latest_charge", charge.into()),
        ];
        assert_eq!(canceled(&changes), expected, "{reason}");
    }
    let authorized = canceled(&[]);
    assert!(matches!(authorized, Some(FactKind::Approved { .. })));
    // Whether the attempt succeeded is not told.
    assert_eq!(canceled(&[("latest_charge", "ch_1".into())]), None);
}

#[test]
fn s06_the_customer_is_sent_to_the_issuer_or_goes_on_in_the_page() {
    let action = |changes: &[(&str, Value)]| match kind(
        &with(REQUIRES_ACTION, changes),
        OperationKind::Confirm,
    )? {
        FactKind::RequiresAction(action) => Some(action),
        other => panic!("{other:?}"),
    };
    let redirected = action(&[]).unwrap();
    assert_eq!(
        redirected.redirect_url.expose(),
        "https://hooks.stripe.com/3d_secure_2/1"
    );
    assert!(!redirected.data.expose().contains_key("client_secret"));
    let sdk = serde_json::json!({"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}});
    let in_page = action(&[("next_action", sdk)]).unwrap();
    assert_eq!(in_page.redirect_url.expose(), "");
    assert_eq!(in_page.data.expose()["client_secret"], "pi_1_secret_x");
    assert_eq!(in_page.data.expose()["type"], "use_stripe_sdk");
    let voucher = serde_json::json!({"type": "boleto_display_details",
        "boleto_display_details": {"hosted_voucher_url": "https://payments.stripe.com/boleto/1"}});
    let shown = action(&[("next_action", voucher)]).unwrap();
    assert_eq!(
        shown.redirect_url.expose(),
        "https://payments.stripe.com/boleto/1"
    );
    let deposits = serde_json::json!({"type": "verify_with_microdeposits",
        "verify_with_microdeposits": {"hosted_verification_url": "https://payments.stripe.com/microdeposit/1"}});
    let verified = action(&[("next_action", deposits)]).unwrap();
    // Who has days for it has not left the payment after one.
    let patient = [redirected, in_page, shown, verified].map(|action| action.may_take_days);
    assert_eq!(patient, [false, false, true, true]);
    for url in ["javascript:alert(1)", "http://hooks.stripe.com/1"] {
        let bad = serde_json::json!({"type": "redirect_to_url", "redirect_to_url": {"url": url}});
        assert_eq!(action(&[("next_action", bad)]), None, "{url}");
    }
}

#[test]
fn a_capture_is_told_by_the_payment_intent_that_carries_its_id() {
    let metadata = serde_json::json!({"quittance_capture": REFUNDING.to_string()});
    let captured = with(
        REQUIRES_CAPTURE,
        &[
            ("status", "succeeded".into()),
            ("amount_received", 400.into()),
            ("metadata", metadata),
        ],
    );
    let fact = said(&captured, REFUNDING, OperationKind::Capture).unwrap();
    assert_eq!(Some(fact.kind), Some(moved(400)));
    assert_eq!(fact.provider_reference.unwrap().as_str(), "ch_1");
    assert_eq!(fact.payment_reference.unwrap().as_str(), "pi_1");
    assert_eq!(said(&captured, OPENING, OperationKind::Capture), None);
    let still = status(&captured, "requires_capture");
    assert_eq!(said(&still, REFUNDING, OperationKind::Capture), None);
}

#[test]
fn a_void_is_a_canceled_payment_intent() {
    let void = |body: &str| kind(body, OperationKind::Void);
    assert_eq!(
        void(&status(REQUIRES_CAPTURE, "canceled")),
        Some(moved(1_000))
    );
    let nothing = Some(FactKind::Approved {
        amount: None,
        expires_at: None,
    });
    assert_eq!(void(&status(REQUIRES_ACTION, "canceled")), nothing);
    assert_eq!(void(REQUIRES_CAPTURE), None);
}

#[test]
fn s43_every_status_of_a_refund_is_mapped() {
    let failed = Some(FactKind::Failed(Cause::ProviderReportedFailure));
    for (now, expected) in [
        ("succeeded", Some(moved(400))),
        ("pending", Some(FactKind::Pending)),
        ("requires_action", Some(FactKind::Pending)),
        ("failed", failed.clone()),
        ("canceled", failed),
        ("lost", None),
    ] {
        let fact = said(&status(REFUND, now), REFUNDING, OperationKind::Refund);
        assert_eq!(fact.map(|fact| fact.kind), expected, "{now}");
    }
    assert_eq!(said(REFUND, OPENING, OperationKind::Refund), None);
}

#[test]
fn what_answers_something_else_is_not_believed() {
    for (from, to) in [
        (
            "00000000-0000-0000-0000-000000000007",
            "00000000-0000-0000-0000-000000000009",
        ),
        ("\"quittance_transaction\"", "\"somebody_else\""),
        ("\"eur\"", "\"euro\""),
        ("\"amount_received\": 1000", "\"amount_received\": 0"),
        ("\"amount_received\": 1000", "\"amount_received\": 10.5"),
        ("\"id\": \"pi_1\"", "\"id\": \"\""),
    ] {
        let body = SUCCEEDED.replace(from, to);
        assert_ne!(body, SUCCEEDED);
        assert_eq!(kind(&body, OperationKind::Purchase), None, "{to}");
    }
}

#[test]
fn s08_a_card_error_is_a_decline_with_the_issuers_reason() {
    for operation in OperationKind::ALL.iter().copied() {
        let outcome = refused(402, DECLINED.as_bytes(), None, operation);
        let SendOutcome::Answered(fact) = outcome else {
            panic!("{operation}: {outcome:?}");
        };
        let FactKind::Declined(decline) = fact.kind else {
            panic!("{operation}");
        };
        assert_eq!(decline.code, DeclineCode::InsufficientFunds);
        assert_eq!(decline.provider_code.as_str(), "insufficient_funds");
        assert_eq!(fact.payment_reference.unwrap().as_str(), "pi_1");
    }
    let unreadable = SendOutcome::Unknown(Cause::UnreadableResponse);
    for body in ["{}", "{\"error\": {}}", "<html>"] {
        let outcome = refused(402, body.as_bytes(), None, OperationKind::Purchase);
        assert_eq!(outcome, unreadable, "{body}");
    }
}

#[test]
fn a_refusal_is_proof_unless_stripe_says_that_the_same_request_may_end_differently() {
    let error = |kind: &str, code: &str| {
        format!(r#"{{"error": {{"type": "{kind}", "code": "{code}", "message": "no"}}}}"#)
    };
    let invalid = error("invalid_request_error", "parameter_invalid_integer");
    let in_use = error("idempotency_error", "idempotency_key_in_use");
    let reused = r#"{"error": {"type": "idempotency_error", "message": "other parameters"}}"#;
    let (sent, unknown) = (SendOutcome::NotSent, SendOutcome::Unknown);
    for (status, body, retry, expected) in [
        (400, invalid.as_str(), None, sent(Cause::RequestRefused)),
        (400, &invalid, Some(false), sent(Cause::RequestRefused)),
        (400, &invalid, Some(true), unknown(Cause::RequestInProgress)),
        (404, &invalid, None, sent(Cause::RequestRefused)),
        (404, &invalid, Some(true), unknown(Cause::RequestInProgress)),
        (409, &in_use, None, unknown(Cause::RequestInProgress)),
        (409, &in_use, Some(false), unknown(Cause::RequestInProgress)),
        (400, reused, None, unknown(Cause::RequestInProgress)),
        (424, &invalid, None, unknown(Cause::UnreadableResponse)),
    ] {
        let outcome = refused(status, body.as_bytes(), retry, OperationKind::Purchase);
        assert_eq!(outcome, expected, "{status} {retry:?} {body}");
    }
}

#[test]
fn s43_a_cancellation_refused_since_it_was_canceled_in_the_dashboard_is_done() {
    let refused_with = |intent: &str, operation| {
        let intent: Value = serde_json::from_str(intent).unwrap();
        let error = serde_json::json!({
            "type": "invalid_request_error",
            "code": "payment_intent_unexpected_state",
            "message": "You cannot cancel this PaymentIntent because it has a status of canceled.",
            "payment_intent": intent,
        });
        let body = serde_json::json!({ "error": error }).to_string();
        refused(400, body.as_bytes(), None, operation)
    };
    let canceled = status(REQUIRES_CAPTURE, "canceled");
    let void = OperationKind::Void;
    let SendOutcome::Answered(fact) = refused_with(&canceled, void) else {
        panic!("the money is released");
    };
    assert_eq!(fact.kind, moved(1_000));
    assert_eq!(fact.payment_reference.unwrap().as_str(), "pi_1");

    let no = SendOutcome::NotSent(Cause::RequestRefused);
    let by_time = with(&canceled, &[("cancellation_reason", "automatic".into())]);
    assert_eq!(refused_with(&by_time, void), no, "its time was over");
    assert_eq!(refused_with(SUCCEEDED, void), no, "it is captured");
    assert_eq!(refused_with(&canceled, OperationKind::Capture), no);
}
