//! Tests of the mapping, on answers as Adyen documents them.

use quittance_domain::decline::DeclineCode;
use quittance_domain::ids::{ProviderReference, TransactionId};
use quittance_domain::money::{Currency, Money};
use reqwest::Method;
use uuid::Uuid;

use super::*;

const AUTHORISED: &str = include_str!("fixtures/authorised.json");
const REFUSED: &str = include_str!("fixtures/refused.json");
const REDIRECT: &str = include_str!("fixtures/redirect.json");
const CHALLENGE: &str = include_str!("fixtures/challenge.json");
const CAPTURE_RECEIVED: &str = include_str!("fixtures/capture_received.json");
const IN_PROGRESS: &str = include_str!("fixtures/in_progress.json");

fn asked(operation: OperationKind) -> Prepared {
    Prepared {
        operation,
        transaction: TransactionId(Uuid::from_u128(7)),
        method: Method::POST,
        path: "/payments".to_owned(),
        content_type: "application/json".to_owned(),
        body: br#"{"amount":{"currency":"EUR","value":1000}}"#.to_vec(),
        idempotency_key: "key".to_owned(),
    }
}

fn fact(body: &str, operation: OperationKind) -> Fact {
    match answered(body.as_bytes(), &asked(operation), false) {
        SendOutcome::Answered(fact) => fact,
        other => panic!("{other:?}: {body}"),
    }
}

fn unreadable(body: &str, operation: OperationKind) {
    let outcome = answered(body.as_bytes(), &asked(operation), false);
    let expected = SendOutcome::Unknown(Cause::UnreadableResponse);
    assert_eq!(outcome, expected, "{body}");
}

fn eur(minor_units: i64) -> FactKind {
    FactKind::Approved {
        amount: Money::new(minor_units, Currency::parse("EUR").unwrap()).ok(),
        expires_at: None,
    }
}

#[test]
fn an_authorisation_tells_its_amount_and_its_reference() {
    for operation in [
        OperationKind::Purchase,
        OperationKind::Authorize,
        OperationKind::Confirm,
    ] {
        let fact = fact(AUTHORISED, operation);
        assert_eq!(fact.kind, eur(1_000));
        let reference = fact.provider_reference.as_ref();
        assert_eq!(reference.unwrap().as_str(), "NC6HT9CRT65ZGN82");
        assert_eq!(fact.payment_reference, fact.provider_reference);
    }
}

#[test]
fn s60_an_amount_is_told_as_it_is_named_and_never_assumed() {
    let other = AUTHORISED.replace("1000", "1001");
    assert_eq!(fact(&other, OperationKind::Purchase).kind, eur(1_001));
    let partial = AUTHORISED
        .replace("Authorised", "PartiallyAuthorised")
        .replace("1000", "400");
    assert_eq!(fact(&partial, OperationKind::Authorize).kind, eur(400));
    let none = FactKind::Approved {
        amount: None,
        expires_at: None,
    };
    // The part may be told elsewhere (`additionalData.authorisedAmountValue`): this is what was asked for.
    let whole = AUTHORISED.replace("Authorised", "PartiallyAuthorised");
    for operation in [OperationKind::Purchase, OperationKind::Confirm] {
        assert_eq!(fact(&whole, operation).kind, none);
    }
    for inexact in [
        "\"ISK\", \"value\": 1050",
        "\"XXX\", \"value\": 1000",
        "\"EUR\", \"value\": 0",
    ] {
        let body = AUTHORISED.replace("\"EUR\", \"value\": 1000", inexact);
        assert_eq!(fact(&body, OperationKind::Purchase).kind, none, "{inexact}");
    }
    // Authorized, and not for how much: the webhook tells.
    let silent = AUTHORISED.replace("\"amount\"", "\"sum\"");
    let fact = fact(&silent, OperationKind::Purchase);
    assert_eq!(fact.kind, FactKind::Pending);
    assert!(fact.provider_reference.is_some());
}

#[test]
fn s11_a_refusal_in_an_http_200_is_a_decline() {
    let refused = fact(REFUSED, OperationKind::Purchase);
    let FactKind::Declined(decline) = refused.kind else {
        panic!("{:?}", refused.kind);
    };
    assert_eq!(decline.code, DeclineCode::InsufficientFunds);
    assert_eq!(decline.provider_code.as_str(), "12");
    assert!(refused.provider_reference.is_some());
    for result in ["Error", "Cancelled"] {
        let body = REFUSED.replace("\"Refused\"", &format!("\"{result}\""));
        let kind = fact(&body, OperationKind::Confirm).kind;
        assert!(matches!(kind, FactKind::Declined(_)), "{result}");
    }
}

#[test]
fn s06_redirects_and_challenges_are_for_the_customer() {
    let FactKind::RequiresAction(action) = fact(REDIRECT, OperationKind::Authorize).kind else {
        panic!("no action");
    };
    let url = "https://checkoutshopper.example/threeDS/redirect?session=1";
    assert_eq!(action.redirect_url.expose(), url);
    let data = action.data.expose();
    assert_eq!(data["method"], "POST");
    assert_eq!(data["data.MD"], "merchant-data");
    assert_eq!(data.len(), 6);

    let told = fact(CHALLENGE, OperationKind::Confirm);
    // A confirmation that is lost must be sent again, so it has no name yet.
    assert_eq!(told.provider_reference, None);
    let FactKind::RequiresAction(action) = told.kind else {
        panic!("no action");
    };
    assert_eq!(action.redirect_url.expose(), "");
    assert_eq!(action.data.expose()["token"], "token-of-the-challenge");

    let waiting = CHALLENGE.replace("ChallengeShopper", "Pending");
    let kind = fact(&waiting, OperationKind::Purchase).kind;
    assert!(matches!(kind, FactKind::RequiresAction(_)));
    for bad in [
        REDIRECT.replace("https://checkoutshopper", "javascript:checkoutshopper"),
        REDIRECT.replace("\"action\"", "\"inaction\""),
        REDIRECT.replace("\"type\"", "\"sort\""),
        REDIRECT.replace("merchant-data", &"x".repeat(MAX_ACTION_BYTES)),
    ] {
        unreadable(&bad, OperationKind::Purchase);
    }
}

