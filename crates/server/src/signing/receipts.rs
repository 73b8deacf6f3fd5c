//! Receipts: the signed promise that an entry is in the log, or will be.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use quittance_domain::fingerprint::{FingerprintKey, idempotency_key_digest};
use quittance_domain::flows::Answer;
use quittance_domain::ids::TenantId;
use quittance_domain::ports::StoredEntry;
use quittance_evidence::{Leaf, Receipt, StreamId, leaf_hash};
use quittance_proto::v1;
use quittance_store::{Accepted, PgStore};

use super::keys::LogKeys;
use crate::convert::payment::timestamp;

/// Which command an answer is to.
#[derive(Debug, Clone)]
pub enum Command {
    /// One with an idempotency key: its receipt is for the entry of its acceptance.
    Keyed {
        /// Whose.
        tenant: TenantId,
        /// Under which key.
        key: String,
    },
    /// One without: its receipt is for the newest entry of the payment as it is answered.
    Unkeyed,
}

/// Makes receipts. An entry is signed by the keys in whose time it was recorded, and the same entry and keys give the same
/// bytes: so a repeated request gets the same receipt, from every server, also after another key has come.
#[derive(Clone)]
pub struct Receipts {
    keys: Arc<LogKeys>,
    store: Arc<PgStore>,
    fingerprints: FingerprintKey,
}

impl Receipts {
    pub(super) fn new(
        keys: Arc<LogKeys>,
        store: Arc<PgStore>,
        fingerprints: FingerprintKey,
    ) -> Self {
        Self {
            keys,
            store,
            fingerprints,
        }
    }

    /// The receipt of an answer; `None` where the entry could not be read just now, or is not as this service wrote it.
    /// The answer is good without: its repetition, and `GetEntry`, give the receipt.
    pub async fn of_answer(&self, answer: &Answer, command: &Command) -> Option<v1::Receipt> {
        let payment = &answer.record.payment;
        let found = match command {
            Command::Keyed { tenant, key } => {
                let digest = idempotency_key_digest(&self.fingerprints, tenant.as_str(), key);
                let store = &self.store;
                store
                    .acceptance(payment.id, answer.transaction, &digest)
                    .await
            }
            Command::Unkeyed => {
                self.store
                    .entry_of_payment(payment.id, payment.version)
                    .await
            }
        };
        match found {
            Ok(Some(accepted)) => self.sign(&accepted),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(error.message = %error, "a receipt could not be made");
                None
            }
        }
    }

    /// The receipt of an entry of a payment's own stream, whose bytes `leaf` was read from; others have none. Nor has one
    /// that this service did not write: whoever can write to the database gets no signature for it.
    pub fn of_entry(&self, leaf: &Leaf, stored: &StoredEntry) -> Option<v1::Receipt> {
        let bytes = stored.authentic_leaf()?;
        let StreamId::Payment(payment) = leaf.stream_id else {
            return None;
        };
        self.sign(&Accepted {
            entry_id: leaf.entry_id,
            payment_id: payment,
            entity_seq: leaf.entity_seq,
            leaf_hash: leaf_hash(bytes),
            recorded_at: leaf.recorded_at,
        })
    }

    fn sign(&self, accepted: &Accepted) -> Option<v1::Receipt> {
        let time_ms = u64::try_from(accepted.recorded_at.timestamp_millis()).ok()?;
        let receipt = Receipt {
            entry_id: accepted.entry_id,
            payment_id: accepted.payment_id,
            entity_seq: accepted.entity_seq,
            leaf_hash: accepted.leaf_hash,
            time_ms,
        };
        let note = receipt
            .sign(&self.keys.receipts_at(accepted.recorded_at))
            .ok()?;
        Some(v1::Receipt {
            entry_id: accepted.entry_id.to_string(),
            payment_id: accepted.payment_id.to_string(),
            entity_seq: accepted.entity_seq,
            leaf_hash: accepted.leaf_hash.as_bytes().to_vec(),
            issue_time: Some(timestamp(milliseconds(accepted.recorded_at))),
            signed_note: note.to_string(),
        })
    }
}

/// The time that a receipt states: in whole milliseconds.
fn milliseconds(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.timestamp_millis()).unwrap_or(at)
}
