//! The domain's payments as messages.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use quittance_domain::change::OperatorActionKind;
use quittance_domain::decline::{Cause, Decline, DeclineCode, Failure, RetryAdvice};
use quittance_domain::ids::{ProviderReference, TransactionId};
use quittance_domain::money::Currency;
use quittance_domain::payment::{
    CaptureMethod, NextAction, Payment, PaymentMethod, PaymentMethodType, PaymentRecord,
    PaymentState,
};
use quittance_domain::transaction::{
    Dispute, Transaction, TransactionKind, TransactionOrigin, TransactionState,
};
use quittance_proto::v1;

/// The payment with all its transactions. Never the provider's token.
pub fn payment(record: &PaymentRecord) -> v1::Payment {
    let payment = &record.payment;
    let amounts = &payment.amounts;
    let money = |minor_units| Some(money(minor_units, payment.currency()));
    let transactions = record.transactions.iter();
    v1::Payment {
        payment_id: payment.id.to_string(),
        tenant_id: payment.tenant.to_string(),
        state: state(payment.state).into(),
        disputed: payment.disputed,
        livemode: payment.livemode,
        amount: money(payment.amount.minor_units()),
        amount_authorized: money(amounts.authorized),
        amount_captured: money(amounts.captured),
        amount_refunded: money(amounts.refunded),
        amount_charged_back: money(amounts.charged_back),
        amount_capturable: money(capturable(record)),
        amount_refundable: money(amounts.refundable()),
        amount_capture_pending: money(amounts.capture_pending),
        amount_void_pending: money(amounts.void_pending),
        amount_refund_pending: money(amounts.refund_pending),
        amount_voided: money(amounts.voided),
        amount_excess: money(amounts.excess),
        payment_method: Some(method(&payment.method)),
        capture_method: capture_method(payment.capture_method).into(),
        merchant_reference: payment.merchant_reference.as_str().to_owned(),
        description: payment.description.as_str().to_owned(),
        metadata: payment.metadata.clone(),
        provider_account: payment.provider_account.to_string(),
        provider_reference: reference(payment.provider_reference.as_ref()),
        next_action: next_action(payment),
        decline: in_state(payment, PaymentState::Declined, payment.decline.as_ref()).map(decline),
        failure: in_state(payment, PaymentState::Failed, payment.failure.as_ref())
            .copied()
            .map(failure),
        transactions: transactions
            .map(|row| transaction(row, payment.currency()))
            .collect(),
        create_time: Some(timestamp(payment.created_at)),
        update_time: Some(timestamp(payment.updated_at)),
        expire_time: payment.expires_at.map(timestamp),
        version: payment.version,
    }
}

/// One transaction of the payment, if it has it.
pub fn transaction_of(record: &PaymentRecord, id: TransactionId) -> Option<v1::Transaction> {
    let found = record.transaction(id)?;
    Some(transaction(found, record.payment.currency()))
}

/// What a capture may take: nothing while a void is pending, which excludes captures.
fn capturable(record: &PaymentRecord) -> i64 {
    let void_pending = record
        .transactions
        .iter()
        .any(|transaction| transaction.kind == TransactionKind::Void && !transaction.state.ended());
    if void_pending {
        0
    } else {
        record.payment.amounts.capturable()
    }
}

/// A detail that belongs to one state only.
fn in_state<'a, T>(payment: &Payment, state: PaymentState, value: Option<&'a T>) -> Option<&'a T> {
    value.filter(|_| payment.state == state)
}

fn transaction(row: &Transaction, currency: Currency) -> v1::Transaction {
    let declined = row.state == TransactionState::Declined;
    let failed = row.state == TransactionState::Failed;
    v1::Transaction {
        transaction_id: row.id.to_string(),
        kind: kind(row.kind).into(),
        origin: origin(row.origin).into(),
        state: transaction_state(row.state).into(),
        amount: Some(money(row.amount, currency)),
        provider_account: row.provider_account.to_string(),
        provider_reference: reference(row.provider_reference.as_ref()),
        decline: row.decline.as_ref().filter(|_| declined).map(decline),
        failure: row.failure.filter(|_| failed).map(failure),
        reason: row.reason.as_str().to_owned(),
        final_capture: row.final_capture,
        attempts: row.attempts,
        dispute: row.dispute.as_ref().map(dispute),
        create_time: Some(timestamp(row.created_at)),
        update_time: Some(timestamp(row.updated_at)),
        execute_before: match row.origin {
            TransactionOrigin::Caller
            | TransactionOrigin::Operator
            | TransactionOrigin::Service => Some(timestamp(row.execute_before)),
            TransactionOrigin::Provider => None,
        },
        next_retry_time: row
            .next_step_at
            .filter(|_| row.state == TransactionState::Pending)
            .map(timestamp),
        resolved_by_operator: row.resolved_by_operator,
        open_operator_actions: row
            .open_cases
            .iter()
            .map(|kind| action_kind(kind).into())
            .collect(),
    }
}

