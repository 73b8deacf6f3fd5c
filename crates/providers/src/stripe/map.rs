//! Wire to domain, purely: what an answer of Stripe proves.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use quittance_domain::decline::{Cause, Decline};
use quittance_domain::ids::{PaymentId, ProviderReference, TransactionId};
use quittance_domain::money::Money;
use quittance_domain::payment::NextAction;
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{Fact, FactKind, OperationKind, SendOutcome};
use serde_json::Value;
use uuid::Uuid;

use super::wire::{
    CaptureMethod, ChargeStatus, ErrorBody, IntentStatus, LatestCharge, Metadata, PaymentIntent,
    Refund, RefundStatus, RefusedBody,
};
use super::{decline, money, wire};
use crate::http::refusal;
use crate::outcome::Unknown;
use crate::unreadable::{self, Unreadable, parsed, reference};

/// Metadata: our payment. On payment intents and refunds.
pub(super) const PAYMENT: &str = "quittance_payment";
/// Metadata: the transaction that a payment intent, or a refund, was made for.
pub(super) const TRANSACTION: &str = "quittance_transaction";
/// Metadata of a payment intent: the transaction that captured it. A capture has no object of its own.
pub(super) const CAPTURE: &str = "quittance_capture";

/// Why Stripe cancels by itself: an authorization ran out.
const RAN_OUT: [&str; 2] = ["automatic", "expired"];
/// Longest redirect URL that is taken over, in bytes.
const MAX_REDIRECT_URL: usize = 2_048;
/// Where the customer is sent at once, where the action is one that is done then.
const REDIRECT: &str = "url";
/// Pages of Stripe's for what takes days: a slip to be paid, a transfer to be made, small deposits to be found on a bank
/// statement. Until when is Stripe's to say, which ends the payment then.
const HOSTED_PAGES: [&str; 3] = [
    "hosted_voucher_url",
    "hosted_instructions_url",
    "hosted_verification_url",
];

/// What a 2xx answer to a send proves: it must speak of this very transaction.
pub(super) fn answered(
    body: &[u8],
    transaction: TransactionId,
    operation: OperationKind,
) -> SendOutcome {
    let fact = match operation {
        OperationKind::Purchase | OperationKind::Authorize | OperationKind::Confirm => {
            intent_of(body, transaction, TRANSACTION).and_then(|intent| opening(&intent))
        }
        OperationKind::Capture => {
            intent_of(body, transaction, CAPTURE).and_then(|intent| capture(&intent))
        }
        // A cancellation takes no metadata: what answers it is the payment intent that was named.
        OperationKind::Void => parsed(body).and_then(|intent| void(&intent)),
        OperationKind::Refund => refund_of(body, transaction).and_then(|it| refund(&it)),
    };
    unreadable::answered(fact)
}

/// What a 4xx answer to a send proves. `retry` is what `Stripe-Should-Retry` says.
pub(super) fn refused(
    status: u16,
    body: &[u8],
    retry: Option<bool>,
    operation: OperationKind,
) -> SendOutcome {
    let error = parsed::<ErrorBody>(body).ok().map(|body| body.error);
    let idempotency = error.as_ref().map(|error| error.r#type.as_str());
    match (status, error.as_ref().and_then(decline::decline)) {
        (402, Some(decline)) => {
            let named = error.and_then(|error| error.payment_intent);
            let named = named.and_then(|intent| reference(intent.id).ok());
            SendOutcome::Answered(refusal_of(decline, named, operation))
        }
        // Something else was asked under this key before: it may have moved money.
        (400, _) if idempotency == Some("idempotency_error") => Unknown::RequestInProgress.into(),
        // Stripe says that the same request may end differently: then this is no refusal of it.
        _ if retry == Some(true) => Unknown::RequestInProgress.into(),
        _ => match canceled_before(body, operation) {
            Some(fact) => SendOutcome::Answered(fact),
            None => refusal(status),
        },
    }
}

/// What a refused cancellation proves where the payment is canceled already: in the dashboard, and its event may be lost. That
/// its authorization ran out is none.
fn canceled_before(body: &[u8], operation: OperationKind) -> Option<Fact> {
    if operation != OperationKind::Void {
        return None;
    }
    let intent = parsed::<RefusedBody>(body).ok()?.error.payment_intent;
    let fact = void(&intent).ok()?;
    (!ran_out(&intent)).then_some(fact)
}

/// A refusal by the issuer. A refused payment keeps its payment intent.
fn refusal_of(
    decline: Decline,
    intent: Option<ProviderReference>,
    operation: OperationKind,
) -> Fact {
    let opens = match operation {
        OperationKind::Purchase | OperationKind::Authorize | OperationKind::Confirm => true,
        OperationKind::Capture | OperationKind::Void | OperationKind::Refund => false,
    };
    Fact {
        kind: FactKind::Declined(decline),
        provider_reference: intent.clone().filter(|_| opens),
        payment_reference: intent,
    }
}

/// One of our ids in an object's metadata.
pub(super) fn id(metadata: &Metadata, name: &str) -> Option<Uuid> {
    Uuid::try_parse(metadata.get(name)?).ok()
}

/// The payment that an object was made for.
pub(super) fn payment_id(metadata: &Metadata) -> Option<PaymentId> {
    id(metadata, PAYMENT).map(PaymentId)
}

/// Whether an object names a transaction.
pub(super) fn names(metadata: &Metadata, name: &str, transaction: TransactionId) -> bool {
    id(metadata, name) == Some(transaction.0)
}

fn intent_of(
    body: &[u8],
    transaction: TransactionId,
    name: &str,
) -> Result<PaymentIntent, Unreadable> {
    let intent: PaymentIntent = parsed(body)?;
    let ours = names(&intent.metadata, name, transaction);
    ours.then_some(intent).ok_or(Unreadable)
}

fn refund_of(body: &[u8], transaction: TransactionId) -> Result<Refund, Unreadable> {
    let refund: Refund = parsed(body)?;
    let ours = names(&refund.metadata, TRANSACTION, transaction);
    ours.then_some(refund).ok_or(Unreadable)
}

pub(super) fn amount(amount: i64, currency: &str) -> Result<Money, Unreadable> {
    money::from_stripe(amount, currency).ok_or(Unreadable)
}

/// Seconds since 1970, as Stripe has every time; 0 where there is none.
pub(super) fn time(seconds: Option<i64>) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds.filter(|seconds| *seconds > 0)?, 0)
}

