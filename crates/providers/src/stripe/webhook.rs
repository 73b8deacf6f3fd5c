//! Stripe's webhooks: what an event proves.
//!
//! Several events may describe one change; each change is read from one family of them, that of the object which the
//! change is about, and equal facts change nothing. Their order means nothing (`created` has seconds).

use quittance_domain::decline::Cause;
use quittance_domain::ids::{EventId, TransactionId};
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{Dispute, Fact, FactKind, TransactionKind};
use quittance_domain::webhook::{
    Delivery, PaymentName, ProviderWebhooks, Subject, Unreadable, Unverified, VerifiedEvent,
    WebhookFact,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Stripe;
use super::map::{self, CAPTURE, Reinstated, TRANSACTION};
use super::wire::{self, CaptureMethod, DisputeStatus, IntentStatus, Metadata, PaymentIntent};
use crate::unreadable::{self, parsed, reference};

/// Events about payments that tell nothing which another one does not tell better.
const TOLD_BY_OTHERS: [&str; 7] = [
    "charge.captured",
    "charge.failed",
    "charge.pending",
    "charge.succeeded",
    "charge.updated",
    "payment_intent.created",
    "payment_intent.partially_funded",
];

impl ProviderWebhooks for Stripe {
    fn verify(&self, delivery: &Delivery<'_>) -> Result<Vec<VerifiedEvent>, Unverified> {
        self.secrets.verify(delivery)?;
        // What is signed and cannot be read is kept, too.
        let event = serde_json::from_slice::<wire::Named>(delivery.body);
        Ok(vec![VerifiedEvent {
            id: event.ok().and_then(|event| EventId::parse(event.id).ok()),
            signed: Sha256::digest(delivery.body).into(),
            body: Sensitive::new(delivery.body.to_vec()),
        }])
    }

    fn webhook(&self, body: &[u8]) -> Result<Vec<WebhookFact>, Unreadable> {
        read(body, self.livemode)
    }
}

/// What an event proves to an account with or without real money.
fn read(body: &[u8], livemode: bool) -> Result<Vec<WebhookFact>, Unreadable> {
    let event: wire::Event = parsed(body)?;
    // An event of the other mode is about nothing that was sent through this account.
    if event.livemode != livemode {
        return Err(Unreadable::Unexpected);
    }
    let object = event.data.object;
    match event.r#type.as_str() {
        "payment_intent.succeeded"
        | "payment_intent.amount_capturable_updated"
        | "payment_intent.processing"
        | "payment_intent.requires_action"
        | "payment_intent.payment_failed" => intent(&shaped(object)?),
        "payment_intent.canceled" => canceled(&shaped(object)?),
        "charge.expired" => expired(&shaped(object)?),
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            refund(&shaped(object)?)
        }
        "charge.dispute.created"
        | "charge.dispute.updated"
        | "charge.dispute.closed"
        | "charge.dispute.funds_withdrawn" => dispute(&shaped(object)?, false),
        "charge.dispute.funds_reinstated" => dispute(&shaped(object)?, true),
        "charge.refunded" => refunded(&shaped(object)?),
        told if TOLD_BY_OTHERS.contains(&told) => Ok(Vec::new()),
        _ => Err(Unreadable::Unexpected),
    }
}

fn shaped<T: DeserializeOwned>(object: Value) -> Result<T, Unreadable> {
    serde_json::from_value(object).map_err(|_| Unreadable::Malformed)
}

/// The payment of ours, and the transaction that made it. Whoever else uses the account gives its objects other
/// metadata than we do.
fn ours(metadata: &Metadata) -> Result<(PaymentName, Subject), Unreadable> {
    let payment = map::payment_id(metadata).ok_or(Unreadable::Unexpected)?;
    let transaction = map::id(metadata, TRANSACTION).ok_or(Unreadable::Unexpected)?;
    let subject = Subject::Transaction(TransactionId(transaction));
    Ok((PaymentName::Ours(payment), subject))
}

fn about((payment, subject): (PaymentName, Subject), fact: Fact) -> Vec<WebhookFact> {
    vec![WebhookFact {
        payment,
        subject,
        fact,
    }]
}

/// An operation that Stripe names by its own reference.
fn by_reference(kind: TransactionKind) -> Subject {
    let dispute = None;
    Subject::Operation { kind, dispute }
}

