//! Every adapter against the conformance kit.

use std::sync::Arc;
use std::time::Duration;

use crate::support::kit::{Reply, Subject, conforms};
use crate::support::server::response;
use quittance_domain::ports::{Operation, Provider};
use quittance_domain::transaction::{OperationKind, Transaction};
use quittance_providers::adyen::Adyen;
use quittance_providers::config::{ProviderAccountConfig, ProviderKind, Secret};
use quittance_providers::sandbox::Sandbox;
use quittance_providers::stripe::Stripe;

/// An account of a kind at a scripted server.
fn config(
    kind: ProviderKind,
    key: &str,
    base_url: &str,
    timeouts: [Duration; 2],
) -> ProviderAccountConfig {
    let [connect, total] = timeouts.map(|it| u64::try_from(it.as_millis()).unwrap());
    ProviderAccountConfig {
        connect_timeout_ms: connect,
        total_timeout_ms: total,
        allow_plaintext: true,
        ..ProviderAccountConfig::new("conformance", kind, base_url, Secret::new(key))
    }
}

fn trace(headers: &mut reqwest::header::HeaderMap) {
    headers.insert("traceparent", "00-1-2-01".parse().unwrap());
}

pub struct SandboxSubject;

impl Subject for SandboxSubject {
    fn account(&self, base_url: &str, connect: Duration, total: Duration) -> Arc<dyn Provider> {
        let key = self.credential().1;
        let config = config(
            quittance_providers::sandbox::KIND,
            key,
            base_url,
            [connect, total],
        );
        Arc::new(Sandbox::new(&config, trace).unwrap())
    }

    fn token(&self) -> &'static str {
        "tok_approve"
    }

    fn payment_reference(&self) -> &'static str {
        "spay_0000000000000000000000000000000b"
    }

    fn answer(&self, reply: Reply, operation: OperationKind, transaction: &Transaction) -> Vec<u8> {
        let kind = match operation {
            OperationKind::Purchase => "purchase",
            OperationKind::Authorize | OperationKind::Confirm => "authorization",
            OperationKind::Capture => "capture",
            OperationKind::Void => "void",
            OperationKind::Refund => "refund",
        };
        let (status, more) = match reply {
            Reply::Approved | Reply::WrongAmount | Reply::WrongCurrency => ("approved", ""),
            Reply::Declined => (
                "declined",
                r#""decline": {"code": "do_not_honor", "message": "Declined."},"#,
            ),
            Reply::Pending => ("pending", ""),
            Reply::RequiresAction => (
                "requires_action",
                r#""next_action": {"url": "https://sandbox.example/challenge"},"#,
            ),
        };
        let amount = transaction.amount + i64::from(reply == Reply::WrongAmount);
        let currency = if reply == Reply::WrongCurrency {
            "USD"
        } else {
            "EUR"
        };
        let (payment, reference) = (self.payment_reference(), transaction.id);
        let body = format!(
            r#"{{"id": "sop_1", "payment_id": "{payment}", "reference": "{reference}",
                "kind": "{kind}", "status": "{status}", "amount": {amount}, {more}
                "currency": "{currency}", "created_at": "2026-01-02T03:04:05Z"}}"#
        );
        response(200, "", &body)
    }

    fn not_found(&self) -> Option<Vec<u8>> {
        let body = r#"{"error": {"type": "not_found", "code": "not_found", "message": "no"},
            "authoritative": true}"#;
        Some(response(404, "", body))
    }

    fn credential(&self) -> (&'static str, &'static str) {
        ("authorization", "sandbox-secret-key")
    }

    fn idempotency_header(&self) -> &'static str {
        "idempotency-key"
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sandbox_adapter_conforms() {
    conforms(&SandboxSubject).await;
}

pub struct AdyenSubject;

