//! What this process committed, until the tree holds it.
//!
//! The gauge of pending entries asks the database what waits. Whoever owns the database decides what that is: entries can
//! be given numbers at which nobody looks, and be deleted before they are in any tree. What was committed here is
//! remembered here, where that cannot be; and forgotten only once a proof shows that the tree of a head that this service
//! made holds it. Where the database says that an entry is, is no more than where to look.

use std::collections::BTreeMap;
use std::time::Instant;

use diesel::sql_types::{Array, BigInt, Integer, Nullable, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::FutureExt as _;
use parking_lot::Mutex;
use quittance_domain::ports::StoreError;
use quittance_evidence::Hash;
use uuid::Uuid;

use super::held::{Claim, Held};
use super::{TreeHead, TreeReadError};
use crate::rows::JournalRow;
use crate::sequencer::SEQUENCER_CHECK;
use crate::statement::statement;
use crate::store::PgStore;
use crate::warning::Thinned;

/// Most entries that are remembered (about 448 KiB). Of what is committed while there are so many, nothing is: between two
/// looks of a busy process, the first ones stand for all.
const MAX_REMEMBERED: usize = 4_096;

static LOST: Thinned = Thinned::new();
static ELSEWHERE: Thinned = Thinned::new();

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Own {
    stream: Uuid,
    entity_seq: i64,
    leaf: Hash,
    committed: Instant,
}

/// Entries that this process committed, by their ids.
#[derive(Debug, Default)]
pub(crate) struct OwnEntries(Mutex<BTreeMap<Uuid, Own>>);

impl OwnEntries {
    /// Remembers an entry that is committed now, where there is room.
    pub(crate) fn remember(&self, entry: &JournalRow) {
        let own = Own {
            stream: entry.stream_id,
            entity_seq: entry.entity_seq,
            leaf: Hash::from_bytes(entry.leaf_hash),
            committed: Instant::now(),
        };
        let mut known = self.0.lock();
        if known.len() < MAX_REMEMBERED {
            known.insert(entry.entry_id, own);
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

    /// That one of them is said to be at a place of the tree.
    fn claim(&self, entry: Uuid, position: u64) -> Option<Claim> {
        let leaf = self.0.lock().get(&entry)?.leaf;
        Some(Claim {
            entry,
            leaf,
            position,
        })
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

/// Where the database says that an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    /// At this position.
    Placed(i64),
    Waiting,
    /// It has no position, and the sequencer looks no more where it is.
    PassedBy,
    /// It is not in the journal.
    Gone,
}

impl Whereabouts {
    fn of((_, number, position): &OwnTuple) -> Self {
        match (number, position) {
            (0, _) => Self::Gone,
            (_, Some(position)) => Self::Placed(*position),
            (1, None) => Self::PassedBy,
            (_, None) => Self::Waiting,
        }
    }
}

/// Where entries are, all at one moment; see [`Whereabouts::of`].
struct LookForOwn {
    entries: Vec<Uuid>,
    streams: Vec<Uuid>,
    numbers: Vec<i64>,
}

type OwnTypes = (SqlUuid, Integer, Nullable<BigInt>);
type OwnTuple = (Uuid, i32, Option<i64>);

statement!(LookForOwn, LookForOwn, OwnTypes, |self, out| {
    out.push_sql("select s.entry_id, case when j.entry_id is null then 0 ");
    out.push_sql(
        "when j.arrival < (select min(low_arrival) from sequencer_head) then 1 \
         else 2 end, p.position from unnest(",
    );
    out.push_bind_param::<Array<SqlUuid>, _>(&self.entries)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<SqlUuid>, _>(&self.streams)?;
    out.push_sql(", ");
    out.push_bind_param::<Array<BigInt>, _>(&self.numbers)?;
    out.push_sql(
        ") as s (entry_id, stream_id, entity_seq) \
         left join journal j on j.stream_id = s.stream_id and j.entity_seq = s.entity_seq and j.entry_id = s.entry_id \
         left join journal_positions p on p.stream_id = j.stream_id and p.entity_seq = j.entity_seq \
         and p.entry_id = j.entry_id",
    );
});

/// What was found of them.
#[derive(Default)]
struct Found {
    /// Those that the tree should hold.
    claims: Vec<Claim>,
    /// One that it never will, and why.
    lost: Option<(Uuid, &'static str)>,
}

impl PgStore {
    /// Age in seconds of the oldest entry that this process committed and that the tree does not hold; 0 where it holds
    /// all. Raises the alarm where it never will, or where it does not though the database says so.
    pub(super) async fn oldest_own_entry_age(&self) -> Result<f64, StoreError> {
        let own = &self.inner.tree.own;
        // First: whatever its tree holds has its position when that is read.
        let head = match self.tree_head().await {
            Ok(head) => head,
            Err(TreeReadError::Store(error)) => return Err(error),
            // It proves nothing. Whoever grows the tree says so.
            Err(TreeReadError::Damaged(_) | TreeReadError::OutOfRange(_)) => None,
        };
        let found = self.look_for_own(head).await?;
        if let Some((entry, kind)) = found.lost {
            self.own_entry_lost(entry, kind);
        }
        if let Some(head) = head {
            self.forget_held(found.claims, head).await?;
        }
        Ok(own.oldest_age())
    }

    /// Looks where the database says that they are. Those that are gone are forgotten.
    async fn look_for_own(&self, head: Option<TreeHead>) -> Result<Found, StoreError> {
        let own = &self.inner.tree.own;
        let (look, mut found) = (own.look(), Found::default());
        if look.entries.is_empty() {
            return Ok(found);
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
                async move { look.load::<OwnTuple>(connection).await }.boxed()
            });
        let size = head.map_or(0, |head| head.size);
        for row in read.await? {
            let entry = row.0;
            match Whereabouts::of(&row) {
                Whereabouts::Placed(position) => {
                    // One below zero is as much beyond the tree as one that the tree has yet to reach.
                    let position = u64::try_from(position).unwrap_or(u64::MAX);
                    let inside = own.claim(entry, position).filter(|_| position < size);
                    found.claims.extend(inside);
                }
                Whereabouts::Waiting => {}
                Whereabouts::PassedBy => found.lost = Some((entry, "passed_by")),
                Whereabouts::Gone => {
                    // Said once: nothing would bring it back.
                    own.forget(entry);
                    found.lost = Some((entry, "gone"));
                }
            }
        }
        Ok(found)
    }

    /// Forgets those that the tree holds where they are said to be. Raises the alarm where it holds something else.
    async fn forget_held(&self, claims: Vec<Claim>, head: TreeHead) -> Result<(), StoreError> {
        let Held { there, elsewhere } = self.held(claims, head).await?;
        for claim in there {
            self.inner.tree.own.forget(claim.entry);
        }
        let Some(first) = elsewhere.as_slice().first() else {
            return Ok(());
        };
        self.inner.observer.verification_failed(SEQUENCER_CHECK, 1);
        if ELSEWHERE.due().is_some() {
            tracing::error!(
                audit.entry_id = %first.entry,
                position = first.position,
                count = elsewhere.len(),
                "an entry that this process committed is not in the tree where its position says: the position was \
                 made up, or the tree was changed"
            );
        }
        Ok(())
    }

    fn own_entry_lost(&self, entry: Uuid, kind: &'static str) {
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
}
