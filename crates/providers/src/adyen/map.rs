//! Wire to domain, purely: what an answer of Adyen proves.

use std::collections::BTreeMap;

use quittance_domain::decline::Cause;
use quittance_domain::money::Money;
use quittance_domain::payment::NextAction;
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{Fact, FactKind, OperationKind, SendOutcome};
use serde_json::{Map, Value};

use super::reference::Reference;
use super::{amount, refusals, wire};
use crate::http::refusal;
use crate::outcome::Unknown;
use crate::prepared::Prepared;
use crate::unreadable::{self, Unreadable, parsed, reference};

/// Longest URL of an action that is taken over, in bytes: Adyen's hold the session.
const MAX_ACTION_URL: usize = 8_192;
/// Most bytes of an action's data that are taken over, names included.
const MAX_ACTION_BYTES: usize = 128 * 1_024;
/// What an error answer says while, or after, another request under the same key is processed.
const IN_PROGRESS: &str = "704";
/// The kind of errors that are Adyen's own.
const INTERNAL: &str = "internal";

/// What a 2xx answer to a send proves: it must speak of this very transaction and operation. Where real money moves
/// (`livemode`), customers are sent to encrypted pages only.
pub(super) fn answered(body: &[u8], asked: &Prepared, livemode: bool) -> SendOutcome {
    let fact = match asked.operation {
        OperationKind::Purchase | OperationKind::Authorize | OperationKind::Confirm => {
            payment(body, asked, livemode)
        }
        OperationKind::Capture | OperationKind::Void | OperationKind::Refund => {
            modification(body, asked)
        }
    };
    unreadable::answered(fact)
}

/// What a 4xx answer proves. Refusals of a request come before it is processed; but a request that is, or was,
/// processed under the same key is no refusal, whatever the status.
pub(super) fn refused(status: u16, body: &[u8]) -> SendOutcome {
    match parsed::<wire::ErrorAnswer>(body) {
        Ok(error) if error.error_code == IN_PROGRESS => Unknown::RequestInProgress.into(),
        Ok(error) if error.error_type == INTERNAL => Unknown::ProviderError.into(),
        Ok(_) | Err(_) => refusal(status),
    }
}

/// An answer to `/payments` or `/payments/details`.
fn payment(body: &[u8], asked: &Prepared, livemode: bool) -> Result<Fact, Unreadable> {
    let answer: wire::PaymentAnswer = parsed(body)?;
    if let Some(text) = &answer.merchant_reference {
        same_transaction(text, asked)?;
    }
    let reference = answer.psp_reference.as_deref().map(reference).transpose()?;
    let kind = match answer.result_code.as_str() {
        "Authorised" => authorised(answer.amount.as_ref()),
        // For less than was asked: a person decides, whether the amount is named or not.
        "PartiallyAuthorised" => FactKind::Approved {
            amount: in_part(answer.amount.as_ref(), asked),
            expires_at: None,
        },
        "Refused" | "Error" | "Cancelled" => {
            let code = answer.refusal_reason_code.unwrap_or_default();
            FactKind::Declined(refusals::by_code(&code))
        }
        "RedirectShopper" | "ChallengeShopper" | "IdentifyShopper" | "PresentToShopper" => {
            let wanted = answer.action.as_ref().ok_or(Unreadable)?;
            FactKind::RequiresAction(action(wanted, livemode)?)
        }
        "Pending" | "Received" => match &answer.action {
            Some(wanted) => FactKind::RequiresAction(action(wanted, livemode)?),
            None => FactKind::Pending,
        },
        // Of authentication without payment, which is never asked for; or new.
        _ => return Err(Unreadable),
    };
    let named = match kind {
        // Not its last: what the customer does next may get another. And what has a reference is not sent again,
        // but a confirmation whose answer was lost has to be.
        FactKind::RequiresAction(_) => None,
        FactKind::Approved { .. } | FactKind::Pending => Some(reference.ok_or(Unreadable)?),
        FactKind::Declined(_)
        | FactKind::Failed(_)
        | FactKind::TakenBack(_)
        | FactKind::Expired => reference,
    };
    Ok(Fact {
        kind,
        provider_reference: named.clone(),
        payment_reference: named,
    })
}

