//! The journal entry of a change: who, what, when, from where, with which result.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use quittance_evidence as evidence;
use quittance_evidence::{EntryResult, Hash, Leaf, LeafError, StreamId};
use sha2::{Digest, Sha256};

use crate::amounts::Amounts;
use crate::change::{JournalEntry, PersonalField};
use crate::context::{Actor, Caller, Instance, TraceIds};
use crate::decline::Cause;
use crate::ids::{AttemptId, EntryId, TransactionId};
use crate::payment::{Payment, PaymentState};
use crate::retry::RetryPolicy;
use crate::transaction::Transaction;

mod rows;

pub use rows::transaction_row_digest;
pub(crate) use rows::{
    CASE_CLOSED, CASE_OPENED, FINAL_CAPTURE, OTHER_TRANSACTION_ROW, OTHER_TRANSACTION_STATE,
    RESOLUTION, ROWS_BEFORE, TRANSACTION_KIND, TRANSACTION_ORIGIN, TRANSACTION_ROW,
    TRANSACTION_STATE, rows_before, tell_rows,
};

/// Event of an API key that was made.
pub const API_KEY_CREATED: &str = "api_key.created";
/// Event of an API key that was revoked.
pub const API_KEY_REVOKED: &str = "api_key.revoked";
/// Which key, as such an entry's details name it.
pub const API_KEY_ID: &str = "key_id";
/// The names of its roles there, with a blank between two.
pub const API_KEY_ROLES: &str = "roles";

/// What comes into a decision from outside, since decisions read no clock and draw no lots.
#[derive(Clone, Debug)]
pub struct Stamp<'a> {
    /// Now.
    pub now: DateTime<Utc>,
    /// Fresh: the journal entry's id.
    pub entry_id: EntryId,
    /// Fresh: the id of a transaction, should the decision make one.
    pub transaction_id: TransactionId,
    /// Fresh: the id of an attempt, should the decision start one.
    pub attempt_id: AttemptId,
    /// Fresh: the leaf's salt.
    pub leaf_salt: [u8; 16],
    /// Fresh: the salt of an attempt's digests.
    pub digest_salt: [u8; 16],
    /// How long a sender may be alive after its attempt is committed.
    pub sender_lease: chrono::TimeDelta,
    /// Fresh: random bits by which waits are spread.
    pub jitter: u64,
    /// When what has no outcome is taken up again.
    pub retries: &'a RetryPolicy,
    /// Who caused it, and from where.
    pub caller: &'a Caller,
    /// The span that commits it.
    pub trace: TraceIds,
    /// The process that records it.
    pub instance: &'a Instance,
}

/// What one entry says beside the payment and the stamp.
#[derive(Debug)]
pub(crate) struct EntryFacts<'a> {
    /// What happened, such as `capture.succeeded`.
    pub event_type: String,
    /// To which transaction, as it is after the change.
    pub transaction: &'a Transaction,
    /// The state before; `None` for a new payment.
    pub state_from: Option<PaymentState>,
    /// How it ended.
    pub result: EntryResult,
    /// Why not.
    pub cause: Option<Cause>,
    /// Who acted, where it is not the caller.
    pub actor: Option<Actor>,
    /// The attempt's number.
    pub attempt: Option<u32>,
    /// The attempt's digests.
    pub digests: (Option<[u8; 32]>, Option<[u8; 32]>),
    /// The idempotency key's digest.
    pub key_digest: Option<[u8; 32]>,
    /// Personal fields given with the change.
    pub personal: &'a [PersonalField],
    /// Further facts.
    pub details: BTreeMap<String, String>,
}