impl Subject for AdyenSubject {
    fn account(&self, base_url: &str, connect: Duration, total: Duration) -> Arc<dyn Provider> {
        let key = self.credential().1;
        let config = ProviderAccountConfig {
            own: [("merchant_account", "QuittanceECOM".to_owned())].into(),
            ..config(
                quittance_providers::adyen::KIND,
                key,
                base_url,
                [connect, total],
            )
        };
        Arc::new(Adyen::new(&config, trace).unwrap())
    }

    fn token(&self) -> &'static str {
        "M5N7TQ4TG5PFWR50"
    }

    fn payment_reference(&self) -> &'static str {
        "NC6HT9CRT65ZGN82"
    }

    fn answer(&self, reply: Reply, operation: OperationKind, transaction: &Transaction) -> Vec<u8> {
        let value = transaction.amount + i64::from(reply == Reply::WrongAmount);
        let currency = if reply == Reply::WrongCurrency {
            "USD"
        } else {
            "EUR"
        };
        let ids = format!("{:032x}-{}", 3, transaction.id.0.simple());
        let (kind, status) = match operation {
            OperationKind::Purchase => ("purchase", 200),
            OperationKind::Authorize | OperationKind::Confirm => ("authorization", 200),
            OperationKind::Capture => ("capture", 201),
            OperationKind::Void => ("void", 201),
            OperationKind::Refund => ("refund", 201),
        };
        let more = if status == 200 {
            let (result, code) = match reply {
                Reply::Approved | Reply::WrongAmount | Reply::WrongCurrency => ("Authorised", "0"),
                Reply::Declined => ("Refused", "2"),
                Reply::Pending => ("Received", "0"),
                Reply::RequiresAction => ("RedirectShopper", "0"),
            };
            let action = match reply {
                Reply::RequiresAction => {
                    r#""action": {"type": "redirect", "url": "https://checkoutshopper.example/1"},"#
                }
                _ => "",
            };
            format!(
                r#"{action} "resultCode": "{result}", "refusalReasonCode": "{code}",
                   "merchantReference": "{ids}-{kind}""#
            )
        } else {
            let payment = self.payment_reference();
            format!(
                r#""status": "received", "paymentPspReference": "{payment}",
                   "merchantAccount": "QuittanceECOM", "reference": "{ids}-{kind}""#
            )
        };
        let amount = format!(r#"{{"currency": "{currency}", "value": {value}}}"#);
        let body = format!(r#"{{"pspReference": "JDZXCMLW35GXXN82", "amount": {amount}, {more}}}"#);
        response(status, "", &body)
    }

    fn voided_by_our_name(&self, void: &Operation<'_>) -> Option<Vec<u8>> {
        let payment = void.payment.id.0.simple();
        let opening = void.opening.id.0.simple();
        let transaction = void.transaction.id.0.simple();
        let body = format!(
            r#"{{"merchantAccount": "QuittanceECOM", "paymentReference": "{payment}-{opening}-authorization",
                "reference": "{payment}-{transaction}-void", "pspReference": "JDZXCMLW35GXXN82",
                "status": "received"}}"#
        );
        Some(response(201, "", &body))
    }

    /// What is told later has one answer; another amount in it is noticed all the same.
    fn replies(&self, operation: OperationKind) -> Vec<Reply> {
        match operation {
            OperationKind::Purchase | OperationKind::Authorize | OperationKind::Confirm => {
                Reply::to(operation)
            }
            OperationKind::Capture | OperationKind::Refund => {
                vec![Reply::Pending, Reply::WrongAmount, Reply::WrongCurrency]
            }
            OperationKind::Void => vec![Reply::Pending],
        }
    }

    fn found(&self, _transaction: &Transaction) -> Option<Vec<u8>> {
        None
    }

    fn not_found(&self) -> Option<Vec<u8>> {
        None
    }

    fn credential(&self) -> (&'static str, &'static str) {
        ("x-api-key", "adyen-secret-key")
    }

    fn idempotency_header(&self) -> &'static str {
        "idempotency-key"
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adyen_adapter_conforms() {
    conforms(&AdyenSubject).await;
}