fn intent(intent: &PaymentIntent) -> Result<Vec<WebhookFact>, Unreadable> {
    let (payment, opening) = ours(&intent.metadata)?;
    let manual = intent.capture_method == CaptureMethod::Manual;
    match intent.status {
        // The event of a capture, ours or one that was made in the dashboard.
        IntentStatus::Succeeded if manual => {
            let ours = map::id(&intent.metadata, CAPTURE).map(TransactionId);
            let subject = ours.map_or(by_reference(TransactionKind::Capture), Subject::Transaction);
            let fact = map::capture(intent)?;
            Ok(about((payment, subject), fact))
        }
        IntentStatus::Succeeded
        | IntentStatus::RequiresCapture
        | IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction
        | IntentStatus::Processing
        | IntentStatus::Canceled => {
            let fact = map::opening(intent)?;
            Ok(about((payment, opening), fact))
        }
    }
}

/// Either the authorization ran out, or somebody released it: we, or whoever did it in the dashboard.
fn canceled(intent: &PaymentIntent) -> Result<Vec<WebhookFact>, Unreadable> {
    let (payment, opening) = ours(&intent.metadata)?;
    if map::ran_out(intent) {
        let fact = map::opening(intent)?;
        return Ok(about((payment, opening), fact));
    }
    let fact = map::void(intent)?;
    Ok(about((payment, by_reference(TransactionKind::Void)), fact))
}

/// A charge that was not captured in time.
fn expired(charge: &wire::Charge) -> Result<Vec<WebhookFact>, Unreadable> {
    let intent = charge.payment_intent.as_deref().map(reference);
    let intent = intent.transpose()?;
    let fact = Fact {
        kind: FactKind::Expired,
        provider_reference: intent.clone(),
        payment_reference: intent,
    };
    Ok(about(ours(&charge.metadata)?, fact))
}

/// A refund of ours, or one that was made in the dashboard. What releases an authorization, or the rest of one, is a
/// refund to Stripe as well; but no money had moved, so nothing is booked for it.
pub(super) fn refund(refund: &wire::Refund) -> Result<Vec<WebhookFact>, Unreadable> {
    let fact = map::refund(refund)?;
    if let Ok(ours) = ours(&refund.metadata) {
        return Ok(about(ours, fact));
    }
    if refund.balance_transaction.is_none() {
        return Ok(Vec::new());
    }
    let payment = theirs(refund.payment_intent.as_ref(), refund.charge.as_ref())?;
    let subject = by_reference(TransactionKind::Refund);
    Ok(about((payment, subject), fact))
}

/// That a charge was refunded, and not by which refund: what the charge says is a sum, in which releases count as well. An
/// endpoint of a version before [`API_VERSION`](super::API_VERSION) hears of a refund in the dashboard by this alone.
fn refunded(charge: &wire::Charge) -> Result<Vec<WebhookFact>, Unreadable> {
    let named = theirs(charge.payment_intent.as_ref(), Some(&charge.id))?;
    let payment =
        map::payment_id(&charge.metadata).map_or_else(|| named.clone(), PaymentName::Ours);
    let PaymentName::Theirs(reference) = named else {
        return Err(Unreadable::Malformed);
    };
    let kind = TransactionKind::Refund;
    let fact = Fact {
        kind: FactKind::Pending,
        provider_reference: None,
        payment_reference: Some(reference),
    };
    Ok(about((payment, Subject::Unnamed { kind }), fact))
}

/// The payment by its payment intent; by its charge where it has none.
fn theirs(intent: Option<&String>, charge: Option<&String>) -> Result<PaymentName, Unreadable> {
    let named = intent.or(charge).ok_or(Unreadable::Unexpected)?;
    Ok(PaymentName::Theirs(reference(named.as_str())?))
}

/// About a dispute; `reinstated` where it is told for what it returns.
fn dispute(dispute: &wire::Dispute, reinstated: bool) -> Result<Vec<WebhookFact>, Unreadable> {
    let payment = theirs(dispute.payment_intent.as_ref(), dispute.charge.as_ref())?;
    let about = about_dispute(dispute);
    let mut facts = disputed(dispute)?;
    let returned = |(kind, fact): &(TransactionKind, Fact)| {
        *kind == TransactionKind::ChargebackReversal
            && matches!(fact.kind, FactKind::Approved { .. })
    };
    let unsaid = dispute.status == DisputeStatus::Lost && !facts.iter().any(returned);
    if let Some((_, taken)) = facts.first().cloned().filter(|_| reinstated && unsaid) {
        // Money was returned, and it is not said how much: a person decides.
        facts.truncate(1);
        let returned = Fact {
            kind: FactKind::Approved {
                amount: None,
                expires_at: None,
            },
            ..taken
        };
        facts.push((TransactionKind::ChargebackReversal, returned));
    }
    let facts = facts.into_iter().map(|(kind, fact)| WebhookFact {
        payment: payment.clone(),
        subject: Subject::Operation {
            kind,
            dispute: about_of(dispute.status, kind, about.as_ref(), &fact),
        },
        fact,
    });
    Ok(facts.collect())
}

