//! Requests, each valid as it is made, and what answers say.

use std::collections::BTreeMap;

use quittance_proto::v1::{
    CaptureMethod, CapturePaymentRequest, ConfirmPaymentRequest, CreatePaymentRequest,
    GetPaymentRequest, Money, OperatorActionKind, Payment, PaymentMethod, PaymentMethodType,
    RefundPaymentRequest, SyncPaymentRequest, Transaction, VoidPaymentRequest, get_payment_request,
};
use uuid::Uuid;

/// The currency of payments unless a test says otherwise.
pub const CURRENCY: &str = "EUR";

fn fresh_key() -> String {
    Uuid::new_v4().to_string()
}

/// An amount.
pub fn money(minor_units: i64, currency_code: &str) -> Money {
    Money {
        minor_units,
        currency_code: currency_code.to_owned(),
    }
}

/// A purchase: authorized and captured in one.
pub fn purchase(token: &str, minor_units: i64) -> CreatePaymentRequest {
    CreatePaymentRequest {
        idempotency_key: fresh_key(),
        amount: Some(money(minor_units, CURRENCY)),
        payment_method: Some(PaymentMethod {
            r#type: PaymentMethodType::Card.into(),
            provider_token: token.to_owned(),
            ..PaymentMethod::default()
        }),
        ..CreatePaymentRequest::default()
    }
}

/// An authorization, to be captured later.
pub fn authorization(token: &str, minor_units: i64) -> CreatePaymentRequest {
    CreatePaymentRequest {
        capture_method: CaptureMethod::Manual.into(),
        ..purchase(token, minor_units)
    }
}

/// A capture of `minor_units`, or of all that is left.
pub fn capture(payment: &Payment, minor_units: impl Into<Option<i64>>) -> CapturePaymentRequest {
    CapturePaymentRequest {
        payment_id: payment.payment_id.clone(),
        idempotency_key: fresh_key(),
        amount: amount_in(payment, minor_units.into()),
        ..CapturePaymentRequest::default()
    }
}

/// A refund of `minor_units`, or of all that is left.
pub fn refund(payment: &Payment, minor_units: impl Into<Option<i64>>) -> RefundPaymentRequest {
    RefundPaymentRequest {
        payment_id: payment.payment_id.clone(),
        idempotency_key: fresh_key(),
        amount: amount_in(payment, minor_units.into()),
        ..RefundPaymentRequest::default()
    }
}

fn amount_in(payment: &Payment, minor_units: Option<i64>) -> Option<Money> {
    let currency = &payment.amount.as_ref().unwrap().currency_code;
    minor_units.map(|minor_units| money(minor_units, currency))
}

pub fn void(payment: &Payment) -> VoidPaymentRequest {
    VoidPaymentRequest {
        payment_id: payment.payment_id.clone(),
        idempotency_key: fresh_key(),
        ..VoidPaymentRequest::default()
    }
}

pub fn confirm(payment: &Payment, challenge: &str) -> ConfirmPaymentRequest {
    ConfirmPaymentRequest {
        payment_id: payment.payment_id.clone(),
        idempotency_key: fresh_key(),
        parameters: BTreeMap::from([("challenge".to_owned(), challenge.to_owned())]),
    }
}

pub fn sync(payment: &Payment) -> SyncPaymentRequest {
    SyncPaymentRequest {
        payment_id: payment.payment_id.clone(),
    }
}

pub fn get(payment_id: &str) -> GetPaymentRequest {
    let lookup = get_payment_request::Lookup::PaymentId(payment_id.to_owned());
    GetPaymentRequest {
        lookup: Some(lookup),
    }
}

pub fn get_by_key(idempotency_key: &str) -> GetPaymentRequest {
    let key = idempotency_key.to_owned();
    GetPaymentRequest {
        lookup: Some(get_payment_request::Lookup::IdempotencyKey(key)),
    }
}

/// A request with an idempotency key.
pub trait Keyed: Sized {
    /// With this key instead of a fresh one.
    fn key(self, key: &str) -> Self;
}

macro_rules! keyed {
    ($($request:ty),*) => {$(
        impl Keyed for $request {
            fn key(mut self, key: &str) -> Self {
                self.idempotency_key = key.to_owned();
                self
            }
        }
    )*};
}

keyed!(
    CreatePaymentRequest,
    ConfirmPaymentRequest,
    CapturePaymentRequest,
    VoidPaymentRequest,
    RefundPaymentRequest
);

/// What a new payment may have besides.
pub trait CreateRequest: Sized {
    fn currency(self, code: &str) -> Self;
    fn merchant_reference(self, reference: &str) -> Self;
    fn meta(self, key: &str, value: &str) -> Self;
}

impl CreateRequest for CreatePaymentRequest {
    fn currency(mut self, code: &str) -> Self {
        self.amount.as_mut().unwrap().currency_code = code.to_owned();
        self
    }

    fn merchant_reference(mut self, reference: &str) -> Self {
        self.merchant_reference = reference.to_owned();
        self
    }

    fn meta(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// What a payment says of its money, in minor units.
pub trait Amounts {
    fn authorized(&self) -> i64;
    fn captured(&self) -> i64;
    fn refunded(&self) -> i64;
    fn voided(&self) -> i64;
    fn capturable(&self) -> i64;
    fn refundable(&self) -> i64;
    /// Captures, voids and refunds whose outcome is not known.
    fn pending(&self) -> (i64, i64, i64);
}

/// What waits for a person of a transaction.
pub trait Cases {
    /// The kind of the operator action that is open about it, where it is one at most; unspecified where there is none.
    fn open_operator_action(&self) -> OperatorActionKind;
}

impl Cases for Transaction {
    fn open_operator_action(&self) -> OperatorActionKind {
        let open: Vec<_> = self.open_operator_actions().collect();
        assert!(open.len() <= 1, "several: {open:?}");
        open.first().copied().unwrap_or_default()
    }
}

/// An amount that a payment must have, in minor units.
pub fn minor(amount: Option<&Money>) -> i64 {
    amount
        .expect("every amount of a payment is set")
        .minor_units
}

impl Amounts for Payment {
    fn authorized(&self) -> i64 {
        minor(self.amount_authorized.as_ref())
    }

    fn captured(&self) -> i64 {
        minor(self.amount_captured.as_ref())
    }

    fn refunded(&self) -> i64 {
        minor(self.amount_refunded.as_ref())
    }

    fn voided(&self) -> i64 {
        minor(self.amount_voided.as_ref())
    }

    fn capturable(&self) -> i64 {
        minor(self.amount_capturable.as_ref())
    }

    fn refundable(&self) -> i64 {
        minor(self.amount_refundable.as_ref())
    }

    fn pending(&self) -> (i64, i64, i64) {
        (
            minor(self.amount_capture_pending.as_ref()),
            minor(self.amount_void_pending.as_ref()),
            minor(self.amount_refund_pending.as_ref()),
        )
    }
}

/// A time that must be there, in an order.
pub fn moment(time: Option<&prost_types::Timestamp>) -> (i64, i32) {
    let time = time.expect("the time is set");
    (time.seconds, time.nanos)
}
