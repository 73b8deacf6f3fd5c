//! The one that grows the tree.

use std::time::Duration;

use diesel::result::Error;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use quittance_evidence::Hash;
use quittance_evidence::tile::{self, TileSet};
use quittance_evidence::tree::{CompactRange, TreeError};
use tokio::sync::watch;

use super::reads::{edge_tiles, into_tiles};
use super::statements::{Grow, NewestHead, Placed, ReadNewestHead, ReadPlaced, ReadTiles};
use super::{INTEGRATE_EVERY, Lease, MAX_INTEGRATED, TreeDamage, TreeHead};
use crate::connection::Use;
use crate::keys::KeyRing;
use crate::sequencer::{UNKNOWN_KEY_CHECK, UnknownKey, judge};
use crate::store::PgStore;
use crate::timed::{PAUSE_AFTER_ERROR, PAUSE_AFTER_REFUSAL, Unanswered, timed};
use crate::warning::Thinned;

/// Most entries that are read from the journal at once: 16 MiB of them at most.
const MAX_READ: usize = 256;

static FAILED: Thinned = Thinned::new();
static REFUSED: Thinned = Thinned::new();

/// Why the integrator stopped.
#[derive(Debug)]
enum Trouble {
    /// Another sequencer has taken over, or the head is not where it was left: begin anew.
    Fenced,
    Database(Unanswered),
    UnknownKey(UnknownKey),
    Damage(TreeDamage),
}

impl From<Unanswered> for Trouble {
    fn from(unanswered: Unanswered) -> Self {
        Self::Database(unanswered)
    }
}

/// A transaction may fail by itself.
impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<TreeDamage> for Trouble {
    fn from(damage: TreeDamage) -> Self {
        Self::Damage(damage)
    }
}

impl From<TreeError> for Trouble {
    fn from(_: TreeError) -> Self {
        Self::Damage(TreeDamage::Tiles)
    }
}

/// The tree as far as appending to it needs.
struct Grown {
    lease: Lease,
    range: CompactRange,
    /// The last tile of each level, where it is not full.
    edge: TileSet,
}

/// One contender for growing the tree: active while its process is the sequencer.
pub(crate) struct Integrator {
    store: PgStore,
    lease: watch::Receiver<Option<Lease>>,
    stop: watch::Receiver<bool>,
    grown: Option<Grown>,
}

impl Integrator {
    pub(crate) fn new(store: PgStore) -> Self {
        let stop = store.inner.stop.subscribe();
        let lease = store.inner.tree.lease.subscribe();
        Self {
            store,
            lease,
            stop,
            grown: None,
        }
    }

    /// Runs until the store is shut down.
    pub(crate) async fn run(mut self) {
        let mut connection: Option<AsyncPgConnection> = None;
        while !*self.stop.borrow() {
            let Some(lease) = *self.lease.borrow_and_update() else {
                // Another process grows the tree.
                self.grown = None;
                self.rest(Duration::MAX).await;
                continue;
            };
            let Some(ready) = &mut connection else {
                connection = self.store.inner.connector.connect(Use::Sequence).await.ok();
                if connection.is_none() {
                    self.rest(PAUSE_AFTER_ERROR).await;
                }
                continue;
            };
            match self.grow(lease, ready).await {
                Ok(size) => self.rest_until_due(size).await,
                Err(trouble) => {
                    self.grown = None;
                    let pause = self.report(&trouble);
                    if let Trouble::Database(_) = trouble {
                        connection = None;
                    }
                    self.rest(pause).await;
                }
            }
        }
    }

