//! The sandbox's webhooks: signed as in Standard Webhooks, one event each.

use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::text::Sensitive;
use quittance_domain::webhook::{
    Delivery, PaymentName, ProviderWebhooks, Subject, Unreadable, Unverified, VerifiedEvent,
    WebhookFact,
};
use uuid::Uuid;

use super::{Sandbox, map, wire};

/// Events that tell how an operation of ours ended. Chargebacks are none, and the sandbox may add others.
const HANDLED: [&str; 7] = [
    "payment.authorized",
    "payment.captured",
    "payment.declined",
    "payment.voided",
    "payment.capture_failed",
    "refund.succeeded",
    "refund.failed",
];

impl ProviderWebhooks for Sandbox {
    fn verify(&self, delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        let event = VerifiedEvent {
            id: Some(self.webhooks.verify(delivery)?),
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
    let id = |text: &str| Uuid::try_parse(text).map_err(|_| Unreadable::Unexpected);
    let payment = event.payment_reference.ok_or(Unreadable::Unexpected)?;
    let (payment, transaction) = (id(&payment)?, id(&event.operation.reference)?);
    Ok(WebhookFact {
        payment: PaymentName::Ours(PaymentId(payment)),
        subject: Subject::Transaction(TransactionId(transaction)),
        fact: map::fact(event.operation).map_err(|map::Unreadable| Unreadable::Malformed)?,
    })
}

fn parsed<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(body).map_err(|_| Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use quittance_domain::money::{Currency, Money};
    use quittance_domain::transaction::FactKind;

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
    fn s55_events_that_are_not_handled_are_told_from_those_that_cannot_be_read() {
        for (from, to) in [
            ("payment.captured", "payment.celebrated"),
            ("payment.captured", "chargeback.opened"),
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
            ("\"purchase\"", "\"chargeback\""),
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
