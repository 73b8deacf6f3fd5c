//! The Stripe adapter against a scripted server: what it sends, and how it asks.

use std::time::Duration;

use quittance_domain::decline::Cause;
use quittance_domain::ids::ProviderReference;
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{Initiator, Payment, PaymentMethodType};
use quittance_domain::ports::{
    LookupQuery, Named, Operation, Provider as _, ProviderRules as _, Unpreparable,
};
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{
    FactKind, LookupOutcome, OperationKind, SendOutcome, Transaction, TransactionKind,
    TransactionOrigin,
};
use quittance_domain::unconfirmed::Unconfirmed;
use quittance_domain::webhook::Subject;
use quittance_providers::config::{ProviderAccountConfig, Secret};
use quittance_providers::stripe::{API_VERSION, Stripe};
use serde_json::{Value, json};

use crate::support::builders::{self, eur};
use crate::support::server::{Act, Received, Scripted, response};

const NOT_FOUND: LookupOutcome = LookupOutcome::NotFound {
    authoritative: false,
};

fn account(base_url: String) -> Stripe {
    let key = Secret::new("sk_test_1");
    let config = ProviderAccountConfig {
        // No busy machine comes to these.
        connect_timeout_ms: 50_000,
        total_timeout_ms: 100_000,
        allow_plaintext: true,
        ..ProviderAccountConfig::new("stripe", quittance_providers::stripe::KIND, base_url, key)
    };
    Stripe::new(&config, |_| {}).unwrap()
}

/// An account, and the server that it talks to.
async fn scripted(answers: &[Value]) -> (Stripe, Scripted) {
    let acts = answers.iter();
    let acts = acts.map(|body| Act::Answer(response(200, "", &body.to_string())));
    let server = Scripted::start(acts.collect()).await;
    (account(server.base_url()), server)
}

/// The fields of a form, in their order.
fn fields(received: &Received) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(&received.body).into_owned();
    pairs.collect()
}

fn field(received: &Received, name: &str) -> Option<String> {
    let mut fields = fields(received).into_iter();
    fields.find_map(|(found, value)| (found == name).then_some(value))
}

/// What an operation is sent as.
async fn sent(kind: OperationKind, payment: &Payment, transaction: &Transaction) -> Received {
    let (account, server) = scripted(&[json!({})]).await;
    let operation = builders::operation(kind, payment, transaction, &[]);
    let request = account.prepare(&operation).unwrap();
    account.send(&request, 1).await;
    server.received().remove(0)
}

fn line(received: &Received) -> &str {
    received.head.lines().next().unwrap()
}

