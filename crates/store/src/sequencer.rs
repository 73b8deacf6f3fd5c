//! The sequencer: gives every committed journal entry its position, gapless, after the commit.
//!
//! Entries commit out of order, so no serial column of theirs can be read as if it were complete.
//! `arrival`, taken from a sequence when a row is written, only says where to look: rows become visible
//! in any order, and some never do. One sequencer at a time (by lease, fenced) reads what has become
//! visible and appends it to `journal_positions`, in order of arrival within a pass; positions once
//! given never change. An entry is visible to whoever decides upon it, so the entries of one payment
//! are in order.
//!
//! An arrival that is not visible while later ones are is a *hole*: its transaction still runs, or was
//! rolled back. All holes are looked into in every pass, and before what is new gets positions: so an entry never
//! gets one before the entry of the same payment that it follows upon. That goes on until they are proved dead:
//! whoever took the number holds a lock on the journal from before that moment to the end of its
//! transaction, so once everybody who held that lock after the hole was seen has let go, and a later look
//! does not find the row, it will never come.
//!
//! Only what this service wrote gets a position: a row whose MAC is not over its bytes, or whose bytes are
//! those of another row, was put there past the service. It is put on record in `refused_entries`, counted
//! and logged, and the others go on. What others put there is no refusal: it is judged (`seal`). An entry under a key that this process does not have is no proof of
//! anything: it waits, and what follows upon it, while all others go on. The sequencer lets another process try now
//! and then, and says which key it lacks.

mod authentic;
mod head;
mod holes;
mod pass;
mod seal;
mod statements;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncPgConnection, RunQueryDsl};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::DEFAULT_CLOCK_SAMPLE;
use crate::connection::Use;
use crate::store::PgStore;
use crate::timed::{PAUSE_AFTER_ERROR, PAUSE_AFTER_REFUSAL, Unanswered, timed};
use crate::tree::{Integrator, Lease};
use crate::warning::Thinned;
use holes::Holes;
use pass::Active;
use seal::Sealing;
use statements::{Acquire, FirstGaps, Gap, Head, Release};
use waiting::Waiting;

pub use authentic::Refusal;
pub(crate) use authentic::{
    CLAIMED_COLUMNS, Claimed, UnknownKey, claimed, claimed_leaf, claimed_mac, claimed_mac_key_id,
    judge,
};
pub(crate) use head::{HeadFault, SEQUENCER_CHECK};
pub use pass::MAX_PASS;
pub(crate) use statements::{Arrived, PLACED, ReadHead};

/// How long a sequencer that says nothing stays the one: another takes over after.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often the journal is looked at, where no commit of this process says that there is something:
/// other replicas' commits wait this long at most.
const POLL: Duration = Duration::from_millis(100);
/// Shortest time between two passes, so that a pass has something to do under load.
const MIN_PASS_INTERVAL: Duration = Duration::from_millis(5);
/// How long a sequencer that lacks a key leaves the work to others.
const PAUSE_WITHOUT_KEY: Duration = LEASE;
/// How long it works at least before it does so again: where nobody has the key, the log hardly waits.
const HAND_OVER_EVERY: Duration = Duration::from_secs(30);
/// How entries under a key that this process does not have are counted among failures of verification.
pub(crate) const UNKNOWN_KEY_CHECK: &str = "entry_key";

static FAILED: Thinned = Thinned::new();
static WITHOUT_KEY: Thinned = Thinned::new();

/// Why a pass ended early.
#[derive(Debug)]
enum Trouble {
    /// Another sequencer has taken over, or the head is not where it was left: begin anew.
    Fenced,
    /// The database failed, or took too long.
    Database(Unanswered),
    /// An entry is under a key that this process does not have: nothing can be said about it.
    UnknownKey(UnknownKey),
    /// The head is gone, or says what cannot be.
    Head(HeadFault),
}

impl From<UnknownKey> for Trouble {
    fn from(unknown: UnknownKey) -> Self {
        Self::UnknownKey(unknown)
    }
}

impl From<Unanswered> for Trouble {
    fn from(unanswered: Unanswered) -> Self {
        Self::Database(unanswered)
    }
}

/// Settings of what a store does in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerSettings {
    /// How often the database's clock is looked at; longer than zero.
    pub clock_sample: Duration,
    /// Whether this process grows the Merkle tree while it is the sequencer.
    pub integrate: bool,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            clock_sample: DEFAULT_CLOCK_SAMPLE,
            integrate: true,
        }
    }
}

