//! Commands: what callers ask, parsed. A value of these types is well-formed; whether it is allowed is
//! decided against the payment.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::change::OperatorActionKind;
use crate::fingerprint::Fields;
use crate::ids::{IdempotencyKey, PaymentId, ProviderAccount, ProviderReference, TransactionId};
use crate::money::Money;
use crate::payment::{CaptureMethod, Initiator, PaymentMethod};
use crate::text::{Sensitive, Text};

/// How long after acceptance a first send may still happen, unless the caller says otherwise.
pub const DEFAULT_EXECUTE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// The furthest `execute_before` may lie ahead.
pub const MAX_EXECUTE_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most parameters of a confirmation.
pub const MAX_CONFIRM_PARAMETERS: usize = 50;
/// Most characters of a confirmation parameter's name.
pub const MAX_CONFIRM_KEY: usize = 128;
/// Most characters of a confirmation parameter's value.
pub const MAX_CONFIRM_VALUE: usize = 16_384;

/// The customer, as given with a new payment. Personal, so stored encrypted and erasable by reference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Customer {
    /// The caller's reference of the customer; required, since erasure is asked by it.
    pub reference: Sensitive<String>,
    /// The personal fields given, by name (`customer.name`, `customer.email`, `customer.ip`,
    /// `customer.address.line1` …), none of them empty, sorted by name.
    pub fields: Vec<(&'static str, Sensitive<String>)>,
}

/// Asks for a new payment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Create {
    /// The caller's key.
    pub idempotency_key: IdempotencyKey,
    /// How much.
    pub amount: Money,
    /// With what; carries the provider's token.
    pub method: PaymentMethod,
    /// Captured when.
    pub capture_method: CaptureMethod,
    /// The caller's order id.
    pub merchant_reference: Text<255>,
    /// Free text.
    pub description: Text<500>,
    /// Where the customer returns to.
    pub return_url: Text<2048>,
    /// Overrides routing.
    pub provider_account: Option<ProviderAccount>,
    /// Who pays.
    pub customer: Option<Customer>,
    /// Who initiates.
    pub initiator: Initiator,
    /// Under which mandate.
    pub mandate_reference: Text<255>,
    /// No first send after this.
    pub execute_before: Option<DateTime<Utc>>,
    /// The caller's own pairs.
    pub metadata: BTreeMap<String, String>,
}

/// Hands over what the customer's authentication returned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Confirm {
    /// Of which payment.
    pub payment: PaymentId,
    /// The caller's key.
    pub idempotency_key: IdempotencyKey,
    /// What came back, sorted by name; may hold secrets of the session.
    pub parameters: Sensitive<Vec<(String, String)>>,
}

/// Captures all or part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capture {
    /// Of which payment.
    pub payment: PaymentId,
    /// The caller's key.
    pub idempotency_key: IdempotencyKey,
    /// How much; `None` for all that is left.
    pub amount: Option<Money>,
    /// Whether the rest is released.
    pub final_capture: bool,
    /// No first send after this.
    pub execute_before: Option<DateTime<Utc>>,
}

/// Releases what is left of an authorization.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Void {
    /// Of which payment.
    pub payment: PaymentId,
    /// The caller's key.
    pub idempotency_key: IdempotencyKey,
    /// Why; may be empty.
    pub reason: Text<500>,
}

/// Gives back all or part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refund {
    /// Of which payment.
    pub payment: PaymentId,
    /// The caller's key.
    pub idempotency_key: IdempotencyKey,
    /// How much; `None` for all that is left.
    pub amount: Option<Money>,
    /// Why; may be empty.
    pub reason: Text<500>,
    /// No first send after this.
    pub execute_before: Option<DateTime<Utc>>,
}

/// How a payment is looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PaymentLookup {
    /// By its id.
    Id(PaymentId),
    /// By the idempotency key of any of its commands.
    IdempotencyKey(IdempotencyKey),
}

fn optional_money(fields: &mut Fields, amount: Option<Money>) {
    let minor = amount
        .map(|money| money.minor_units().to_string())
        .unwrap_or_default();
    let code = amount
        .map(|money| money.currency().code())
        .unwrap_or_default();
    fields.push(("amount.minor_units", minor.into_bytes()));
    fields.push(("amount.currency_code", code.into()));
}

fn time(value: Option<DateTime<Utc>>) -> Vec<u8> {
    value
        .map(|time| time.timestamp_micros().to_string())
        .unwrap_or_default()
        .into_bytes()
}

