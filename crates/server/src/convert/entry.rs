//! Audit entries as messages: decoded from the bytes that are stored, hashed and proved, never taken from the columns that
//! index them.

use quittance_domain::decline::DeclineCode;
use quittance_domain::ids::TenantId;
use quittance_domain::payment::PaymentState;
use quittance_domain::ports::{Authenticity, FailureSummary, StoredEntry};
use quittance_evidence::{
    Actor, Amounts, Cause, EntryResult, Hash, Leaf, LeafError, Source, StreamId, leaf_hash,
};
use quittance_proto::v1;
use thiserror::Error;

use super::payment::{decline_code, state, timestamp};

/// Why a stored entry is not shown: a defect, or tampering.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Its bytes cannot be read.
    #[error("entry {id}: {source}")]
    Unreadable {
        /// Its id, as the index names it.
        id: uuid::Uuid,
        /// Why.
        source: LeafError,
    },
    /// Its bytes are of another entry than the index says.
    #[error("entry {0}: its bytes are not those that the index names")]
    Misplaced(uuid::Uuid),
    /// Its bytes are another tenant's than the index says: nobody's to see (I11).
    #[error("entry {0}: its bytes are another tenant's than the index says")]
    Foreign(uuid::Uuid),
    /// It is under a key that this server does not have, so that it cannot be told whether it is ours.
    #[error("entry {0} is under a key that this server does not have (secrets.keys)")]
    KeyUnknown(uuid::Uuid),
}

/// What a caller gets to see of an entry beside its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The bytes.
    pub leaf_data: bool,
    /// The position in the log, which tells how busy other tenants are (I11).
    pub leaf_index: bool,
}

/// Reads a stored entry. With a tenant, an entry of another tenant is refused, whatever the index says (I11).
///
/// # Errors
/// [`EntryError`] if the bytes are not what they should be.
pub fn decode(stored: &StoredEntry, tenant: Option<&TenantId>) -> Result<Leaf, EntryError> {
    let id = stored.id.0;
    let leaf =
        Leaf::decode(&stored.leaf).map_err(|source| EntryError::Unreadable { id, source })?;
    if tenant.is_some_and(|tenant| tenant.as_str() != leaf.tenant_id) {
        return Err(EntryError::Foreign(id));
    }
    if leaf.entry_id != id {
        return Err(EntryError::Misplaced(id));
    }
    Ok(leaf)
}

/// The entry as a caller sees it: with all its fields; where its bytes cannot be read and are not ours, with what the index says
/// of it; `None` where they are another tenant's, and not as we wrote them.
///
/// # Errors
/// [`EntryError`] where the bytes are ours, and not what they should be: a defect.
pub fn entry(
    stored: &StoredEntry,
    tenant: Option<&TenantId>,
    view: View,
) -> Result<Option<v1::AuditEntry>, EntryError> {
    match decode(stored, tenant) {
        Ok(leaf) => Ok(Some(shown(stored, leaf, view))),
        Err(error) if stored.is_authentic() => Err(error),
        Err(EntryError::Foreign(_)) => Ok(None),
        // Whose bytes they are cannot be told: only who may see all of them gets them.
        Err(_) => Ok(Some(named(stored, view, tenant.is_none()))),
    }
}

/// An entry whose bytes are not ours and tell nothing: what the index says of it, and the hash of what is there.
fn named(stored: &StoredEntry, view: View, all_tenants: bool) -> v1::AuditEntry {
    v1::AuditEntry {
        entry_id: stored.id.to_string(),
        stream_id: stored.stream.to_string(),
        entity_seq: stored.entity_seq,
        ..carried(stored, view, all_tenants)
    }
}

/// What is shown of every entry beside its fields.
fn carried(stored: &StoredEntry, view: View, bytes: bool) -> v1::AuditEntry {
    v1::AuditEntry {
        leaf_hash: leaf_hash(&stored.leaf).as_bytes().to_vec(),
        leaf_data: if view.leaf_data && bytes {
            stored.leaf.clone()
        } else {
            Vec::new()
        },
        leaf_index: stored.position.filter(|_| view.leaf_index),
        authentic: stored.is_authentic(),
        ..v1::AuditEntry::default()
    }
}

