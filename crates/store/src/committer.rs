//! Group commit: each committer writes what is waiting, all of it in one statement and one fsync.
//!
//! There is no lingering: an idle committer writes a single change at once, and while it does, the
//! next batch gathers. A batch holds at most one change per payment and per idempotency key, so that
//! its members cannot get into each other's way.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection as _};
use quittance_domain::ports::{Commit, StoreError};
use rand::Rng as _;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::batch::{BatchStatement, EntriesAt};
use crate::connection::{Connector, Use};
use crate::constraints::{self, Violation};
use crate::failure::{self, Failure};
use crate::observer::StoreObserver;
use crate::rows::{ChangeRows, PaymentWrite};

/// Most changes that one statement writes.
pub const MAX_BATCH: usize = 256;
/// Most changes that a committer keeps beside its queue, for the batch after the next.
const MAX_WAITING: usize = 2 * MAX_BATCH;
/// How often a batch is tried again on a connection that works, before its members are tried apart.
const MAX_TRANSIENT_RETRIES: u32 = 4;
/// Longest pause between two attempts to connect, or to write a batch again.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// Shortest such pause.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// How often waiting changes are looked through for those that have waited too long.
const EXPIRY_TICK: Duration = Duration::from_millis(50);

/// A change on its way to the database.
pub(crate) struct Job {
    pub(crate) rows: ChangeRows,
    pub(crate) reply: oneshot::Sender<Result<Commit, StoreError>>,
    pub(crate) since: Instant,
}

/// A job of a batch, and whether an execution of it ended without an answer.
struct Member {
    job: Job,
    doubtful: bool,
}

impl Member {
    fn rows(&self) -> &ChangeRows {
        &self.job.rows
    }

    /// The payment or the named stream.
    fn stream(&self) -> Uuid {
        self.job.rows.entry.stream_id
    }

    fn answer(self, result: Result<Commit, StoreError>) {
        // The caller may have gone away; the change does not depend on it.
        let _ = self.job.reply.send(result);
    }

    /// Gives up: honestly.
    fn give_up(self) {
        let error = if self.doubtful {
            StoreError::CommitUnknown
        } else {
            StoreError::Unavailable
        };
        self.answer(Err(error));
    }

    /// What it means that the database did not write it, though nothing failed.
    fn conflict(&self) -> Commit {
        match &self.job.rows.payment {
            Some(PaymentWrite::Insert(row)) if row.keyed => Commit::IdempotencyKeyTaken,
            Some(PaymentWrite::Insert(_) | PaymentWrite::Update(_)) | None => {
                Commit::VersionConflict
            }
        }
    }
}

/// Limits of a committer.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) unavailable_after: Duration,
    pub(crate) resolution: Duration,
}

/// What became of executing a batch.
enum Executed {
    /// The members' fates are known.
    Written(HashSet<Uuid>),
    /// Nothing was written, by a constraint or a value.
    Refused(String),
    /// Nothing was written; trying again may help.
    Transient,
    /// The connection is gone.
    Lost,
}

/// One committer: its queue, its connection, and what waits for the next batch.
pub(crate) struct Committer {
    queue: mpsc::Receiver<Job>,
    waiting: VecDeque<Job>,
    connector: Connector,
    limits: Limits,
    observer: Arc<dyn StoreObserver>,
    /// Told after each batch, so that the sequencer need not poll.
    committed: Arc<Notify>,
    stop: watch::Receiver<bool>,
}

