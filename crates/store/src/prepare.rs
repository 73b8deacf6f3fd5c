//! Turns a [`Change`] into the rows that it writes: encrypts, authenticates, and checks what the
//! database cannot.

mod parts;

use std::collections::BTreeMap;

use quittance_domain::change::{
    Change, CustomerData, IdempotencyRecord, JournalEntry, OperatorAction, Write,
};
use quittance_domain::decline::{Decline, Failure};
use quittance_domain::payment::{NextAction, Payment};
use quittance_domain::ports::StoreError;
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{Attempt, Transaction};
use quittance_evidence::{Disclosure, LeafMac};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::keys::KeyRing;
use crate::rows::{
    ActionRow, ChangeRows, ClosingRow, JournalRow, KeyRow, PaymentInsert, PaymentUpdate,
    PaymentWrite,
};
use crate::sealing::{CustomerKey, Place, seal};
use parts::{ended_attempt, new_attempt, new_transaction, old_transaction};

/// Most transactions that one change may write.
pub const MAX_TRANSACTIONS_PER_CHANGE: usize = 3;

/// A customer's data as it is sealed with a payment.
#[derive(Serialize, Deserialize)]
pub(crate) struct SealedCustomer {
    pub(crate) reference: String,
    fields: Vec<SealedField>,
}

#[derive(Serialize, Deserialize)]
struct SealedField {
    name: String,
    /// Hexadecimal.
    salt: String,
    value: String,
}

impl SealedCustomer {
    /// What tells this customer from others: what the caller calls them, and their name, email and IP address. Not the
    /// address, which they share.
    pub(crate) fn known_by(self) -> Vec<String> {
        let telling = ["customer.name", "customer.email", "customer.ip"];
        let fields = self.fields.into_iter();
        let values = fields.filter(|field| telling.contains(&field.name.as_str()));
        std::iter::once(self.reference)
            .chain(values.map(|field| field.value))
            .collect()
    }

    /// The values with their salts, as the entry of the payment's acceptance holds their digests. `None` where a salt is
    /// none.
    pub(crate) fn disclosures(self) -> Option<Vec<Disclosure>> {
        let disclosures = self.fields.into_iter().map(|field| {
            let salt = hex::decode(&field.salt).ok()?.try_into().ok()?;
            // A value that cannot be disclosed has no digest either.
            Some(Disclosure::new(salt, field.name, field.value).ok())
        });
        let all: Option<Vec<_>> = disclosures.collect();
        Some(all?.into_iter().flatten().collect())
    }
}

/// What the customer has to do, as it is sealed with a payment.
#[derive(Serialize, Deserialize)]
pub(crate) struct SealedNextAction {
    redirect_url: String,
    data: BTreeMap<String, String>,
    /// Not in what was sealed before it was known.
    #[serde(default)]
    may_take_days: bool,
}

impl From<SealedNextAction> for NextAction {
    fn from(sealed: SealedNextAction) -> Self {
        Self {
            redirect_url: Sensitive::new(sealed.redirect_url),
            data: Sensitive::new(sealed.data),
            may_take_days: sealed.may_take_days,
        }
    }
}

/// Seals the parts of one change.
struct Sealer<'a> {
    ring: &'a KeyRing,
    customer: Option<&'a CustomerKey>,
    /// Whether the customer is erased: what a provider answers is not kept then, only its digest.
    erased: bool,
}