#[tokio::test]
async fn a_payment_is_created_and_confirmed_by_one_request() {
    for (kind, method) in [
        (OperationKind::Purchase, "automatic"),
        (OperationKind::Authorize, "manual"),
    ] {
        let payment = builders::payment("pm_1", None);
        let transaction = builders::transaction(&payment, kind, 1_000);
        let received = sent(kind, &payment, &transaction).await;
        assert_eq!(line(&received), "POST /v1/payment_intents HTTP/1.1");
        assert_eq!(received.header("stripe-version"), Some(API_VERSION));
        assert_eq!(received.header("authorization"), Some("Bearer sk_test_1"));
        let form = "application/x-www-form-urlencoded";
        assert_eq!(received.header("content-type"), Some(form));
        let (payment_id, transaction_id) = (payment.id.to_string(), transaction.id.to_string());
        assert_eq!(received.header("idempotency-key"), Some(&*transaction_id));
        let expected = [
            ("amount", "1000"),
            ("currency", "eur"),
            ("confirm", "true"),
            ("capture_method", method),
            ("metadata[quittance_payment]", &payment_id),
            ("metadata[quittance_transaction]", &transaction_id),
            ("expand[]", "latest_charge"),
            ("payment_method", "pm_1"),
            ("payment_method_types[]", "card"),
            ("return_url", "https://shop.example/return"),
            ("description", "Two tickets"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(fields(&received), expected);
    }
}

#[tokio::test]
async fn a_payment_without_the_customer_names_whose_method_or_which_mandate_it_uses() {
    for (mandate, token, expected) in [
        ("cus_1", "pm_1", [Some("cus_1"), None, Some("pm_1")]),
        (
            "mandate_1",
            "cus_2/pm_1",
            [Some("cus_2"), Some("mandate_1"), Some("pm_1")],
        ),
    ] {
        let mut payment = builders::payment(token, None);
        payment.initiator = Initiator::Merchant;
        payment.mandate_reference = Text::parse(mandate).unwrap();
        let transaction = builders::transaction(&payment, OperationKind::Purchase, 1_000);
        let received = sent(OperationKind::Purchase, &payment, &transaction).await;
        let named = ["customer", "mandate", "payment_method"].map(|name| field(&received, name));
        assert_eq!(named.each_ref().map(Option::as_deref), expected);
        assert_eq!(field(&received, "off_session").as_deref(), Some("true"));
        assert_eq!(field(&received, "return_url"), None);
    }
}

#[tokio::test]
async fn without_a_way_back_other_methods_than_cards_lead_nobody_away() {
    for (return_url, redirects) in [("https://shop.example/return", "always"), ("", "never")] {
        let mut payment = builders::payment("pm_1", None);
        payment.method.kind = PaymentMethodType::BankDebit;
        payment.return_url = Text::parse(return_url).unwrap();
        let transaction = builders::transaction(&payment, OperationKind::Purchase, 1_000);
        let received = sent(OperationKind::Purchase, &payment, &transaction).await;
        let allowed = field(&received, "automatic_payment_methods[allow_redirects]");
        assert_eq!(allowed.as_deref(), Some(redirects));
        assert_eq!(field(&received, "payment_method_types[]"), None);
    }
}

#[tokio::test]
async fn what_follows_a_payment_names_its_payment_intent() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    for (kind, expected) in [
        (
            OperationKind::Capture,
            "POST /v1/payment_intents/pi_1/capture HTTP/1.1",
        ),
        (
            OperationKind::Void,
            "POST /v1/payment_intents/pi_1/cancel HTTP/1.1",
        ),
        (OperationKind::Refund, "POST /v1/refunds HTTP/1.1"),
        (
            OperationKind::Confirm,
            "GET /v1/payment_intents/pi_1 HTTP/1.1",
        ),
    ] {
        let transaction = builders::transaction(&payment, kind, 400);
        let received = sent(kind, &payment, &transaction).await;
        assert_eq!(line(&received), expected);
        let id = transaction.id.to_string();
        let (amount, name) = match kind {
            OperationKind::Capture => ("amount_to_capture", "metadata[quittance_capture]"),
            OperationKind::Refund => ("amount", "metadata[quittance_transaction]"),
            _ => continue,
        };
        assert_eq!(field(&received, amount).as_deref(), Some("400"));
        assert_eq!(field(&received, name), Some(id));
    }
}

#[test]
fn what_stripe_cannot_take_is_refused_before_anything_is_accepted() {
    let account = account("http://127.0.0.1:9".to_owned());
    let prepared = |payment: &Payment, amount: Money| {
        let transaction = builders::transaction(payment, OperationKind::Purchase, 1_000);
        let operation = Operation {
            amount: Some(amount),
            ..builders::operation(OperationKind::Purchase, payment, &transaction, &[])
        };
        account.prepare(&operation).map(drop)
    };
    let good = builders::payment("pm_1", None);
    let kwd = Money::new(1_234, Currency::parse("KWD").unwrap()).unwrap();
    assert_eq!(prepared(&good, eur(1_000)), Ok(()));
    assert_eq!(prepared(&good, kwd), Err(Unpreparable::Amount));
    for token in [
        "",
        "pm 1",
        "pm_1&confirm=false",
        "/pm_1",
        "acct_1/pm_1",
        "cus_1/",
        "cus_1/a/b",
    ] {
        let mut payment = builders::payment("pm_1", None);
        payment.method.token = Some(Sensitive::new(token.to_owned()));
        assert_eq!(
            prepared(&payment, eur(1_000)),
            Err(Unpreparable::Method),
            "{token}"
        );
    }
    for kind in [PaymentMethodType::BankTransfer, PaymentMethodType::Voucher] {
        let mut slow = good.clone();
        slow.method.kind = kind;
        let refused = Err(Unpreparable::Method);
        assert_eq!(prepared(&slow, eur(1_000)), refused, "{kind}");
    }
    let mut merchant = good;
    merchant.initiator = Initiator::Merchant;
    merchant.mandate_reference = Text::parse("somebody").unwrap();
    let needed = Unpreparable::Field("mandate_reference");
    assert_eq!(prepared(&merchant, eur(1_000)), Err(needed));
    // The payment's reference has to be known, and to be one.
    let unnamed = builders::payment("pm_1", None);
    let other = builders::payment("pm_1", Some("pi_1/../refunds"));
    for payment in [unnamed, other] {
        let transaction = builders::transaction(&payment, OperationKind::Void, 1_000);
        let operation = builders::operation(OperationKind::Void, &payment, &transaction, &[]);
        let refused = account.prepare(&operation).map(drop);
        assert_eq!(refused, Err(Unpreparable::NoReference));
    }
}

#[tokio::test]
async fn stripe_should_retry_overrides_the_status() {
    let limited = SendOutcome::NotSent(Cause::RateLimited);
    let refused = SendOutcome::NotSent(Cause::RequestRefused);
    let unknown = SendOutcome::Unknown(Cause::RequestInProgress);
    for (status, header, expected) in [
        (400, "", refused.clone()),
        (400, "stripe-should-retry: true\r\n", unknown),
        (429, "stripe-should-retry: true\r\n", limited.clone()),
        (429, "stripe-should-retry: false\r\n", refused),
        (429, "stripe-should-retry: perhaps\r\n", limited),
        (
            500,
            "stripe-should-retry: false\r\n",
            SendOutcome::Unknown(Cause::ProviderError),
        ),
    ] {
        let server = Scripted::start(vec![Act::Answer(response(status, header, "{}"))]).await;
        let account = account(server.base_url());
        let payment = builders::payment("pm_1", None);
        let transaction = builders::transaction(&payment, OperationKind::Purchase, 1_000);
        let kind = OperationKind::Purchase;
        let asked = builders::operation(kind, &payment, &transaction, &[]);
        let request = account.prepare(&asked).unwrap();
        assert_eq!(
            account.send(&request, 1).await.outcome,
            expected,
            "{status} {header}"
        );
    }
}

/// A payment intent that this transaction made and that `captured_by` captured.
fn intent(payment: &Payment, made_by: &Transaction, status: &str, captured_by: &str) -> Value {
    json!({
        "id": "pi_1", "status": status, "amount": 1_000, "amount_capturable": 1_000, "amount_received": 400,
        "currency": "eur", "capture_method": "manual", "latest_charge": {"id": "ch_1", "status": "succeeded"},
        "metadata": {
            "quittance_payment": payment.id.to_string(), "quittance_transaction": made_by.id.to_string(),
            "quittance_capture": captured_by,
        },
    })
}

async fn found(query: &LookupQuery, answers: &[Value]) -> (LookupOutcome, Vec<String>) {
    let (account, server) = scripted(answers).await;
    let outcome = account.lookup(query).await;
    let lines = server.received();
    let lines = lines.iter().map(|received| line(received).to_owned());
    (outcome, lines.collect())
}

fn kind(outcome: LookupOutcome) -> FactKind {
    match outcome {
        LookupOutcome::Found(fact) => fact.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_payment_is_asked_for_by_its_reference_or_else_searched_for_by_ours() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let opening = builders::transaction(&payment, OperationKind::Authorize, 1_000);
    let mut query = LookupQuery::about(&payment, &opening);
    let answer = intent(&payment, &opening, "requires_capture", "");
    let (outcome, lines) = found(&query, std::slice::from_ref(&answer)).await;
    assert!(matches!(kind(outcome), FactKind::Approved { .. }));
    let line = "GET /v1/payment_intents/pi_1?expand%5B%5D=latest_charge HTTP/1.1";
    assert_eq!(lines, [line]);
    query.payment_reference = None;
    let page = json!({"data": [answer], "has_more": false});
    let (outcome, lines) = found(&query, &[page]).await;
    assert!(matches!(kind(outcome), FactKind::Approved { .. }));
    let search = format!(
        "query=metadata%5B%27quittance_transaction%27%5D%3A%27{}%27&",
        opening.id
    );
    assert!(
        lines[0].starts_with("GET /v1/payment_intents/search?"),
        "{lines:?}"
    );
    assert!(lines[0].contains(&search), "{lines:?}");
    let other = builders::transaction(&payment, OperationKind::Authorize, 1_000);
    let of_other = intent(&payment, &other, "requires_capture", "");
    let (outcome, _) = found(&LookupQuery::about(&payment, &opening), &[of_other]).await;
    assert!(matches!(outcome, LookupOutcome::Unavailable { .. }));
}

#[tokio::test]
async fn a_capture_is_found_where_it_left_our_id() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let opening = builders::transaction(&payment, OperationKind::Authorize, 1_000);
    let capture = builders::transaction(&payment, OperationKind::Capture, 400);
    let ours = capture.id.to_string();
    let mut query = LookupQuery::about(&payment, &capture);
    let mut ask = async |status: &str, by: &str, origin: TransactionOrigin| {
        query.origin = origin;
        found(&query, &[intent(&payment, &opening, status, by)])
            .await
            .0
    };
    let approved = FactKind::Approved {
        amount: Some(eur(400)),
        expires_at: None,
    };
    let caller = TransactionOrigin::Caller;
    assert_eq!(kind(ask("succeeded", &ours, caller).await), approved);
    // Somebody captured it in the dashboard, and it is captured once: so ours did not.
    let by_another = FactKind::Failed(Cause::AlreadyCaptured);
    assert_eq!(kind(ask("succeeded", "", caller).await), by_another);
    assert_eq!(ask("processing", "", caller).await, NOT_FOUND);
    assert_eq!(ask("requires_capture", &ours, caller).await, NOT_FOUND);
    let dashboard = TransactionOrigin::Provider;
    assert_eq!(kind(ask("succeeded", "", dashboard).await), approved);
    let canceled = ask("canceled", "", caller).await;
    assert!(matches!(kind(canceled), FactKind::Failed(_)));
}

#[tokio::test]
async fn a_capture_of_a_payment_whose_metadata_somebody_emptied_is_not_called_undone() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let opening = builders::transaction(&payment, OperationKind::Authorize, 1_000);
    let mut capture = builders::transaction(&payment, OperationKind::Capture, 400);
    // Before and after its success is booked.
    for reference in [None, Some("ch_1")] {
        let reference = reference.map(|it| ProviderReference::parse(it).unwrap());
        capture.provider_reference = reference;
        let query = LookupQuery::about(&payment, &capture);
        let mut emptied = intent(&payment, &opening, "succeeded", "");
        emptied["metadata"] = json!({});
        let (outcome, _) = found(&query, &[emptied]).await;
        let unreadable = matches!(
            outcome,
            LookupOutcome::Unavailable {
                cause: Cause::UnreadableResponse,
                ..
            }
        );
        assert!(unreadable, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_void_is_found_in_the_state_of_its_payment_intent() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let opening = builders::transaction(&payment, OperationKind::Authorize, 1_000);
    let void = builders::transaction(&payment, OperationKind::Void, 0);
    let query = LookupQuery::about(&payment, &void);
    let ask = async |status: &str| {
        let (outcome, _) = found(&query, &[intent(&payment, &opening, status, "")]).await;
        outcome
    };
    assert!(matches!(
        kind(ask("canceled").await),
        FactKind::Approved { .. }
    ));
    let captured = FactKind::Failed(Cause::AlreadyCaptured);
    assert_eq!(kind(ask("succeeded").await), captured);
    assert_eq!(ask("requires_capture").await, NOT_FOUND);
}

fn refund(id: &str, transaction: &str) -> Value {
    json!({
        "id": id, "status": "succeeded", "amount": 400, "currency": "eur", "payment_intent": "pi_1",
        "metadata": {"quittance_transaction": transaction},
    })
}

#[tokio::test]
async fn a_refund_is_found_by_its_reference_or_among_those_of_its_payment() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let transaction = builders::transaction(&payment, OperationKind::Refund, 400);
    let ours = transaction.id.to_string();
    let mut query = LookupQuery::about(&payment, &transaction);
    let first = json!({"data": [refund("re_1", "")], "has_more": true});
    let second = json!({"data": [refund("re_2", ""), refund("re_3", &ours)], "has_more": true});
    let (outcome, lines) = found(&query, &[first.clone(), second]).await;
    let LookupOutcome::Found(fact) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(fact.provider_reference.unwrap().as_str(), "re_3");
    assert_eq!(
        lines,
        [
            "GET /v1/refunds?payment_intent=pi_1&limit=100 HTTP/1.1",
            "GET /v1/refunds?payment_intent=pi_1&limit=100&starting_after=re_1 HTTP/1.1",
        ]
    );
    let last = json!({"data": [refund("re_2", "")], "has_more": false});
    assert_eq!(found(&query, &[first, last]).await.0, NOT_FOUND);
    query.provider_reference = ProviderReference::parse("re_3").ok();
    let (outcome, lines) = found(&query, &[refund("re_3", &ours)]).await;
    assert!(matches!(kind(outcome), FactKind::Approved { .. }));
    assert_eq!(lines, ["GET /v1/refunds/re_3 HTTP/1.1"]);
}

/// What a refund is told as: those that released an authorization are none, and ours bear our id.
#[tokio::test]
async fn s51_all_refunds_of_a_payment_are_told_oldest_first() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let ours = builders::transaction(&payment, OperationKind::Refund, 400);
    let mut own = refund("re_1", &ours.id.to_string());
    own["metadata"]["quittance_payment"] = json!(payment.id.to_string());
    let mut release = refund("re_2", "");
    release["balance_transaction"] = Value::Null;
    let dashboard = |id: &str| {
        let mut refund = refund(id, "");
        refund["balance_transaction"] = json!("txn_1");
        refund["metadata"] = json!({});
        refund
    };
    let first = json!({"data": [dashboard("re_4"), dashboard("re_3")], "has_more": true});
    let second = json!({"data": [release, own], "has_more": false});
    let (account, server) = scripted(&[first, second]).await;
    let reference = ProviderReference::parse("pi_1").unwrap();
    let told = account
        .operations(TransactionKind::Refund, &reference)
        .await;
    let told: Vec<_> = told
        .unwrap()
        .into_iter()
        .map(|told| {
            (
                told.subject,
                told.fact.provider_reference.unwrap().to_string(),
            )
        })
        .collect();
    let unasked = || Subject::Operation {
        kind: TransactionKind::Refund,
        dispute: None,
    };
    let expected = [
        (Subject::Transaction(ours.id), "re_1".to_owned()),
        (unasked(), "re_3".to_owned()),
        (unasked(), "re_4".to_owned()),
    ];
    assert_eq!(told, expected);
    let lines: Vec<_> = server
        .received()
        .into_iter()
        .map(|it| it.head.lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /v1/refunds?payment_intent=pi_1&limit=100 HTTP/1.1",
            "GET /v1/refunds?payment_intent=pi_1&limit=100&starting_after=re_3 HTTP/1.1",
        ]
    );
    let (account, _server) = scripted(&[json!({})]).await;
    let unreadable = account
        .operations(TransactionKind::Refund, &reference)
        .await;
    assert_eq!(unreadable, Err(Cause::UnreadableResponse.into()));
}

