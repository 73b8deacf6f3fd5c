//! The simulated database: guarded by version and key as the real one, it loses connections before, during and
//! after a commit, and what it was given may be written after the caller was told that this is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::channel::oneshot;
use futures::future::{Either, select};
use parking_lot::Mutex;
use quittance_domain::change::{Change, IdempotencyRecord, JournalEntry};
use quittance_domain::ids::{EntryId, IdempotencyKey, PaymentId, TenantId};
use quittance_domain::payment::PaymentRecord;
use quittance_domain::ports::{
    Commit, EntryFilter, FailureSummary, PaymentFilter, PaymentPage, Store, StoreError, StoredEntry,
};

use crate::executor::{Executor, WORLD};

/// Longest time that the database takes over a commit that works.
const COMMIT_TIME: Duration = Duration::from_millis(20);
/// How long a caller waits for a commit before it calls it unknown.
const RESOLUTION: Duration = Duration::from_secs(5);

/// How often, in a thousand, something fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreChaos {
    /// The database is out of reach: nothing is written.
    pub unavailable: u32,
    /// The connection is lost, and the change is not written.
    pub lost: u32,
    /// The connection is lost, and the change is written, at once or seconds later.
    pub written_unheard: u32,
}

/// What is committed.
#[derive(Default)]
pub struct Tables {
    /// Payments with their transactions.
    pub payments: BTreeMap<PaymentId, PaymentRecord>,
    /// Idempotency records by tenant and key.
    pub keys: BTreeMap<(TenantId, IdempotencyKey), IdempotencyRecord>,
    /// The journal, by stream and number.
    pub journal: BTreeMap<(uuid::Uuid, u64), JournalEntry>,
    /// Which attempts are committed.
    pub attempts: BTreeSet<(quittance_domain::ids::TransactionId, u32)>,
}

impl Tables {
    /// Writes a change, as the one statement of the real store does.
    fn write(&mut self, change: &Change) -> Result<Commit, StoreError> {
        let payment = &change.payment;
        let place = (payment.id.0, payment.version);
        if let Some(entry) = self.journal.get(&place) {
            let own = entry.id == change.entry.id;
            return Ok(if own {
                Commit::Committed
            } else {
                self.conflict(change)
            });
        }
        let key = change
            .idempotency
            .as_ref()
            .map(|known| (known.tenant.clone(), known.key.clone()));
        let before = self.payments.get(&payment.id);
        let version = before.map_or(0, |record| record.payment.version);
        let taken = key.as_ref().is_some_and(|key| self.keys.contains_key(key));
        if taken && before.is_none() {
            return Ok(Commit::IdempotencyKeyTaken);
        }
        if version + 1 != payment.version {
            return Ok(Commit::VersionConflict);
        }
        if taken {
            return Ok(Commit::IdempotencyKeyTaken);
        }
        if !payment.amounts.holds_limits() {
            return Err(StoreError::Refused("payments_limits".to_owned()));
        }
        let record = change.apply_to(before.cloned());
        self.payments.insert(payment.id, record);
        self.keys.extend(key.zip(change.idempotency.clone()));
        self.journal.insert(place, change.entry.clone());
        if let Some(attempt) = &change.attempt {
            self.attempts
                .insert((attempt.row().transaction, attempt.row().number));
        }
        Ok(Commit::Committed)
    }

    fn conflict(&self, change: &Change) -> Commit {
        let taken = change.idempotency.as_ref().is_some_and(|known| {
            change.payment.version == 1
                && self
                    .keys
                    .contains_key(&(known.tenant.clone(), known.key.clone()))
        });
        if taken {
            Commit::IdempotencyKeyTaken
        } else {
            Commit::VersionConflict
        }
    }
}

/// The simulated database. Cheap to clone: replicas share it.
#[derive(Clone)]
pub struct SimStore {
    executor: Executor,
    tables: Arc<Mutex<Tables>>,
    chaos: Arc<Mutex<StoreChaos>>,
}

impl SimStore {
    /// An empty database.
    pub fn new(executor: Executor) -> Self {
        Self {
            executor,
            tables: Arc::default(),
            chaos: Arc::default(),
        }
    }

    /// Sets how often things fail from now on.
    pub fn set_chaos(&self, chaos: StoreChaos) {
        *self.chaos.lock() = chaos;
    }