impl Sealer<'_> {
    /// Under the ring's key.
    fn own(&self, place: Place, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        seal(self.ring, None, place, plain)
    }

    /// Under the customer's key, where there is a customer: erased with it.
    fn personal(&self, place: Place, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        seal(self.ring, self.customer, place, plain)
    }

    fn next_action(&self, payment: &Payment) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(NextAction {
            redirect_url,
            data,
            may_take_days,
        }) = &payment.next_action
        else {
            return Ok(None);
        };
        let value = SealedNextAction {
            redirect_url: redirect_url.expose().clone(),
            data: data.expose().clone(),
            may_take_days: *may_take_days,
        };
        let place = Place::new("payments", "next_action", payment.id.0);
        self.own(place, &json(&value)?).map(Some)
    }

    fn request(&self, transaction: &Transaction) -> Result<Option<Vec<u8>>, StoreError> {
        let place = Place::new("transactions", "request", transaction.id.0);
        let request = transaction.request.as_ref();
        request
            .map(|request| self.personal(place, request.bytes.expose()))
            .transpose()
    }

    fn response(&self, attempt: &Attempt) -> Result<Option<Vec<u8>>, StoreError> {
        let place = Place::new("attempts", "response", attempt.id.0);
        let response = attempt
            .ended
            .as_ref()
            .and_then(|ended| ended.response.as_ref())
            .filter(|_| !self.erased);
        response
            .map(|response| self.personal(place, response.expose()))
            .transpose()
    }
}

/// The rows of a change. `Refused` where the change contradicts itself: a defect of its maker.
pub(crate) fn change_rows(
    change: Change,
    ring: &KeyRing,
    customer: Option<&CustomerKey>,
) -> Result<ChangeRows, StoreError> {
    check(&change)?;
    let erased = change.payment.customer_erased;
    let sealer = Sealer {
        ring,
        customer,
        erased,
    };
    let Change {
        payment,
        idempotency,
        transactions,
        attempt,
        customer: data,
        closes_cases,
        operator_action,
        entry,
    } = change;
    let id = payment.id.0;
    let mut rows = ChangeRows {
        key: idempotency.as_ref().map(key_row),
        payment: None,
        transaction_inserts: Vec::new(),
        transaction_updates: Vec::new(),
        attempt_insert: None,
        attempt_update: None,
        closings: closes_cases
            .into_iter()
            .map(|case| closing_row(id, case, &entry))
            .collect(),
        action: operator_action.map(|action| action_row(action, &payment, &entry)),
        entry: journal_row(entry, ring, false)?,
    };
    for transaction in transactions {
        match transaction {
            Write::Insert(row) => rows
                .transaction_inserts
                .push(new_transaction(id, row, &sealer)?),
            Write::Update(row) => rows
                .transaction_updates
                .push(old_transaction(id, row, &sealer)?),
        }
    }
    match attempt {
        Some(Write::Insert(row)) => {
            rows.attempt_insert = Some(new_attempt(&payment, &row, &sealer)?);
        }
        Some(Write::Update(row)) => rows.attempt_update = Some(ended_attempt(id, &row, &sealer)?),
        None => {}
    }
    let keyed = rows.key.is_some();
    let leaf_hash = rows.entry.leaf_hash;
    rows.payment = Some(if payment.version == 1 {
        PaymentWrite::Insert(Box::new(new_payment(
            payment, data, keyed, leaf_hash, &sealer,
        )?))
    } else {
        PaymentWrite::Update(Box::new(old_payment(payment, leaf_hash, &sealer)?))
    });
    Ok(rows)
}

/// The rows of an entry that changes no payment.
pub(crate) fn entry_rows(entry: JournalEntry, ring: &KeyRing) -> Result<ChangeRows, StoreError> {
    Ok(ChangeRows {
        key: None,
        payment: None,
        transaction_inserts: Vec::new(),
        transaction_updates: Vec::new(),
        attempt_insert: None,
        attempt_update: None,
        closings: Vec::new(),
        action: None,
        entry: journal_row(entry, ring, true)?,
    })
}

/// I7: the entry is the payment's, and numbered by its version.
fn check(change: &Change) -> Result<(), StoreError> {
    let Change { payment, entry, .. } = change;
    let own_stream = entry.stream == payment.id.0 && entry.payment == Some(payment.id);
    if !own_stream
        || entry.entity_seq != payment.version
        || entry.tenant.as_ref() != Some(&payment.tenant)
    {
        return Err(refused("the entry is not the payment's"));
    }
    if change
        .idempotency
        .as_ref()
        .is_some_and(|record| record.payment != payment.id)
    {
        return Err(refused("the idempotency record is not the payment's"));
    }
    if change.transactions.len() > MAX_TRANSACTIONS_PER_CHANGE {
        return Err(refused("too many transactions in one change"));
    }
    Ok(())
}