impl PgStore {
    /// [`PgStore::start_workers_with`] the defaults.
    pub fn start_workers(&self) {
        self.start_workers_with(WorkerSettings::default());
    }

    /// Starts the sequencer and the integrator of this process, following the database's clock, and making partitions ahead:
    /// once per store. They end with [`PgStore::shutdown`].
    pub fn start_workers_with(&self, settings: WorkerSettings) {
        let (store, stop) = (self.clone(), self.inner.stop.subscribe());
        let every = settings.clock_sample;
        self.keep_task(tokio::spawn(async move {
            store.inner.sampler.run(every, stop).await;
        }));
        self.keep_task(tokio::spawn(self.clone().keep_partitions()));
        if settings.integrate {
            self.keep_task(tokio::spawn(Integrator::new(self.clone()).run()));
        }
        let sequencer = Sequencer::new(self.clone());
        self.keep_task(tokio::spawn(sequencer.run()));
    }
}

/// One contender for being the sequencer.
struct Sequencer {
    store: PgStore,
    /// Who it was when it last took the lease. Each term has another: a database that went back in time may have the
    /// same fence again, and what an earlier term believed must not pass for what this one does.
    holder: Uuid,
    stop: watch::Receiver<bool>,
    active: Option<Active>,
    /// When it last left the work to others for want of a key.
    handed_over: Option<Instant>,
}

impl Sequencer {
    fn new(store: PgStore) -> Self {
        let stop = store.inner.stop.subscribe();
        Self {
            store,
            holder: Uuid::now_v7(),
            stop,
            active: None,
            handed_over: None,
        }
    }

    /// Runs until the store is shut down.
    async fn run(mut self) {
        self.store.inner.positions.set_followed(true);
        let mut connection: Option<AsyncPgConnection> = None;
        while !*self.stop.borrow() {
            let Some(ready) = &mut connection else {
                connection = self.store.inner.connector.connect(Use::Sequence).await.ok();
                if connection.is_none() {
                    self.rest(PAUSE_AFTER_ERROR).await;
                }
                continue;
            };
            if let Err(trouble) = self.serve(ready).await {
                let mut pause = PAUSE_AFTER_ERROR;
                match trouble {
                    Trouble::Fenced => tracing::info!("another sequencer has taken over"),
                    Trouble::Database(unanswered) => {
                        failed(&unanswered.kind());
                        connection = None;
                    }
                    Trouble::UnknownKey(unknown) => {
                        unknown_key(&unknown);
                        self.release(connection.as_mut()).await;
                        pause = PAUSE_WITHOUT_KEY;
                    }
                    Trouble::Head(fault) => {
                        fault.report(self.store.inner.observer.as_ref());
                        pause = PAUSE_AFTER_REFUSAL;
                    }
                }
                self.resign();
                self.rest(pause).await;
            }
        }
        self.release(connection.as_mut()).await;
        self.resign();
        self.store.inner.positions.set_followed(false);
    }

    /// Is the sequencer no longer, as far as this process knows.
    fn resign(&mut self) {
        self.active = None;
        self.store.inner.tree.lease.send_replace(None);
        self.store.inner.tree.fresh.end();
    }

    /// Gives the lease back, so that another need not wait until it has run out.
    async fn release(&self, connection: Option<&mut AsyncPgConnection>) {
        if let (Some(active), Some(connection)) = (&self.active, connection) {
            let release = Release {
                holder: self.holder,
                fence: active.fence,
            };
            // Where this fails, the lease runs out.
            let _ = timed(release.execute(connection)).await;
        }
    }

    /// One step: becoming the sequencer, or a pass as the sequencer; then a rest.
    async fn serve(&mut self, connection: &mut AsyncPgConnection) -> Result<(), Trouble> {
        if self.active.is_none() {
            self.active = self.acquire(connection).await?;
            let lease = self.active.as_ref().map(|active| self.begin_term(active));
            let shared = &self.store.inner.tree.lease;
            shared.send_if_modified(|known| std::mem::replace(known, lease) != lease);
        }
        let Some(active) = &mut self.active else {
            let next = timed(ReadHead.load::<i64>(connection)).await?;
            let next = next
                .into_iter()
                .filter_map(|next| u64::try_from(next).ok())
                .max();
            let next = next.ok_or(Trouble::Head(HeadFault::Missing))?;
            self.store.inner.positions.set(next);
            self.rest(POLL).await;
            return Ok(());
        };
        let more = active.pass(&self.store, self.holder, connection).await?;
        if let Some(unknown) = self.hands_over_for() {
            return Err(unknown.into());
        }
        if more {
            return Ok(());
        }
        self.rest_until_commit().await;
        Ok(())
    }