/// Makes the entry of a payment's new version, chained to the one before; `payment.last_leaf_hash` is still
/// that of the entry before.
#[allow(clippy::too_many_lines)] // one field a line: splitting it would hide which are left out
pub(crate) fn payment_entry(
    payment: &Payment,
    facts: EntryFacts<'_>,
    stamp: &Stamp<'_>,
) -> Result<JournalEntry, LeafError> {
    let transaction = facts.transaction;
    let decline = transaction.decline.as_ref();
    let cause = match (facts.cause, decline) {
        (Some(cause), _) => Some(evidence::Cause {
            code: cause.name().to_owned(),
            retryable: cause.retryable(),
        }),
        (None, Some(decline)) if facts.result == EntryResult::Failure => Some(evidence::Cause {
            code: decline.code.name().to_owned(),
            retryable: false,
        }),
        (None, _) => None,
    };
    let leaf = Leaf {
        payment_id: Some(payment.id.0),
        transaction_id: Some(transaction.id.0),
        prev_leaf_hash: payment.last_leaf_hash.map(Hash::from_bytes),
        entity_seq: payment.version,
        merchant_reference: payment.merchant_reference.non_empty().map(str::to_owned),
        capture_method: Some(payment.capture_method.name().to_owned()),
        decline_code: decline.map(|decline| decline.code.name().to_owned()),
        amounts: Some(leaf_amounts(&payment.amounts)),
        payment_row_digest: Some(Hash::from_bytes(row_digest(payment))),
        result: facts.result,
        cause: cause.clone(),
        state_from: facts.state_from.map(|state| state.name().to_owned()),
        state_to: Some(payment.state.name().to_owned()),
        amount_minor: Some(transaction.amount),
        currency: Some(payment.currency().code().to_owned()),
        currency_exponent: Some(payment.currency().exponent()),
        attempt: facts.attempt,
        next_retry_at: transaction.next_step_at,
        provider_account: Some(transaction.provider_account.as_str().to_owned()),
        provider_reference: transaction
            .provider_reference
            .as_ref()
            .map(ToString::to_string),
        provider_request_digest: facts.digests.0.map(Hash::from_bytes),
        provider_response_digest: facts.digests.1.map(Hash::from_bytes),
        idempotency_key_digest: facts.key_digest.map(Hash::from_bytes),
        personal_data: personal_digests(facts.personal),
        details: facts.details,
        ..blank(
            StreamId::Payment(payment.id.0),
            facts.event_type,
            facts.actor.as_ref(),
            stamp,
        )
    };
    let data = leaf.encode()?;
    Ok(JournalEntry {
        id: stamp.entry_id,
        stream: payment.id.0,
        entity_seq: payment.version,
        tenant: Some(payment.tenant.clone()),
        payment: Some(payment.id),
        transaction: Some(transaction.id),
        event_type: leaf.event_type,
        result: leaf.result.as_str(),
        cause: cause.map(|cause| cause.code),
        actor: leaf.actor.id,
        source: stamp.caller.origin.rpc_method.clone(),
        provider_account: leaf.provider_account,
        trace_id: (stamp.trace.trace_id != [0; 16]).then_some(stamp.trace.trace_id),
        occurred_at: stamp.now,
        leaf_hash: *data.leaf_hash().as_bytes(),
        leaf: data,
    })
}

/// A leaf with what every entry holds: who, when, from where, in which trace.
pub(crate) fn blank(
    stream_id: StreamId,
    event_type: String,
    actor: Option<&Actor>,
    stamp: &Stamp<'_>,
) -> Leaf {
    let caller = stamp.caller;
    let actor = actor.unwrap_or(&caller.actor);
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Leaf {
        schema_version: evidence::SCHEMA_VERSION,
        leaf_salt: stamp.leaf_salt,
        entry_id: stamp.entry_id.0,
        tenant_id: caller.tenant.as_str().to_owned(),
        stream_id,
        entity_seq: 1,
        prev_leaf_hash: None,
        payment_id: None,
        transaction_id: None,
        merchant_reference: None,
        capture_method: None,
        decline_code: None,
        amounts: None,
        payment_row_digest: None,
        event_type,
        occurred_at: stamp.now,
        recorded_at: stamp.now,
        actor: evidence::Actor {
            kind: actor.kind.name().to_owned(),
            id: actor.id.clone(),
            auth_method: some(actor.auth_method),
        },
        source: evidence::Source {
            service: stamp.instance.service.to_owned(),
            version: stamp.instance.version.to_owned(),
            instance: stamp.instance.instance.clone(),
            peer: some(&caller.origin.peer),
            rpc_method: some(&caller.origin.rpc_method),
        },
        result: EntryResult::Success,
        grpc_status: None,
        cause: None,
        state_from: None,
        state_to: None,
        amount_minor: None,
        currency: None,
        currency_exponent: None,
        attempt: None,
        max_attempts: None,
        next_retry_at: None,
        provider_account: None,
        provider_reference: None,
        provider_request_digest: None,
        provider_response_digest: None,
        idempotency_key_digest: None,
        request_id: some(&caller.origin.request_id),
        trace_id: stamp.trace.trace_id,
        span_id: stamp.trace.span_id,
        trace_flags: stamp.trace.flags,
        remote_trace_id: caller.remote.map(|remote| remote.trace_id),
        remote_span_id: caller.remote.map(|remote| remote.span_id),
        personal_data: BTreeMap::new(),
        details: BTreeMap::new(),
    }
}