impl Committer {
    pub(crate) fn new(
        queue: mpsc::Receiver<Job>,
        connector: Connector,
        limits: Limits,
        observer: Arc<dyn StoreObserver>,
        committed: Arc<Notify>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            queue,
            waiting: VecDeque::new(),
            connector,
            limits,
            observer,
            committed,
            stop,
        }
    }

    /// Runs until it is told to stop and its queue is empty.
    pub(crate) async fn run(mut self, first: AsyncPgConnection) {
        let mut connection = Some(first);
        while self.fill().await {
            let batch = self.take_batch();
            self.observer.batch(batch.len());
            self.commit(batch, &mut connection).await;
            self.committed.notify_one();
        }
    }

    /// Takes what is in the queue; waits only where nothing waits yet. False at the end.
    async fn fill(&mut self) -> bool {
        if self.waiting.is_empty() {
            let mut jobs = Vec::with_capacity(MAX_BATCH);
            loop {
                tokio::select! {
                    taken = self.queue.recv_many(&mut jobs, MAX_BATCH) => {
                        if taken == 0 {
                            return false;
                        }
                        break;
                    }
                    // What is in the queue by now is still written.
                    _ = self.stop.wait_for(|stop| *stop), if !self.queue.is_closed() => self.queue.close(),
                }
            }
            self.waiting.extend(jobs);
        } else {
            self.take_queued();
        }
        true
    }

    fn take_queued(&mut self) {
        while self.waiting.len() < MAX_WAITING {
            let Ok(job) = self.queue.try_recv() else {
                return;
            };
            self.waiting.push_back(job);
        }
    }

    /// The next batch: in order, one change per payment and per key; the others stay, in order.
    fn take_batch(&mut self) -> Vec<Member> {
        let mut streams = HashSet::new();
        let mut keys = HashSet::new();
        let mut batch = Vec::new();
        let mut later = VecDeque::new();
        for job in self.waiting.drain(..) {
            let key = job.rows.key.as_ref();
            let key = key.map(|key| (key.tenant_id.clone(), key.idempotency_key.clone()));
            // What stays keeps those behind it back, so that the order of one payment is kept.
            let free_stream = streams.insert(job.rows.entry.stream_id);
            let free_key = key.is_none_or(|key| keys.insert(key));
            if free_stream && free_key && batch.len() < MAX_BATCH {
                batch.push(Member {
                    job,
                    doubtful: false,
                });
            } else {
                later.push_back(job);
            }
        }
        self.waiting = later;
        batch
    }

    /// Commits a batch: in halves where it is refused, so that the guilty change fails alone.
    async fn commit(&mut self, batch: Vec<Member>, connection: &mut Option<AsyncPgConnection>) {
        let mut parts = VecDeque::from([batch]);
        while let Some(mut part) = parts.pop_front() {
            if let Some(reason) = self.commit_part(&mut part, connection).await {
                if part.len() > 1 {
                    let second = part.split_off(part.len() / 2);
                    parts.push_front(second);
                    parts.push_front(part);
                } else if let Some(guilty) = part.pop() {
                    self.judge(guilty, &reason, connection).await;
                }
            }
        }
    }

    /// Executes a part until its fate is known or time is up. Answers and drains its members, or
    /// leaves them and returns why they are refused together.
    async fn commit_part(
        &mut self,
        part: &mut Vec<Member>,
        connection: &mut Option<AsyncPgConnection>,
    ) -> Option<String> {
        let oldest = part
            .iter()
            .map(|member| member.job.since)
            .min()
            .unwrap_or_else(Instant::now);
        let mut deadline = oldest + self.limits.unavailable_after;
        let mut retries = 0;
        loop {
            let Some(ready) = self.connected(connection, deadline).await else {
                part.drain(..).for_each(Member::give_up);
                return None;
            };
            match self.execute(part, ready).await {
                Executed::Written(written) => {
                    self.settle(part, &written);
                    return None;
                }
                Executed::Refused(reason) => return Some(reason),
                Executed::Transient => {
                    retries += 1;
                    if retries > MAX_TRANSIENT_RETRIES {
                        return Some("the database failed repeatedly".to_owned());
                    }
                }
                Executed::Lost => {
                    *connection = None;
                    retries = 0;
                    if !part.iter().any(|member| member.doubtful) {
                        deadline = Instant::now() + self.limits.resolution;
                    }
                    part.iter_mut().for_each(|member| member.doubtful = true);
                }
            }
            self.meanwhile(tokio::time::sleep(pause(retries)), deadline)
                .await;
            if Instant::now() >= deadline {
                part.drain(..).for_each(Member::give_up);
                return None;
            }
        }
    }

    /// Executes the statement, and for members that it did not write, looks whether an earlier
    /// execution did.
    async fn execute(&mut self, part: &[Member], connection: &mut AsyncPgConnection) -> Executed {
        let limit = self.connector.client_timeout();
        let rows: Vec<_> = part.iter().map(Member::rows).collect();
        let result = {
            let statement = BatchStatement::new(&rows);
            let running = async { timed(limit, statement.load::<Uuid>(connection)).await };
            self.attending(running).await
        };
        let mut written: HashSet<Uuid> = match result {
            Some(Ok(written)) => written.into_iter().collect(),
            Some(Err(error)) => return doubt(&error, connection).await,
            None => return Executed::Lost,
        };
        let missing: Vec<_> = part
            .iter()
            .filter(|member| !written.contains(&member.stream()))
            .collect();
        if missing.is_empty() {
            return Executed::Written(written);
        }
        match self.own_entries(&missing, connection).await {
            Ok(own) => {
                written.extend(own);
                Executed::Written(written)
            }
            Err(executed) => executed,
        }
    }

    /// The streams of those members whose very entry the journal holds: they are committed.
    async fn own_entries(
        &mut self,
        members: &[&Member],
        connection: &mut AsyncPgConnection,
    ) -> Result<Vec<Uuid>, Executed> {
        let query = EntriesAt {
            streams: members.iter().map(|member| member.stream()).collect(),
            numbers: members
                .iter()
                .map(|member| member.rows().entry.entity_seq)
                .collect(),
        };
        let limit = self.connector.client_timeout();
        let running = async { timed(limit, query.load::<Uuid>(connection)).await };
        match self.attending(running).await {
            Some(Ok(entries)) => {
                let own = |member: &&&Member| entries.contains(&member.rows().entry.entry_id);
                Ok(members
                    .iter()
                    .filter(own)
                    .map(|member| member.stream())
                    .collect())
            }
            Some(Err(error)) => Err(doubt(&error, connection).await),
            None => Err(Executed::Lost),
        }
    }

    /// Answers the members of an executed part.
    fn settle(&mut self, part: &mut Vec<Member>, written: &HashSet<Uuid>) {
        for member in part.drain(..) {
            let fate = if written.contains(&member.stream()) {
                Commit::Committed
            } else {
                member.conflict()
            };
            member.answer(Ok(fate));
        }
    }

    /// Answers a change that was refused alone.
    async fn judge(
        &mut self,
        guilty: Member,
        reason: &str,
        connection: &mut Option<AsyncPgConnection>,
    ) {
        let meaning = constraints::meaning(reason);
        // A row that exists may be this change's own, from an execution whose answer was lost.
        if meaning == Some(Violation::Exists) || guilty.doubtful {
            let deadline = Instant::now() + self.limits.resolution;
            let own = match self.connected(connection, deadline).await {
                Some(ready) => self.own_entries(&[&guilty], ready).await.ok(),
                None => None,
            };
            match own {
                Some(own) if !own.is_empty() => return guilty.answer(Ok(Commit::Committed)),
                Some(_) => {}
                None => {
                    *connection = None;
                    return guilty.answer(Err(StoreError::CommitUnknown));
                }
            }
        }
        match meaning {
            Some(Violation::IdempotencyKeyTaken) => guilty.answer(Ok(Commit::IdempotencyKeyTaken)),
            Some(Violation::Exists | Violation::NotAllowed) | None => {
                tracing::error!(constraint = reason, "the database refused a change");
                guilty.answer(Err(StoreError::Refused(reason.to_owned())));
            }
        }
    }

    /// The connection, made anew where it is gone. `None` when the deadline passes.
    async fn connected<'c>(
        &mut self,
        connection: &'c mut Option<AsyncPgConnection>,
        deadline: Instant,
    ) -> Option<&'c mut AsyncPgConnection> {
        let mut failures = 0;
        // One that ended while it was idle has taken nothing with it: no doubt arises.
        if connection
            .as_mut()
            .is_some_and(PoolableConnection::is_broken)
        {
            *connection = None;
        }
        while connection.is_none() {
            let connector = self.connector.clone();
            match self
                .meanwhile(connector.connect(Use::Commit), deadline)
                .await?
            {
                Ok(made) => {
                    tracing::info!("a committer is connected to the database again");
                    *connection = Some(made);
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "a committer cannot connect to the database");
                    self.meanwhile(tokio::time::sleep(pause(failures)), deadline)
                        .await?;
                }
            }
        }
        connection.as_mut()
    }

    /// Waits for something, answering what waits too long in the meantime. `None` at the deadline.
    async fn meanwhile<T>(
        &mut self,
        something: impl Future<Output = T>,
        deadline: Instant,
    ) -> Option<T> {
        tokio::select! {
            biased;
            done = self.attending(something) => Some(done),
            () = tokio::time::sleep_until(deadline) => None,
        }
    }

    /// Waits for something, answering what waits too long in the meantime.
    async fn attending<T>(&mut self, something: impl Future<Output = T>) -> T {
        tokio::pin!(something);
        loop {
            tokio::select! {
                biased;
                done = &mut something => return done,
                () = tokio::time::sleep(EXPIRY_TICK) => self.expire(),
            }
        }
    }

    /// Answers `Unavailable` to what has waited too long; none of it was given to the database.
    fn expire(&mut self) {
        self.take_queued();
        let limit = self.limits.unavailable_after;
        let expired = self
            .waiting
            .iter()
            .take_while(|job| job.since.elapsed() >= limit)
            .count();
        for job in self.waiting.drain(..expired) {
            let _ = job.reply.send(Err(StoreError::Unavailable));
        }
    }
}

