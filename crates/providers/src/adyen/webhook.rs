//! Adyen's standard webhooks: batches of items, each signed over eight of its fields. Only those decide.

use quittance_domain::decline::Cause;
use quittance_domain::ids::ProviderReference;
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{Fact, FactKind, TransactionKind};
use quittance_domain::webhook::{
    Delivery, PaymentName, ProviderWebhooks, Subject, Unreadable, Unverified, VerifiedEvent,
    WebhookFact,
};
use serde_json::Value;

use super::disputes::{dispute, of_dispute};
use super::event::{authorised, event_id, signed};
use super::reference::Reference;
use super::signature::SignedFields;
use super::{Adyen, amount, map, refusals, wire};
use crate::unreadable::{parsed, reference};

/// Most items of one webhook. Adyen puts one into a JSON webhook, and a few into others.
const MAX_ITEMS: usize = 100;
/// Events that decide nothing: a dispute goes on, and what it takes or returns is told by others; or a payment method was
/// stored, which its payment had asked for.
const INFORMING: [&str; 7] = [
    "DISPUTE_DEFENSE_PERIOD_ENDED",
    "INFORMATION_SUPPLIED",
    "ISSUER_COMMENTS",
    "PREARBITRATION_DECLINED",
    "PREARBITRATION_OPEN",
    "RECURRING_CONTRACT",
    "SCHEME_ARBITRATION",
];
/// Events that do not say what was done to a payment's money. Which of the two it was, is not signed of CANCEL_OR_REFUND;
/// that a dispute is lost does not say whether money is taken by it once more; and another amount of an authorization,
/// or a refund to another card, is nothing that we ask for.
const UNCLEAR: [&str; 6] = [
    "AUTHORISATION_ADJUSTMENT",
    "CANCEL_OR_REFUND",
    "PREARBITRATION_ACCEPTED",
    "PREARBITRATION_LOST",
    "REFUND_WITH_DATA",
    "SCHEME_ARBITRATION_LOST",
];

impl ProviderWebhooks for Adyen {
    /// Every item must verify. There is no time in it: a replay is a known event.
    fn verify(&self, delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        if self.keys.is_empty() {
            return Err(Unverified::NoSecret);
        }
        let batch: wire::Batch<'_> =
            serde_json::from_slice(delivery.body).map_err(|_| Unverified::Unsigned)?;
        let count = batch.notification_items.len();
        if count == 0 || count > MAX_ITEMS {
            return Err(Unverified::Unsigned);
        }
        let events = batch.notification_items.iter().map(|wrapped| {
            let item: wire::Item =
                serde_json::from_str(wrapped.item.get()).map_err(|_| Unverified::Unsigned)?;
            let fields = self.verify_item(&item)?;
            // What is not applied as it came must not take the name of what will be: what could be divided otherwise,
            // or comes from elsewhere.
            let named = fields.unambiguous() && self.is_mine(&batch);
            let id = event_id(&item, delivery.received_at).filter(|_| named);
            let body = if count == 1 {
                delivery.body.to_vec()
            } else {
                alone(&batch, wrapped)?
            };
            Ok(VerifiedEvent {
                id,
                signed: signed(&fields, batch.live),
                body: Sensitive::new(body),
            })
        });
        events.collect()
    }

    fn webhook(&self, body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        let batch: wire::Batch<'_> = parsed(body)?;
        let [wrapped] = batch.notification_items.as_slice() else {
            return Err(Unreadable::Malformed);
        };
        let item: wire::Item = parsed(wrapped.item.get().as_bytes())?;
        let ours = item.merchant_account_code.as_deref() == Some(&self.merchant_account);
        if !ours || !self.is_mine(&batch) || !SignedFields::of(&item).unambiguous() {
            return Err(Unreadable::Unexpected);
        }
        let code = item.event_code.as_deref().unwrap_or_default();
        let failed = item.success.as_ref().map(wire::Success::text) == Some("false");
        if INFORMING.contains(&code) || failed && UNCLEAR.contains(&code) {
            return Ok(Vec::new());
        }
        read(&item).map(|fact| vec![fact])
    }
}

impl Adyen {
    /// Whether it comes from the platform that the account is at. Each has keys of its own, so this is signed by
    /// which key fits; the flag is compared all the same, against an account that was given the other one's key.
    fn is_mine(&self, batch: &wire::Batch<'_>) -> bool {
        (batch.live == wire::Live::Live) == self.livemode
    }

