//! A lane: takes segments, reads them in batches, and checks one batch while the next is read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quittance_domain::ids::{EntryId, PaymentId};
use quittance_domain::ports::StoreError;
use quittance_domain::verification::{
    CheckedEntry, Claim, Fault, LoggedRow, Mismatch, StreamEnd, StreamWalk, check_entry,
    compare_payment, erasure_done,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::read::{Batch, Cursor, Verifying};
use super::rows::StoredPayments;
use super::segments::{Segment, Segments};
use super::{Events, api_keys, claims, erasures};
use crate::keys::KeyRing;
use crate::store::PgStore;

pub(super) struct Lane {
    pub(super) number: usize,
    pub(super) store: PgStore,
    pub(super) segments: Arc<Segments>,
    pub(super) events: Events,
}

/// A stream that may go on behind a batch, and how many of its entries were checked: they count as checked with the rest of
/// it, since whoever goes on from what is done begins with the stream.
#[derive(Clone, Copy, Default)]
struct Open {
    stream: Option<Uuid>,
    entries: u64,
}

/// What checking a batch gives.
struct Checked {
    walk: StreamWalk,
    found: Vec<Mismatch>,
    /// Entries of streams that are done with it.
    entries: u64,
    /// Those of the stream that may go on behind it.
    open: Open,
    payments: u64,
    /// Entries about API keys.
    about_keys: Vec<CheckedEntry>,
    /// Entries that say that a customer was erased.
    erased: Vec<CheckedEntry>,
    /// What entries say of attempts, idempotency records and operator actions.
    claims: Vec<Claim>,
    /// Below which all is compared; `None`: the segment is done.
    below: Option<Uuid>,
}

impl Lane {
    pub(super) async fn run(self) -> Result<(), StoreError> {
        let mut connection = Verifying::connect(&self.store).await?;
        while let Some(segment) = self.segments.take(self.number) {
            self.check_segment(&mut connection, segment).await?;
        }
        Ok(())
    }

    async fn check_segment(
        &self,
        connection: &mut Verifying,
        segment: Segment,
    ) -> Result<(), StoreError> {
        let mut at = Cursor::at(segment);
        let mut checking: Option<JoinHandle<Checked>> = None;
        let (mut walk, mut open) = (StreamWalk::default(), Open::default());
        loop {
            // The one before is being checked meanwhile.
            let batch = connection.batch(&mut at, segment).await?;
            let last = batch.complete;
            if let Some(before) = checking.take() {
                walk = self.ended(connection, before, &mut open).await?;
            }
            let keys = Arc::clone(&self.store.inner.keys);
            let begun = std::mem::take(&mut walk);
            checking = Some(tokio::task::spawn_blocking(move || {
                check(batch, begun, &keys)
            }));
            if last {
                break;
            }
        }
        if let Some(before) = checking {
            self.ended(connection, before, &mut open).await?;
        }
        Ok(())
    }

    /// Waits for a batch to be checked, and tells what was found.
    async fn ended(
        &self,
        connection: &mut Verifying,
        checking: JoinHandle<Checked>,
        open: &mut Open,
    ) -> Result<StreamWalk, StoreError> {
        let checked = checking.await.map_err(|_| StoreError::Unavailable)?;
        self.events.found(checked.found).await?;
        let of_keys = api_keys::compare(connection, &checked.about_keys).await?;
        self.events.found(of_keys).await?;
        let of_erasures = erasures::compare(connection, &checked.erased).await?;
        self.events.found(of_erasures).await?;
        let of_rows = claims::compare(connection, &checked.claims).await?;
        self.events.found(of_rows).await?;
        // Together: who goes on from what is told as done counts nothing twice.
        let counts = &self.events.counts;
        let before = std::mem::replace(open, checked.open);
        let mut entries = checked.entries;
        if before.stream.is_some() && before.stream == open.stream {
            open.entries += before.entries;
        } else {
            entries += before.entries;
        }
        counts.entries.fetch_add(entries, Ordering::Relaxed);
        counts
            .payments
            .fetch_add(checked.payments, Ordering::Relaxed);
        if let Some(below) = checked.below {
            self.segments.done(self.number, below);
        }
        Ok(checked.walk)
    }
}

/// An entry whose arrival was written in, so that the sequencer never gives it a position. One that it may still get to
/// has an arrival that was given out.
fn not_given(row: &LoggedRow, given: i64) -> Option<Mismatch> {
    let arrival = row.arrival;
    (row.placed.is_none() && arrival > given).then(|| Mismatch {
        fault: Fault::ArrivalNotGiven { arrival, given },
        entry: Some(EntryId(row.entry_id)),
        payment: row.payment_id.map(PaymentId),
        position: None,
    })
}

/// Checks a batch: its entries, then the payments of the streams that end in it.
fn check(batch: Batch, mut walk: StreamWalk, keys: &KeyRing) -> Checked {
    let mut found = Vec::new();
    let mut ended = Vec::new();
    let (mut about_keys, mut erased, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    for row in &batch.rows {
        let entry = check_entry(row, batch.low_arrival, keys, &mut found);
        found.extend(not_given(row, batch.given));
        if api_keys::is_about_key(&entry) {
            about_keys.push(entry.clone());
        }
        if erasure_done(&entry).is_some() {
            erased.push(entry.clone());
        }
        claims.extend(Claim::of(&entry));
        ended.extend(walk.push(entry, &mut found));
    }
    if batch.complete {
        ended.extend(walk.finish());
    }
    let (complete, below) = (batch.complete, batch.below);
    let stream = below.filter(|_| !complete);
    let behind = batch
        .rows
        .iter()
        .filter(|row| Some(row.stream_id) == stream);
    let open = Open {
        stream,
        entries: u64::try_from(behind.count()).unwrap_or(u64::MAX),
    };
    let entries = u64::try_from(batch.rows.len()).unwrap_or(u64::MAX) - open.entries;
    let stored = batch.stored.into_payments(keys);
    let payments = u64::try_from(stored.payments.len()).unwrap_or(u64::MAX);
    compare_all(ended, &stored, &mut found);
    Checked {
        walk,
        found,
        entries,
        open,
        payments,
        about_keys,
        erased,
        claims,
        below: if complete { None } else { below },
    }
}

/// Compares streams with payments, both in order of their ids.
fn compare_all(ended: Vec<StreamEnd>, stored: &StoredPayments, found: &mut Vec<Mismatch>) {
    let mut ended = ended.into_iter().peekable();
    for payment in &stored.payments {
        while let Some(end) = ended.next_if(|end| end.stream < payment.id.0) {
            compare_payment(Some(&end), None, found);
        }
        let own = ended.next_if(|end| end.stream == payment.id.0);
        compare_payment(own.as_ref(), Some(payment), found);
    }
    for end in ended {
        if stored.cut.is_none_or(|cut| end.stream <= cut) {
            compare_payment(Some(&end), None, found);
        }
    }
    let cut = stored.transactions_cut;
    found.extend(cut.map(|payment| Mismatch::of_payment(payment, Fault::TooManyTransactions)));
    let orphans = stored.orphans.iter().map(|(payment, transaction)| {
        Mismatch::of_payment(*payment, Fault::TransactionWithoutEntries(*transaction))
    });
    found.extend(orphans);
}