/// What a dispute is about: its reason, its date, its amount. `None` where that is no amount in whole minor units of ours:
/// it is a dispute all the same, of which a person says how much it took.
fn about_dispute(dispute: &wire::Dispute) -> Option<Dispute> {
    let amount = map::amount(dispute.amount, &dispute.currency).ok()?;
    let details = dispute.evidence_details.as_ref();
    Some(Dispute {
        reason: Text::parse(dispute.reason.as_str()).unwrap_or_default(),
        due_at: map::time(details.and_then(|details| details.due_by)),
        amount,
    })
}

/// What one side of a dispute is about as it stands; `None` where it has no such side.
pub(super) fn details(
    dispute: &wire::Dispute,
    kind: TransactionKind,
) -> Result<Option<Dispute>, unreadable::Unreadable> {
    let about = about_dispute(dispute);
    let mut facts = disputed(dispute)?.into_iter();
    let side = facts.find(|(side, _)| *side == kind);
    Ok(side.and_then(|(_, fact)| about_of(dispute.status, kind, about.as_ref(), &fact)))
}

/// What one side of a dispute is about: of a lost one, only what was returned of it is its reversal.
fn about_of(
    status: DisputeStatus,
    kind: TransactionKind,
    about: Option<&Dispute>,
    fact: &Fact,
) -> Option<Dispute> {
    let about = about?;
    let in_part = status == DisputeStatus::Lost && kind == TransactionKind::ChargebackReversal;
    match &fact.kind {
        FactKind::Approved { amount, .. } if in_part => amount.map(|amount| Dispute {
            amount,
            ..about.clone()
        }),
        FactKind::Approved { .. }
        | FactKind::Declined(_)
        | FactKind::RequiresAction(_)
        | FactKind::Pending
        | FactKind::Failed(_)
        | FactKind::TakenBack(_)
        | FactKind::Expired => Some(about.clone()),
    }
}

/// What was returned is so no more.
const GONE: FactKind = FactKind::TakenBack(Cause::ProviderReportedFailure);

/// What a dispute proves: that the money was taken back, and where it was won, that it was returned. One that is lost
/// returns a part of it where as much had been refunded before (the Dashboard calls it "partially won"). One that was won
/// can be taken up again, and lost: then what was returned is so no more. An inquiry (`warning_…`) takes nothing (yet); a
/// dispute that was prevented never will.
pub(super) fn disputed(
    dispute: &wire::Dispute,
) -> Result<Vec<(TransactionKind, Fact)>, unreadable::Unreadable> {
    let payment = dispute.payment_intent.as_deref().map(reference);
    let (named, payment) = (reference(dispute.id.as_str())?, payment.transpose()?);
    let fact = |kind| Fact {
        kind,
        provider_reference: Some(named.clone()),
        payment_reference: payment.clone(),
    };
    let moved = |amount| FactKind::Approved {
        amount,
        expires_at: None,
    };
    let whole = map::amount(dispute.amount, &dispute.currency).ok();
    let (taken, returned) = match dispute.status {
        DisputeStatus::WarningNeedsResponse | DisputeStatus::WarningUnderReview => {
            (FactKind::Pending, None)
        }
        DisputeStatus::WarningClosed => (FactKind::Failed(Cause::ProviderReportedFailure), None),
        DisputeStatus::Prevented => return Ok(Vec::new()),
        DisputeStatus::NeedsResponse
        | DisputeStatus::UnderReview
        | DisputeStatus::AppealNeedsResponse
        | DisputeStatus::AppealUnderReview => {
            let again = map::reinstated(dispute) == Reinstated::Nothing { again: true };
            (moved(whole), again.then_some(GONE))
        }
        DisputeStatus::Lost => match map::reinstated(dispute) {
            Reinstated::Amount(part) => (moved(whole), Some(moved(Some(part)))),
            Reinstated::Nothing { .. } => (moved(whole), Some(GONE)),
            Reinstated::Unsaid => (moved(whole), None),
        },
        DisputeStatus::Won => (moved(whole), Some(moved(whole))),
    };
    let taken = (TransactionKind::Chargeback, fact(taken));
    let returned = returned.map(|told| (TransactionKind::ChargebackReversal, fact(told)));
    Ok(std::iter::once(taken).chain(returned).collect())
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
