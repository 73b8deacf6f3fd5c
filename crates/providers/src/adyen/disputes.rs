//! What Adyen's events tell of a dispute: an inquiry, a chargeback, its reversal.

use chrono::{DateTime, SubsecRound as _, Utc};
use quittance_domain::decline::{Decline, DeclineCode};
use quittance_domain::text::Text;
use quittance_domain::transaction::{Dispute, Fact, FactKind, TransactionKind};
use quittance_domain::webhook::{PaymentName, Subject, Unreadable, WebhookFact};
use serde_json::Value;

use super::reference::Reference;
use super::webhook::{moved, named_amount, original_reference, psp_reference};
use super::wire;
use crate::unreadable::reference;

/// What an event about a dispute tells, and of which side of it; `None` for every other event.
pub(super) fn of_dispute(code: &str, item: &wire::Item) -> Option<(TransactionKind, FactKind)> {
    match code {
        "CHARGEBACK" | "SECOND_CHARGEBACK" => Some((TransactionKind::Chargeback, moved(item))),
        // The issuer asks, or announces; nothing is taken yet.
        "NOTIFICATION_OF_CHARGEBACK" | "REQUEST_FOR_INFORMATION" => {
            Some((TransactionKind::Chargeback, FactKind::Pending))
        }
        // The issuer gave it up, or lost: an inquiry is closed. What a chargeback took is returned by its reversal.
        "ISSUER_RESPONSE_TIMEFRAME_EXPIRED"
        | "PREARBITRATION_ISSUER_WITHDRAWN"
        | "PREARBITRATION_WON"
        | "SCHEME_ARBITRATION_WON" => {
            let given_up = FactKind::Declined(Decline {
                code: DeclineCode::Other,
                provider_code: Text::parse(code).unwrap_or_default(),
            });
            Some((TransactionKind::Chargeback, given_up))
        }
        "CHARGEBACK_REVERSED" => Some((TransactionKind::ChargebackReversal, moved(item))),
        _ => None,
    }
}

/// About a dispute: an inquiry, a chargeback or its reversal, which have the dispute's reference in common.
pub(super) fn dispute(
    item: &wire::Item,
    ours: Reference,
    kind: TransactionKind,
    told: FactKind,
) -> Result<WebhookFact, Unreadable> {
    // Without an amount in whole minor units of ours it is a dispute all the same, of which a person says how much it took.
    let amount = named_amount(item);
    let mut named = psp_reference(item)?;
    if item.event_code.as_deref() == Some("SECOND_CHARGEBACK") {
        // The money is taken a second time, in the same dispute.
        named = reference(format!("{named}/second"))?;
    }
    // Both inform only: they are not signed.
    let additional = item.additional_data.as_ref();
    let reason = additional
        .and_then(|data| data.chargeback_reason_code.as_ref())
        .and_then(Value::as_str)
        .and_then(|text| Text::parse(text.trim()).ok());
    let due_at = additional
        .and_then(|data| data.defense_period_ends_at.as_ref())
        .and_then(Value::as_str)
        .and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    Ok(WebhookFact {
        payment: PaymentName::Ours(ours.payment),
        subject: Subject::Operation {
            kind,
            dispute: amount.map(|amount| Dispute {
                reason: reason.unwrap_or_default(),
                due_at: due_at.map(|at| at.with_timezone(&Utc).trunc_subsecs(6)),
                amount,
            }),
        },
        fact: Fact {
            kind: told,
            provider_reference: Some(named),
            payment_reference: original_reference(item)?,
        },
    })
}
