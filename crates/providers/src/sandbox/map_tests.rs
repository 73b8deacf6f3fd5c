//! Tests of the mapping, on the answers in `fixtures/`.

use super::*;
use uuid::Uuid;

const PURCHASE: &str = include_str!("fixtures/purchase_approved.json");
const AUTHORIZATION: &str = include_str!("fixtures/authorization_approved.json");
const DECLINED: &str = include_str!("fixtures/purchase_declined.json");
const PENDING: &str = include_str!("fixtures/purchase_pending.json");
const REQUIRES_ACTION: &str = include_str!("fixtures/authorization_requires_action.json");
const CAPTURE_FAILED: &str = include_str!("fixtures/capture_failed.json");
const VOID_NOTHING: &str = include_str!("fixtures/void_nothing_reserved.json");
const NOT_FOUND: &str = include_str!("fixtures/lookup_not_found.json");
const KEY_IN_USE: &str = include_str!("fixtures/key_in_use.json");

const TRANSACTION: TransactionId = TransactionId(Uuid::from_u128(7));

fn eur(minor_units: i64) -> Money {
    Money::new(minor_units, Currency::parse("EUR").unwrap()).unwrap()
}

fn kind(body: &str, operation: OperationKind) -> FactKind {
    match answered(body.as_bytes(), TRANSACTION, operation) {
        SendOutcome::Answered(fact) => fact.kind,
        other => panic!("{other:?}"),
    }
}

fn unreadable() -> SendOutcome {
    SendOutcome::Unknown(Cause::UnreadableResponse)
}

#[test]
fn every_status_is_mapped() {
    let SendOutcome::Answered(fact) =
        answered(PURCHASE.as_bytes(), TRANSACTION, OperationKind::Purchase)
    else {
        panic!("unreadable");
    };
    assert_eq!(
        fact.kind,
        FactKind::Approved {
            amount: Some(eur(1000)),
            expires_at: None
        }
    );
    let reference = |text| ProviderReference::parse(text).ok();
    assert_eq!(
        fact.provider_reference,
        reference("sop_0000000000000000000000000000000a")
    );
    assert_eq!(
        fact.payment_reference,
        reference("spay_0000000000000000000000000000000b")
    );

    assert!(matches!(
        kind(AUTHORIZATION, OperationKind::Authorize),
        FactKind::Approved { amount, expires_at: Some(_) } if amount == Some(eur(1000))
    ));
    assert!(matches!(
        kind(DECLINED, OperationKind::Purchase),
        FactKind::Declined(Decline { code: DeclineCode::CardLostOrStolen, provider_code })
            if provider_code.as_str() == "lost_card"
    ));
    assert_eq!(kind(PENDING, OperationKind::Purchase), FactKind::Pending);
    assert!(matches!(
        kind(REQUIRES_ACTION, OperationKind::Authorize),
        FactKind::RequiresAction(action) if action.data.expose().len() == 1
    ));
    assert_eq!(
        kind(CAPTURE_FAILED, OperationKind::Capture),
        FactKind::Failed(Cause::ProviderReportedFailure)
    );
    assert!(matches!(
        kind(VOID_NOTHING, OperationKind::Void),
        FactKind::Approved { amount: None, .. }
    ));
}

#[test]
fn another_amount_is_told_as_the_provider_told_it() {
    let body = PURCHASE.replace("1000", "1001");
    assert_eq!(
        kind(&body, OperationKind::Purchase),
        FactKind::Approved {
            amount: Some(eur(1001)),
            expires_at: None
        }
    );
}

#[test]
fn answers_about_something_else_prove_nothing() {
    for (from, to) in [
        ("000000000007", "000000000008"),
        ("\"purchase\"", "\"refund\""),
        ("\"purchase\"", "\"chargeback\""),
        ("\"approved\"", "\"settled\""),
        ("1000", "0"),
        ("1000", "-5"),
        ("1000", "10.5"),
        ("EUR", "eur"),
        ("sop_0", "sop 0"),
        ("{", "["),
    ] {
        let body = PURCHASE.replace(from, to);
        let outcome = answered(body.as_bytes(), TRANSACTION, OperationKind::Purchase);
        assert_eq!(outcome, unreadable(), "{to}");
    }
    for body in ["", "null", "{}"] {
        let outcome = answered(body.as_bytes(), TRANSACTION, OperationKind::Purchase);
        assert_eq!(outcome, unreadable(), "{body}");
    }
}