fn dispute(dispute: &Dispute) -> v1::Dispute {
    v1::Dispute {
        reason: dispute.reason.as_str().to_owned(),
        due_time: dispute.due_at.map(timestamp),
        amount: Some(money(
            dispute.amount.minor_units(),
            dispute.amount.currency(),
        )),
    }
}

/// An amount of a payment; responses may hold 0.
pub(super) fn money(minor_units: i64, currency: Currency) -> v1::Money {
    v1::Money {
        minor_units,
        currency_code: currency.code().to_owned(),
    }
}

/// The same time.
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp {
        seconds: time.timestamp(),
        // A leap second counts as more than a whole one in chrono; protobuf has none.
        nanos: i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).unwrap_or_default(),
    }
}

fn reference(reference: Option<&ProviderReference>) -> String {
    reference.map(ToString::to_string).unwrap_or_default()
}

fn method(method: &PaymentMethod) -> v1::PaymentMethod {
    v1::PaymentMethod {
        r#type: method_type(method.kind).into(),
        provider_token: String::new(),
        brand: method.brand.as_str().to_owned(),
        last4: method.last4.as_str().to_owned(),
        expiry_month: method.expiry_month.map(u32::from).unwrap_or_default(),
        expiry_year: method.expiry_year.map(u32::from).unwrap_or_default(),
    }
}

fn next_action(payment: &Payment) -> Option<v1::NextAction> {
    let action: &NextAction = in_state(
        payment,
        PaymentState::RequiresAction,
        payment.next_action.as_ref(),
    )?;
    Some(v1::NextAction {
        redirect_url: action.redirect_url.expose().clone(),
        data: action.data.expose().clone(),
    })
}

fn decline(decline: &Decline) -> v1::Decline {
    v1::Decline {
        code: decline_code(decline.code).into(),
        retry_advice: advice(decline.code.advice()).into(),
        provider_code: decline.provider_code.as_str().to_owned(),
    }
}

fn failure(failure: Failure) -> v1::Failure {
    v1::Failure {
        cause: failure.cause.name().to_owned(),
        // For the caller, who asks anew: what came too late can come in time.
        retryable: failure.cause.retryable() || failure.cause == Cause::NotSentInTime,
    }
}

/// The state as a message.
pub(super) fn state(state: PaymentState) -> v1::PaymentState {
    match state {
        PaymentState::Pending => v1::PaymentState::Pending,
        PaymentState::RequiresAction => v1::PaymentState::RequiresAction,
        PaymentState::Authorized => v1::PaymentState::Authorized,
        PaymentState::PartiallyCaptured => v1::PaymentState::PartiallyCaptured,
        PaymentState::Captured => v1::PaymentState::Captured,
        PaymentState::PartiallyRefunded => v1::PaymentState::PartiallyRefunded,
        PaymentState::Refunded => v1::PaymentState::Refunded,
        PaymentState::Voided => v1::PaymentState::Voided,
        PaymentState::Declined => v1::PaymentState::Declined,
        PaymentState::Failed => v1::PaymentState::Failed,
        PaymentState::Expired => v1::PaymentState::Expired,
    }
}

/// The state that a message names; `None` for "unspecified".
pub(super) fn state_of(state: v1::PaymentState) -> Option<PaymentState> {
    Some(match state {
        v1::PaymentState::Unspecified => return None,
        v1::PaymentState::Pending => PaymentState::Pending,
        v1::PaymentState::RequiresAction => PaymentState::RequiresAction,
        v1::PaymentState::Authorized => PaymentState::Authorized,
        v1::PaymentState::PartiallyCaptured => PaymentState::PartiallyCaptured,
        v1::PaymentState::Captured => PaymentState::Captured,
        v1::PaymentState::PartiallyRefunded => PaymentState::PartiallyRefunded,
        v1::PaymentState::Refunded => PaymentState::Refunded,
        v1::PaymentState::Voided => PaymentState::Voided,
        v1::PaymentState::Declined => PaymentState::Declined,
        v1::PaymentState::Failed => PaymentState::Failed,
        v1::PaymentState::Expired => PaymentState::Expired,
    })
}

