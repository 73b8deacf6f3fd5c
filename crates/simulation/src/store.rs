//! The simulated database: guarded by version and key as the real one, it loses connections before, during and
//! after a commit, and what it was given may be written after the caller was told that this is not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use futures::channel::oneshot;
use futures::future::{Either, select};
use parking_lot::Mutex;
use quittance_domain::change::{Change, IdempotencyRecord, JournalEntry};
use quittance_domain::decline::Cause;
use quittance_domain::ids::{
    EntryId, EventId, IdempotencyKey, PaymentId, ProviderAccount, TenantId, TransactionId,
};
use quittance_domain::payment::{PaymentRecord, PaymentState};
use quittance_domain::ports::{
    Backlog, CaseFilter, Claim, Commit, Due, DueKind, EntryFilter, FailureReport, InDoubt, Named,
    PaymentFilter, PaymentPage, SentThrough, Store, StoreError, StoredCase, StoredEntry,
};
use quittance_domain::text::Sensitive;
use quittance_domain::transaction::{
    Attempt, AttemptOutcome, OperationKind, TransactionOrigin, TransactionState,
};

use quittance_evidence::{Hash, Leaf};

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
    /// The attempts that are committed.
    pub attempts: BTreeMap<(TransactionId, u32), Attempt>,
    /// The cases that were opened, oldest first, with the entry that closed them.
    pub cases: Vec<StoredCase>,
    claims: BTreeMap<TransactionId, DateTime<Utc>>,
    /// The provider's tokens, as payments brought them.
    tokens: BTreeMap<PaymentId, Sensitive<String>>,
    /// Every change that the database was given, in order, with its answer; kept where it is asked for.
    offers: Option<Vec<(Change, Result<Commit, StoreError>)>>,
}