#[tokio::test]
async fn s44_a_chargeback_and_its_reversal_are_found_by_their_dispute() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let transaction = builders::transaction(&payment, OperationKind::Refund, 400);
    let mut query = LookupQuery::about(&payment, &transaction);
    query.provider_reference = ProviderReference::parse("du_1").ok();
    query.origin = TransactionOrigin::Provider;
    for (status, taken, returned) in [
        ("needs_response", true, false),
        ("lost", true, false),
        ("won", true, true),
        ("warning_closed", true, false),
        ("prevented", false, false),
    ] {
        let dispute = json!({"id": "du_1", "status": status, "amount": 400, "currency": "eur",
            "charge": "ch_1", "payment_intent": "pi_1", "reason": "fraudulent"});
        for (kind, expected) in [
            (TransactionKind::Chargeback, taken),
            (TransactionKind::ChargebackReversal, returned),
        ] {
            query.kind = kind;
            let (outcome, lines) = found(&query, std::slice::from_ref(&dispute)).await;
            let was_found = matches!(outcome, LookupOutcome::Found(_));
            assert_eq!(was_found, expected, "{status} {kind}: {outcome:?}");
            assert_eq!(lines, ["GET /v1/disputes/du_1 HTTP/1.1"]);
        }
    }
}

#[tokio::test]
async fn a_payment_is_named_by_the_metadata_of_its_intent_or_charge() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let opening = builders::transaction(&payment, OperationKind::Authorize, 1_000);
    let named = intent(&payment, &opening, "succeeded", "");
    let charge = json!({"id": "ch_1", "status": "succeeded", "metadata": named["metadata"]});
    let foreign = json!({"id": "ch_1", "status": "succeeded", "metadata": {}});
    for (reference, answer, line, expected) in [
        (
            "pi_1",
            named,
            "GET /v1/payment_intents/pi_1 HTTP/1.1",
            Named::Ours(payment.id),
        ),
        (
            "ch_1",
            charge,
            "GET /v1/charges/ch_1 HTTP/1.1",
            Named::Ours(payment.id),
        ),
        (
            "py_1",
            foreign,
            "GET /v1/charges/py_1 HTTP/1.1",
            Named::NotOurs,
        ),
    ] {
        let (account, server) = scripted(&[answer]).await;
        let reference = ProviderReference::parse(reference).unwrap();
        assert_eq!(account.payment_named(&reference).await, Ok(expected));
        assert_eq!(server.received()[0].head.lines().next(), Some(line));
    }
    let missing = r#"{"error": {"type": "invalid_request_error", "code": "resource_missing"}}"#;
    let reference = ProviderReference::parse("pi_1").unwrap();
    for (status, body, expected) in [
        (404, missing, Ok(Named::NotFound)),
        (404, "<html>", Err(Cause::UnreadableResponse.into())),
        (400, missing, Err(Cause::RequestRefused.into())),
        (500, "", Err(Cause::ProviderError.into())),
    ] {
        let server = Scripted::start(vec![Act::Answer(response(status, "", body))]).await;
        let account = account(server.base_url());
        assert_eq!(
            account.payment_named(&reference).await,
            expected,
            "{status}"
        );
    }
}