fn method_type(kind: PaymentMethodType) -> v1::PaymentMethodType {
    match kind {
        PaymentMethodType::Card => v1::PaymentMethodType::Card,
        PaymentMethodType::BankDebit => v1::PaymentMethodType::BankDebit,
        PaymentMethodType::Wallet => v1::PaymentMethodType::Wallet,
        PaymentMethodType::BankTransfer => v1::PaymentMethodType::BankTransfer,
        PaymentMethodType::Voucher => v1::PaymentMethodType::Voucher,
    }
}

fn capture_method(method: CaptureMethod) -> v1::CaptureMethod {
    match method {
        CaptureMethod::Automatic => v1::CaptureMethod::Automatic,
        CaptureMethod::Manual => v1::CaptureMethod::Manual,
    }
}

fn kind(kind: TransactionKind) -> v1::TransactionKind {
    match kind {
        TransactionKind::Purchase => v1::TransactionKind::Purchase,
        TransactionKind::Authorization => v1::TransactionKind::Authorization,
        TransactionKind::Capture => v1::TransactionKind::Capture,
        TransactionKind::Void => v1::TransactionKind::Void,
        TransactionKind::Refund => v1::TransactionKind::Refund,
        TransactionKind::Chargeback => v1::TransactionKind::Chargeback,
        TransactionKind::ChargebackReversal => v1::TransactionKind::ChargebackReversal,
    }
}

fn origin(origin: TransactionOrigin) -> v1::TransactionOrigin {
    match origin {
        TransactionOrigin::Caller => v1::TransactionOrigin::Caller,
        TransactionOrigin::Provider => v1::TransactionOrigin::Provider,
        TransactionOrigin::Operator => v1::TransactionOrigin::Operator,
        TransactionOrigin::Service => v1::TransactionOrigin::Service,
    }
}

pub(super) fn transaction_state(state: TransactionState) -> v1::TransactionState {
    match state {
        TransactionState::Pending => v1::TransactionState::Pending,
        TransactionState::RequiresAction => v1::TransactionState::RequiresAction,
        TransactionState::Succeeded => v1::TransactionState::Succeeded,
        TransactionState::Declined => v1::TransactionState::Declined,
        TransactionState::Failed => v1::TransactionState::Failed,
        TransactionState::Reversed => v1::TransactionState::Reversed,
    }
}

/// Why a person has to look, as a message.
pub(super) fn action_kind(kind: OperatorActionKind) -> v1::OperatorActionKind {
    match kind {
        OperatorActionKind::AmountMismatch => v1::OperatorActionKind::AmountMismatch,
        OperatorActionKind::ContradictingFact => v1::OperatorActionKind::ContradictingFact,
        OperatorActionKind::ExcessAmount => v1::OperatorActionKind::ExcessAmount,
        OperatorActionKind::RecoveryExhausted => v1::OperatorActionKind::RecoveryExhausted,
    }
}

/// The code as a message.
pub(super) fn decline_code(code: DeclineCode) -> v1::DeclineCode {
    match code {
        DeclineCode::InsufficientFunds => v1::DeclineCode::InsufficientFunds,
        DeclineCode::CardExpired => v1::DeclineCode::CardExpired,
        DeclineCode::CardLostOrStolen => v1::DeclineCode::CardLostOrStolen,
        DeclineCode::CvcIncorrect => v1::DeclineCode::CvcIncorrect,
        DeclineCode::CardNumberIncorrect => v1::DeclineCode::CardNumberIncorrect,
        DeclineCode::LimitExceeded => v1::DeclineCode::LimitExceeded,
        DeclineCode::NotPermitted => v1::DeclineCode::NotPermitted,
        DeclineCode::DoNotHonor => v1::DeclineCode::DoNotHonor,
        DeclineCode::FraudSuspected => v1::DeclineCode::FraudSuspected,
        DeclineCode::AuthenticationRequired => v1::DeclineCode::AuthenticationRequired,
        DeclineCode::AuthenticationFailed => v1::DeclineCode::AuthenticationFailed,
        DeclineCode::IssuerUnavailable => v1::DeclineCode::IssuerUnavailable,
        DeclineCode::Duplicate => v1::DeclineCode::Duplicate,
        DeclineCode::ProviderRefused => v1::DeclineCode::ProviderRefused,
        DeclineCode::Other => v1::DeclineCode::Other,
    }
}

fn advice(advice: RetryAdvice) -> v1::RetryAdvice {
    match advice {
        RetryAdvice::DoNotRetry => v1::RetryAdvice::DoNotRetry,
        RetryAdvice::RetryLater => v1::RetryAdvice::RetryLater,
        RetryAdvice::RetryWithOtherMethod => v1::RetryAdvice::RetryWithOtherMethod,
        RetryAdvice::RetryAfterAuthentication => v1::RetryAdvice::RetryAfterAuthentication,
    }
}