    /// Verifies one item, and gives what is signed of it.
    fn verify_item(&self, item: &wire::Item) -> Result<SignedFields, Unverified> {
        let additional = item.additional_data.as_ref();
        let signature = additional
            .and_then(|data| data.hmac_signature.as_ref())
            .and_then(Value::as_str)
            .ok_or(Unverified::Unsigned)?;
        let fields = SignedFields::of(item);
        if !self.keys.match_any(&fields, signature) {
            return Err(Unverified::Signature);
        }
        Ok(fields)
    }
}

/// One item of several, as a batch of its own.
fn alone(batch: &wire::Batch<'_>, wrapped: &wire::Wrapped<'_>) -> Result<Vec<u8>, Unverified> {
    let single = wire::Single {
        live: batch.live,
        notification_items: [wire::SingleItem { item: wrapped.item }],
    };
    // A flag and JSON as it came always serialize.
    serde_json::to_vec(&single).map_err(|_| Unverified::Unsigned)
}

/// What an item proves.
fn read(item: &wire::Item) -> Result<WebhookFact, Unreadable> {
    let done = match item.success.as_ref().map(wire::Success::text) {
        Some("true") => true,
        Some("false") => false,
        Some(_) | None => return Err(Unreadable::Malformed),
    };
    // Whoever else uses the account gives its payments other references than we do.
    let reference = item.merchant_reference.as_deref();
    let Some(ours) = reference.and_then(Reference::parse) else {
        return made_elsewhere(item, done);
    };
    let happened = if done {
        Ok(())
    } else {
        Err(Unreadable::Unexpected)
    };
    let code = item.event_code.as_deref().unwrap_or_default();
    if let Some((kind, told)) = of_dispute(code, item) {
        return happened.and_then(|()| dispute(item, ours, kind, told));
    }
    if let Some((kind, told)) = of_modification(code, done, item) {
        return operation(item, ours, kind, told);
    }
    if UNCLEAR.contains(&code) {
        return unclear(item, PaymentName::Ours(ours.payment));
    }
    match code {
        "AUTHORISATION" if done => opening(item, ours, moved(item)),
        "AUTHORISATION" => {
            let reason = item.reason.as_deref().unwrap_or_default();
            opening(item, ours, FactKind::Declined(refusals::by_reason(reason)))
        }
        "EXPIRE" => happened.and_then(|()| ended(item, ours, FactKind::Expired)),
        // The customer never completed it; what was authorized all the same stays so.
        "OFFER_CLOSED" => {
            happened.and_then(|()| ended(item, ours, FactKind::Failed(Cause::Expired)))
        }
        _ => Err(Unreadable::Unexpected),
    }
}

/// What a capture, cancel or refund proves whose reference somebody else made: one in the Customer Area, or of another
/// system, may have one of its own. The payment is known by Adyen's reference of it, under which its authorization was told;
/// that names it by ours.
fn made_elsewhere(item: &wire::Item, done: bool) -> Result<WebhookFact, Unreadable> {
    let code = item.event_code.as_deref().unwrap_or_default();
    let modification = of_modification(code, done, item);
    if modification.is_none() && !UNCLEAR.contains(&code) {
        return Err(Unreadable::Unexpected);
    }
    let original = original_reference(item)?.ok_or(Unreadable::Unexpected)?;
    let authorisation = authorised(&original).ok_or(Unreadable::Malformed)?;
    let payment = PaymentName::OfEvent(authorisation);
    let Some((kind, told)) = modification else {
        return unclear(item, payment);
    };
    let dispute = None;
    Ok(WebhookFact {
        payment,
        subject: Subject::Operation { kind, dispute },
        fact: Fact {
            kind: told,
            provider_reference: Some(psp_reference(item)?),
            payment_reference: Some(original),
        },
    })
}

/// That something was done to a payment's money, and not what.
fn unclear(item: &wire::Item, payment: PaymentName) -> Result<WebhookFact, Unreadable> {
    let code = item.event_code.as_deref().unwrap_or_default();
    Ok(WebhookFact {
        payment,
        subject: Subject::Unclear {
            event: Text::parse(code).unwrap_or_default(),
        },
        fact: Fact {
            kind: FactKind::Pending,
            provider_reference: Some(psp_reference(item)?),
            payment_reference: original_reference(item)?,
        },
    })
}

