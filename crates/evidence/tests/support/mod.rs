//! The smallest valid entry, for tests to change.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod log;

use std::collections::BTreeMap;

use quittance_evidence::{Actor, EntryResult, Hash, Leaf, SCHEMA_VERSION, Source, StreamId};
use uuid::Uuid;

pub const PAYMENT: Uuid = Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);

/// Entry `seq` of [`PAYMENT`]'s stream, linked to `prev`.
pub fn leaf(seq: u64, prev: Option<Hash>) -> Leaf {
    Leaf {
        schema_version: SCHEMA_VERSION,
        leaf_salt: [1; 16],
        entry_id: Uuid::from_u128(seq.into()),
        tenant_id: "acme".to_owned(),
        stream_id: StreamId::Payment(PAYMENT),
        entity_seq: seq,
        prev_leaf_hash: prev,
        payment_id: Some(PAYMENT),
        transaction_id: None,
        merchant_reference: None,
        capture_method: None,
        decline_code: None,
        amounts: None,
        payment_row_digest: None,
        event_type: "payment.accepted".to_owned(),
        occurred_at: "2026-01-02T03:04:05.000001Z".parse().unwrap(),
        recorded_at: "2026-01-02T03:04:05.000002Z".parse().unwrap(),
        actor: Actor {
            kind: "system".to_owned(),
            id: "test".to_owned(),
            auth_method: None,
        },
        source: Source {
            service: "quittance".to_owned(),
            version: "0.1.0".to_owned(),
            instance: "replica-1".to_owned(),
            peer: None,
            rpc_method: None,
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
        request_id: None,
        trace_id: [2; 16],
        span_id: [3; 8],
        trace_flags: 1,
        remote_trace_id: None,
        remote_span_id: None,
        personal_data: BTreeMap::new(),
        details: BTreeMap::new(),
    }
}
