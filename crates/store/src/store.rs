//! The store itself: what holds the parts together, and the write path's entrance.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use quittance_domain::change::{Change, JournalEntry};
use quittance_domain::ports::{Commit, StoreError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::acceptances::Acceptances;
use crate::clock::{DatabaseClock, Sampler};
use crate::committer::{Committer, Job, Limits, Signals, Ticket};
use crate::config::{StoreConfig, StoreStartError};
use crate::connection::{Connector, Use};
use crate::customers::Customers;
use crate::keys::KeyRing;
use crate::observer::StoreObserver;
use crate::pool::Reader;
use crate::positions::Positions;
use crate::prepare::{change_rows, entry_rows};
use crate::rows::{ChangeRows, PaymentWrite};
use crate::tree::Shared;

/// The summary of a commit, for spans and metrics.
const COMMIT_PAYMENT: &str = "commit payment";
/// The summary of a journal entry that comes alone.
const APPEND_ENTRY: &str = "append journal";

/// The store on PostgreSQL. Cheap to clone.
#[derive(Clone)]
pub struct PgStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) connector: Connector,
    pub(crate) reader: Reader,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) customers: Customers,
    pub(crate) observer: Arc<dyn StoreObserver>,
    pub(crate) positions: Positions,
    pub(crate) committed: Arc<Notify>,
    pub(crate) sampler: Sampler,
    pub(crate) tree: Shared,
    pub(crate) acceptances: Acceptances,
    unavailable_after: Duration,
    committers: Vec<mpsc::Sender<Job>>,
    pub(crate) stop: watch::Sender<bool>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for PgStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgStore").finish_non_exhaustive()
    }
}

