//! Rows of payments and transactions as they are read, and the domain values in them. A value that
//! cannot be read is named by its column, never shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use quittance_domain::amounts::Amounts;
use quittance_domain::cases::OpenCases;
use quittance_domain::contradictions::Contradictions;
use quittance_domain::decline::{Cause, Decline, DeclineCode, Failure};
use quittance_domain::ids::{
    PaymentId, ProviderAccount, ProviderReference, TenantId, TransactionId,
};
use quittance_domain::left_alone::LeftAlone;
use quittance_domain::money::{Currency, Money};
use quittance_domain::payment::{
    CaptureMethod, Initiator, NextAction, Payment, PaymentMethod, PaymentMethodType, PaymentState,
};
use quittance_domain::ports::StoreError;
use quittance_domain::text::{Sensitive, Text};
use quittance_domain::transaction::{
    Dispute, PreparedRequest, Transaction, TransactionKind, TransactionOrigin, TransactionState,
};
use uuid::Uuid;

use crate::keys::KeyRing;
use crate::prepare::{SealedCustomer, SealedNextAction};
use crate::schema::{customers, payments, transactions};
use crate::sealing::{CustomerKey, Place, is_sealed_for, open, open_unless_erased};

/// A payment as read. The provider's token is not among the columns: only its creation needs it.
///
/// Nor is the currency's exponent: the code says which it is. ISO 4217 changes one now and then, and what
/// is stored stays as it was when the payment was accepted, as evidence.
#[allow(clippy::struct_excessive_bools)] // independent yes-or-no columns, not a state
#[derive(Queryable, Selectable)]
#[diesel(table_name = payments, check_for_backend(diesel::pg::Pg))]
pub(crate) struct PaymentRow {
    payment_id: Uuid,
    tenant_id: String,
    version: i64,
    state: String,
    disputed: bool,
    expired: bool,
    livemode: bool,
    amount: i64,
    currency: String,
    authorized: i64,
    captured: i64,
    capture_pending: i64,
    voided: i64,
    void_pending: i64,
    refunded: i64,
    refund_pending: i64,
    charged_back: i64,
    excess: i64,
    method_kind: String,
    brand: String,
    last4: String,
    expiry_month: Option<i16>,
    expiry_year: Option<i16>,
    capture_method: String,
    merchant_reference: String,
    description: String,
    return_url: String,
    initiator: String,
    mandate_reference: String,
    metadata: serde_json::Value,
    customer_sealed: Option<Vec<u8>>,
    provider_account: String,
    provider_reference: Option<String>,
    next_action: Option<Vec<u8>>,
    decline_code: Option<String>,
    decline_provider_code: Option<String>,
    failure_cause: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_leaf_hash: Vec<u8>,
    routed: bool,
    named_by_operator: bool,
}

/// What is read of a payment's customer.
#[derive(Queryable, Selectable)]
#[diesel(table_name = customers, check_for_backend(diesel::pg::Pg))]
pub(crate) struct CustomerRow {
    pub(crate) customer_id: Uuid,
    pub(crate) data_key: Vec<u8>,
    pub(crate) erasing_since: Option<DateTime<Utc>>,
}

/// A transaction as read.
#[derive(Queryable, Selectable)]
#[diesel(table_name = transactions, check_for_backend(diesel::pg::Pg))]
pub(crate) struct TransactionRow {
    payment_id: Uuid,
    transaction_id: Uuid,
    kind: String,
    origin: String,
    state: String,
    amount: i64,
    provider_account: String,
    provider_reference: Option<String>,
    decline_code: Option<String>,
    decline_provider_code: Option<String>,
    failure_cause: Option<String>,
    reason: String,
    final_capture: bool,
    attempts: i32,
    ever_unknown: bool,
    open_case: Option<String>,
    request: Option<Vec<u8>>,
    execute_before: DateTime<Utc>,
    lease_until: Option<DateTime<Utc>>,
    next_step_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    retries: i32,
    resolved_by_operator: bool,
    dispute_reason: Option<String>,
    dispute_due_at: Option<DateTime<Utc>>,
    dispute_amount: Option<i64>,
    dispute_currency: Option<String>,
    contradictions: String,
    left_alone: String,
}

/// A value that its column should not hold.
fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(column.to_owned())
}

/// Reads one value, naming its column where it cannot be read.
pub(crate) trait ReadAs<T> {
    fn at(self, column: &str) -> Result<T, StoreError>;
}

impl<T> ReadAs<T> for Option<T> {
    fn at(self, column: &str) -> Result<T, StoreError> {
        self.ok_or_else(|| corrupt(column))
    }
}

impl<T, E> ReadAs<T> for Result<T, E> {
    fn at(self, column: &str) -> Result<T, StoreError> {
        self.map_err(|_| corrupt(column))
    }
}

