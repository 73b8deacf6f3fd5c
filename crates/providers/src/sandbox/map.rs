//! Wire to domain, purely: what an answer of the sandbox proves.

use chrono::SubsecRound as _;
use quittance_domain::decline::{Cause, Decline, DeclineCode};
use quittance_domain::ids::{ProviderReference, TransactionId};
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::NextAction;
use quittance_domain::ports::LookupQuery;
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{
    Dispute, Fact, FactKind, LookupOutcome, OperationKind, SendOutcome, TransactionKind,
};

use super::wire;
use crate::http::refusal;
use crate::outcome::{NotSent, Unknown};
use crate::unreadable::{self, Unreadable, parsed, reference};

/// Longest redirect URL that is taken over, in bytes.
const MAX_REDIRECT_URL: usize = 2_048;
/// Most pairs of redirect data that are taken over.
const MAX_REDIRECT_DATA: usize = 50;

/// What a 2xx answer to a send proves: it must speak of this very transaction and operation.
pub(super) fn answered(
    body: &[u8],
    transaction: TransactionId,
    operation: OperationKind,
) -> SendOutcome {
    let read = read(body, transaction);
    let answer = read.and_then(|wire| {
        let answers = answers(wire.kind, operation);
        answers.then_some(wire).ok_or(Unreadable)
    });
    unreadable::answered(answer.and_then(fact))
}

/// What a 4xx answer to a send proves.
pub(super) fn refused(status: u16, body: &[u8], operation: OperationKind) -> SendOutcome {
    let error = parsed::<wire::ErrorBody>(body).ok();
    match (status, error.as_ref().map(|body| body.error.code.as_str())) {
        // Something else was asked under this key before: it may have moved money.
        (400, Some("idempotency_mismatch")) => Unknown::RequestInProgress.into(),
        // The authorization has moved on from waiting for the customer: a lookup tells where to.
        (409, Some("invalid_state")) if operation == OperationKind::Confirm => {
            Unknown::RequestInProgress.into()
        }
        // The payment's state does not allow it, and the sandbox did nothing.
        (409, Some("invalid_state")) => NotSent::RequestRefused.into(),
        _ => refusal(status),
    }
}

/// What a 2xx answer to a lookup proves.
pub(super) fn found(body: &[u8], transaction: TransactionId) -> LookupOutcome {
    unreadable::found(read(body, transaction).and_then(fact))
}

/// What a 2xx answer to a lookup of a payment proves of one of its operations, which the sandbox named.
pub(super) fn found_in_payment(body: &[u8], query: &LookupQuery) -> LookupOutcome {
    let payment: wire::Payment = match parsed(body) {
        Ok(payment) => payment,
        Err(unreadable) => return unreadable.into(),
    };
    let named = query
        .provider_reference
        .as_ref()
        .map(ProviderReference::as_str);
    let mut operations = payment.operations.into_iter();
    let operation = operations.find(|operation| {
        Some(operation.id.as_str()) == named && kind(operation.kind) == query.kind
    });
    // It was told, so it was there.
    let missing = LookupOutcome::NotFound {
        authoritative: false,
    };
    operation.map_or(missing, |operation| unreadable::found(fact(operation)))
}

/// What a 4xx answer to a lookup proves. Only the sandbox's own "not found" does: that of a wrong
/// URL or of something in between must not pass for proof that nothing was charged.
pub(super) fn not_found(status: u16, body: &[u8]) -> LookupOutcome {
    match parsed::<wire::ErrorBody>(body) {
        Ok(body) if status == 404 && body.error.r#type == "not_found" => LookupOutcome::NotFound {
            authoritative: body.authoritative,
        },
        Ok(_) if status != 404 => unavailable(Cause::RequestRefused),
        Ok(_) | Err(Unreadable) => Unreadable.into(),
    }
}

/// Such an answer asks nobody to wait.
fn unavailable(cause: Cause) -> LookupOutcome {
    LookupOutcome::Unavailable {
        cause,
        retry_after: None,
    }
}

fn read(body: &[u8], transaction: TransactionId) -> Result<wire::Operation, Unreadable> {
    let operation: wire::Operation = parsed(body)?;
    let ours = operation.reference == transaction.to_string();
    ours.then_some(operation).ok_or(Unreadable)
}

/// Whether an operation of this kind answers what was asked. A confirmation is answered with the
/// operation that it completes.
fn answers(kind: wire::Kind, operation: OperationKind) -> bool {
    match operation {
        OperationKind::Purchase => kind == wire::Kind::Purchase,
        OperationKind::Authorize => kind == wire::Kind::Authorization,
        OperationKind::Confirm => {
            matches!(kind, wire::Kind::Purchase | wire::Kind::Authorization)
        }
        OperationKind::Capture => kind == wire::Kind::Capture,
        OperationKind::Void => kind == wire::Kind::Void,
        OperationKind::Refund => kind == wire::Kind::Refund,
    }
}