/// A statement's result, or `None` when it takes longer than it may: its connection is then no good.
async fn timed<T>(limit: Duration, statement: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, statement).await.ok()
}

/// What an error says about the batch; asks the connection where the error alone does not say.
async fn doubt(error: &diesel::result::Error, connection: &mut AsyncPgConnection) -> Executed {
    let failure = failure::classify(error);
    match failure {
        Failure::Refused(reason) => return Executed::Refused(reason),
        Failure::Transient => return Executed::Transient,
        Failure::Lost | Failure::Doubtful => {}
    }
    tracing::warn!(kind = failure::kind(error), "a batch of changes failed");
    if failure == Failure::Lost {
        return Executed::Lost;
    }
    // An error on a connection that goes on working means that the statement was rolled back.
    match tokio::time::timeout(MAX_PAUSE, connection.batch_execute("")).await {
        Ok(Ok(())) => Executed::Transient,
        Ok(Err(_)) | Err(_) => Executed::Lost,
    }
}

/// The pause before another try: doubling up to [`MAX_PAUSE`], with full jitter above half of it, so
/// that replicas do not come back in step.
fn pause(tries: u32) -> Duration {
    let full = MIN_PAUSE
        .saturating_mul(2_u32.saturating_pow(tries.min(16)))
        .min(MAX_PAUSE);
    full.mul_f64(rand::rng().random_range(0.5..1.0))
}