fn refused(what: &str) -> StoreError {
    StoreError::Refused(what.to_owned())
}

/// A number that its column cannot hold.
fn number<From, To: TryFrom<From>>(value: From) -> Result<To, StoreError> {
    To::try_from(value).map_err(|_| refused("a number is out of its column's range"))
}

fn json<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let bytes =
        serde_json::to_vec(value).map_err(|_| refused("a value cannot be written as JSON"))?;
    Ok(Zeroizing::new(bytes))
}

fn key_row(record: &IdempotencyRecord) -> KeyRow {
    KeyRow {
        tenant_id: record.tenant.as_str().to_owned(),
        idempotency_key: record.key.as_str().to_owned(),
        command: record.command.name(),
        fingerprint: record.fingerprint.as_bytes().to_vec(),
        payment_id: record.payment.0,
        transaction_id: record.transaction.0,
        created_at: record.created_at,
    }
}

fn closing_row(payment_id: Uuid, case: OperatorAction, entry: &JournalEntry) -> ClosingRow {
    ClosingRow {
        payment_id,
        transaction_id: case.transaction.0,
        kind: case.kind.name(),
        closed_at: entry.occurred_at,
        closed_by: entry.id.0,
    }
}

fn action_row(action: OperatorAction, payment: &Payment, entry: &JournalEntry) -> ActionRow {
    ActionRow {
        action_id: entry.id.0,
        payment_id: payment.id.0,
        transaction_id: action.transaction.0,
        tenant_id: payment.tenant.as_str().to_owned(),
        kind: action.kind.name(),
        opened_at: entry.occurred_at,
    }
}

fn journal_row(
    entry: JournalEntry,
    ring: &KeyRing,
    appended: bool,
) -> Result<JournalRow, StoreError> {
    let mac = LeafMac::compute(ring.journal_key(), &entry.leaf);
    Ok(JournalRow {
        appended,
        stream_id: entry.stream,
        entity_seq: number(entry.entity_seq)?,
        entry_id: entry.id.0,
        tenant_id: entry.tenant.map(|tenant| tenant.as_str().to_owned()),
        payment_id: entry.payment.map(|payment| payment.0),
        transaction_id: entry.transaction.map(|transaction| transaction.0),
        event_type: entry.event_type,
        result: entry.result,
        cause: entry.cause,
        actor: entry.actor,
        source: entry.source,
        provider_account: entry.provider_account,
        trace_id: entry.trace_id.map(|id| id.to_vec()),
        occurred_at: entry.occurred_at,
        leaf: entry.leaf.as_bytes().to_vec(),
        leaf_hash: entry.leaf_hash,
        mac: mac.tag().to_vec(),
        mac_key_id: mac.key_id().as_str().to_owned(),
    })
}

fn decline_columns(decline: Option<&Decline>) -> (Option<&'static str>, Option<String>) {
    (
        decline.map(|decline| decline.code.name()),
        decline.map(|decline| decline.provider_code.as_str().to_owned()),
    )
}

fn failure_column(failure: Option<Failure>) -> Option<&'static str> {
    failure.map(|failure| failure.cause.name())
}

fn sealed_customer(
    payment: &Payment,
    data: Option<CustomerData>,
    sealer: &Sealer<'_>,
) -> Result<Option<Vec<u8>>, StoreError> {
    if sealer.customer.is_none() {
        return Ok(None);
    }
    let (reference, fields) = match data {
        Some(data) => (Some(data.reference), data.fields),
        None => (payment.customer_reference.clone(), Vec::new()),
    };
    let reference = reference.ok_or_else(|| refused("a customer without a reference"))?;
    let fields = fields.into_iter().map(|field| SealedField {
        name: field.name.to_owned(),
        salt: hex::encode(field.salt),
        value: field.value.into_exposed(),
    });
    let value = SealedCustomer {
        reference: reference.into_exposed(),
        fields: fields.collect(),
    };
    let place = Place::new("payments", "customer_sealed", payment.id.0);
    sealer.personal(place, &json(&value)?).map(Some)
}

