//! The entries in which commands were accepted: what their receipts are made of.
//!
//! Those of commands that this process has just committed are remembered, so that an answer costs no further look at
//! the database; others are read, and remembered for the rest of the repetition.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::{Binary, Bool, Text};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use parking_lot::Mutex;
use quittance_domain::change::Change;
use quittance_domain::ids::{PaymentId, TransactionId};
use quittance_domain::ports::StoreError;
use quittance_evidence::{Hash, Leaf, leaf_hash};
use uuid::Uuid;

use crate::schema::journal;
use crate::sequencer::{claimed, claimed_leaf, claimed_mac, claimed_mac_key_id};
use crate::store::PgStore;

/// Most entries that are remembered: of commands under way.
const MAX_REMEMBERED: usize = 16_384;

/// One entry of a payment's stream, as a receipt states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The entry.
    pub entry_id: Uuid,
    /// The payment.
    pub payment_id: Uuid,
    /// The entry's number among the payment's.
    pub entity_seq: u64,
    /// Its leaf hash.
    pub leaf_hash: Hash,
    /// When it was made.
    pub recorded_at: DateTime<Utc>,
}

/// How the leaf of an acceptance names the command's key: a text that stands in no value, where quotes are escaped.
const KEY_FIELD: &str = "\"idempotency_key_digest\":\"";

/// Most entries that are read of one key: there is one, and others are somebody's who put them before it.
const MAX_READ: i64 = 16;

/// A payment, the transaction that a command made or advanced, and the digest of the command's idempotency key.
type Key = (Uuid, Uuid, Hash);

/// What was accepted lately; the oldest are forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Acceptances(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    accepted: HashMap<Key, Accepted>,
    order: VecDeque<Key>,
}

impl Acceptances {
    /// The entry of a change that accepts a command, to be remembered once it is committed.
    pub(crate) fn of(change: &Change) -> Option<(Key, Accepted)> {
        change.idempotency.as_ref()?;
        let (entry, payment) = (&change.entry, change.payment.id.0);
        let accepted = Accepted {
            entry_id: entry.id.0,
            payment_id: payment,
            entity_seq: entry.entity_seq,
            leaf_hash: Hash::from_bytes(entry.leaf_hash),
            recorded_at: entry.occurred_at,
        };
        let digest = key_digest(entry.leaf.as_bytes())?;
        Some(((payment, entry.transaction?.0, digest), accepted))
    }

    pub(crate) fn remember(&self, key: Key, accepted: Accepted) {
        let mut remembered = self.0.lock();
        if remembered.accepted.insert(key, accepted).is_none() {
            remembered.order.push_back(key);
        }
        while remembered.order.len() > MAX_REMEMBERED {
            let Some(oldest) = remembered.order.pop_front() else {
                break;
            };
            remembered.accepted.remove(&oldest);
        }
    }

    fn get(&self, key: &Key) -> Option<Accepted> {
        self.0.lock().accepted.get(key).copied()
    }
}

/// The digest that an encoded entry holds.
fn key_digest(leaf: &[u8]) -> Option<Hash> {
    let leaf = std::str::from_utf8(leaf).ok()?;
    let (_, rest) = leaf.split_once(KEY_FIELD)?;
    let (digest, _) = rest.split_once('"')?;
    digest.parse().ok()
}

/// An entry as read: anybody may have written it.
#[derive(Queryable)]
struct Row {
    stream_id: Uuid,
    entity_seq: i64,
    entry_id: Uuid,
    leaf: Vec<u8>,
    mac: Vec<u8>,
    mac_key_id: String,
}

claimed!(Row);

/// What is read of an entry.
#[diesel::dsl::auto_type]
fn entries() -> _ {
    let leaf: SqlLiteral<Binary> = claimed_leaf();
    let mac: SqlLiteral<Binary> = claimed_mac();
    let mac_key_id: SqlLiteral<Text> = claimed_mac_key_id();
    journal::table.select((
        journal::stream_id,
        journal::entity_seq,
        journal::entry_id,
        leaf,
        mac,
        mac_key_id,
    ))
}

fn corrupt() -> StoreError {
    StoreError::Corrupt("journal.leaf".to_owned())
}

fn accepted(leaf: &Leaf, bytes: &[u8]) -> Result<Accepted, StoreError> {
    Ok(Accepted {
        entry_id: leaf.entry_id,
        payment_id: leaf.payment_id.ok_or_else(corrupt)?,
        entity_seq: leaf.entity_seq,
        leaf_hash: leaf_hash(bytes),
        recorded_at: leaf.recorded_at,
    })
}

