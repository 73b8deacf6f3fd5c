//! The sandbox's webhooks: signed as in Standard Webhooks, one event each.

use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::text::Sensitive;
use quittance_domain::webhook::{
    Delivery, PaymentName, ProviderWebhooks, Subject, Unreadable, Unverified, VerifiedEvent,
    WebhookFact,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Sandbox, map, wire};
use crate::unreadable::parsed;

/// Events that tell how an operation on a payment ended. The sandbox may add others.
const HANDLED: [&str; 11] = [
    "payment.authorized",
    "payment.captured",
    "payment.declined",
    "payment.voided",
    "payment.capture_failed",
    "refund.succeeded",
    "refund.failed",
    "chargeback.inquiry_opened",
    "chargeback.opened",
    "chargeback.closed",
    "chargeback.reversed",
];

/// How references begin that the sandbox itself gives: to what is done in its dashboard, and by the bank.
const UNASKED: [&str; 2] = ["dash_", "cb_"];

impl ProviderWebhooks for Sandbox {
    fn verify(&self, delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        let event = VerifiedEvent {
            id: Some(self.webhooks.verify(delivery)?),
            signed: Sha256::digest(delivery.body).into(),
            body: Sensitive::new(delivery.body.to_vec()),
        };
        Ok(vec![event])
    }

    fn webhook(&self, body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        read(body).map(|fact| vec![fact])
    }
}

/// What an event proves: the operation as it was when the event happened.
fn read(body: &[u8]) -> Result<WebhookFact, Unreadable> {
    let head: wire::EventHead = parsed(body)?;
    if !HANDLED.contains(&head.r#type.as_str()) {
        return Err(Unreadable::Unexpected);
    }
    let event: wire::Event = parsed(body)?;
    // Whoever else uses the account gives its payments other references than we do.
    let payment = event.payment_reference.ok_or(Unreadable::Unexpected)?;
    let payment = Uuid::try_parse(&payment).map_err(|_| Unreadable::Unexpected)?;
    let subject = subject(&event.operation)?;
    Ok(WebhookFact {
        payment: PaymentName::Ours(PaymentId(payment)),
        subject,
        fact: map::fact(event.operation)?,
    })
}

/// What we asked for has our id as its reference.
fn subject(operation: &wire::Operation) -> Result<Subject, Unreadable> {
    let kind = map::kind(operation.kind);
    let unasked = UNASKED
        .iter()
        .any(|begin| operation.reference.starts_with(begin));
    if unasked && !kind.opens() {
        let dispute = map::dispute(operation)?;
        return Ok(Subject::Operation { kind, dispute });
    }
    let id = Uuid::try_parse(&operation.reference).map_err(|_| Unreadable::Unexpected)?;
    Ok(Subject::Transaction(TransactionId(id)))
}

#[cfg(test)]
mod tests {
    use quittance_domain::money::{Currency, Money};
    use quittance_domain::transaction::{FactKind, TransactionKind};

    use super::*;

    const CAPTURED: &str = include_str!("fixtures/event_captured.json");

    #[test]
    fn an_event_tells_what_became_of_the_operation() {
        let told = read(CAPTURED.as_bytes()).unwrap();
        let payment = PaymentName::Ours(PaymentId(Uuid::from_u128(3)));
        assert_eq!(told.payment, payment);
        let transaction = Subject::Transaction(TransactionId(Uuid::from_u128(7)));
        assert_eq!(told.subject, transaction);
        let amount = Money::new(1_000, Currency::parse("EUR").unwrap()).ok();
        assert_eq!(
            told.fact.kind,
            FactKind::Approved {
                amount,
                expires_at: None
            }
        );
    }

    #[test]
    fn s44_what_we_never_asked_for_is_named_by_the_sandbox_s_own_reference() {
        let ours = "00000000-0000-0000-0000-000000000007";
        for (kind, expected) in [
            ("capture", TransactionKind::Capture),
            ("void", TransactionKind::Void),
            ("refund", TransactionKind::Refund),
            ("chargeback", TransactionKind::Chargeback),
            ("chargeback_reversal", TransactionKind::ChargebackReversal),
        ] {
            let body = CAPTURED.replace("purchase", kind);
            let body = body
                .replace(ours, "dash_1")
                .replace("payment.captured", "chargeback.opened");
            let told = read(body.as_bytes()).unwrap();
            let Subject::Operation { kind, dispute } = told.subject else {
                panic!("{body}");
            };
            assert_eq!(kind, expected);
            assert_eq!(dispute, None, "the event tells of none");
        }
        let dispute = ",\"dispute\":{\"reason\":\"fraudulent\",\"due_at\":\"2026-01-08T10:00:00Z\"},\"kind\":\"chargeback\"";
        let body = CAPTURED.replace(ours, "cb_1");
        let body = body.replacen("\"kind\": \"purchase\"", dispute.trim_start_matches(','), 1);
        let told = read(body.as_bytes()).unwrap();
        let Subject::Operation { dispute, .. } = told.subject else {
            panic!("{body}");
        };
        let dispute = dispute.unwrap();
        assert_eq!(
            (dispute.reason.as_str(), dispute.due_at.is_some()),
            ("fraudulent", true)
        );
        assert_eq!(dispute.amount.minor_units(), 1_000);
        // What opens a payment was asked for by somebody.
        let body = CAPTURED.replace(ours, "dash_1");
        assert_eq!(read(body.as_bytes()), Err(Unreadable::Unexpected));
    }

    #[test]
    fn s55_events_that_are_not_handled_are_told_from_those_that_cannot_be_read() {
        for (from, to) in [
            ("payment.captured", "payment.celebrated"),
            ("\"payment_reference\"", "\"someone\""),
            ("00000000-0000-0000-0000-000000000003", "order-3"),
            ("00000000-0000-0000-0000-000000000007", "order-7"),
        ] {
            let body = CAPTURED.replace(from, to);
            assert_eq!(read(body.as_bytes()), Err(Unreadable::Unexpected), "{to}");
        }
        for (from, to) in [
            ("{", "["),
            ("\"type\"", "\"kind\""),
            ("\"operation\"", "\"operations\""),
            ("\"approved\"", "\"settled\""),
            ("\"purchase\"", "\"settlement\""),
            ("1000", "10.5"),
            ("EUR", "eur"),
        ] {
            let body = CAPTURED.replacen(from, to, 1);
            assert_eq!(read(body.as_bytes()), Err(Unreadable::Malformed), "{to}");
        }
        assert_eq!(read(b"\xff\xfe"), Err(Unreadable::Malformed));
        assert_eq!(read(b""), Err(Unreadable::Malformed));
    }
}