fn pairs<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in pairs.flat_map(|(key, value)| [key, value]) {
        bytes.extend_from_slice(part.len().to_string().as_bytes());
        bytes.push(b':');
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

impl Create {
    /// The fields that must be equal for a request to be the same, in their fixed order.
    pub fn fingerprint_fields(&self) -> Fields {
        let method = &self.method;
        let number = |value: Option<u16>| {
            value
                .map(|n| n.to_string())
                .unwrap_or_default()
                .into_bytes()
        };
        let customer = self.customer.as_ref().map_or_else(Vec::new, |customer| {
            let fields = customer
                .fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.expose().clone()));
            let all: Vec<_> =
                std::iter::once(("reference".to_owned(), customer.reference.expose().clone()))
                    .chain(fields)
                    .collect();
            pairs(all.iter().map(|(name, value)| (name, value)))
        });
        let mut fields = Fields::new();
        optional_money(&mut fields, Some(self.amount));
        fields.extend([
            ("payment_method.type", method.kind.name().into()),
            (
                "payment_method.provider_token",
                method
                    .token
                    .as_ref()
                    .map(|token| token.expose().clone())
                    .unwrap_or_default()
                    .into_bytes(),
            ),
            ("payment_method.brand", method.brand.as_str().into()),
            ("payment_method.last4", method.last4.as_str().into()),
            (
                "payment_method.expiry_month",
                number(method.expiry_month.map(u16::from)),
            ),
            ("payment_method.expiry_year", number(method.expiry_year)),
            ("capture_method", self.capture_method.name().into()),
            (
                "merchant_reference",
                self.merchant_reference.as_str().into(),
            ),
            ("description", self.description.as_str().into()),
            ("return_url", self.return_url.as_str().into()),
            (
                "provider_account",
                self.provider_account
                    .as_ref()
                    .map_or(Vec::new(), |account| account.as_str().into()),
            ),
            ("customer", customer),
            ("initiator", self.initiator.name().into()),
            ("mandate_reference", self.mandate_reference.as_str().into()),
            ("execute_before", time(self.execute_before)),
            ("metadata", pairs(self.metadata.iter())),
        ]);
        fields
    }
}

impl Confirm {
    /// See [`Create::fingerprint_fields`].
    pub fn fingerprint_fields(&self) -> Fields {
        let parameters = pairs(
            self.parameters
                .expose()
                .iter()
                .map(|(key, value)| (key, value)),
        );
        vec![
            ("payment_id", self.payment.to_string().into_bytes()),
            ("parameters", parameters),
        ]
    }
}

impl Capture {
    /// See [`Create::fingerprint_fields`].
    pub fn fingerprint_fields(&self) -> Fields {
        let mut fields = vec![("payment_id", self.payment.to_string().into_bytes())];
        optional_money(&mut fields, self.amount);
        fields.push(("final_capture", vec![u8::from(self.final_capture)]));
        fields.push(("execute_before", time(self.execute_before)));
        fields
    }
}

impl Void {
    /// See [`Create::fingerprint_fields`].
    pub fn fingerprint_fields(&self) -> Fields {
        vec![
            ("payment_id", self.payment.to_string().into_bytes()),
            ("reason", self.reason.as_str().into()),
        ]
    }
}

impl Refund {
    /// See [`Create::fingerprint_fields`].
    pub fn fingerprint_fields(&self) -> Fields {
        let mut fields = vec![("payment_id", self.payment.to_string().into_bytes())];
        optional_money(&mut fields, self.amount);
        fields.push(("reason", self.reason.as_str().into()));
        fields.push(("execute_before", time(self.execute_before)));
        fields
    }
}

/// What a person found out about a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// The provider carried it out.
    Succeeded {
        /// The provider's reference of it, where it is known: later commands may need it.
        provider_reference: Option<ProviderReference>,
        /// What it really moved; `None` for what was asked. A void's is not looked at: it releases what is left.
        amount: Option<Money>,
    },
    /// The provider did not carry it out, and never will.
    NotProcessed,
    /// The provider carried it out, and took it back after that.
    TakenBack,
    /// Nothing changes; the cases of this kind are closed.
    Acknowledged(OperatorActionKind),
}

impl Resolution {
    /// The name of an acknowledgement, of whatever kind.
    pub(crate) const ACKNOWLEDGED: &str = "ACKNOWLEDGED";

    /// The stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "SUCCEEDED",
            Self::NotProcessed => "NOT_PROCESSED",
            Self::TakenBack => "TAKEN_BACK",
            Self::Acknowledged(_) => Self::ACKNOWLEDGED,
        }
    }
}

/// An operator's decision about a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// Of which payment.
    pub payment: PaymentId,
    /// Which.
    pub transaction: TransactionId,
    /// What was found out.
    pub resolution: Resolution,
    /// Why; not empty.
    pub reason: Text<500>,
    /// What shows it, such as the number of a ticket or of a statement; may be empty.
    pub evidence: Text<2000>,
    /// The version of the payment that the person has looked at: nothing is decided of another one. `None`: whatever it is
    /// by now.
    pub seen_version: Option<u64>,
}

/// An operator's request to take a transaction up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Of which payment.
    pub payment: PaymentId,
    /// Which.
    pub transaction: TransactionId,
    /// Why; not empty.
    pub reason: Text<500>,
}