pub struct StripeSubject;

impl Subject for StripeSubject {
    fn account(&self, base_url: &str, connect: Duration, total: Duration) -> Arc<dyn Provider> {
        let key = self.credential().1;
        let config = config(
            quittance_providers::stripe::KIND,
            key,
            base_url,
            [connect, total],
        );
        Arc::new(Stripe::new(&config, trace).unwrap())
    }

    fn token(&self) -> &'static str {
        "pm_1"
    }

    fn payment_reference(&self) -> &'static str {
        "pi_1"
    }

    fn replies(&self, operation: OperationKind) -> Vec<Reply> {
        let mut replies = Reply::to(operation);
        // A cancellation is done, or refused.
        replies.retain(|reply| operation != OperationKind::Void || *reply != Reply::Pending);
        replies
    }

    fn only_asks(&self, operation: OperationKind) -> bool {
        operation == OperationKind::Confirm
    }

    fn answer(&self, reply: Reply, operation: OperationKind, transaction: &Transaction) -> Vec<u8> {
        if reply == Reply::Declined {
            return response(
                402,
                "",
                include_str!("../../src/stripe/fixtures/card_declined.json"),
            );
        }
        let amount = transaction.amount + i64::from(reply == Reply::WrongAmount);
        let currency = if reply == Reply::WrongCurrency {
            "usd"
        } else {
            "eur"
        };
        let manual = operation != OperationKind::Purchase;
        let status = match operation {
            _ if reply == Reply::RequiresAction => "requires_action",
            _ if reply == Reply::Pending && operation != OperationKind::Refund => "processing",
            OperationKind::Refund if reply == Reply::Pending => "pending",
            OperationKind::Purchase | OperationKind::Capture | OperationKind::Refund => "succeeded",
            OperationKind::Authorize | OperationKind::Confirm => "requires_capture",
            OperationKind::Void => "canceled",
        };
        let id = transaction.id;
        let body = if operation == OperationKind::Refund {
            format!(
                r#"{{"id": "re_1", "status": "{status}", "amount": {amount}, "currency": "{currency}",
                    "charge": "ch_1", "payment_intent": "pi_1", "metadata": {{"quittance_transaction": "{id}"}}}}"#
            )
        } else {
            intent(&id.to_string(), amount, currency, status, manual)
        };
        response(200, "", &body)
    }

    fn found(&self, transaction: &Transaction) -> Option<Vec<u8>> {
        let id = transaction.id.to_string();
        let intent = intent(&id, transaction.amount, "eur", "succeeded", false);
        let body =
            format!(r#"{{"object": "search_result", "data": [{intent}], "has_more": false}}"#);
        Some(response(200, "", &body))
    }

    fn not_found(&self) -> Option<Vec<u8>> {
        let body = r#"{"object": "search_result", "data": [], "has_more": false}"#;
        Some(response(200, "", body))
    }

    fn credential(&self) -> (&'static str, &'static str) {
        ("authorization", "rk_test_0123456789")
    }

    fn idempotency_header(&self) -> &'static str {
        "idempotency-key"
    }
}

/// A payment intent that names a transaction as what made it, and as what captured it.
fn intent(transaction: &str, amount: i64, currency: &str, status: &str, manual: bool) -> String {
    let method = if manual { "manual" } else { "automatic" };
    format!(
        r#"{{"id": "pi_1", "status": "{status}", "amount": {amount}, "amount_capturable": {amount},
            "amount_received": {amount}, "currency": "{currency}", "capture_method": "{method}",
            "latest_charge": {{"id": "ch_1", "status": "succeeded"}},
            "next_action": {{"type": "redirect_to_url", "redirect_to_url": {{"url": "https://hooks.stripe.com/1"}}}},
            "metadata": {{"quittance_transaction": "{transaction}", "quittance_capture": "{transaction}"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stripe_adapter_conforms() {
    conforms(&StripeSubject).await;
}