fn decline(
    code: Option<String>,
    provider_code: Option<String>,
) -> Result<Option<Decline>, StoreError> {
    let Some(code) = code else { return Ok(None) };
    let code = DeclineCode::from_name(&code).at("decline_code")?;
    let provider_code =
        Text::parse(provider_code.unwrap_or_default()).at("decline_provider_code")?;
    Ok(Some(Decline {
        code,
        provider_code,
    }))
}

fn failure(cause: Option<String>) -> Result<Option<Failure>, StoreError> {
    let cause = cause
        .map(|cause| Cause::from_name(&cause).at("failure_cause"))
        .transpose()?;
    Ok(cause.map(|cause| Failure { cause }))
}

fn provider_reference(value: Option<String>) -> Result<Option<ProviderReference>, StoreError> {
    value
        .map(|value| ProviderReference::parse(value).at("provider_reference"))
        .transpose()
}

impl PaymentRow {
    pub(crate) fn id(&self) -> Uuid {
        self.payment_id
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant_id
    }

    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    /// Whether it was accepted for a customer.
    pub(crate) fn has_customer(&self) -> bool {
        self.customer_sealed.is_some()
    }

    pub(crate) fn updated_at(&self) -> DateTime<Utc> {
        self.updated_at
    }

    pub(crate) fn last_leaf_hash(&self) -> &[u8] {
        &self.last_leaf_hash
    }

    /// The payment. The customer's reference is read where the customer's key is given.
    pub(crate) fn into_payment(
        self,
        ring: &KeyRing,
        customer: Option<&CustomerKey>,
    ) -> Result<Payment, StoreError> {
        let currency = Currency::parse(&self.currency).at("payments.currency")?;
        let next_action = self.next_action(ring)?;
        let customer_reference = self.customer_reference(ring, customer)?;
        Ok(Payment {
            id: PaymentId(self.payment_id),
            amounts: self.amounts(),
            method: self.method()?,
            state: PaymentState::from_name(&self.state).at("payments.state")?,
            capture_method: CaptureMethod::from_name(&self.capture_method)
                .at("payments.capture_method")?,
            initiator: Initiator::from_name(&self.initiator).at("payments.initiator")?,
            last_leaf_hash: Some(
                self.last_leaf_hash
                    .as_slice()
                    .try_into()
                    .at("payments.last_leaf_hash")?,
            ),
            tenant: TenantId::parse(self.tenant_id).at("payments.tenant_id")?,
            disputed: self.disputed,
            expired: self.expired,
            livemode: self.livemode,
            amount: Money::new(self.amount, currency).at("payments.amount")?,
            merchant_reference: Text::parse(self.merchant_reference)
                .at("payments.merchant_reference")?,
            description: Text::parse(self.description).at("payments.description")?,
            return_url: Text::parse(self.return_url).at("payments.return_url")?,
            mandate_reference: Text::parse(self.mandate_reference)
                .at("payments.mandate_reference")?,
            metadata: serde_json::from_value::<BTreeMap<String, String>>(self.metadata)
                .at("payments.metadata")?,
            customer_reference,
            customer_erased: false,
            provider_account: ProviderAccount::parse(self.provider_account)
                .at("payments.provider_account")?,
            routed: self.routed,
            provider_reference: provider_reference(self.provider_reference)?,
            named_by_operator: self.named_by_operator,
            next_action,
            decline: decline(self.decline_code, self.decline_provider_code)?,
            failure: failure(self.failure_cause)?,
            created_at: self.created_at,
            updated_at: self.updated_at,
            expires_at: self.expires_at,
            version: u64::try_from(self.version).at("payments.version")?,
        })
    }

    fn amounts(&self) -> Amounts {
        Amounts {
            authorized: self.authorized,
            captured: self.captured,
            capture_pending: self.capture_pending,
            voided: self.voided,
            void_pending: self.void_pending,
            refunded: self.refunded,
            refund_pending: self.refund_pending,
            charged_back: self.charged_back,
            excess: self.excess,
        }
    }

    fn method(&self) -> Result<PaymentMethod, StoreError> {
        let month = self.expiry_month.map(u8::try_from).transpose();
        let year = self.expiry_year.map(u16::try_from).transpose();
        Ok(PaymentMethod {
            kind: PaymentMethodType::from_name(&self.method_kind).at("payments.method_kind")?,
            token: None,
            brand: Text::parse(self.brand.as_str()).at("payments.brand")?,
            last4: Text::parse(self.last4.as_str()).at("payments.last4")?,
            expiry_month: month.at("payments.expiry_month")?,
            expiry_year: year.at("payments.expiry_year")?,
        })
    }