impl PgStore {
    /// Connects, reads the database's clock, and starts the committers. The database must be there and
    /// migrated.
    pub async fn connect(
        config: StoreConfig,
        observer: Arc<dyn StoreObserver>,
    ) -> Result<Self, StoreStartError> {
        config.check()?;
        let connector = Connector::new(&config)?;
        connector.check_role().await?;
        let reader = Reader::new(
            &connector,
            config.pool_size,
            config.unavailable_after,
            Arc::clone(&observer),
        );
        let ages = config.key_ages();
        let keys = Arc::new(config.keys);
        let limits = Limits {
            unavailable_after: config.unavailable_after,
            resolution: config.commit_resolution_timeout,
        };
        let sampler = Sampler::start(&connector).await?;
        let (stop, stopped) = watch::channel(false);
        let tree = Shared::default();
        let signals = Signals::new(&tree.own, sampler.reconnected(), stopped);
        let (mut committers, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..config.committers {
            let connection = connector.connect(Use::Commit).await;
            let connection =
                connection.map_err(|error| StoreStartError::Connect(error.to_string()))?;
            let (sender, queue) = mpsc::channel(config.queue_len);
            let committer = Committer::new(
                queue,
                connector.clone(),
                limits,
                Arc::clone(&observer),
                signals.clone(),
            );
            committers.push(sender);
            tasks.push(tokio::spawn(committer.run(connection)));
        }
        let customers = Customers::new(reader.clone(), Arc::clone(&keys), ages);
        let inner = Inner {
            connector,
            positions: Positions::new(reader.clone()),
            reader,
            keys,
            customers,
            observer,
            committed: signals.committed,
            sampler,
            tree,
            acceptances: Acceptances::default(),
            unavailable_after: limits.unavailable_after,
            committers,
            stop,
            tasks: parking_lot::Mutex::new(tasks),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The keys, for what else is derived from them.
    pub fn keys(&self) -> &KeyRing {
        &self.inner.keys
    }

    /// The database's clock, as this process reckons it.
    pub fn clock(&self) -> DatabaseClock {
        self.inner.sampler.clock()
    }

    /// Whether the database answers and the committers run; within `unavailable_after`.
    pub async fn ping(&self) -> Result<(), StoreError> {
        if self.inner.committers.iter().any(mpsc::Sender::is_closed) {
            return Err(StoreError::Unavailable);
        }
        let ping = self.inner.reader.read("ping", |connection| {
            use diesel_async::SimpleAsyncConnection as _;
            async move { connection.batch_execute("select 1").await }.boxed()
        });
        ping.await
    }

    /// Takes no more changes, writes those that wait, and ends the committers and the sequencer.
    /// Ends within `limit`; what is not written by then answers its caller as it stands.
    pub async fn shutdown(&self, limit: Duration) {
        self.inner.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        let deadline = Instant::now() + limit;
        for mut task in tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
    }

    pub(crate) fn keep_task(&self, task: JoinHandle<()>) {
        self.inner.tasks.lock().push(task);
    }

    pub(crate) async fn commit_change(&self, change: Change) -> Result<Commit, StoreError> {
        let (payment, entry) = (change.payment.id.0, change.entry.id.0);
        let span = tracing::info_span!(
            "commit payment",
            otel.kind = "client",
            db.system.name = "postgresql",
            db.operation.name = "WITH",
            db.query.summary = COMMIT_PAYMENT,
            payment.id = %payment,
            audit.entry_id = %entry,
        );
        let committing = async {
            let since = Instant::now();
            let deadline = since + self.inner.unavailable_after;
            let acceptance = Acceptances::of(&change);
            // Of one piece with the wait for the commit: the caller is answered in time.
            let rows = tokio::time::timeout_at(deadline, self.rows(change)).await;
            let Some(rows) = rows.unwrap_or(Err(StoreError::Unavailable))? else {
                return Ok(Commit::VersionConflict);
            };
            let result = self.write(rows, since, COMMIT_PAYMENT).await;
            if result == Ok(Commit::Committed) {
                if let Some((key, accepted)) = acceptance {
                    self.inner.acceptances.remember(key, accepted);
                }
                tracing::info!(
                    payment.id = %payment,
                    audit.entry_id = %entry,
                    "payment.audit.recorded"
                );
            }
            result
        };
        committing.instrument(span).await
    }

    pub(crate) async fn append_entry(&self, entry: JournalEntry) -> Result<Commit, StoreError> {
        let span = tracing::info_span!(
            "append journal",
            otel.kind = "client",
            db.system.name = "postgresql",
            db.operation.name = "WITH",
            db.query.summary = APPEND_ENTRY,
            audit.entry_id = %entry.id,
        );
        let appending = async {
            let rows = entry_rows(entry, &self.inner.keys)?;
            self.write(rows, Instant::now(), APPEND_ENTRY).await
        };
        appending.instrument(span).await
    }

    /// Encrypts and lays out a change, on the caller's task: committers only move rows. `None` where it was decided upon what
    /// is not so any more: the customer was erased since the payment was read, however long ago that was. Nothing personal
    /// is stored then, under whatever key; whoever reads the payment again sees that its customer is erased.
    async fn rows(&self, change: Change) -> Result<Option<ChangeRows>, StoreError> {
        let (payment, customers) = (&change.payment, &self.inner.customers);
        if payment.customer_erased {
            return change_rows(change, &self.inner.keys, None).map(Some);
        }
        let reference = match &change.customer {
            Some(data) => Some(&data.reference),
            None => payment.customer_reference.as_ref(),
        };
        let customer = match reference {
            Some(reference) if payment.version == 1 => {
                let (tenant, reference) = (payment.tenant.as_str(), reference.expose());
                let key = customers.key_for_new(tenant, reference, payment.id.0);
                Some(key.await?)
            }
            Some(_) => match customers.key_of(payment.id.0).await? {
                Some(key) => Some(key),
                None => return Ok(None),
            },
            None => None,
        };
        change_rows(change, &self.inner.keys, customer.as_ref()).map(Some)
    }

    /// Hands a change to its committer, and waits for the answer until `unavailable_after` has passed
    /// since the call began. What was not given to the database by then never is; of what was, the
    /// committer goes on finding out.
    async fn write(
        &self,
        rows: ChangeRows,
        since: Instant,
        summary: &'static str,
    ) -> Result<Commit, StoreError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.committer_of(&rows).ok_or(StoreError::Unavailable)?;
        let ticket = Arc::new(Ticket::default());
        let job = Job {
            rows,
            reply,
            since,
            ticket: Arc::clone(&ticket),
        };
        let result = match queue.try_send(job) {
            Ok(()) => {
                match tokio::time::timeout_at(since + self.inner.unavailable_after, answer).await {
                    Ok(Ok(result)) => result,
                    // Time is up, or the committer died.
                    Ok(Err(_)) | Err(_) if ticket.withdraw() => Err(StoreError::Unavailable),
                    Ok(Err(_)) | Err(_) => Err(StoreError::CommitUnknown),
                }
            }
            Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(StoreError::Unavailable),
        };
        self.inner
            .observer
            .operation(summary, since.elapsed().as_secs_f64(), result.is_ok());
        result
    }

    /// New payments go by their idempotency key, everything else by its stream: what excludes each
    /// other meets in one committer, and does not wait for locks.
    fn committer_of(&self, rows: &ChangeRows) -> Option<&mpsc::Sender<Job>> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        match (&rows.payment, &rows.key) {
            (Some(PaymentWrite::Insert(_)), Some(key)) => {
                (key.tenant_id.as_str(), key.idempotency_key.as_str()).hash(&mut hasher);
            }
            _ => Uuid::hash(&rows.entry.stream_id, &mut hasher),
        }
        let count = u64::try_from(self.inner.committers.len()).ok()?;
        let index = usize::try_from(hasher.finish().checked_rem(count)?).ok()?;
        self.inner.committers.get(index)
    }
}