fn shown(stored: &StoredEntry, leaf: Leaf, view: View) -> v1::AuditEntry {
    let amounts = amounts(&leaf);
    let amount = amount(&leaf);
    let ids = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    let digests = leaf.personal_data.iter();
    v1::AuditEntry {
        schema_version: leaf.schema_version.into(),
        entry_id: leaf.entry_id.to_string(),
        stream_id: leaf.stream_id.to_string(),
        entity_seq: leaf.entity_seq,
        prev_leaf_hash: bytes(leaf.prev_leaf_hash),
        leaf_salt: leaf.leaf_salt.to_vec(),
        payment_id: ids(leaf.payment_id),
        transaction_id: ids(leaf.transaction_id),
        payment_row_digest: bytes(leaf.payment_row_digest),
        occurred_at: Some(timestamp(leaf.occurred_at)),
        recorded_at: Some(timestamp(leaf.recorded_at)),
        result: result(leaf.result).into(),
        amounts,
        amount,
        currency_exponent: leaf.currency_exponent.map(u32::from),
        attempt: leaf.attempt.unwrap_or_default(),
        max_attempts: leaf.max_attempts.unwrap_or_default(),
        next_retry_at: leaf.next_retry_at.map(timestamp),
        provider_request_digest: bytes(leaf.provider_request_digest),
        provider_response_digest: bytes(leaf.provider_response_digest),
        idempotency_key_digest: bytes(leaf.idempotency_key_digest),
        trace_id: trace_id(&leaf),
        span_id: nonzero_hex(&leaf.span_id),
        trace_flags: leaf.trace_flags.into(),
        remote_trace_id: leaf.remote_trace_id.map(hex::encode).unwrap_or_default(),
        remote_span_id: leaf.remote_span_id.map(hex::encode).unwrap_or_default(),
        personal_data_digests: digests
            .map(|(name, digest)| (name.clone(), digest.to_string()))
            .collect(),
        details: leaf.details,
        tenant_id: leaf.tenant_id,
        merchant_reference: leaf.merchant_reference.unwrap_or_default(),
        capture_method: leaf.capture_method.unwrap_or_default(),
        decline_code: leaf.decline_code.unwrap_or_default(),
        event_type: leaf.event_type,
        actor: Some(actor(leaf.actor)),
        source: Some(source(leaf.source)),
        grpc_status: leaf.grpc_status.unwrap_or_default(),
        cause: leaf.cause.map(cause),
        state_from: leaf.state_from.unwrap_or_default(),
        state_to: leaf.state_to.unwrap_or_default(),
        provider_account: leaf.provider_account.unwrap_or_default(),
        provider_reference: leaf.provider_reference.unwrap_or_default(),
        request_id: leaf.request_id.unwrap_or_default(),
        ..carried(stored, view, true)
    }
}

/// Reads a stored entry for whoever is told that it happened. `None` where this service did not write it, or not as this tenant's:
/// nobody is told.
///
/// # Errors
/// [`EntryError::KeyUnknown`] where that cannot be told; another where the bytes are ours, and not what they should be.
pub fn told(stored: &StoredEntry, tenant: &TenantId) -> Result<Option<Leaf>, EntryError> {
    match stored.authenticity {
        Authenticity::Ours => decode(stored, Some(tenant)).map(Some),
        Authenticity::Forged => Ok(None),
        Authenticity::KeyUnknown => Err(EntryError::KeyUnknown(stored.id.0)),
    }
}

/// The entry as an event of a payment; `None` if it is not a change of one, or not ours.
///
/// # Errors
/// See [`told`].
pub fn event(
    stored: &StoredEntry,
    tenant: &TenantId,
) -> Result<Option<v1::PaymentEvent>, EntryError> {
    let Some(leaf) = told(stored, tenant)? else {
        return Ok(None);
    };
    let StreamId::Payment(payment) = leaf.stream_id else {
        return Ok(None);
    };
    let state = |name: Option<&str>| {
        let known = name.and_then(PaymentState::from_name);
        known.map_or(v1::PaymentState::Unspecified, state).into()
    };
    let declined = leaf
        .decline_code
        .as_deref()
        .and_then(DeclineCode::from_name);
    Ok(Some(v1::PaymentEvent {
        event_id: leaf.entry_id.to_string(),
        payment_id: payment.to_string(),
        transaction_id: leaf
            .transaction_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        entity_seq: leaf.entity_seq,
        state: state(leaf.state_to.as_deref()),
        previous_state: state(leaf.state_from.as_deref()),
        amount: amount(&leaf),
        amounts: amounts(&leaf),
        occurred_time: Some(timestamp(leaf.occurred_at)),
        decline_code: declined
            .map_or(v1::DeclineCode::Unspecified, decline_code)
            .into(),
        trace_id: trace_id(&leaf),
        event_type: leaf.event_type,
        merchant_reference: leaf.merchant_reference.unwrap_or_default(),
        provider_account: leaf.provider_account.unwrap_or_default(),
        cause: leaf.cause.map(|cause| cause.code).unwrap_or_default(),
    }))
}