/// What was authorized in part, where the answer names it. The part may be told elsewhere, beside the amount that was asked
/// for: that one is not it, and a confirmation does not say what was asked for.
fn in_part(named: Option<&wire::Amount>, asked: &Prepared) -> Option<Money> {
    let request: wire::Asked = serde_json::from_slice(&asked.body).ok()?;
    let whole = request.amount?;
    let part = named.filter(|named| **named != whole);
    part.and_then(amount::from_wire)
}

/// Without an amount it is not said what is authorized: the webhook says it.
fn authorised(named: Option<&wire::Amount>) -> FactKind {
    match named {
        Some(named) => FactKind::Approved {
            amount: amount::from_wire(named),
            expires_at: None,
        },
        None => FactKind::Pending,
    }
}

/// An answer to a capture, cancel or refund: that it was received. The outcome comes by webhook.
fn modification(body: &[u8], asked: &Prepared) -> Result<Fact, Unreadable> {
    let answer: wire::ModificationAnswer = parsed(body)?;
    if let Some(text) = &answer.reference {
        same_transaction(text, asked)?;
    }
    if answer.status != "received" {
        return Err(Unreadable);
    }
    let request: wire::Asked = parsed(&asked.body)?;
    let kind = match (&request.amount, &answer.amount) {
        // It was taken for something else than was asked: a person decides, before it is done if possible.
        (Some(asked), Some(named)) if asked != named => FactKind::Approved {
            amount: amount::from_wire(named),
            expires_at: None,
        },
        (Some(_) | None, _) => FactKind::Pending,
    };
    let payment_reference = match (&request.payment_reference, &answer.payment_psp_reference) {
        (None, named) => Some(reference(named.as_deref().ok_or(Unreadable)?)?),
        // By our reference of the payment: its name is told by webhook.
        (Some(asked), _) if answer.payment_reference.as_ref() == Some(asked) => None,
        (Some(_), _) => return Err(Unreadable),
    };
    Ok(Fact {
        kind,
        provider_reference: Some(reference(&answer.psp_reference)?),
        payment_reference,
    })
}

fn same_transaction(text: &str, asked: &Prepared) -> Result<(), Unreadable> {
    match Reference::parse(text) {
        Some(named) if named.transaction == asked.transaction => Ok(()),
        Some(_) | None => Err(Unreadable),
    }
}

/// What the customer has to do. Texts are handed on by their names, those of inner objects as `outer.inner`.
fn action(wanted: &Map<String, Value>, livemode: bool) -> Result<NextAction, Unreadable> {
    let mut data = BTreeMap::new();
    for (name, value) in wanted {
        match value {
            Value::Object(inner) => {
                let texts = inner.iter().filter_map(|(key, value)| {
                    Some((format!("{name}.{key}"), value.as_str()?.to_owned()))
                });
                data.extend(texts);
            }
            Value::String(text) => {
                data.insert(name.clone(), text.clone());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {}
        }
    }
    let url = data.remove("url").unwrap_or_default();
    // Only web addresses: the customer's browser is sent there. Empty where the client code does without.
    let plain = url.starts_with("http://") && !livemode;
    let web = url.is_empty() || url.starts_with("https://") || plain;
    let bytes: usize = data
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let typed = data.contains_key("type");
    if !web || !typed || url.len() > MAX_ACTION_URL || bytes > MAX_ACTION_BYTES {
        return Err(Unreadable);
    }
    Ok(NextAction {
        redirect_url: Sensitive::new(url),
        data: Sensitive::new(data),
        may_take_days: false,
    })
}

/// Why an operation failed that Adyen reports as failed.
pub(super) const FAILED: FactKind = FactKind::Failed(Cause::ProviderReportedFailure);

/// What Adyen had done, and reports as failed after all.
pub(super) const TAKEN_BACK: FactKind = FactKind::TakenBack(Cause::ProviderReportedFailure);

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