#[test]
fn each_operation_is_answered_by_its_own_kind_only() {
    let accepts = |operation| {
        ["purchase", "authorization", "capture", "void", "refund"]
            .into_iter()
            .filter(|kind| {
                let body = PURCHASE.replace("purchase", kind);
                answered(body.as_bytes(), TRANSACTION, operation) != unreadable()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(accepts(OperationKind::Purchase), ["purchase"]);
    assert_eq!(accepts(OperationKind::Authorize), ["authorization"]);
    assert_eq!(
        accepts(OperationKind::Confirm),
        ["purchase", "authorization"]
    );
    assert_eq!(accepts(OperationKind::Capture), ["capture"]);
    assert_eq!(accepts(OperationKind::Void), ["void"]);
    assert_eq!(accepts(OperationKind::Refund), ["refund"]);
}

#[test]
fn a_redirect_goes_to_the_web_only() {
    for bad in ["javascript:alert(1)//", "/challenge/", "file:///"] {
        let body = REQUIRES_ACTION.replace("https://sandbox.example/challenge/", bad);
        let outcome = answered(body.as_bytes(), TRANSACTION, OperationKind::Authorize);
        assert_eq!(outcome, unreadable(), "{bad}");
    }
}

#[test]
fn refusals_are_told_from_conflicts() {
    let error = |code: &str| KEY_IN_USE.replace("idempotency_key_in_use", code);
    let capture = OperationKind::Capture;
    let outcome = |status, code: &str| refused(status, error(code).as_bytes(), capture);
    let not_sent = SendOutcome::NotSent(Cause::RequestRefused);
    let in_progress = SendOutcome::Unknown(Cause::RequestInProgress);
    assert_eq!(outcome(409, "idempotency_key_in_use"), in_progress);
    assert_eq!(outcome(409, "something_new"), in_progress);
    assert_eq!(outcome(409, "invalid_state"), not_sent);
    assert_eq!(outcome(400, "malformed_request"), not_sent);
    assert_eq!(outcome(400, "idempotency_mismatch"), in_progress);
    assert_eq!(outcome(404, "not_found"), not_sent);
    assert_eq!(outcome(422, "amount_too_large"), not_sent);
    assert_eq!(refused(422, b"<html>", capture), not_sent);
    assert_eq!(refused(409, b"<html>", capture), in_progress);
    assert_eq!(
        refused(
            409,
            error("invalid_state").as_bytes(),
            OperationKind::Confirm
        ),
        in_progress
    );
}

#[test]
fn only_the_sandboxs_own_not_found_is_proof() {
    let authoritative = LookupOutcome::NotFound {
        authoritative: true,
    };
    assert_eq!(not_found(404, NOT_FOUND.as_bytes()), authoritative);
    let lagging = NOT_FOUND.replace("true", "false");
    let lagging = not_found(404, lagging.as_bytes());
    assert_eq!(
        lagging,
        LookupOutcome::NotFound {
            authoritative: false
        }
    );
    let unreadable = unavailable(Cause::UnreadableResponse);
    for body in ["", "404 page not found", "{}", KEY_IN_USE] {
        assert_eq!(not_found(404, body.as_bytes()), unreadable, "{body}");
    }
    let refused = unavailable(Cause::RequestRefused);
    assert_eq!(not_found(422, NOT_FOUND.as_bytes()), refused);
}

#[test]
fn a_lookup_must_speak_of_the_transaction_asked_for() {
    assert!(matches!(
        found(PURCHASE.as_bytes(), TRANSACTION),
        LookupOutcome::Found(_)
    ));
    let other = TransactionId(Uuid::from_u128(8));
    let unreadable = unavailable(Cause::UnreadableResponse);
    assert_eq!(found(PURCHASE.as_bytes(), other), unreadable);
    assert_eq!(found(b"<html>", TRANSACTION), unreadable);
}

#[test]
fn s08_the_sandboxs_decline_codes_are_unified() {
    for (code, expected) in [
        ("insufficient_funds", DeclineCode::InsufficientFunds),
        ("expired_card", DeclineCode::CardExpired),
        ("lost_card", DeclineCode::CardLostOrStolen),
        ("fraud", DeclineCode::FraudSuspected),
        ("do_not_honor", DeclineCode::DoNotHonor),
        ("authentication_failed", DeclineCode::AuthenticationFailed),
        ("a_code_of_tomorrow", DeclineCode::Other),
        ("", DeclineCode::Other),
    ] {
        assert_eq!(decline_code(code), expected, "{code}");
    }
}
