//! Commands on a payment that exists, and `GetPayment`.

use chrono::{DateTime, Utc};
use quittance_domain::command::{
    Capture, Confirm, MAX_CONFIRM_KEY, MAX_CONFIRM_PARAMETERS, MAX_CONFIRM_VALUE, PaymentLookup,
    Refund, Void,
};
use quittance_domain::ids::PaymentId;
use quittance_domain::text::{Sensitive, Text};
use quittance_proto::v1;

use super::scalars::{self, PairLimits};
use super::violations::Violations;

/// Parses `ConfirmPayment`.
///
/// # Errors
/// Every bad field.
pub fn confirm(request: v1::ConfirmPaymentRequest) -> Result<Confirm, Violations> {
    let mut bad = Violations::default();
    let payment = scalars::payment_id(&mut bad, &request.payment_id);
    let key = scalars::idempotency_key(&mut bad, request.idempotency_key);
    let parameters = scalars::pairs(&mut bad, &PARAMETERS, request.parameters);
    let command = || {
        Some(Confirm {
            payment: payment?,
            idempotency_key: key?,
            parameters: Sensitive::new(parameters?.into_iter().collect()),
        })
    };
    let command = command();
    bad.finish(command)
}

const PARAMETERS: PairLimits = PairLimits {
    field: "parameters",
    pairs: MAX_CONFIRM_PARAMETERS,
    key: |key| scalars::not_empty::<MAX_CONFIRM_KEY>(key).map(drop),
    // Challenge results come in lines (base64, as of 3-D Secure 1); nothing else that controls is let in.
    value: |value| {
        Text::<MAX_CONFIRM_VALUE>::parse(value.replace(['\r', '\n', '\t'], " ")).map(drop)
    },
};

/// Parses `CapturePayment`.
///
/// # Errors
/// Every bad field.
pub fn capture(
    request: v1::CapturePaymentRequest,
    now: DateTime<Utc>,
) -> Result<Capture, Violations> {
    let mut bad = Violations::default();
    let payment = scalars::payment_id(&mut bad, &request.payment_id);
    let key = scalars::idempotency_key(&mut bad, request.idempotency_key);
    let amount = scalars::optional_money(&mut bad, "amount", request.amount.as_ref());
    let execute_before = scalars::execute_before(&mut bad, request.execute_before, now);
    let command = || {
        Some(Capture {
            payment: payment?,
            idempotency_key: key?,
            amount: amount?,
            final_capture: request.final_capture,
            execute_before: execute_before?,
        })
    };
    let command = command();
    bad.finish(command)
}

/// Parses `VoidPayment`.
///
/// # Errors
/// Every bad field.
pub fn void(request: v1::VoidPaymentRequest) -> Result<Void, Violations> {
    let mut bad = Violations::default();
    let payment = scalars::payment_id(&mut bad, &request.payment_id);
    let key = scalars::idempotency_key(&mut bad, request.idempotency_key);
    let reason = scalars::text(&mut bad, "reason", request.reason);
    let command = || {
        Some(Void {
            payment: payment?,
            idempotency_key: key?,
            reason: reason?,
        })
    };
    let command = command();
    bad.finish(command)
}

/// Parses `RefundPayment`.
///
/// # Errors
/// Every bad field.
pub fn refund(request: v1::RefundPaymentRequest, now: DateTime<Utc>) -> Result<Refund, Violations> {
    let mut bad = Violations::default();
    let payment = scalars::payment_id(&mut bad, &request.payment_id);
    let key = scalars::idempotency_key(&mut bad, request.idempotency_key);
    let amount = scalars::optional_money(&mut bad, "amount", request.amount.as_ref());
    let reason = scalars::text(&mut bad, "reason", request.reason);
    let execute_before = scalars::execute_before(&mut bad, request.execute_before, now);
    let command = || {
        Some(Refund {
            payment: payment?,
            idempotency_key: key?,
            amount: amount?,
            reason: reason?,
            execute_before: execute_before?,
        })
    };
    let command = command();
    bad.finish(command)
}

/// Parses `SyncPayment`.
///
/// # Errors
/// Every bad field.
pub fn sync(request: &v1::SyncPaymentRequest) -> Result<PaymentId, Violations> {
    let mut bad = Violations::default();
    let payment = scalars::payment_id(&mut bad, &request.payment_id);
    bad.finish(payment)
}

/// Parses `GetPayment`.
///
/// # Errors
/// Every bad field.
pub fn get(request: v1::GetPaymentRequest) -> Result<PaymentLookup, Violations> {
    use v1::get_payment_request::Lookup;
    let mut bad = Violations::default();
    let lookup = match request.lookup {
        None => {
            bad.invalid("lookup", "is required: give payment_id or idempotency_key");
            None
        }
        Some(Lookup::PaymentId(id)) => scalars::payment_id(&mut bad, &id).map(PaymentLookup::Id),
        Some(Lookup::IdempotencyKey(key)) => {
            scalars::idempotency_key(&mut bad, key).map(PaymentLookup::IdempotencyKey)
        }
    };
    bad.finish(lookup)
}