impl Tables {
    /// Writes a change, and keeps what was answered.
    fn offer(&mut self, change: &Change) -> Result<Commit, StoreError> {
        let answer = self.write(change);
        if let Some(offers) = &mut self.offers {
            offers.push((change.clone(), answer.clone()));
        }
        answer
    }

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
        if let (None, Some(token)) = (before, &payment.method.token) {
            self.tokens.insert(payment.id, token.clone());
        }
        if payment.state != PaymentState::Pending {
            self.tokens.remove(&payment.id);
        }
        self.payments.insert(payment.id, record);
        self.keys.extend(key.zip(change.idempotency.clone()));
        self.journal.insert(place, change.entry.clone());
        if let Some(attempt) = &change.attempt {
            let row = attempt.row();
            self.attempts
                .insert((row.transaction, row.number), row.clone());
        }
        self.write_cases(change);
        for write in &change.transactions {
            self.claims.remove(&write.row().id);
        }
        Ok(Commit::Committed)
    }

    fn write_cases(&mut self, change: &Change) {
        let closed = (change.entry.occurred_at, change.entry.id);
        let open = self.cases.iter_mut().filter(|case| {
            let mut decided = change.closes_cases.iter();
            let meant =
                decided.any(|it| (it.transaction, it.kind) == (case.transaction, case.kind));
            meant && case.closed.is_none()
        });
        open.for_each(|case| case.closed = Some(closed));
        self.cases
            .extend(change.operator_action.map(|action| StoredCase {
                id: change.entry.id,
                tenant: change.payment.tenant.clone(),
                payment: change.payment.id,
                transaction: action.transaction,
                kind: action.kind,
                opened_at: change.entry.occurred_at,
                closed: None,
            }));
    }

    /// The transactions whose next step is due, those due longest first.
    fn due(&self, kind: DueKind, now: DateTime<Utc>) -> Vec<(DateTime<Utc>, Due)> {
        let rows = self.payments.values().flat_map(|record| {
            let rows = record.transactions.iter();
            rows.map(move |row| (&record.payment, row))
        });
        let due = rows.filter_map(|(payment, row)| {
            let at = row.next_step_at.filter(|at| *at <= now)?;
            let included = kind.includes(payment, row, now);
            let due = Due {
                tenant: payment.tenant.clone(),
                payment: payment.id,
                transaction: row.id,
                provider_account: row.provider_account.clone(),
            };
            included.then_some((at, due))
        });
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(at, due)| (*at, due.transaction));
        due
    }

    fn claim(&mut self, claim: &Claim, now: DateTime<Utc>) -> Vec<Due> {
        let until = now + TimeDelta::from_std(claim.lease).unwrap_or_default();
        let free = self.due(claim.kind, now).into_iter().filter(|(_, due)| {
            let claimed = self.claims.get(&due.transaction);
            claimed.is_none_or(|until| *until <= now)
                && claim.accounts.include(&due.provider_account)
        });
        let claimed: Vec<_> = free.map(|(_, due)| due).take(claim.limit).collect();
        for due in &claimed {
            self.claims.insert(due.transaction, until);
        }
        claimed
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

    /// Keeps every change from now on, so that the same can be given to another store.
    pub fn keep_offers(&self) {
        self.tables.lock().offers = Some(Vec::new());
    }

    /// The changes that were kept, with their answers.
    pub fn offers(&self) -> Vec<(Change, Result<Commit, StoreError>)> {
        self.tables.lock().offers.clone().unwrap_or_default()
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
            let result = backend.tables.lock().offer(&change);
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
        let before = place
            .1
            .checked_sub(1)
            .and_then(|number| tables.journal.get(&(place.0, number)));
        let said = Leaf::decode(entry.leaf.as_bytes())
            .ok()
            .and_then(|leaf| leaf.prev_leaf_hash);
        let follows = before.map(|before| Hash::from_bytes(before.leaf_hash)) == said;
        if !follows && (place.1 > 1 || said.is_some()) {
            return Ok(Commit::VersionConflict);
        }
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
                .map(|mut record| {
                    record.payment.method.token = None;
                    record
                })
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

    async fn claim_due(&self, claim: &Claim) -> Result<Vec<Due>, StoreError> {
        self.executor.wait_up_to(Duration::from_millis(5)).await;
        if self.executor.chance(self.chaos().unavailable) {
            return Err(StoreError::Unavailable);
        }
        let claimed = self.tables.lock().claim(claim, self.executor.now());
        // What is claimed stays claimed, though the caller may not hear of it.
        if self.executor.chance(self.chaos().lost) {
            return Err(StoreError::CommitUnknown);
        }
        Ok(claimed)
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let now = self.executor.now();
        self.read(|tables| {
            let rows = tables
                .payments
                .values()
                .flat_map(|record| &record.transactions);
            let pending = rows.filter(|row| {
                row.state == TransactionState::Pending && row.origin != TransactionOrigin::Provider
            });
            let ages = pending.map(|row| (now - row.created_at).as_seconds_f64());
            let ages: Vec<_> = ages.collect();
            let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
            let open = tables.cases.iter().filter(|case| case.closed.is_none());
            Backlog {
                due: count(tables.due(DueKind::Any, now).len()),
                pending: count(ages.len()),
                oldest_pending_seconds: ages.into_iter().fold(0.0, f64::max),
                open_cases: count(open.count()),
            }
        })
        .await
    }

    async fn attempt(
        &self,
        _payment: PaymentId,
        transaction: TransactionId,
        number: u32,
    ) -> Result<Option<Attempt>, StoreError> {
        self.read(|tables| tables.attempts.get(&(transaction, number)).cloned())
            .await
    }

    async fn attempts_in_doubt(
        &self,
        _payment: PaymentId,
        transaction: TransactionId,
        operation: OperationKind,
    ) -> Result<InDoubt, StoreError> {
        self.read(|tables| {
            let of = (transaction, 0)..=(transaction, u32::MAX);
            let attempts = tables.attempts.range(of).map(|(_, attempt)| attempt);
            let attempts = attempts.filter(|attempt| attempt.operation == operation);
            let outcome = |attempt: &Attempt| attempt.ended.as_ref().map(|end| end.outcome);
            let doubtful = attempts.filter(|it| outcome(it) != Some(AttemptOutcome::NotSent));
            let doubtful: Vec<_> = doubtful.collect();
            let begun = doubtful.iter().filter(|attempt| {
                let mut end = attempt.ended.iter();
                end.any(|end| end.cause != Some(Cause::SenderLost))
            });
            let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
            InDoubt {
                sends: count(doubtful.len()),
                begun: count(begun.count()),
            }
        })
        .await
    }

    async fn sent_through(
        &self,
        payment: PaymentId,
        transaction: Option<TransactionId>,
        account: &ProviderAccount,
    ) -> Result<SentThrough, StoreError> {
        self.read(|tables| match tables.payments.get(&payment) {
            None => SentThrough::UnknownPayment,
            Some(record) => {
                let opening = || record.opening().map(|opening| opening.id);
                let Some(transaction) = transaction.or_else(opening) else {
                    return SentThrough::No;
                };
                let mut attempts = tables.attempts.values();
                let through = attempts.any(|attempt| {
                    attempt.transaction == transaction && attempt.provider_account == *account
                });
                match record.transaction(transaction).filter(|_| through) {
                    Some(_) => SentThrough::Yes(record.payment.tenant.clone()),
                    None => SentThrough::No,
                }
            }
        })
        .await
    }

    /// Nothing is stored of webhooks here: each is told to whoever hears it.
    async fn payment_of_event(
        &self,
        _account: &ProviderAccount,
        _event: &EventId,
    ) -> Result<Named, StoreError> {
        self.read(|_| Named::NotFound).await
    }

    async fn method_token(
        &self,
        payment: PaymentId,
    ) -> Result<Option<Sensitive<String>>, StoreError> {
        self.read(|tables| tables.tokens.get(&payment).cloned())
            .await
    }

    async fn list_cases(
        &self,
        tenant: Option<&TenantId>,
        filter: &CaseFilter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<StoredCase>, StoreError> {
        self.read(|tables| {
            let mut cases: Vec<_> = tables
                .cases
                .iter()
                .filter(|case| {
                    tenant.is_none_or(|tenant| case.tenant == *tenant)
                        && (filter.closed || case.closed.is_none())
                        && filter.payment.is_none_or(|payment| case.payment == payment)
                        && filter.kind.is_none_or(|kind| case.kind == kind)
                        && after.is_none_or(|after| case.id > after)
                })
                .cloned()
                .collect();
            cases.sort_by_key(|case| case.id);
            cases.truncate(limit);
            cases
        })
        .await
    }

    async fn summarize_failures(
        &self,
        _tenant: Option<&TenantId>,
        from: DateTime<Utc>,
        _to: DateTime<Utc>,
        _limit: usize,
    ) -> Result<FailureReport, StoreError> {
        Ok(FailureReport {
            summaries: Vec::new(),
            from,
            entries: 0,
            refused: 0,
        })
    }
}