/// What a payment intent proves about the payment's authorization or purchase.
pub(super) fn opening(intent: &PaymentIntent) -> Result<Fact, Unreadable> {
    let manual = intent.capture_method == CaptureMethod::Manual;
    let kind = match intent.status {
        // Captured since; it had been authorized whole.
        IntentStatus::Succeeded if manual => approved(intent, intent.amount)?,
        IntentStatus::Succeeded => approved(intent, intent.amount_received)?,
        IntentStatus::RequiresCapture if manual => approved(intent, intent.amount_capturable)?,
        IntentStatus::RequiresCapture => return Err(Unreadable),
        IntentStatus::RequiresAction => FactKind::RequiresAction(next_action(intent)?),
        IntentStatus::RequiresPaymentMethod => match &intent.last_payment_error {
            Some(error) => FactKind::Declined(decline::decline(error).ok_or(Unreadable)?),
            // Never tried, though we ask for that with the same request: a person has to look.
            None => FactKind::Pending,
        },
        IntentStatus::RequiresConfirmation | IntentStatus::Processing => FactKind::Pending,
        IntentStatus::Canceled => canceled(intent)?,
    };
    about(intent, kind, intent.id.as_str())
}

/// A canceled payment may have been authorized before.
fn canceled(intent: &PaymentIntent) -> Result<FactKind, Unreadable> {
    match &intent.latest_charge {
        _ if ran_out(intent) => Ok(FactKind::Expired),
        Some(LatestCharge::Whole(charge)) if charge.status == ChargeStatus::Succeeded => {
            approved(intent, intent.amount)
        }
        None | Some(LatestCharge::Whole(_)) => Ok(FactKind::Failed(Cause::Voided)),
        // An attempt without its outcome.
        Some(LatestCharge::Id(_)) => Err(Unreadable),
    }
}

/// Whether Stripe canceled it because its authorization ran out.
pub(super) fn ran_out(intent: &PaymentIntent) -> bool {
    let reason = intent.cancellation_reason.as_deref();
    reason.is_some_and(|reason| RAN_OUT.contains(&reason))
}

fn approved(intent: &PaymentIntent, moved: i64) -> Result<FactKind, Unreadable> {
    let card = match &intent.latest_charge {
        Some(LatestCharge::Whole(charge)) => charge
            .payment_method_details
            .as_ref()
            .and_then(|details| details.card.as_ref()),
        Some(LatestCharge::Id(_)) | None => None,
    };
    Ok(FactKind::Approved {
        amount: Some(amount(moved, &intent.currency)?),
        expires_at: time(card.and_then(|card| card.capture_before)),
    })
}

fn about(intent: &PaymentIntent, kind: FactKind, operation: &str) -> Result<Fact, Unreadable> {
    Ok(Fact {
        kind,
        provider_reference: Some(reference(operation)?),
        payment_reference: Some(reference(intent.id.as_str())?),
    })
}