#[test]
fn a_customer_of_real_money_is_sent_to_encrypted_pages_only() {
    let plain = REDIRECT.replace("https://checkoutshopper", "http://checkoutshopper");
    for (body, livemode, shown) in [
        (&*plain, true, false),
        (&*plain, false, true),
        (REDIRECT, true, true),
    ] {
        let outcome = answered(body.as_bytes(), &asked(OperationKind::Purchase), livemode);
        assert_eq!(matches!(outcome, SendOutcome::Answered(_)), shown);
    }
}

#[test]
fn every_result_code_is_known_and_others_prove_nothing() {
    for result in ["Pending", "Received"] {
        let body = AUTHORISED.replace("\"Authorised\"", &format!("\"{result}\""));
        let kind = fact(&body, OperationKind::Purchase).kind;
        assert_eq!(kind, FactKind::Pending, "{result}");
    }
    for result in [
        "AuthenticationFinished",
        "AuthenticationNotRequired",
        "Success",
        "authorised",
        "",
    ] {
        let body = AUTHORISED.replace("\"Authorised\"", &format!("\"{result}\""));
        unreadable(&body, OperationKind::Purchase);
    }
    for (from, to) in [
        ("\"pspReference\"", "\"reference\""),
        ("NC6HT9CRT65ZGN82", ""),
        // Another transaction's.
        ("00000007-auth", "00000008-auth"),
        ("00000000000000000000000000000003-", ""),
        ("1000", "10.5"),
    ] {
        unreadable(&AUTHORISED.replace(from, to), OperationKind::Purchase);
    }
}

#[test]
fn s07_a_modification_is_received_and_told_later() {
    for operation in [
        OperationKind::Capture,
        OperationKind::Void,
        OperationKind::Refund,
    ] {
        let fact = fact(CAPTURE_RECEIVED, operation);
        assert_eq!(fact.kind, FactKind::Pending);
        let reference = fact.provider_reference.unwrap();
        assert_eq!(reference.as_str(), "JDZXCMLW35GXXN82");
        let payment = fact.payment_reference.unwrap();
        assert_eq!(payment.as_str(), "NC6HT9CRT65ZGN82");
    }
    let other = CAPTURE_RECEIVED.replace("1000", "1001");
    assert_eq!(fact(&other, OperationKind::Capture).kind, eur(1_001));
    let other = CAPTURE_RECEIVED.replace("EUR", "USD");
    assert_ne!(fact(&other, OperationKind::Refund).kind, FactKind::Pending);
    for (from, to) in [
        ("received", "authorised"),
        ("\"status\"", "\"state\""),
        ("JDZXCMLW35GXXN82", "a b"),
        ("00000007-capture", "00000009-capture"),
    ] {
        unreadable(&CAPTURE_RECEIVED.replace(from, to), OperationKind::Capture);
    }
}

#[test]
fn s18_a_request_that_is_processed_under_the_same_key_is_not_refused() {
    let in_progress = SendOutcome::Unknown(Cause::RequestInProgress);
    for status in [409, 422] {
        assert_eq!(refused(status, IN_PROGRESS.as_bytes()), in_progress);
    }
    let ours = IN_PROGRESS
        .replace("704", "905")
        .replace("validation", "internal");
    let failed = SendOutcome::Unknown(Cause::ProviderError);
    assert_eq!(refused(422, ours.as_bytes()), failed);
    let invalid = IN_PROGRESS.replace("704", "702");
    let not_sent = SendOutcome::NotSent(Cause::RequestRefused);
    assert_eq!(refused(422, invalid.as_bytes()), not_sent);
    assert_eq!(refused(400, b"<html>"), not_sent);
    assert_eq!(refused(409, b"{}"), in_progress);
}

/// The name that Adyen has given the payment is told by webhook: the answer repeats ours, and it must be that.
#[test]
fn s06_a_cancel_by_our_reference_is_answered_with_that() {
    const REFERENCE: &str =
        "00000000000000000000000000000003-00000000000000000000000000000008-purchase";
    let asked = Prepared {
        path: "/cancels".to_owned(),
        body: format!(r#"{{"paymentReference":"{REFERENCE}"}}"#).into_bytes(),
        ..asked(OperationKind::Void)
    };
    let answer = |payment_reference: &str| {
        let body = format!(
            r#"{{"status": "received", "pspReference": "JDZXCMLW35GXXN82", "merchantAccount": "A"{payment_reference}}}"#
        );
        answered(body.as_bytes(), &asked, false)
    };
    let good = answer(&format!(r#", "paymentReference": "{REFERENCE}""#));
    let reference = ProviderReference::parse("JDZXCMLW35GXXN82").unwrap();
    assert_eq!(
        good,
        SendOutcome::Answered(Fact {
            kind: FactKind::Pending,
            provider_reference: Some(reference),
            payment_reference: None,
        })
    );
    for other in ["", r#", "paymentReference": "order-3""#] {
        let outcome = answer(other);
        assert_eq!(outcome, SendOutcome::Unknown(Cause::UnreadableResponse));
    }
}