fn new_payment(
    payment: Payment,
    data: Option<CustomerData>,
    keyed: bool,
    last_leaf_hash: [u8; 32],
    sealer: &Sealer<'_>,
) -> Result<PaymentInsert, StoreError> {
    let id: Uuid = payment.id.0;
    let token_place = Place::new("payments", "provider_token", id);
    let token = payment.method.token.as_ref();
    let provider_token = token
        .map(|token| sealer.own(token_place, token.expose().as_bytes()))
        .transpose()?;
    let customer_sealed = sealed_customer(&payment, data, sealer)?;
    let (decline_code, decline_provider_code) = decline_columns(payment.decline.as_ref());
    let amounts = payment.amounts;
    Ok(PaymentInsert {
        keyed,
        payment_id: id,
        tenant_id: payment.tenant.as_str().to_owned(),
        version: number(payment.version)?,
        state: payment.state.name(),
        disputed: payment.disputed,
        expired: payment.expired,
        livemode: payment.livemode,
        amount: payment.amount.minor_units(),
        currency: payment.currency().code(),
        currency_exponent: i16::from(payment.currency().exponent()),
        authorized: amounts.authorized,
        captured: amounts.captured,
        capture_pending: amounts.capture_pending,
        voided: amounts.voided,
        void_pending: amounts.void_pending,
        refunded: amounts.refunded,
        refund_pending: amounts.refund_pending,
        charged_back: amounts.charged_back,
        excess: amounts.excess,
        method_kind: payment.method.kind.name(),
        provider_token,
        brand: payment.method.brand.as_str().to_owned(),
        last4: payment.method.last4.as_str().to_owned(),
        expiry_month: payment.method.expiry_month.map(i16::from),
        expiry_year: payment.method.expiry_year.map(number).transpose()?,
        capture_method: payment.capture_method.name(),
        merchant_reference: payment.merchant_reference.as_str().to_owned(),
        description: payment.description.as_str().to_owned(),
        return_url: payment.return_url.as_str().to_owned(),
        initiator: payment.initiator.name(),
        mandate_reference: payment.mandate_reference.as_str().to_owned(),
        metadata: String::from_utf8_lossy(&json(&payment.metadata)?).into_owned(),
        customer_id: sealer.customer.map(|customer| customer.customer),
        customer_sealed,
        next_action: sealer.next_action(&payment)?,
        provider_account: payment.provider_account.as_str().to_owned(),
        routed: payment.routed,
        provider_reference: payment.provider_reference.map(|it| it.as_str().to_owned()),
        named_by_operator: payment.named_by_operator,
        decline_code,
        decline_provider_code,
        failure_cause: failure_column(payment.failure),
        created_at: payment.created_at,
        updated_at: payment.updated_at,
        expires_at: payment.expires_at,
        last_leaf_hash,
    })
}

fn old_payment(
    payment: Payment,
    last_leaf_hash: [u8; 32],
    sealer: &Sealer<'_>,
) -> Result<PaymentUpdate, StoreError> {
    let (decline_code, decline_provider_code) = decline_columns(payment.decline.as_ref());
    let amounts = payment.amounts;
    Ok(PaymentUpdate {
        payment_id: payment.id.0,
        version: number(payment.version)?,
        state: payment.state.name(),
        disputed: payment.disputed,
        expired: payment.expired,
        authorized: amounts.authorized,
        captured: amounts.captured,
        capture_pending: amounts.capture_pending,
        voided: amounts.voided,
        void_pending: amounts.void_pending,
        refunded: amounts.refunded,
        refund_pending: amounts.refund_pending,
        charged_back: amounts.charged_back,
        excess: amounts.excess,
        livemode: payment.livemode,
        next_action: sealer.next_action(&payment)?,
        provider_account: payment.provider_account.as_str().to_owned(),
        routed: payment.routed,
        provider_reference: payment.provider_reference.map(|it| it.as_str().to_owned()),
        named_by_operator: payment.named_by_operator,
        decline_code,
        decline_provider_code,
        failure_cause: failure_column(payment.failure),
        updated_at: payment.updated_at,
        expires_at: payment.expires_at,
        last_leaf_hash,
    })
}
