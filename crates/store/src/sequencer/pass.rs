//! One pass of the active sequencer: reads what has become visible, judges it, and appends it to the positions.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::time::Instant;
use uuid::Uuid;

use super::authentic::{Judged, Refusal, UnknownKey, Verdict, judge};
use super::holes::{Chunk, Holes};
use super::seal::Sealing;
use super::statements::{Arrived, Assign, Fence, JournalWriters, PlacedElsewhere, ReadArrivals};
use super::waiting::Waiting;
use super::{LEASE, Trouble, UNKNOWN_KEY_CHECK};
use crate::store::PgStore;
use crate::timed::timed;
use crate::warning::Thinned;

/// Most new entries that one pass gives positions; and most that are read from holes at once.
pub const MAX_PASS: usize = 1_024;
/// How often the lease is renewed where there is nothing to do.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Rows that are judged before other tasks have a turn: about a tenth of a millisecond.
const JUDGED_AT_ONCE: usize = 32;

static REFUSED: Thinned = Thinned::new();

/// What the one sequencer remembers; the head row holds all that it cannot find out again.
pub(super) struct Active {
    pub(super) fence: i64,
    pub(super) next_position: i64,
    /// Greatest arrival that was seen.
    pub(super) seen: i64,
    pub(super) holes: Holes,
    /// What is visible, and under a key that this process does not have.
    pub(super) waiting: Waiting,
    /// Marks what it refused itself.
    pub(super) sealing: Sealing,
    pub(super) renewed: Instant,
}

impl Active {
    /// Gives positions to what has become visible. True where there may be more at once.
    pub(super) async fn pass(
        &mut self,
        store: &PgStore,
        holder: Uuid,
        connection: &mut AsyncPgConnection,
    ) -> Result<bool, Trouble> {
        // Before the look at the journal: what is let go now, the look would see.
        if !self.holes.is_empty() {
            self.holes
                .observe(&timed(JournalWriters.load::<String>(connection)).await?);
        }
        let chunk = self.holes.after(0);
        let mut filled = self.read(&chunk, true, connection).await?;
        let new = filled.split_off(filled.partition_point(|row| row.arrival <= self.seen));
        // What is new may follow upon what is in any of the holes, which was visible before it: it waits until all
        // have been looked into.
        let mut next = self.rest_of_holes(&chunk, &filled);
        while let Some(after) = next {
            let judged = self.judge(store, &filled, connection).await?;
            let stands = judged.all_wait();
            self.take(&judged);
            if !filled.is_empty() || self.is_due() {
                self.assign(store, holder, judged, connection).await?;
            }
            let chunk = self.holes.after(after);
            filled = self.read(&chunk, false, connection).await?;
            next = self.rest_of_holes(&chunk, &filled);
            // So many rows under one number that no look comes past them.
            if stands
                && next == Some(after)
                && let Some(unknown) = self.waiting.lacking()
            {
                return Err(unknown.clone().into());
            }
        }
        let more = new.len() >= MAX_PASS;
        filled.extend(new);
        let judged = self.judge(store, &filled, connection).await?;
        self.take(&judged);
        let dead = self.holes.remove_dead();
        if !filled.is_empty() || dead || self.is_due() {
            self.assign(store, holder, judged, connection).await?;
        }
        Ok(more)
    }

    /// Reads what is visible in some holes, and after what was seen where `new`; in order of arrival.
    async fn read(
        &self,
        chunk: &Chunk,
        new: bool,
        connection: &mut AsyncPgConnection,
    ) -> Result<Vec<Arrived>, Trouble> {
        // Where there may be no more holes, entries still come out of them, and holes still die.
        let none = !new || self.holes.is_full();
        let read = ReadArrivals {
            sealing: &self.sealing,
            after: self.seen,
            limit: if none { 0 } else { limit() },
            hole_limit: limit(),
            from: chunk.from.clone(),
            to: chunk.to.clone(),
        };
        let mut arrived: Vec<Arrived> = timed(read.load(connection)).await?;
        arrived.sort_unstable_by_key(|row| row.arrival);
        Ok(arrived)
    }

    /// After which arrival holes are still to be looked into, where there are some.
    fn rest_of_holes(&self, chunk: &Chunk, filled: &[Arrived]) -> Option<i64> {
        if let Some(last) = filled.last().filter(|_| filled.len() >= MAX_PASS) {
            // Cut short, perhaps among rows that somebody gave one number: those that were refused are not read again.
            return Some(last.arrival - 1);
        }
        let last = chunk.to.last().copied()?;
        self.holes.are_any_after(last).then_some(last)
    }