/// What an operation proves, as the sandbox has it.
pub(super) fn fact(wire: wire::Operation) -> Result<Fact, Unreadable> {
    let kind = match wire.status {
        wire::Status::Approved => FactKind::Approved {
            amount: amount(&wire)?,
            // As precise as it is stored, so that it reads the same ever after.
            expires_at: wire.expires_at.map(|at| at.trunc_subsecs(6)),
        },
        wire::Status::Declined => FactKind::Declined(decline(wire.decline.ok_or(Unreadable)?)),
        wire::Status::Pending => FactKind::Pending,
        wire::Status::RequiresAction => {
            FactKind::RequiresAction(next_action(wire.next_action.ok_or(Unreadable)?)?)
        }
        wire::Status::Failed => FactKind::Failed(Cause::ProviderReportedFailure),
    };
    Ok(Fact {
        kind,
        provider_reference: Some(reference(wire.id)?),
        payment_reference: Some(reference(wire.payment_id)?),
    })
}

/// What an operation does.
pub(super) fn kind(kind: wire::Kind) -> TransactionKind {
    match kind {
        wire::Kind::Purchase => TransactionKind::Purchase,
        wire::Kind::Authorization => TransactionKind::Authorization,
        wire::Kind::Capture => TransactionKind::Capture,
        wire::Kind::Void => TransactionKind::Void,
        wire::Kind::Refund => TransactionKind::Refund,
        wire::Kind::Chargeback => TransactionKind::Chargeback,
        wire::Kind::ChargebackReversal => TransactionKind::ChargebackReversal,
    }
}

/// What a dispute is about, where the operation is one.
pub(super) fn dispute(wire: &wire::Operation) -> Result<Option<Dispute>, Unreadable> {
    let Some(dispute) = &wire.dispute else {
        return Ok(None);
    };
    let Some(amount) = amount(wire)? else {
        return Ok(None);
    };
    Ok(Some(Dispute {
        reason: Text::parse(dispute.reason.as_str()).map_err(|_| Unreadable)?,
        due_at: dispute.due_at.map(|at| at.trunc_subsecs(6)),
        amount,
    }))
}

/// What the sandbox says it moved; a void before the customer acted says 0, and moved nothing.
fn amount(wire: &wire::Operation) -> Result<Option<Money>, Unreadable> {
    let currency = Currency::parse(&wire.currency).map_err(|_| Unreadable)?;
    if wire.kind == wire::Kind::Void && wire.amount == 0 {
        return Ok(None);
    }
    Money::new(wire.amount, currency)
        .map(Some)
        .map_err(|_| Unreadable)
}

fn decline(wire: wire::Decline) -> Decline {
    Decline {
        code: decline_code(&wire.code),
        provider_code: Text::parse(wire.code).unwrap_or_default(),
    }
}

/// The sandbox's codes in the unified ones.
pub(super) fn decline_code(code: &str) -> DeclineCode {
    match code {
        "insufficient_funds" => DeclineCode::InsufficientFunds,
        "expired_card" => DeclineCode::CardExpired,
        "lost_card" | "stolen_card" => DeclineCode::CardLostOrStolen,
        "incorrect_cvc" => DeclineCode::CvcIncorrect,
        "incorrect_number" => DeclineCode::CardNumberIncorrect,
        "limit_exceeded" => DeclineCode::LimitExceeded,
        "not_permitted" => DeclineCode::NotPermitted,
        "do_not_honor" => DeclineCode::DoNotHonor,
        "fraud" => DeclineCode::FraudSuspected,
        "authentication_required" => DeclineCode::AuthenticationRequired,
        "authentication_failed" => DeclineCode::AuthenticationFailed,
        "issuer_unavailable" => DeclineCode::IssuerUnavailable,
        "duplicate" => DeclineCode::Duplicate,
        "capture_failed" | "refund_failed" | "canceled" => DeclineCode::ProviderRefused,
        _ => DeclineCode::Other,
    }
}

/// Only web addresses: the customer's browser is sent there.
fn next_action(wire: wire::NextAction) -> Result<NextAction, Unreadable> {
    let web = wire.url.starts_with("https://") || wire.url.starts_with("http://");
    if !web || wire.url.len() > MAX_REDIRECT_URL || wire.data.len() > MAX_REDIRECT_DATA {
        return Err(Unreadable);
    }
    Ok(NextAction {
        redirect_url: Sensitive::new(wire.url),
        data: Sensitive::new(wire.data),
        may_take_days: false,
    })
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