    /// Appends all that has a position, a batch at a time; answers how large the tree is then.
    async fn grow(
        &mut self,
        lease: Lease,
        connection: &mut AsyncPgConnection,
    ) -> Result<u64, Trouble> {
        let fresh = &self.store.inner.tree.fresh;
        if self.grown.as_ref().is_none_or(|grown| grown.lease != lease) {
            // Asked before the database is: it has no fewer, unless it went back in time.
            let placed = fresh.placed(lease).ok_or(Trouble::Fenced)?;
            let grown = load(lease, placed, self.store.keys(), connection).await?;
            self.store.inner.observer.tree_size(grown.range.size());
            self.grown = Some(grown);
        }
        let Some(grown) = &mut self.grown else {
            return Err(Trouble::Fenced);
        };
        while !*self.stop.borrow() && *self.lease.borrow() == Some(lease) {
            let size = grown.range.size();
            if fresh.placed(lease).ok_or(Trouble::Fenced)? <= size {
                break;
            }
            let mut leaves = fresh.from(lease, size, MAX_INTEGRATED);
            if leaves.is_empty() {
                leaves = read_leaves(&self.store, size, connection).await?;
            }
            if leaves.is_empty() {
                return Err(nothing_at(size, connection).await?);
            }
            let ring = self.store.keys();
            grown.append(&leaves, ring, connection).await?;
            self.store.inner.observer.tree_size(grown.range.size());
        }
        Ok(grown.range.size())
    }

    /// Tells what is wrong; how long to wait before the next try.
    fn report(&self, trouble: &Trouble) -> Duration {
        match trouble {
            Trouble::Fenced => PAUSE_AFTER_ERROR,
            Trouble::Database(unanswered) => {
                if let Some(count) = FAILED.due() {
                    let kind = unanswered.kind();
                    tracing::warn!(kind, count, "the integrator's database failed");
                }
                PAUSE_AFTER_ERROR
            }
            Trouble::UnknownKey(unknown) => {
                let (shared, observer) = (&self.store.inner.tree, &self.store.inner.observer);
                *shared.lacking.lock() = Some(unknown.clone());
                observer.verification_failed(UNKNOWN_KEY_CHECK, 1);
                if REFUSED.due().is_some() {
                    let (entry, key) = (unknown.entry, unknown.key.as_str());
                    tracing::error!(
                        audit.entry_id = %entry,
                        key.id = key,
                        "the tree stands still: an entry is under a key that this process does not have \
                         (secrets.keys)"
                    );
                }
                PAUSE_AFTER_REFUSAL
            }
            Trouble::Damage(damage) => {
                self.store.inner.observer.verification_failed("tree", 1);
                if REFUSED.due().is_some() {
                    tracing::error!(error.message = %damage, "the tree stands still: it was changed in the database");
                }
                PAUSE_AFTER_REFUSAL
            }
        }
    }

