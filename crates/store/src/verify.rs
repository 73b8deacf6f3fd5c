//! Verifying the whole log: reads it from end to end, and compares all that hangs on it.
//!
//! What is compared is pure (`quittance_domain::verification`); this reads. Streams are cut into segments, which a few
//! lanes take one after the other; a lane reads in batches, and checks one while it reads the next. Each batch is of one
//! moment: the entries of some streams, their positions, and the payments and transactions of those streams that end in
//! it. A payment commits together with its entry, so nothing that commits meanwhile is ever reported. Memory is bounded
//! by the lanes and their batches, whatever the log holds. Then the positions are read from end to end, and the tree is
//! rebuilt from their entries: each page with the heads, tiles and checkpoints of the same moment.

mod api_keys;
mod claims;
mod cosignatures;
mod erasures;
mod lane;
mod long;
mod payment;
mod positions;
mod read;
mod rows;
mod schedule;
mod segments;
mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quittance_domain::ports::StoreError;
use quittance_domain::verification::{CheckpointRow, MacKeys, Mismatch, Stage, Trusted};
use quittance_evidence::MacKey;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::keys::KeyRing;
use crate::store::PgStore;
pub use long::measured_columns;
pub(crate) use long::readable_time;
use read::Verifying;
use segments::Segments;

/// Most lanes of one verification: each has a connection and keeps one core of the database and one of ours busy.
pub const MAX_VERIFY_LANES: usize = 16;
/// How long a verification waits for a listener that does not read: it holds others up.
pub const VERIFY_PATIENCE: Duration = Duration::from_secs(60);
/// How long the signer has to store the checkpoint that it keeps outside the database: it does so within this, unless it was
/// killed in between.
pub const SIGNER_WITHIN: Duration = Duration::from_secs(5);
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How a verification runs.
#[derive(Debug, Clone)]
pub struct VerifySettings {
    /// How many lanes read at once: 1 to [`MAX_VERIFY_LANES`].
    pub lanes: usize,
    /// Where an earlier one had got to; the default begins at the beginning.
    pub resume: VerifyProgress,
    /// What is known of the log outside of its database.
    pub trusted: Trusted,
    /// How long it waits for whoever listens to take an event ([`VERIFY_PATIENCE`]); then it ends, and another can run.
    pub patience: Duration,
    /// How long it waits for the signer to store what it signed last ([`SIGNER_WITHIN`]); 0 where nobody signs meanwhile.
    pub signer_within: Duration,
}

/// How far a verification is. One that is begun again from here reports nothing twice, but what lay in the batches that
/// were being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Streams below are done; `None` where all are.
    pub streams_from: Option<Uuid>,
    /// Entries that were checked.
    pub entries: u64,
    /// Payments that were checked.
    pub payments: u64,
    /// Mismatches that were found.
    pub mismatches: u64,
    /// Whether the streams were begun at all.
    pub begun: bool,
}

/// What a verification tells while it runs.
#[derive(Debug, Clone)]
pub enum VerifyEvent {
    /// How far it is: at the beginning and the end of each stage, and once a second.
    Progress {
        /// In which stage.
        stage: Stage,
        /// How many entries or payments of it are done.
        checked: u64,
        /// How many it has, about: more come while it runs.
        total: u64,
        /// From where it can be begun again.
        at: VerifyProgress,
    },
    /// Something is wrong.
    Mismatch(Box<Mismatch>),
}

/// What a complete verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifySummary {
    /// Entries that were checked.
    pub entries: u64,
    /// Payments that were checked.
    pub payments: u64,
    /// What was wrong; 0 says that the log is intact.
    pub mismatches: u64,
    /// The largest checkpoint that is of the tree over the entries.
    pub checkpoint: Option<CheckpointRow>,
}

/// Why a verification did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// Another one runs: it reads everything, so one is enough.
    #[error("the log is being verified already")]
    Busy,
    /// The database failed, or nobody listened any more, or took what was told.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where events go. Whoever listens no longer, or does not take them, ends the verification.
#[derive(Clone)]
struct Events {
    sender: mpsc::Sender<VerifyEvent>,
    patience: Duration,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    entries: AtomicU64,
    payments: AtomicU64,
    mismatches: AtomicU64,
}

impl Events {
    async fn found(&self, found: Vec<Mismatch>) -> Result<(), StoreError> {
        for mismatch in found {
            self.counts.mismatches.fetch_add(1, Ordering::Relaxed);
            let event = VerifyEvent::Mismatch(Box::new(mismatch));
            self.send(event).await?;
        }
        Ok(())
    }

