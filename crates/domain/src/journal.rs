//! The journal entry of a change: who, what, when, from where, with which result.

use std::collections::BTreeMap;

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
use crate::transaction::Transaction;

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

/// Digest of what may change on a payment's row, so that replaying the journal against the payments table
/// shows a row that was changed without an entry.
///
/// SHA-256 over `name=value` lines in this fixed order: `payment_id`, `tenant_id`, `state`, `disputed`, `expired`,
/// `amount`, `currency`, the nine amounts, `provider_account`, `provider_reference`, `version`.
pub fn row_digest(payment: &Payment) -> [u8; 32] {
    let a = &payment.amounts;
    let reference = payment
        .provider_reference
        .as_ref()
        .map_or("", |reference| reference.as_str());
    let text = format!(
        "payment_id={}\ntenant_id={}\nstate={}\ndisputed={}\nexpired={}\namount={}\ncurrency={}\n\
         authorized={}\ncaptured={}\ncapture_pending={}\nvoided={}\nvoid_pending={}\nrefunded={}\n\
         refund_pending={}\ncharged_back={}\nexcess={}\nprovider_account={}\nprovider_reference={}\n\
         version={}\n",
        payment.id,
        payment.tenant,
        payment.state,
        payment.disputed,
        payment.expired,
        payment.amount.minor_units(),
        payment.currency(),
        a.authorized,
        a.captured,
        a.capture_pending,
        a.voided,
        a.void_pending,
        a.refunded,
        a.refund_pending,
        a.charged_back,
        a.excess,
        payment.provider_account,
        reference,
        payment.version,
    );
    Sha256::digest(text.as_bytes()).into()
}

/// The salted digest of what was sent or received.
pub fn salted_digest(salt: &[u8; 16], bytes: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(bytes)
        .finalize()
        .into()
}
