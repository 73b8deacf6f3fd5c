//! Every adapter against the conformance kit.

use std::sync::Arc;
use std::time::Duration;

use crate::support::kit::{Reply, Subject, conforms};
use crate::support::server::response;
use quittance_domain::ports::Provider;
use quittance_domain::transaction::{OperationKind, Transaction};
use quittance_providers::config::{ProviderAccountConfig, ProviderKind, Secret};
use quittance_providers::sandbox::Sandbox;

struct SandboxSubject;

impl Subject for SandboxSubject {
    fn account(&self, base_url: &str, connect: Duration, total: Duration) -> Arc<dyn Provider> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
        let key = Secret::new(self.credential().1);
        let config = ProviderAccountConfig {
            connect_timeout_ms: millis(connect),
            total_timeout_ms: millis(total),
            allow_plaintext: true,
            ..ProviderAccountConfig::new("sandbox", ProviderKind::Sandbox, base_url, key)
        };
        let sandbox = Sandbox::new(&config, |headers| {
            headers.insert("traceparent", "00-1-2-01".parse().unwrap());
        });
        Arc::new(sandbox.unwrap())
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