    /// Looks at what is committed.
    pub fn look<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.tables.lock())
    }

    fn chaos(&self) -> StoreChaos {
        *self.chaos.lock()
    }

    /// A round trip of a read.
    async fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        self.executor.wait_up_to(Duration::from_millis(5)).await;
        if self.executor.chance(self.chaos().unavailable) {
            return Err(StoreError::Unavailable);
        }
        let found = read(&self.tables.lock());
        self.executor.wait_up_to(Duration::from_millis(5)).await;
        Ok(found)
    }
}

#[async_trait]
impl Store for SimStore {
    async fn commit(&self, change: Change) -> Result<Commit, StoreError> {
        let chaos = self.chaos();
        let fate = self.executor.pick(0..1_000);
        if fate < chaos.unavailable {
            self.executor.wait_up_to(COMMIT_TIME).await;
            return Err(StoreError::Unavailable);
        }
        if fate < chaos.unavailable + chaos.lost {
            self.executor.wait_up_to(RESOLUTION).await;
            return Err(StoreError::CommitUnknown);
        }
        let unheard = fate < chaos.unavailable + chaos.lost + chaos.written_unheard;
        // The database goes on with what it was given, whatever becomes of the caller.
        let (tell, told) = oneshot::channel();
        let backend = self.clone();
        self.executor.spawn(WORLD, async move {
            let takes = if unheard { RESOLUTION * 2 } else { COMMIT_TIME };
            backend.executor.wait_up_to(takes).await;
            let result = backend.tables.lock().write(&change);
            backend.executor.wait_up_to(COMMIT_TIME).await;
            // The caller may have crashed.
            let _ = tell.send(result);
        });
        if unheard {
            self.executor.wait_up_to(RESOLUTION).await;
            return Err(StoreError::CommitUnknown);
        }
        match select(told, Box::pin(self.executor.wait(RESOLUTION))).await {
            Either::Left((Ok(result), _)) => result,
            Either::Left((Err(_), _)) | Either::Right(_) => Err(StoreError::CommitUnknown),
        }
    }

    async fn append(&self, entry: JournalEntry) -> Result<Commit, StoreError> {
        let place = (entry.stream, entry.entity_seq);
        self.executor.wait_up_to(COMMIT_TIME).await;
        let mut tables = self.tables.lock();
        let held = tables.journal.entry(place).or_insert_with(|| entry.clone());
        Ok(if held.id == entry.id {
            Commit::Committed
        } else {
            Commit::VersionConflict
        })
    }

    async fn payment(
        &self,
        tenant: &TenantId,
        id: PaymentId,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        self.read(|tables| {
            tables
                .payments
                .get(&id)
                .filter(|record| record.payment.tenant == *tenant)
                .cloned()
        })
        .await
    }

    async fn idempotency_record(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.read(|tables| tables.keys.get(&(tenant.clone(), key.clone())).cloned())
            .await
    }

    async fn list_payments(
        &self,
        tenant: &TenantId,
        _filter: &PaymentFilter,
        after: Option<PaymentId>,
        limit: usize,
    ) -> Result<PaymentPage, StoreError> {
        self.read(|tables| {
            let all = tables.payments.iter().rev().filter(|(id, record)| {
                record.payment.tenant == *tenant && after.is_none_or(|after| **id < after)
            });
            let payments = all.take(limit).map(|(_, record)| record.clone()).collect();
            PaymentPage {
                payments,
                ended_early: false,
            }
        })
        .await
    }

    async fn list_entries(
        &self,
        _tenant: Option<&TenantId>,
        _filter: &EntryFilter,
        _after: Option<EntryId>,
        _limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        Ok(Vec::new())
    }

    async fn entry(
        &self,
        _tenant: Option<&TenantId>,
        _id: EntryId,
    ) -> Result<Option<StoredEntry>, StoreError> {
        Ok(None)
    }

    async fn entries_from(
        &self,
        _tenant: Option<&TenantId>,
        _position: u64,
        _limit: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        Ok(Vec::new())
    }

    async fn next_position(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn wait_for_position(&self, _position: u64, limit: Duration) {
        self.executor.wait(limit).await;
    }

    async fn summarize_failures(
        &self,
        _tenant: Option<&TenantId>,
        _from: DateTime<Utc>,
        _to: DateTime<Utc>,
        _limit: usize,
    ) -> Result<Vec<FailureSummary>, StoreError> {
        Ok(Vec::new())
    }
}
