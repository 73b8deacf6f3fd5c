//! What this process committed, until the tree holds it.
//!
//! The gauge of pending entries asks the database what waits. Whoever owns the database decides what that is: entries can
//! be given numbers at which nobody looks, and be deleted before they are in any tree. What was committed here is
//! remembered here, where that cannot be.

use std::collections::BTreeMap;
use std::time::Instant;

use diesel::sql_types::{Array, BigInt, Integer, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use parking_lot::Mutex;
use quittance_domain::ports::StoreError;
use uuid::Uuid;

use crate::sequencer::SEQUENCER_CHECK;
use crate::statement::statement;
use crate::store::PgStore;
use crate::warning::Thinned;

/// Most entries that are remembered (about 320 KiB). Of what is committed while there are so many, nothing is: between two
/// looks of a busy process, the first ones stand for all.
const MAX_REMEMBERED: usize = 4_096;

static LOST: Thinned = Thinned::new();

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Own {
    stream: Uuid,
    entity_seq: i64,
    committed: Instant,
}

/// Entries that this process committed, by their ids.
#[derive(Debug, Default)]
pub(crate) struct OwnEntries(Mutex<BTreeMap<Uuid, Own>>);

impl OwnEntries {
    /// Remembers an entry that is committed now, where there is room.
    pub(crate) fn remember(&self, entry: Uuid, stream: Uuid, entity_seq: i64) {
        let mut known = self.0.lock();
        if known.len() < MAX_REMEMBERED {
            let committed = Instant::now();
            known.insert(
                entry,
                Own {
                    stream,
                    entity_seq,
                    committed,
                },
            );
        }
    }

    /// Where they are to be looked for.
    fn look(&self) -> LookForOwn {
        let known = self.0.lock();
        LookForOwn {
            entries: known.keys().copied().collect(),
            streams: known.values().map(|own| own.stream).collect(),
            numbers: known.values().map(|own| own.entity_seq).collect(),
        }
    }

    fn forget(&self, entry: Uuid) {
        self.0.lock().remove(&entry);
    }

    /// Age of the oldest in seconds; 0 where there is none.
    fn oldest_age(&self) -> f64 {
        let known = self.0.lock();
        let oldest = known.values().map(|own| own.committed).min();
        oldest.map_or(0.0, |oldest| oldest.elapsed().as_secs_f64())
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    InTree,
    Waiting,
    /// It has no position, and the sequencer looks no more where it is.
    PassedBy,
    /// It is not in the journal.
    Gone,
}

impl Whereabouts {
    const fn of(number: i32) -> Self {
        match number {
            3 => Self::InTree,
            1 => Self::PassedBy,
            0 => Self::Gone,
            _ => Self::Waiting,
        }
    }
}

/// Where entries are, all at one moment; see [`Whereabouts::of`].
struct LookForOwn {
    entries: Vec<Uuid>,
    streams: Vec<Uuid>,
    numbers: Vec<i64>,
}

statement!(LookForOwn, LookForOwn, (SqlUuid, Integer), |self, out| {
    out.push_sql("select s.entry_id, case when j.entry_id is null then 0 ");
    out.push_sql(
        "when p.position < (select coalesce(max(tree_size), 0) from tree_heads) then 3 \
         when p.position is null and j.arrival < (select min(low_arrival) from sequencer_head) then 1 \
         else 2 end from unnest(",
    );
    out.push_bind_param::<Array<SqlUuid>, _>(&self.entries)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.streams)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<BigInt>, _>(&self.numbers)?;
    out.push_sql(
        ") as s (entry_id, stream_id, entity_seq) \
         left join journal j on j.stream_id = s.stream_id and j.entity_seq = s.entity_seq and j.entry_id = s.entry_id \
         left join journal_positions p on p.arrival = j.arrival and p.stream_id = j.stream_id \
         and p.entity_seq = j.entity_seq and p.entry_id = j.entry_id",
    );
});

impl PgStore {
    /// Age in seconds of the oldest entry that this process committed and that the tree does not hold; 0 where it holds
    /// all. Raises the alarm where it never will.
    pub(super) async fn oldest_own_entry_age(&self) -> Result<f64, StoreError> {
        let own = &self.inner.tree.own;
        let look = own.look();
        if look.entries.is_empty() {
            return Ok(0.0);
        }
        let read = self
            .inner
            .reader
            .scan("look for own entries", |connection| {
                let look = LookForOwn {
                    entries: look.entries.clone(),
                    streams: look.streams.clone(),
                    numbers: look.numbers.clone(),
                };
                async move { look.load::<(Uuid, i32)>(connection).await }.boxed()
            });
        let mut lost = None;
        for (entry, number) in read.await? {
            match Whereabouts::of(number) {
                Whereabouts::InTree => own.forget(entry),
                Whereabouts::Waiting => {}
                Whereabouts::PassedBy => lost = Some((entry, "passed_by")),
                Whereabouts::Gone => {
                    // Said once: nothing would bring it back.
                    own.forget(entry);
                    lost = Some((entry, "gone"));
                }
            }
        }
        if let Some((entry, kind)) = lost {
            self.inner.observer.verification_failed(SEQUENCER_CHECK, 1);
            if LOST.due().is_some() {
                tracing::error!(
                    audit.entry_id = %entry,
                    kind,
                    "an entry that this process committed can never get a position: it was deleted, or the sequencer was \
                     kept from finding it"
                );
            }
        }
        Ok(own.oldest_age())
    }
}