    /// Waits until enough entries wait, or for long enough.
    async fn rest_until_due(&mut self, size: u64) {
        let enough = size + u64::try_from(MAX_INTEGRATED - 1).unwrap_or(u64::MAX);
        let positions = self.store.inner.positions.clone();
        tokio::select! {
            () = positions.wait_for(enough, INTEGRATE_EVERY) => {}
            _ = self.lease.changed() => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Waits a while, or until something changes for this process.
    async fn rest(&mut self, limit: Duration) {
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            _ = self.lease.changed() => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }
}

impl Grown {
    /// Appends a batch, and stores it. After an error this is to be loaded anew.
    async fn append(
        &mut self,
        leaves: &[Hash],
        ring: &KeyRing,
        connection: &mut AsyncPgConnection,
    ) -> Result<(), Trouble> {
        let old = self.range.size();
        for leaf in leaves {
            let appended = self.edge.append(&mut self.range, *leaf);
            appended.map_err(|_| TreeDamage::Tiles)?;
        }
        let new = self.range.size();
        let head = TreeHead {
            size: new,
            root: self.range.root(),
        };
        let grow = Grow::new(self.lease, old, head, ring);
        let mut grow = grow.ok_or(TreeDamage::Number)?;
        for (id, _) in tile::changed(old, new) {
            let tile = self.edge.get(id).ok_or(TreeDamage::Tiles)?;
            grow.push(id, tile).ok_or(TreeDamage::Number)?;
        }
        let written: Vec<i64> = timed(grow.load(connection)).await?;
        if written != [1] {
            return Err(Trouble::Fenced);
        }
        self.edge = unfinished(&self.edge, new);
        Ok(())
    }
}

/// What is left to grow of some tiles: the last of each level, where it is not full.
fn unfinished(tiles: &TileSet, size: u64) -> TileSet {
    let mut edge = TileSet::new();
    for id in edge_tiles(size) {
        if let Some(tile) = tiles.get(id) {
            edge.insert(id, tile.clone());
        }
    }
    edge
}

/// The tree as it is stored.
struct Stored {
    /// How many entries have a position.
    next_position: u64,
    head: Option<TreeHead>,
    /// The last tiles of the head, whatever they hold.
    tiles: Vec<(i16, i64, Vec<u8>)>,
}

/// Reads the newest head, and the tiles of the same moment: another may grow the tree meanwhile that has taken over, and
/// its wider tiles are no damage.
async fn stored(ring: &KeyRing, connection: &mut AsyncPgConnection) -> Result<Stored, Trouble> {
    let mut moment = connection.build_transaction().repeatable_read().read_only();
    let reading = moment.run(async |connection| -> Result<Stored, Trouble> {
        let heads: Vec<NewestHead> = timed(ReadNewestHead.load(connection)).await?;
        let newest = heads.into_iter().next().ok_or(TreeDamage::Number)?;
        let (next_position, head) = newest.into_parts();
        let head = head.map(|head| head.authentic(ring)).transpose()?;
        let edge = edge_tiles(head.map_or(0, |head| head.size));
        Ok(Stored {
            next_position: u64::try_from(next_position).unwrap_or(0),
            head,
            tiles: timed(ReadTiles::new(edge).load(connection)).await?,
        })
    });
    reading.await
}

/// Takes the tree up where it was left: rebuilds its root from the tiles, and refuses one that is not the head's, and
/// a head that this service did not make. The database must have the `placed` positions that this term knows of.
async fn load(
    lease: Lease,
    placed: u64,
    ring: &KeyRing,
    connection: &mut AsyncPgConnection,
) -> Result<Grown, Trouble> {
    let Stored {
        next_position,
        head,
        tiles,
    } = stored(ring, connection).await?;
    let size = head.map_or(0, |head| head.size);
    if next_position < placed {
        // The sequencer finds out as well, and begins a new term with what there is.
        return Err(Trouble::Fenced);
    }
    if next_position < size {
        return Err(TreeDamage::BeyondLog.into());
    }
    let tiles = into_tiles(tiles)?;
    for id in edge_tiles(size) {
        let width = tiles.get(id).map_or(0, |tile| tile.hashes().len());
        if width != usize::from(id.width_at(size)) {
            return Err(TreeDamage::Tiles.into());
        }
    }
    let range = CompactRange::load(size, |node| {
        tiles
            .node(node)
            .map_err(|_| Trouble::from(TreeDamage::Tiles))
    })?;
    if head.is_some_and(|head| head.root != range.root()) {
        return Err(TreeDamage::Root.into());
    }
    tracing::info!(position = size, "this integrator is active");
    Ok(Grown {
        lease,
        range,
        edge: tiles,
    })
}

/// Why there is nothing at a position that was given: the entry was deleted, or the database is not so far any more.
async fn nothing_at(position: u64, connection: &mut AsyncPgConnection) -> Result<Trouble, Trouble> {
    let heads: Vec<NewestHead> = timed(ReadNewestHead.load(connection)).await?;
    let next = heads.into_iter().next().map(|head| head.into_parts().0);
    let next = next.and_then(|next| u64::try_from(next).ok()).unwrap_or(0);
    Ok(if next <= position {
        Trouble::Fenced
    } else {
        TreeDamage::EntryMissing.into()
    })
}

/// Leaf hashes from the journal: what another process has sequenced, verified again.
async fn read_leaves(
    store: &PgStore,
    size: u64,
    connection: &mut AsyncPgConnection,
) -> Result<Vec<Hash>, Trouble> {
    let from = i64::try_from(size).map_err(|_| TreeDamage::Number)?;
    let limit = i64::try_from(MAX_READ).unwrap_or(i64::MAX);
    let read = ReadPlaced { from, limit };
    let placed: Vec<Placed> = timed(read.load(connection)).await?;
    let mut leaves = Vec::with_capacity(placed.len());
    for (expected, one) in (from..).zip(placed) {
        if one.position != expected {
            return Err(TreeDamage::EntryMissing.into());
        }
        let verdict = judge(store.keys(), &one.into_row()).map_err(Trouble::UnknownKey)?;
        leaves.push(verdict.map_err(|_| TreeDamage::EntryChanged)?);
    }
    Ok(leaves)
}