    /// The key for want of which this process now leaves the work to others: one of them may have it.
    fn hands_over_for(&mut self) -> Option<UnknownKey> {
        let active = self.active.as_ref()?;
        let of_tree = self.store.inner.tree.lacking.lock().take();
        let unknown = active.waiting.lacking().cloned().or(of_tree)?;
        let before = self.handed_over;
        if before.is_some_and(|before| before.elapsed() < HAND_OVER_EVERY) {
            return None;
        }
        self.handed_over = Some(Instant::now());
        Some(unknown)
    }

    /// Forgets what this process believed of the positions: the database says how many there are. It may be behind,
    /// where it was restored or another server of it took over, and what lay beyond comes to other entries then.
    fn begin_term(&self, active: &Active) -> Lease {
        let lease = Lease {
            holder: self.holder,
            fence: active.fence,
        };
        let placed = u64::try_from(active.next_position).unwrap_or(0);
        self.store.inner.tree.fresh.begin(lease, placed);
        self.store.inner.positions.set(placed);
        lease
    }

    /// Takes the lease where it is free, and finds out where to go on.
    async fn acquire(
        &mut self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Option<Active>, Trouble> {
        let holder = Uuid::now_v7();
        let acquire = Acquire {
            holder,
            before: self.holder,
            lease_seconds: LEASE.as_secs_f64(),
        };
        let head: Vec<Head> = timed(acquire.load(connection)).await?;
        let Some(head) = head.into_iter().next() else {
            return Ok(None);
        };
        self.holder = holder;
        // From a mark that is too high it would find nothing, and nobody would know.
        if let Some(fault) = HeadFault::of(Some(head.low_arrival), head.given, None) {
            return Err(Trouble::Head(fault));
        }
        // Nobody else appends any more.
        let placed: Vec<i64> = timed(ReadHead.load(connection)).await?;
        let placed = placed.into_iter().max().unwrap_or_default();
        if let Some(fault) = HeadFault::of_positions(head.next_position, placed, None) {
            return Err(Trouble::Head(fault));
        }
        // What has a position is known; what lies between is holes, to be proved again.
        let gaps: Vec<Gap> = timed(
            FirstGaps {
                low: head.low_arrival,
            }
            .load(connection),
        )
        .await?;
        let mut holes = Holes::default();
        let mut seen = head.low_arrival.saturating_sub(1);
        for gap in gaps {
            if gap.from <= gap.to {
                holes.add(gap.from, gap.to);
            }
            seen = seen.max(gap.below);
        }
        tracing::info!(
            fence = head.fence,
            position = head.next_position,
            "this sequencer is active"
        );
        Ok(Some(Active {
            fence: head.fence,
            next_position: head.next_position,
            seen,
            holes,
            waiting: Waiting::default(),
            sealing: Sealing::draw(),
            renewed: Instant::now(),
        }))
    }

    /// Waits a while, or until the store is shut down.
    async fn rest(&mut self, limit: Duration) {
        tokio::select! {
            () = tokio::time::sleep(limit) => {}
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Waits for a commit of this process, at most [`POLL`].
    async fn rest_until_commit(&mut self) {
        let committed = Arc::clone(&self.store.inner.committed);
        self.rest(MIN_PASS_INTERVAL).await;
        tokio::select! {
            () = committed.notified() => {}
            () = self.rest(POLL) => {}
        }
    }
}

fn unknown_key(unknown: &UnknownKey) {
    if WITHOUT_KEY.due().is_some() {
        let (entry, key) = (unknown.entry, unknown.key.as_str());
        tracing::error!(
            audit.entry_id = %entry,
            key.id = key,
            "an entry is under a key that this process does not have (secrets.keys): it gets no position until a \
             process that has it takes over"
        );
    }
}

fn failed(kind: &str) {
    if let Some(count) = FAILED.due() {
        tracing::warn!(kind, count, "the sequencer's database failed");
    }
}
