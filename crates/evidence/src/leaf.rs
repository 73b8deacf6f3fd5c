//! One audit entry: who did what to which payment, when, from where, and how it ended.

mod decode;
mod encode;
mod error;
mod identity;
mod stream_id;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    disclosure::DisclosureDigest,
    hash::{Hash, leaf_hash},
};

pub use error::LeafError;
pub use identity::LeafIdentity;
pub use stream_id::{StreamId, StreamIdError};

/// The schema that this build writes, and the only one it reads.
pub const SCHEMA_VERSION: u16 = 1;

/// Most bytes of one encoded entry: entry bundles hold its length in two bytes (C2SP tlog-tiles).
pub const MAX_LEAF_BYTES: usize = 65_535;

/// One audit entry.
///
/// Texts that people or other systems wrote are cleaned on encoding ([`clean_text`]), and times are
/// cut to microseconds; what [`Leaf::decode`] returns is what was encoded. `None` and empty maps are
/// left out of the bytes.
///
/// No field may hold a secret, a card number or a personal value; the latter enter as digests.
///
/// [`clean_text`]: crate::clean_text
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Always [`SCHEMA_VERSION`].
    pub schema_version: u16,
    /// 128 random bits, so that a leaf hash seen in a neighbour's proof says nothing.
    pub leaf_salt: [u8; 16],
    /// The entry's own id (UUID version 7).
    pub entry_id: Uuid,
    /// Tenant whose entry it is; not empty.
    pub tenant_id: String,
    /// The stream in which the entry is numbered and chained. A payment's stream requires
    /// `payment_id` to be that payment.
    pub stream_id: StreamId,
    /// 1, 2, 3 … within the stream, without gaps.
    pub entity_seq: u64,
    /// Leaf hash of the stream's entry before; absent exactly where `entity_seq` is 1.
    pub prev_leaf_hash: Option<Hash>,
    /// Payment concerned.
    pub payment_id: Option<Uuid>,
    /// Transaction concerned.
    pub transaction_id: Option<Uuid>,
    /// The caller's order id.
    pub merchant_reference: Option<String>,
    /// `AUTOMATIC` or `MANUAL`.
    pub capture_method: Option<String>,
    /// Unified decline code.
    pub decline_code: Option<String>,
    /// The payment's amounts after the change; needs `currency` and `currency_exponent`.
    pub amounts: Option<Amounts>,
    /// Digest of the payment's row after the change.
    pub payment_row_digest: Option<Hash>,
    /// What happened, as a stable dotted name; not empty.
    pub event_type: String,
    /// When it happened (UTC, microseconds).
    pub occurred_at: DateTime<Utc>,
    /// When it was written down (UTC, microseconds).
    pub recorded_at: DateTime<Utc>,
    /// Who did it.
    pub actor: Actor,
    /// Which process recorded it, and from where the request came.
    pub source: Source,
    /// How it ended.
    pub result: EntryResult,
    /// gRPC status name of the answer, where there was one.
    pub grpc_status: Option<String>,
    /// Why it did not succeed.
    pub cause: Option<Cause>,
    /// State before the change.
    pub state_from: Option<String>,
    /// State after the change.
    pub state_to: Option<String>,
    /// Amount of this step in minor units; needs `currency` and `currency_exponent`.
    pub amount_minor: Option<i64>,
    /// ISO 4217 code.
    pub currency: Option<String>,
    /// Digits after the decimal point of the currency (JPY 0, EUR 2, KWD 3).
    pub currency_exponent: Option<u8>,
    /// Number of the attempt, from 1.
    pub attempt: Option<u32>,
    /// Most attempts that will be made.
    pub max_attempts: Option<u32>,
    /// When the next attempt is due (UTC, microseconds).
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Provider account used.
    pub provider_account: Option<String>,
    /// The provider's own reference.
    pub provider_reference: Option<String>,
    /// Salted digest of the request as sent.
    pub provider_request_digest: Option<Hash>,
    /// Salted digest of the response as received.
    pub provider_response_digest: Option<Hash>,
    /// HMAC of the idempotency key.
    pub idempotency_key_digest: Option<Hash>,
    /// The caller's `x-request-id`.
    pub request_id: Option<String>,
    /// Trace in which the entry was committed (W3C); all zero where there was none.
    pub trace_id: [u8; 16],
    /// Span that committed it.
    pub span_id: [u8; 8],
    /// W3C trace flags; bit 0 is "sampled".
    pub trace_flags: u8,
    /// Trace of the caller, where it differs.
    pub remote_trace_id: Option<[u8; 16]>,
    /// Span of the caller.
    pub remote_span_id: Option<[u8; 8]>,
    /// Personal data as salted digests, by field name (1 to 64 of `a-z 0-9 _ . -`).
    pub personal_data: BTreeMap<String, DisclosureDigest>,
    /// Further facts, such as the filters of an audit read or the reason given; names as above.
    pub details: BTreeMap<String, String>,
}

/// A payment's amounts, in minor units of its currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Authorized by the provider.
    #[serde(deserialize_with = "decode::decimal")]
    pub authorized: i64,
    /// Captured.
    #[serde(deserialize_with = "decode::decimal")]
    pub captured: i64,
    /// Reserved by captures whose outcome is not known yet.
    #[serde(deserialize_with = "decode::decimal")]
    pub capture_pending: i64,
    /// Released.
    #[serde(deserialize_with = "decode::decimal")]
    pub voided: i64,
    /// Reserved by voids whose outcome is not known yet.
    #[serde(deserialize_with = "decode::decimal")]
    pub void_pending: i64,
    /// Refunded.
    #[serde(deserialize_with = "decode::decimal")]
    pub refunded: i64,
    /// Reserved by refunds whose outcome is not known yet.
    #[serde(deserialize_with = "decode::decimal")]
    pub refund_pending: i64,
    /// Charged back, less reversals.
    #[serde(deserialize_with = "decode::decimal")]
    pub charged_back: i64,
    /// What the provider proved beyond our limits.
    #[serde(deserialize_with = "decode::decimal")]
    pub excess: i64,
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Kind of actor (`api_key`, `provider`, `operator`, `system` …), written as `type`; not empty.
    #[serde(rename = "type")]
    pub kind: String,
    /// The actor's id: a name or key id, never a credential.
    pub id: String,
    /// How the actor proved who it is; absent where it did not need to.
    #[serde(default)]
    pub auth_method: Option<String>,
}

/// Where an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Service that recorded the entry.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Its instance (replica).
    pub instance: String,
    /// Network address of the caller.
    #[serde(default)]
    pub peer: Option<String>,
    /// Full RPC method, where an RPC caused the entry.
    #[serde(default)]
    pub rpc_method: Option<String>,
}

/// How the recorded step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryResult {
    /// It succeeded.
    Success,
    /// It is proved not to have succeeded.
    Failure,
    /// It may have succeeded.
    Unknown,
}

impl EntryResult {
    /// The name in the bytes: `success`, `failure` or `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// Stable code.
    pub code: String,
    /// Whether trying again can help.
    pub retryable: bool,
}

/// The canonical bytes of one entry, at most [`MAX_LEAF_BYTES`]: made by [`Leaf::encode`] only.
///
/// Stored bytes, which may have been tampered with, stay plain byte slices until [`Leaf::decode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafData(Vec<u8>);

impl LeafData {
    /// The bytes to store, hash and serve.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the bytes away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Their leaf hash, the next entry's `prev_leaf_hash`.
    pub fn leaf_hash(&self) -> Hash {
        leaf_hash(&self.0)
    }
}

impl AsRef<[u8]> for LeafData {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