fn personal_digests(fields: &[PersonalField]) -> BTreeMap<String, evidence::DisclosureDigest> {
    let digest = |field: &PersonalField| {
        evidence::Disclosure::new(field.salt, field.name, field.value.expose().as_str())
            .ok()
            .map(|disclosure| (field.name.to_owned(), disclosure.digest()))
    };
    fields.iter().filter_map(digest).collect()
}

fn leaf_amounts(amounts: &Amounts) -> evidence::Amounts {
    evidence::Amounts {
        authorized: amounts.authorized,
        captured: amounts.captured,
        capture_pending: amounts.capture_pending,
        voided: amounts.voided,
        void_pending: amounts.void_pending,
        refunded: amounts.refunded,
        refund_pending: amounts.refund_pending,
        charged_back: amounts.charged_back,
        excess: amounts.excess,
    }
}

/// Digest of a payment's row, so that replaying the journal against the payments table shows a row that was
/// changed without an entry.
///
/// SHA-256 over lines `name=value`, in the order below; absent values are empty, times are microseconds since
/// 1970, metadata comes last, as a JSON object sorted by key, unless it is empty. No other value holds a line break.
/// Of `next_action`, which is encrypted, only whether there is one; other encrypted columns, `updated_at` and
/// `last_leaf_hash` are left out.
pub fn row_digest(payment: &Payment) -> [u8; 32] {
    let micros = |time: DateTime<Utc>| time.timestamp_micros().to_string();
    let method = &payment.method;
    let number = |value: Option<u16>| value.map(|value| value.to_string()).unwrap_or_default();
    let reference = payment
        .provider_reference
        .as_ref()
        .map_or("", |reference| reference.as_str());
    let decline = payment.decline.as_ref();
    digest_lines(|line| {
        line("payment_id", &payment.id);
        line("tenant_id", &payment.tenant);
        line("version", &payment.version);
        line("state", &payment.state);
        line("disputed", &payment.disputed);
        line("expired", &payment.expired);
        line("livemode", &payment.livemode);
        line("amount", &payment.amount.minor_units());
        line("currency", &payment.currency());
        for (name, amount) in AMOUNT_NAMES.iter().zip(payment.amounts.all()) {
            line(name, &amount);
        }
        line("method_kind", &method.kind);
        line("brand", &method.brand.as_str());
        line("last4", &method.last4.as_str());
        line("expiry_month", &number(method.expiry_month.map(u16::from)));
        line("expiry_year", &number(method.expiry_year));
        line("capture_method", &payment.capture_method);
        line("merchant_reference", &payment.merchant_reference.as_str());
        line("description", &payment.description.as_str());
        line("return_url", &payment.return_url.as_str());
        line("initiator", &payment.initiator);
        line("mandate_reference", &payment.mandate_reference.as_str());
        line("provider_account", &payment.provider_account);
        line("routed", &payment.routed);
        line("provider_reference", &reference);
        // Since it is remembered; the digest of a row without it is what it was before.
        if payment.named_by_operator {
            line("named_by_operator", &true);
        }
        let declined = decline.map_or("", |decline| decline.code.name());
        line("decline_code", &declined);
        line(
            "decline_provider_code",
            &decline.map_or("", |decline| decline.provider_code.as_str()),
        );
        line(
            "failure_cause",
            &payment.failure.map_or("", |failure| failure.cause.name()),
        );
        line("next_action", &payment.next_action.is_some());
        line("created_at", &micros(payment.created_at));
        line(
            "expires_at",
            &payment.expires_at.map(micros).unwrap_or_default(),
        );
        if !payment.metadata.is_empty() {
            // Keys and values are free text: only with quotes do they tell which is which.
            let metadata = serde_json::to_string(&payment.metadata);
            line("metadata", &metadata.unwrap_or_default());
        }
    })
}

/// SHA-256 over lines `name=value`, as they are told.
fn digest_lines(tell: impl FnOnce(&mut dyn FnMut(&str, &dyn std::fmt::Display))) -> [u8; 32] {
    let mut text = String::with_capacity(1_024);
    tell(&mut |name, value| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}={value}");
    });
    Sha256::digest(text.as_bytes()).into()
}

/// Names of the amounts, in the order of [`Amounts::all`].
pub(crate) const AMOUNT_NAMES: [&str; 9] = [
    "authorized",
    "captured",
    "capture_pending",
    "voided",
    "void_pending",
    "refunded",
    "refund_pending",
    "charged_back",
    "excess",
];

/// The salted digest of what was sent or received.
pub fn salted_digest(salt: &[u8; 16], bytes: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(bytes)
        .finalize()
        .into()
}
