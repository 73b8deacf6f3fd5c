//! Streams of the journal, by position: what `WatchPayments` and `TailEntries` have in common.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use quittance_domain::error::FlowError;
use quittance_domain::ids::TenantId;
use quittance_domain::ports::{Store, StoredEntry};
use quittance_proto::v1::ErrorReason;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::status::{Failure, shutting_down};
use crate::auth::{Authenticated, Authenticator};
use crate::layers::Refusal;

/// Entries read at once. An entry has at most 64 KiB, so that a stream holds at most 8 MiB, and commonly 200 KiB.
const BATCH: usize = 128;
/// Longest wait for something new before the database is asked anyway.
const IDLE_WAIT: Duration = Duration::from_secs(15);
/// Pause after a wake-up that brought nothing: many streams of quiet tenants would otherwise ask the database with each
/// commit of a busy one.
const QUIET_PAUSE: Duration = Duration::from_millis(25);

/// Counts the open streams of each tenant.
#[derive(Debug, Clone)]
pub(super) struct StreamLimit {
    max: usize,
    open: Arc<Mutex<HashMap<TenantId, usize>>>,
}

/// The right to one open stream; given back when dropped.
#[derive(Debug)]
pub(super) struct StreamPermit {
    tenant: TenantId,
    open: Arc<Mutex<HashMap<TenantId, usize>>>,
}

impl StreamLimit {
    /// At most `max` streams of each tenant.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            open: Arc::default(),
        }
    }

    /// Opens a stream, unless the tenant has too many.
    pub(super) fn open(&self, tenant: &TenantId) -> Result<StreamPermit, Failure> {
        let mut open = self.open.lock();
        let count = open.entry(tenant.clone()).or_default();
        if *count >= self.max {
            let message = format!("the tenant has {count} streams open, as many as it may");
            return Err(Failure::new(ErrorReason::TooManyStreams, message));
        }
        *count += 1;
        Ok(StreamPermit {
            tenant: tenant.clone(),
            open: Arc::clone(&self.open),
        })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}

/// How far a feed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// To the newest entry at the time of its opening.
    Newest,
    /// It stays open.
    Closed,
}

/// Looks again and again at the key of a stream's caller: it may be revoked while the stream is open.
pub(super) struct Guard {
    authenticator: Arc<Authenticator>,
    caller: Authenticated,
    every: Duration,
    next: Instant,
}

impl Guard {
    /// Looks at the key of `caller`, who was let in just now, `every` so often.
    pub(super) fn new(
        authenticator: Arc<Authenticator>,
        caller: Authenticated,
        every: Duration,
    ) -> Self {
        Self {
            authenticator,
            caller,
            every,
            next: Instant::now() + every,
        }
    }

    /// Ends the stream if its caller would not be let in any more.
    pub(super) async fn check(&mut self) -> Result<(), Failure> {
        if Instant::now() < self.next {
            return Ok(());
        }
        let valid = self.authenticator.still_valid(&self.caller).await;
        valid.map_err(Refusal::from)?;
        self.next = Instant::now() + self.every;
        Ok(())
    }
}

/// What a feed reads.
pub(super) struct FeedSettings {
    /// For whom.
    pub guard: Guard,
    /// Of which tenant; `None` for all.
    pub tenant: Option<TenantId>,
    /// From this position on; `None`: from what comes next.
    pub position: Option<u64>,
    /// How far.
    pub until: Until,
    /// How long its caller listens.
    pub listens: Option<Duration>,
}

/// Entries in the order of their positions, each with its own.
pub(super) struct Feed {
    store: Arc<dyn Store>,
    tenant: Option<TenantId>,
    /// From where on entries are to be read.
    next: u64,
    /// Below where all are read, as far as the database said when they were: no more than when to look again.
    looked: u64,
    end: Option<u64>,
    batch: VecDeque<StoredEntry>,
    quiet: bool,
    guard: Guard,
    stop: CancellationToken,
    deadline: Option<Instant>,
    _permit: StreamPermit,
}

/// How long a caller still listens; `None` where it set no deadline.
pub(super) fn listens(deadline: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<Duration> {
    deadline.map(|deadline| (deadline - now).to_std().unwrap_or_default())
}

impl Feed {
    /// Opens a feed.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        settings: FeedSettings,
        stop: CancellationToken,
        permit: StreamPermit,
    ) -> Result<Self, Failure> {
        let newest = match (settings.position, settings.until) {
            (Some(_), Until::Closed) => None,
            (None, _) | (_, Until::Newest) => Some(store.next_position().await?),
        };
        let deadline = settings
            .listens
            .and_then(|wait| Instant::now().checked_add(wait));
        Ok(Self {
            store,
            tenant: settings.tenant,
            next: settings.position.or(newest).unwrap_or_default(),
            looked: 0,
            end: newest.filter(|_| settings.until == Until::Newest),
            batch: VecDeque::new(),
            quiet: false,
            guard: settings.guard,
            stop,
            deadline,
            _permit: permit,
        })
    }

    /// Where it goes on: before the first entry was asked for, where it starts.
    pub(super) const fn position(&self) -> u64 {
        self.next
    }

    /// The next entry with its position; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<(StoredEntry, u64)>, Failure> {
        loop {
            if self.stop.is_cancelled() {
                return Err(shutting_down());
            }
            self.guard.check().await?;
            if let Some(entry) = self.batch.pop_front() {
                let position = entry.position.ok_or_else(no_position)?;
                return Ok(Some((entry, position)));
            }
            if self
                .end
                .is_some_and(|end| self.next.max(self.looked) >= end)
            {
                return Ok(None);
            }
            if !self.read().await? {
                self.wait().await?;
            }
        }
    }

    /// Reads on; whether anything was there to be read.
    async fn read(&mut self) -> Result<bool, Failure> {
        // Asked first: whatever lies below it is committed, so that a read that comes after it misses none.
        let head = self.store.next_position().await?;
        // Where the database has lost its last moments, or somebody has set it back: no further, and no faster.
        self.end = self.end.map(|end| end.min(head));
        self.quiet |= self.next > head;
        if head == self.looked || self.next >= head {
            return Ok(false);
        }
        let tenant = self.tenant.as_ref();
        let mut entries = self.store.entries_from(tenant, self.next, BATCH).await?;
        // Behind the head there is nothing, whatever position somebody has put there.
        entries.retain(|entry| entry.position.is_some_and(|position| position < head));
        if let Some(last) = entries.last() {
            self.next = last.position.ok_or_else(no_position)? + 1;
        }
        // Only what was read is never read again: the head is under no MAC, and may be said to be where it is not.
        self.looked = if entries.len() < BATCH {
            head
        } else {
            self.next
        };
        self.quiet = entries.is_empty();
        self.batch = entries.into();
        Ok(true)
    }

    /// Waits for something new.
    async fn wait(&mut self) -> Result<(), Failure> {
        let pause = if self.quiet {
            QUIET_PAUSE
        } else {
            Duration::ZERO
        };
        let news = async {
            tokio::time::sleep(pause).await;
            let looked = self.next.max(self.looked);
            self.store.wait_for_position(looked, IDLE_WAIT).await;
        };
        let over = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(shutting_down()),
            () = over => Err(FlowError::DeadlineExceeded.into()),
            () = tokio::time::sleep_until(self.guard.next) => Ok(()),
            () = news => Ok(()),
        }
    }
}

fn no_position() -> Failure {
    Failure::defect("a sequenced entry has no position")
}