    fn next_action(&self, ring: &KeyRing) -> Result<Option<NextAction>, StoreError> {
        let Some(sealed) = &self.next_action else {
            return Ok(None);
        };
        let place = Place::new("payments", "next_action", self.payment_id);
        let plain = open(ring, None, place, sealed)?;
        let action: SealedNextAction = serde_json::from_slice(&plain).at("payments.next_action")?;
        Ok(Some(action.into()))
    }

    /// Whether what is sealed says that it is under this customer's key.
    pub(crate) fn is_of_customer(&self, customer: Uuid) -> bool {
        let sealed = self.customer_sealed.as_deref();
        sealed.is_some_and(|sealed| is_sealed_for(customer, sealed))
    }

    pub(crate) fn customer_reference(
        &self,
        ring: &KeyRing,
        customer: Option<&CustomerKey>,
    ) -> Result<Option<Sensitive<String>>, StoreError> {
        let (Some(sealed), Some(_)) = (&self.customer_sealed, customer) else {
            return Ok(None);
        };
        let place = Place::new("payments", "customer_sealed", self.payment_id);
        let plain = open(ring, customer, place, sealed)?;
        let value: SealedCustomer =
            serde_json::from_slice(&plain).at("payments.customer_sealed")?;
        Ok(Some(Sensitive::new(value.reference)))
    }
}

impl TransactionRow {
    pub(crate) fn payment_id(&self) -> Uuid {
        self.payment_id
    }

    pub(crate) fn id(&self) -> TransactionId {
        TransactionId(self.transaction_id)
    }

    /// The transaction. Its request is opened where keys are given, and left out where not.
    pub(crate) fn into_transaction(
        self,
        keys: Option<(&KeyRing, Option<&CustomerKey>)>,
    ) -> Result<Transaction, StoreError> {
        let request = match keys {
            Some((ring, customer)) => self.request(ring, customer)?,
            None => None,
        };
        let open_case = self
            .open_case
            .as_deref()
            .map(|kinds| OpenCases::parse(kinds).at("transactions.open_case"));
        let open_cases = open_case.transpose()?.unwrap_or_default();
        let dispute = self.dispute()?;
        let left_alone = LeftAlone::from_stored(&self.left_alone).at("transactions.left_alone")?;
        Ok(Transaction {
            id: TransactionId(self.transaction_id),
            kind: TransactionKind::from_name(&self.kind).at("transactions.kind")?,
            origin: TransactionOrigin::from_name(&self.origin).at("transactions.origin")?,
            state: TransactionState::from_name(&self.state).at("transactions.state")?,
            amount: self.amount,
            provider_account: ProviderAccount::parse(self.provider_account)
                .at("transactions.provider_account")?,
            provider_reference: provider_reference(self.provider_reference)?,
            decline: decline(self.decline_code, self.decline_provider_code)?,
            failure: failure(self.failure_cause)?,
            reason: Text::parse(self.reason).at("transactions.reason")?,
            final_capture: self.final_capture,
            dispute,
            attempts: u32::try_from(self.attempts).at("transactions.attempts")?,
            ever_unknown: self.ever_unknown,
            retries: u32::try_from(self.retries).at("transactions.retries")?,
            resolved_by_operator: self.resolved_by_operator,
            open_cases,
            contradictions: Contradictions::from_stored(&self.contradictions),
            request,
            execute_before: self.execute_before,
            lease_until: self.lease_until,
            next_step_at: self.next_step_at,
            left_alone,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }

    fn dispute(&self) -> Result<Option<Dispute>, StoreError> {
        let Some(reason) = &self.dispute_reason else {
            return Ok(None);
        };
        let currency = self.dispute_currency.as_deref();
        let currency = currency.at("transactions.dispute_currency")?;
        let currency = Currency::parse(currency).at("transactions.dispute_currency")?;
        let amount = self.dispute_amount.at("transactions.dispute_amount")?;
        Ok(Some(Dispute {
            reason: Text::parse(reason.as_str()).at("transactions.dispute_reason")?,
            due_at: self.dispute_due_at,
            amount: Money::new(amount, currency).at("transactions.dispute_amount")?,
        }))
    }

    fn request(
        &self,
        ring: &KeyRing,
        customer: Option<&CustomerKey>,
    ) -> Result<Option<PreparedRequest>, StoreError> {
        let Some(sealed) = &self.request else {
            return Ok(None);
        };
        let place = Place::new("transactions", "request", self.transaction_id);
        // Where its customer was erased it cannot be sent any more, only looked up.
        let plain = open_unless_erased(ring, customer, place, sealed)?;
        Ok(plain.map(|plain| PreparedRequest {
            bytes: Sensitive::new(plain.to_vec()),
        }))
    }
}