/// What a payment intent proves about its capture, of which there is one at most. Its charge names it.
pub(super) fn capture(intent: &PaymentIntent) -> Result<Fact, Unreadable> {
    let kind = match intent.status {
        IntentStatus::Succeeded => FactKind::Approved {
            amount: Some(amount(intent.amount_received, &intent.currency)?),
            expires_at: None,
        },
        IntentStatus::Processing => FactKind::Pending,
        IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction
        | IntentStatus::RequiresCapture
        | IntentStatus::Canceled => return Err(Unreadable),
    };
    let charge = match &intent.latest_charge {
        Some(LatestCharge::Id(id)) => id.as_str(),
        Some(LatestCharge::Whole(charge)) => charge.id.as_str(),
        None => return Err(Unreadable),
    };
    about(intent, kind, charge)
}

/// What a payment intent proves about its cancellation, of which there is one at most: it has no name of its own.
pub(super) fn void(intent: &PaymentIntent) -> Result<Fact, Unreadable> {
    if intent.status != IntentStatus::Canceled {
        return Err(Unreadable);
    }
    let released = match &intent.latest_charge {
        Some(LatestCharge::Whole(charge)) if charge.status == ChargeStatus::Succeeded => {
            Some(amount(intent.amount, &intent.currency)?)
        }
        Some(LatestCharge::Whole(_) | LatestCharge::Id(_)) | None => None,
    };
    let kind = FactKind::Approved {
        amount: released,
        expires_at: None,
    };
    about(intent, kind, intent.id.as_str())
}

/// What a refund proves. One that succeeded can fail later.
pub(super) fn refund(refund: &Refund) -> Result<Fact, Unreadable> {
    let kind = match refund.status {
        Some(RefundStatus::Succeeded) => FactKind::Approved {
            amount: Some(amount(refund.amount, &refund.currency)?),
            expires_at: None,
        },
        Some(RefundStatus::Pending | RefundStatus::RequiresAction) | None => FactKind::Pending,
        Some(RefundStatus::Failed | RefundStatus::Canceled) => {
            FactKind::Failed(Cause::ProviderReportedFailure)
        }
    };
    let payment = refund.payment_intent.as_deref().map(reference).transpose();
    Ok(Fact {
        kind,
        provider_reference: Some(reference(refund.id.as_str())?),
        payment_reference: payment?,
    })
}

/// What a dispute returned of what it withdrew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reinstated {
    /// So much, in the account's currency.
    Amount(Money),
    /// Nothing; `again` where something had been returned, and was withdrawn once more.
    Nothing { again: bool },
    /// It is not said.
    Unsaid,
}

/// What a dispute returned of what it withdrew; what was withdrawn once more after that is not returned any more.
pub(super) fn reinstated(dispute: &wire::Dispute) -> Reinstated {
    let all = dispute.balance_transactions.as_deref().unwrap_or_default();
    let Some(first) = all.first() else {
        return Reinstated::Unsaid;
    };
    let (mut left, mut withdrawn) = (0_i64, false);
    for moved in all {
        if moved.currency != first.currency {
            return Reinstated::Unsaid;
        }
        if moved.amount < 0 && !withdrawn {
            withdrawn = true;
            continue;
        }
        let Some(sum) = left.checked_add(moved.amount) else {
            return Reinstated::Unsaid;
        };
        left = sum;
    }
    match amount(left, &first.currency) {
        _ if left <= 0 => Reinstated::Nothing {
            again: all.iter().any(|moved| moved.amount > 0),
        },
        Ok(left) => Reinstated::Amount(left),
        Err(Unreadable) => Reinstated::Unsaid,
    }
}

/// Where the customer is sent; without a URL, Stripe's client code goes on with the secret of this payment.
fn next_action(intent: &PaymentIntent) -> Result<NextAction, Unreadable> {
    let action = intent.next_action.as_ref().ok_or(Unreadable)?;
    let about = action.about.get(&action.r#type).and_then(Value::as_object);
    let named = |name: &str| about?.get(name)?.as_str();
    let page = HOSTED_PAGES.iter().find_map(|name| named(name));
    let url = named(REDIRECT).or(page);
    let mut data = BTreeMap::from([("type".to_owned(), action.r#type.clone())]);
    // Only web addresses: the customer's browser is sent there.
    let redirect_url = match url {
        Some(url) if !url.starts_with("https://") || url.len() > MAX_REDIRECT_URL => {
            return Err(Unreadable);
        }
        Some(url) => url.to_owned(),
        None => {
            let secret = intent.client_secret.clone().ok_or(Unreadable)?;
            data.insert("client_secret".to_owned(), secret);
            String::new()
        }
    };
    Ok(NextAction {
        redirect_url: Sensitive::new(redirect_url),
        data: Sensitive::new(data),
        may_take_days: page.is_some(),
    })
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