    /// What becomes of rows. Nobody else gives positions as long as the fence holds: what has none now gets one, or nothing of
    /// this is written.
    async fn judge<'a>(
        &mut self,
        store: &PgStore,
        rows: &'a [Arrived],
        connection: &mut AsyncPgConnection,
    ) -> Result<Judged<'a>, Trouble> {
        let mut judged = judge_all(store, rows, &mut self.waiting).await?;
        let elsewhere = PlacedElsewhere::new(&judged);
        if !elsewhere.is_empty() {
            let placed: Vec<(Uuid, i64)> = timed(elsewhere.load(connection)).await?;
            judged.refuse_placed(&BTreeSet::from_iter(placed));
        }
        Ok(judged)
    }

    /// Notes what arrived: holes that are filled, and new ones.
    fn take(&mut self, judged: &Judged<'_>) {
        for (row, verdict) in &judged.rows {
            // A row that is not ours may have taken the number of one that is still to come.
            let ours = matches!(verdict, Verdict::Ours(_));
            if row.arrival > self.seen {
                self.holes.add(self.seen + 1, row.arrival - i64::from(ours));
                self.seen = row.arrival;
            } else if ours {
                self.holes.fill(row.arrival);
            }
        }
    }

    fn is_due(&self) -> bool {
        self.renewed.elapsed() >= RENEW_EVERY
    }

    /// Appends to the positions, in one statement that only the holder of the fence can make.
    async fn assign(
        &mut self,
        store: &PgStore,
        holder: Uuid,
        judged: Judged<'_>,
        connection: &mut AsyncPgConnection,
    ) -> Result<(), Trouble> {
        let count = i64::try_from(judged.authentic().count()).map_err(|_| Trouble::Fenced)?;
        // A hole that is dead may have a row that waits: it is not looked into any more, and is not forgotten either.
        let low = self.holes.lowest().unwrap_or(self.seen + 1);
        let low = self.waiting.lowest().map_or(low, |waits| waits.min(low));
        let fence = Fence {
            holder,
            fence: self.fence,
            expected: self.next_position,
            next: self.next_position + count,
            low,
            lease_seconds: LEASE.as_secs_f64(),
        };
        let written: Vec<i64> =
            timed(Assign::new(fence, &judged, &self.sealing).load(connection)).await?;
        if written != [count] {
            return Err(Trouble::Fenced);
        }
        refused(store, &judged);
        let first = u64::try_from(self.next_position).unwrap_or(0);
        let hashes = judged.authentic().map(|(_, leaf_hash)| leaf_hash);
        // Before the wake-up, so that whoever grows the tree finds them.
        store.inner.tree.fresh.push(first, hashes);
        self.next_position += count;
        self.renewed = Instant::now();
        store
            .inner
            .positions
            .set(u64::try_from(self.next_position).unwrap_or(0));
        Ok(())
    }
}

/// Judges rows, without keeping other tasks from running for long.
async fn judge_all<'a>(
    store: &PgStore,
    rows: &'a [Arrived],
    waiting: &mut Waiting,
) -> Result<Judged<'a>, UnknownKey> {
    let mut judged = Judged::default();
    let (mut before, mut unknown) = (None, 0);
    for (number, row) in rows.iter().enumerate() {
        if number % JUDGED_AT_ONCE == JUDGED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let verdict = match judge(store.keys(), row) {
            // Each number is drawn once, so that a second row has it from somebody else.
            Ok(Ok(_)) if before.replace(row.arrival) == Some(row.arrival) => {
                Verdict::Refused(Refusal::ArrivalTaken)
            }
            Ok(Ok(hash)) => match waiting.behind(row).cloned() {
                Some(unknown) => {
                    waiting.add(row, unknown)?;
                    Verdict::Waits
                }
                None => Verdict::Ours(hash),
            },
            Ok(Err(refusal)) => Verdict::Refused(refusal),
            Err(key) => {
                unknown += usize::from(waiting.add(row, key)?);
                Verdict::Waits
            }
        };
        judged.rows.push((row, verdict));
    }
    if unknown > 0 {
        let observer = &store.inner.observer;
        observer.verification_failed(UNKNOWN_KEY_CHECK, unknown);
    }
    Ok(judged)
}

/// Tells that rows were refused: one line for all of them, so that forgeries cannot flood the log.
fn refused(store: &PgStore, judged: &Judged<'_>) {
    let Some((first, refusal)) = judged.refused().next() else {
        return;
    };
    let count = judged.refused().count();
    store.inner.observer.verification_failed("entry", count);
    if REFUSED.due().is_some() {
        let (entry, cause) = (first.entry_id, refusal.name());
        tracing::error!(audit.entry_id = %entry, cause, count, "journal rows that are not as this service wrote them are refused");
    }
}

fn limit() -> i64 {
    i64::try_from(MAX_PASS).unwrap_or(i64::MAX)
}