fn money(minor_units: i64, currency: &str) -> v1::Money {
    v1::Money {
        minor_units,
        currency_code: currency.to_owned(),
    }
}

fn amount(leaf: &Leaf) -> Option<v1::Money> {
    leaf.amount_minor
        .zip(leaf.currency.as_deref())
        .map(|(minor_units, currency)| money(minor_units, currency))
}

fn amounts(leaf: &Leaf) -> Option<v1::PaymentAmounts> {
    let amounts: &Amounts = leaf.amounts.as_ref()?;
    let currency = leaf.currency.as_deref()?;
    let money = |minor_units| Some(money(minor_units, currency));
    Some(v1::PaymentAmounts {
        authorized: money(amounts.authorized),
        captured: money(amounts.captured),
        capture_pending: money(amounts.capture_pending),
        voided: money(amounts.voided),
        void_pending: money(amounts.void_pending),
        refunded: money(amounts.refunded),
        refund_pending: money(amounts.refund_pending),
        charged_back: money(amounts.charged_back),
        excess: money(amounts.excess),
    })
}

fn bytes(hash: Option<Hash>) -> Vec<u8> {
    hash.map(|hash| hash.as_bytes().to_vec())
        .unwrap_or_default()
}

fn trace_id(leaf: &Leaf) -> String {
    nonzero_hex(&leaf.trace_id)
}

/// All zero means that there was none (W3C Trace Context, 3.2.2.3).
fn nonzero_hex(id: &[u8]) -> String {
    if id.iter().all(|byte| *byte == 0) {
        String::new()
    } else {
        hex::encode(id)
    }
}

fn result(result: EntryResult) -> v1::AuditResult {
    match result {
        EntryResult::Success => v1::AuditResult::Success,
        EntryResult::Failure => v1::AuditResult::Failure,
        EntryResult::Unknown => v1::AuditResult::Unknown,
    }
}

fn actor(actor: Actor) -> v1::AuditActor {
    v1::AuditActor {
        r#type: actor.kind,
        id: actor.id,
        auth_method: actor.auth_method.unwrap_or_default(),
    }
}

fn source(source: Source) -> v1::AuditSource {
    v1::AuditSource {
        service: source.service,
        version: source.version,
        instance: source.instance,
        peer: source.peer.unwrap_or_default(),
        rpc_method: source.rpc_method.unwrap_or_default(),
    }
}

fn cause(cause: Cause) -> v1::AuditCause {
    v1::AuditCause {
        code: cause.code,
        retryable: cause.retryable,
    }
}

/// How one operation failed.
pub fn failure_bucket(summary: FailureSummary) -> v1::FailureBucket {
    let [p50, p95, p99] = summary.latency;
    v1::FailureBucket {
        failure_rate: rate(summary.failures, summary.attempts),
        cause: summary.cause,
        provider_account: summary.provider_account,
        operation: summary.operation,
        failures: summary.failures,
        attempts: summary.attempts,
        latency_p50_seconds: p50,
        latency_p95_seconds: p95,
        latency_p99_seconds: p99,
        example_payment_ids: summary.examples.iter().map(ToString::to_string).collect(),
    }
}

/// A part of a whole, 0 to 1, exact to a millionth.
fn rate(part: u64, whole: u64) -> f64 {
    const STEPS: u64 = 1_000_000;
    if whole == 0 {
        return 0.0;
    }
    let steps = u128::from(part) * u128::from(STEPS) / u128::from(whole);
    u32::try_from(steps)
        .map_or(1.0, |steps| f64::from(steps) / 1e6)
        .min(1.0)
}
