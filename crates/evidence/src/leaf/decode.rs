//! Reading an entry: strict, and total over all bytes.
//!
//! serde refuses unknown and repeated fields and wrong types; encoding the result again refuses every
//! other spelling (nulls, blanks, other key orders, escapes, number forms, unclean text) at once.

use std::{collections::BTreeMap, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de};
use uuid::Uuid;

use super::{
    Actor, Amounts, Cause, EntryResult, Leaf, LeafError, MAX_LEAF_BYTES, SCHEMA_VERSION, Source,
    StreamId,
};
use crate::{
    disclosure::{DisclosureDigest, decode_base64url},
    hash::{Hash, lower_hex},
};

impl Leaf {
    /// Reads what [`Leaf::encode`] wrote, byte for byte, and nothing else. Never panics.
    ///
    /// # Errors
    /// `TooLarge` before anything is parsed; `UnknownVersion`; `Malformed`; `NotCanonical`; and the
    /// errors of [`Leaf::encode`] for well-formed bytes that break a rule of the entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, LeafError> {
        let size = bytes.len();
        if size > MAX_LEAF_BYTES {
            let (largest_field, largest_bytes) = ("leaf_data", size);
            return Err(LeafError::TooLarge {
                size,
                largest_field,
                largest_bytes,
            });
        }
        let leaf = read(bytes).map_err(|error| refuse(bytes, &error))?;
        let canonical = leaf.encode()?;
        if canonical.as_bytes() == bytes {
            return Ok(leaf);
        }
        let same = canonical
            .as_bytes()
            .iter()
            .zip(bytes)
            .take_while(|(a, b)| a == b)
            .count();
        Err(LeafError::NotCanonical { offset: same })
    }
}

fn read(bytes: &[u8]) -> serde_json::Result<Leaf> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let leaf = LeafFields::deserialize(&mut reader)?;
    reader.end()?;
    Ok(leaf)
}

/// An entry of a later schema has fields that we do not know: say so, rather than "malformed".
fn refuse(bytes: &[u8], error: &serde_json::Error) -> LeafError {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u64,
    }
    match serde_json::from_slice(bytes) {
        Ok(Version { schema_version }) if schema_version != u64::from(SCHEMA_VERSION) => {
            LeafError::UnknownVersion(schema_version)
        }
        // serde's own text may quote the entry: only the place is passed on.
        Ok(_) | Err(_) => LeafError::Malformed {
            line: error.line(),
            column: error.column(),
        },
    }
}

/// The fields of [`Leaf`] and how each is read. Private, so that no one deserializes an entry
/// without the canonical check.
#[derive(Deserialize)]
#[serde(remote = "Leaf", deny_unknown_fields)]
struct LeafFields {
    schema_version: u16,
    #[serde(deserialize_with = "base64url")]
    leaf_salt: [u8; 16],
    entry_id: Uuid,
    tenant_id: String,
    stream_id: StreamId,
    #[serde(deserialize_with = "decimal")]
    entity_seq: u64,
    prev_leaf_hash: Option<Hash>,
    payment_id: Option<Uuid>,
    transaction_id: Option<Uuid>,
    merchant_reference: Option<String>,
    capture_method: Option<String>,
    decline_code: Option<String>,
    amounts: Option<Amounts>,
    payment_row_digest: Option<Hash>,
    event_type: String,
    occurred_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
    actor: Actor,
    source: Source,
    result: EntryResult,
    grpc_status: Option<String>,
    cause: Option<Cause>,
    state_from: Option<String>,
    state_to: Option<String>,
    #[serde(default, deserialize_with = "opt_decimal")]
    amount_minor: Option<i64>,
    currency: Option<String>,
    currency_exponent: Option<u8>,
    attempt: Option<u32>,
    max_attempts: Option<u32>,
    next_retry_at: Option<DateTime<Utc>>,
    provider_account: Option<String>,
    provider_reference: Option<String>,
    provider_request_digest: Option<Hash>,
    provider_response_digest: Option<Hash>,
    idempotency_key_digest: Option<Hash>,
    request_id: Option<String>,
    #[serde(deserialize_with = "hex_bytes")]
    trace_id: [u8; 16],
    #[serde(deserialize_with = "hex_bytes")]
    span_id: [u8; 8],
    trace_flags: u8,
    #[serde(default, deserialize_with = "opt_hex_bytes")]
    remote_trace_id: Option<[u8; 16]>,
    #[serde(default, deserialize_with = "opt_hex_bytes")]
    remote_span_id: Option<[u8; 8]>,
    #[serde(default)]
    personal_data: BTreeMap<String, DisclosureDigest>,
    #[serde(default)]
    details: BTreeMap<String, String>,
}

/// A 64-bit integer written as a decimal string.
pub(super) fn decimal<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: FromStr,
{
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| de::Error::custom("not a decimal string"))
}

fn opt_decimal<'de, D, N>(deserializer: D) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: FromStr,
{
    decimal(deserializer).map(Some)
}

fn hex_bytes<'de, D, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    lower_hex(&text).ok_or_else(|| de::Error::custom("not lower-case hexadecimal"))
}

fn opt_hex_bytes<'de, D, const N: usize>(deserializer: D) -> Result<Option<[u8; N]>, D::Error>
where
    D: Deserializer<'de>,
{
    hex_bytes(deserializer).map(Some)
}

fn base64url<'de, D, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    decode_base64url(&text).ok_or_else(|| de::Error::custom("not base64url"))
}