impl PgStore {
    /// The entry in which a payment's command was accepted, by the digest of its idempotency key. Where what is stored
    /// is not what this service wrote, there is none, and that is reported: its receipt would be a lie.
    pub async fn acceptance(
        &self,
        payment: PaymentId,
        transaction: TransactionId,
        key_digest: &[u8; 32],
    ) -> Result<Option<Accepted>, StoreError> {
        let digest = Hash::from_bytes(*key_digest);
        let key = (payment.0, transaction.0, digest);
        if let Some(known) = self.inner.acceptances.get(&key) {
            return Ok(Some(known));
        }
        let field = format!("{KEY_FIELD}{digest}\"");
        let read = self.inner.reader.read("read acceptance", |connection| {
            let holds = sql::<Bool>("position(")
                .bind::<Binary, _>(field.clone().into_bytes())
                .sql(" in leaf) > 0");
            let found = entries()
                .filter(journal::stream_id.eq(payment.0))
                .filter(journal::transaction_id.eq(transaction.0))
                .filter(holds)
                .order(journal::entity_seq)
                .limit(MAX_READ);
            async move { found.load::<Row>(connection).await }.boxed()
        });
        let (genuine, forged): (Vec<Row>, Vec<Row>) = read
            .await?
            .into_iter()
            .partition(|row| row.claimed().is_authentic(&self.inner.keys));
        self.report_forged(forged.iter().map(|row| row.entry_id));
        for row in genuine {
            // Only the bytes are under the MAC, not the column by which it was found.
            let leaf = Leaf::decode(&row.leaf).map_err(|_| corrupt())?;
            if leaf.transaction_id == Some(transaction.0) {
                let found = accepted(&leaf, &row.leaf)?;
                self.inner.acceptances.remember(key, found);
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What a row states, where this service wrote it.
    fn accepted(&self, row: Option<Row>) -> Result<Option<Accepted>, StoreError> {
        let Some(row) = row else {
            return Ok(None);
        };
        if !row.claimed().is_authentic(&self.inner.keys) {
            self.report_forged(std::iter::once(row.entry_id));
            return Ok(None);
        }
        let leaf = Leaf::decode(&row.leaf).map_err(|_| corrupt())?;
        accepted(&leaf, &row.leaf).map(Some)
    }

    /// An entry of a payment's stream by its number; none where what is stored is not what this service wrote, which is
    /// reported.
    pub async fn entry_of_payment(
        &self,
        payment: PaymentId,
        entity_seq: u64,
    ) -> Result<Option<Accepted>, StoreError> {
        let Ok(number) = i64::try_from(entity_seq) else {
            return Ok(None);
        };
        let read = self
            .inner
            .reader
            .read("read entry of payment", |connection| {
                let entry = entries()
                    .filter(journal::stream_id.eq(payment.0))
                    .filter(journal::entity_seq.eq(number));
                async move { entry.first::<Row>(connection).await.optional() }.boxed()
            });
        self.accepted(read.await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_key_is_found_in_an_entry_and_nowhere_else() {
        let digest = Hash::from_bytes([0xab; 32]);
        let leaf = |field: &str| format!("{{\"a\":\"1\"{field},\"z\":\"2\"}}").into_bytes();
        let field = format!(",\"idempotency_key_digest\":\"{digest}\"");
        assert_eq!(key_digest(&leaf(&field)), Some(digest));
        assert_eq!(key_digest(&leaf("")), None);
        // What a caller wrote cannot look like it.
        let text = format!(",\"b\":\"\\\"idempotency_key_digest\\\":\\\"{digest}\\\"\"");
        assert_eq!(key_digest(&leaf(&text)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let acceptances = Acceptances::default();
        let now = Utc::now();
        let key = |number: usize| {
            let number = u128::try_from(number).unwrap();
            (
                Uuid::from_u128(number),
                Uuid::nil(),
                Hash::from_bytes([1; 32]),
            )
        };
        for number in 0..=MAX_REMEMBERED {
            let accepted = Accepted {
                entry_id: Uuid::nil(),
                payment_id: Uuid::nil(),
                entity_seq: 1,
                leaf_hash: Hash::from_bytes([2; 32]),
                recorded_at: now,
            };
            acceptances.remember(key(number), accepted);
        }
        assert_eq!(acceptances.get(&key(0)), None);
        assert!(acceptances.get(&key(1)).is_some());
        assert!(acceptances.get(&key(MAX_REMEMBERED)).is_some());
    }
}