    async fn send(&self, event: VerifyEvent) -> Result<(), StoreError> {
        let sent = self.sender.send_timeout(event, self.patience).await;
        sent.map_err(|_| StoreError::Unavailable)
    }

    async fn progress(
        &self,
        stage: Stage,
        (checked, total): (u64, u64),
        segments: &Segments,
    ) -> Result<(), StoreError> {
        let at = VerifyProgress {
            streams_from: segments.done_below(),
            entries: self.counts.entries.load(Ordering::Relaxed),
            payments: self.counts.payments.load(Ordering::Relaxed),
            mismatches: self.counts.mismatches.load(Ordering::Relaxed),
            begun: true,
        };
        let event = VerifyEvent::Progress {
            stage,
            checked,
            total: total.max(checked),
            at,
        };
        self.send(event).await
    }
}

impl MacKeys for KeyRing {
    fn mac_key(&self, id: &str) -> Option<&MacKey> {
        self.journal_key_by_id(id)
    }
}

impl PgStore {
    /// Verifies the log and all that hangs on it, and tells what it finds. Changes nothing. Ends early where nobody
    /// listens to `events` any more or takes none for as long as it has patience, or the database stays away.
    ///
    /// # Errors
    /// `Busy` where another runs, on whatever server. `Unavailable`: it was not completed, and can be begun again from
    /// the last progress.
    pub async fn verify_log(
        &self,
        settings: VerifySettings,
        events: mpsc::Sender<VerifyEvent>,
    ) -> Result<VerifySummary, VerifyError> {
        let counts = Arc::new(Counts {
            entries: settings.resume.entries.into(),
            payments: settings.resume.payments.into(),
            mismatches: settings.resume.mismatches.into(),
        });
        let events = Events {
            sender: events,
            patience: settings.patience,
            counts: Arc::clone(&counts),
        };
        let mut connection = Verifying::connect(self).await?;
        if !connection.claim().await? {
            return Err(VerifyError::Busy);
        }
        let verified = self
            .verify_claimed(&mut connection, &settings, &events)
            .await;
        // Whoever asks next finds it free, not busy until the database has seen that this connection is closed.
        connection.release().await;
        let checkpoint = verified?;
        Ok(VerifySummary {
            entries: counts.entries.load(Ordering::Relaxed),
            payments: counts.payments.load(Ordering::Relaxed),
            mismatches: counts.mismatches.load(Ordering::Relaxed),
            checkpoint,
        })
    }

    async fn verify_claimed(
        &self,
        connection: &mut Verifying,
        settings: &VerifySettings,
        events: &Events,
    ) -> Result<Option<CheckpointRow>, StoreError> {
        let total = connection.entries().await?;
        let segments = connection.segments(settings.resume, total).await?;
        let segments = Arc::new(segments);
        self.verify_streams(settings, &segments, total, events)
            .await?;
        api_keys::verify(connection, events).await?;
        erasures::verify(connection, events).await?;
        claims::verify_actions(connection, events).await?;
        claims::key_records::verify(connection, events).await?;
        claims::attempts::verify(connection, events).await?;
        positions::verify(connection, &segments, settings, events).await
    }

    /// Leaves, chains and payments, in one reading.
    async fn verify_streams(
        &self,
        settings: &VerifySettings,
        segments: &Arc<Segments>,
        total: u64,
        events: &Events,
    ) -> Result<(), StoreError> {
        let counts = &events.counts;
        let checked = || counts.entries.load(Ordering::Relaxed);
        events
            .progress(Stage::Leaves, (checked(), total), segments)
            .await?;
        let mut lanes = JoinSet::new();
        for number in 0..settings.lanes.clamp(1, MAX_VERIFY_LANES) {
            let lane = lane::Lane {
                number,
                store: self.clone(),
                segments: Arc::clone(segments),
                events: events.clone(),
            };
            lanes.spawn(lane.run());
        }
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        tick.reset();
        loop {
            tokio::select! {
                ended = lanes.join_next() => match ended {
                    Some(Ok(result)) => result?,
                    Some(Err(_)) => return Err(StoreError::Unavailable),
                    None => break,
                },
                _ = tick.tick() => {
                    events.progress(Stage::Leaves, (checked(), total), segments).await?;
                }
            }
        }
        let payments = counts.payments.load(Ordering::Relaxed);
        for (stage, done) in [
            (Stage::Leaves, checked()),
            (Stage::Chains, checked()),
            (Stage::Payments, payments),
        ] {
            events.progress(stage, (done, done), segments).await?;
        }
        Ok(())
    }
}
