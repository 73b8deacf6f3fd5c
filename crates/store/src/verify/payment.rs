//! One payment against its entries, for whoever is about to state which of them is the last.
//!
//! The journal alone cannot tell that its end was cut off. The payment's row and its transactions were committed with the
//! newest entry: where they are not as the newest that is left says, something is missing, or was changed.

use std::sync::Arc;

use futures::FutureExt as _;
use quittance_domain::ids::PaymentId;
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{
    LoggedRow, Mismatch, StoredCustomer, StreamWalk, check_entry, compare_payment,
};
use uuid::Uuid;

use super::read::{Batch, Cursor};
use super::segments::Segment;
use crate::keys::KeyRing;
use crate::sequencer::Claimed;
use crate::store::PgStore;

/// Most batches of a payment's entries that are read: twice as many entries as an evidence bundle holds. More were put in.
const MAX_BATCHES: usize = 32;

impl PgStore {
    /// Where a payment's row and its transactions are not what its entries say, both of one moment. Rows of the journal that
    /// this service did not write count for nothing, and neither does the customer's row, which says nothing of entries.
    ///
    /// # Errors
    /// `Corrupt` where there are more rows of the journal than a payment has; else as of any reading.
    pub async fn compare_with_entries(
        &self,
        payment: PaymentId,
    ) -> Result<Vec<Mismatch>, StoreError> {
        let behind = payment.0.as_u128().checked_add(1);
        let segment = Segment {
            from: payment.0,
            to: behind.map(Uuid::from_u128),
        };
        let (mut at, mut walk) = (Cursor::at(segment), StreamWalk::default());
        for _ in 0..MAX_BATCHES {
            let from = at;
            let read = self.inner.reader.read("compare payment", |connection| {
                from.read(connection, segment).boxed()
            });
            let batch = read.await?;
            at.pass(&batch);
            let last = batch.complete;
            let keys = Arc::clone(&self.inner.keys);
            let following = tokio::task::spawn_blocking(move || follow(batch, walk, &keys));
            let (walked, found) = following.await.map_err(|_| StoreError::Unavailable)?;
            if last {
                return Ok(found);
            }
            walk = walked;
        }
        Err(StoreError::Corrupt("journal.entity_seq".to_owned()))
    }
}

/// Follows a batch of a payment's entries; with the last one, compares the payment.
fn follow(batch: Batch, mut walk: StreamWalk, keys: &KeyRing) -> (StreamWalk, Vec<Mismatch>) {
    // What is wrong with entries by themselves, whoever gets them sees: here it is their rows that matter.
    let mut of_entries = Vec::new();
    for row in batch.rows.iter().filter(|row| is_ours(row, keys)) {
        let entry = check_entry(row, batch.low_arrival, keys, &mut of_entries);
        walk.push(entry, &mut of_entries);
    }
    let mut found = Vec::new();
    if batch.complete {
        let mut end = walk.finish();
        if let Some(end) = &mut end {
            end.of_customer = false;
        }
        let mut stored = batch.stored.into_payments(keys).payments;
        for payment in &mut stored {
            payment.customer = StoredCustomer::None;
            compare_payment(end.as_ref(), Some(payment), &mut found);
        }
        if stored.is_empty() {
            compare_payment(end.as_ref(), None, &mut found);
        }
    }
    (walk, found)
}

fn is_ours(row: &LoggedRow, keys: &KeyRing) -> bool {
    let claimed = Claimed {
        stream_id: row.stream_id,
        entity_seq: row.entity_seq,
        entry_id: row.entry_id,
        leaf: &row.leaf,
        mac: &row.mac,
        mac_key_id: &row.mac_key_id,
    };
    claimed.is_authentic(keys)
}