/// What an event about a capture, cancel or refund tells; `None` for every other event.
fn of_modification(
    code: &str,
    done: bool,
    item: &wire::Item,
) -> Option<(TransactionKind, FactKind)> {
    use TransactionKind as T;
    let told = || if done { moved(item) } else { map::FAILED };
    match code {
        "CAPTURE" => Some((T::Capture, told())),
        "CANCELLATION" | "TECHNICAL_CANCEL" => Some((T::Void, told())),
        "REFUND" => Some((T::Refund, told())),
        "CAPTURE_FAILED" if done => Some((T::Capture, map::TAKEN_BACK)),
        "REFUND_FAILED" | "REFUNDED_REVERSED" if done => Some((T::Refund, map::TAKEN_BACK)),
        _ => None,
    }
}

/// It was done, for the amount that it names.
pub(super) fn moved(item: &wire::Item) -> FactKind {
    FactKind::Approved {
        amount: named_amount(item),
        expires_at: None,
    }
}

/// `None` where it is no amount in whole minor units of ours: never what was asked, so a person decides.
pub(super) fn named_amount(item: &wire::Item) -> Option<quittance_domain::money::Money> {
    let named = item.amount.as_ref()?;
    amount::from_wire(&wire::Amount {
        currency: named.currency.clone()?,
        value: named.value?,
    })
}

/// Adyen's reference of what it is about.
pub(super) fn psp_reference(item: &wire::Item) -> Result<ProviderReference, Unreadable> {
    let text = item.psp_reference.as_deref().unwrap_or_default();
    Ok(reference(text)?)
}

/// The payment's reference, where an item about something else names it.
pub(super) fn original_reference(
    item: &wire::Item,
) -> Result<Option<ProviderReference>, Unreadable> {
    let text = item.original_reference.as_deref();
    let text = text.filter(|text| !text.is_empty());
    Ok(text.map(reference).transpose()?)
}

/// About the payment itself.
fn opening(item: &wire::Item, ours: Reference, kind: FactKind) -> Result<WebhookFact, Unreadable> {
    let reference = psp_reference(item)?;
    about_opening(
        ours,
        Fact {
            kind,
            provider_reference: Some(reference.clone()),
            payment_reference: Some(reference),
        },
    )
}

/// That a payment ended without being paid, or captured. It has a reference of its own, which names nothing of ours; which
/// payment it is about, is said where there is one.
fn ended(item: &wire::Item, ours: Reference, kind: FactKind) -> Result<WebhookFact, Unreadable> {
    about_opening(
        ours,
        Fact {
            kind,
            provider_reference: None,
            payment_reference: original_reference(item)?,
        },
    )
}

fn about_opening(ours: Reference, fact: Fact) -> Result<WebhookFact, Unreadable> {
    if !ours.kind.opens() {
        return Err(Unreadable::Unexpected);
    }
    Ok(WebhookFact {
        payment: PaymentName::Ours(ours.payment),
        subject: Subject::Transaction(ours.transaction),
        fact,
    })
}

/// About a capture, cancel or refund. It names our transaction, or the one that opened the payment: then its own
/// reference tells which it is, and whether it is one of ours at all.
fn operation(
    item: &wire::Item,
    ours: Reference,
    kind: TransactionKind,
    told: FactKind,
) -> Result<WebhookFact, Unreadable> {
    let at_once = ours.kind == TransactionKind::Purchase && kind == TransactionKind::Capture;
    // A purchase is booked as captured when it is authorized: that its capture failed takes this back.
    let told = match told {
        FactKind::Failed(cause) if at_once => FactKind::TakenBack(cause),
        FactKind::Failed(_)
        | FactKind::Approved { .. }
        | FactKind::Declined(_)
        | FactKind::RequiresAction(_)
        | FactKind::Pending
        | FactKind::TakenBack(_)
        | FactKind::Expired => told,
    };
    let (subject, reference) = if at_once {
        // The capture of a purchase is part of it.
        (Subject::Transaction(ours.transaction), None)
    } else if ours.kind == kind {
        (
            Subject::Transaction(ours.transaction),
            Some(psp_reference(item)?),
        )
    } else {
        let dispute = None;
        (
            Subject::Operation { kind, dispute },
            Some(psp_reference(item)?),
        )
    };
    Ok(WebhookFact {
        payment: PaymentName::Ours(ours.payment),
        subject,
        fact: Fact {
            kind: told,
            provider_reference: reference,
            payment_reference: original_reference(item)?,
        },
    })
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