#[tokio::test]
async fn s18_whatever_a_webhook_has_stripe_asked_the_wait_that_it_asks_for_is_passed_on() {
    let payment = builders::payment("pm_1", Some("pi_1"));
    let disputed = builders::transaction(&payment, OperationKind::Refund, 400);
    let mut query = LookupQuery::about(&payment, &disputed);
    query.kind = TransactionKind::Chargeback;
    query.provider_reference = ProviderReference::parse("du_1").ok();
    for (status, cause) in [(429, Cause::RateLimited), (503, Cause::ProviderError)] {
        let answer = response(status, "retry-after: 7\r\n", "{}");
        let acts = (0..4).map(|_| Act::Answer(answer.clone()));
        let server = Scripted::start(acts.collect()).await;
        let account = account(server.base_url());
        let why = Unconfirmed {
            cause,
            retry_after: Some(Duration::from_secs(7)),
        };
        for reference in ["pi_1", "ch_1"] {
            let reference = ProviderReference::parse(reference).unwrap();
            assert_eq!(account.payment_named(&reference).await, Err(why));
        }
        let reference = ProviderReference::parse("pi_1").unwrap();
        let refunds = account.operations(TransactionKind::Refund, &reference);
        assert_eq!(refunds.await, Err(why));
        assert_eq!(account.dispute(&query).await, Err(why));
        assert_eq!(server.received().len(), 4);
    }
}
