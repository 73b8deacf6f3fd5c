//! Group commit: each committer writes what is waiting, all of it in one statement and one fsync.
//!
//! There is no lingering: an idle committer writes a single change at once, and while it does, the
//! next batch gathers. A batch holds at most one change per payment and per idempotency key, so that
//! its members cannot get into each other's way.

mod execution;
mod member;

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use quittance_domain::ports::{Commit, StoreError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::batch::{BatchStatement, EntriesAt};
use crate::connection::{Connector, Use};
use crate::constraints::{self, Violation};
use crate::observer::StoreObserver;
use execution::{Executed, Fate, doubt, pause, timed};
use member::Member;
pub(crate) use member::{Job, Limits};

/// Most changes that one statement writes.
pub const MAX_BATCH: usize = 256;
/// Most changes that a committer keeps beside its queue, for the batch after the next.
const MAX_WAITING: usize = 2 * MAX_BATCH;
/// How often a batch that fails for no known reason, on a connection that works, is tried again before
/// its members are tried apart, and one alone is set aside.
const MAX_UNEXPLAINED_RETRIES: u32 = 4;
/// How often a batch is tried again before a new connection is made: the database may have moved.
const RETRIES_PER_CONNECTION: u32 = 4;
/// Most changes that are set aside; one more is given up at once.
const MAX_ASIDE: usize = 64;
/// How often waiting changes are looked through for those that have waited too long, and those that
/// are set aside are tried again.
const EXPIRY_TICK: Duration = Duration::from_millis(50);

/// One committer: its queue, its connection, and what waits for the next batch.
pub(crate) struct Committer {
    queue: mpsc::Receiver<Job>,
    waiting: VecDeque<Job>,
    /// Changes that fail alone for no known reason: tried between batches until their time is up, so
    /// that they hold nobody up.
    aside: VecDeque<Member>,
    /// When those are tried next.
    aside_due: Instant,
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
            aside: VecDeque::new(),
            aside_due: Instant::now(),
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
            if !batch.is_empty() {
                self.observer.batch(batch.len());
                Box::pin(self.commit(batch, &mut connection)).await;
            }
            Box::pin(self.retry_aside(&mut connection)).await;
            self.committed.notify_one();
        }
    }

    /// Takes what is in the queue; waits only where nothing waits yet, and not for long where something
    /// is set aside. False at the end.
    async fn fill(&mut self) -> bool {
        if self.waiting.is_empty() {
            let mut jobs = Vec::with_capacity(MAX_BATCH);
            let mut drained = false;
            loop {
                tokio::select! {
                    taken = self.queue.recv_many(&mut jobs, MAX_BATCH), if !drained => {
                        drained = taken == 0;
                        if drained && self.aside.is_empty() {
                            return false;
                        }
                        if !drained {
                            break;
                        }
                    }
                    () = tokio::time::sleep_until(self.aside_due), if !self.aside.is_empty() => break,
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
                batch.push(Member::new(job, self.limits));
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
            let fate = self.commit_part(&mut part, connection, true).await;
            if part.len() > 1 {
                let second = part.split_off(part.len() / 2);
                // What is innocent need not wait for what is not.
                parts.extend([part, second]);
                continue;
            }
            let Some(member) = part.pop() else { continue };
            match fate {
                Fate::Refused(reason) => Box::pin(self.judge(member, &reason, connection)).await,
                Fate::Troubled => self.set_aside(member),
                Fate::Answered => {}
            }
        }
    }

    /// Keeps a change to be tried again later, while there is time and room.
    fn set_aside(&mut self, member: Member) {
        if self.aside.len() < MAX_ASIDE && Instant::now() < member.deadline {
            self.aside.push_back(member);
        } else {
            member.give_up();
        }
    }

    /// Tries each change that is set aside once more, now and then.
    async fn retry_aside(&mut self, connection: &mut Option<AsyncPgConnection>) {
        if Instant::now() < self.aside_due {
            return;
        }
        for member in std::mem::take(&mut self.aside) {
            let mut part = vec![member];
            let fate = self.commit_part(&mut part, connection, false).await;
            let Some(member) = part.pop() else { continue };
            match fate {
                Fate::Refused(reason) => Box::pin(self.judge(member, &reason, connection)).await,
                Fate::Troubled => self.set_aside(member),
                Fate::Answered => {}
            }
        }
        self.aside_due = Instant::now() + EXPIRY_TICK;
    }

    /// Executes a part until its fate is known or time is up; once only, where not told to `insist`,
    /// while it fails for no known reason. Answers and drains its members, or leaves them all.
    async fn commit_part(
        &mut self,
        part: &mut Vec<Member>,
        connection: &mut Option<AsyncPgConnection>,
        insist: bool,
    ) -> Fate {
        let (mut tries, mut unexplained) = (0, 0);
        loop {
            let deadline = part.iter().map(|member| member.deadline).min();
            let deadline = deadline.unwrap_or_else(Instant::now);
            let Some(ready) = self.connected(connection, deadline).await else {
                part.drain(..).for_each(Member::give_up);
                return Fate::Answered;
            };
            match self.execute(part, ready).await {
                Executed::Written(written) => {
                    settle(part, &written);
                    return Fate::Answered;
                }
                Executed::Refused(reason) => return Fate::Refused(reason),
                Executed::Transient => {
                    tries += 1;
                    if tries % RETRIES_PER_CONNECTION == 0 {
                        *connection = None;
                    }
                }
                Executed::Unexplained => {
                    tries += 1;
                    unexplained += 1;
                    if !insist || unexplained > MAX_UNEXPLAINED_RETRIES {
                        return Fate::Troubled;
                    }
                }
                Executed::Lost => {
                    *connection = None;
                    tries = 0;
                    for member in part.iter_mut() {
                        member.doubt(self.limits);
                    }
                }
            }
            // Of now: doubt gives more time.
            let deadline = part.iter().map(|member| member.deadline).min();
            let deadline = deadline.unwrap_or_else(Instant::now);
            self.meanwhile(tokio::time::sleep(pause(tries)), deadline)
                .await;
            if Instant::now() >= deadline {
                part.drain(..).for_each(Member::give_up);
                return Fate::Answered;
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

/// Answers the members of an executed part.
fn settle(part: &mut Vec<Member>, written: &HashSet<Uuid>) {
    for member in part.drain(..) {
        let fate = if written.contains(&member.stream()) {
            Commit::Committed
        } else {
            member.conflict()
        };
        member.answer(Ok(fate));
    }
}
