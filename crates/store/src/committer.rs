//! Group commit: each committer writes what is waiting, all of it in one statement and one fsync.
//!
//! There is no lingering: an idle committer writes a single change at once, and while it does, the
//! next batch gathers. A batch holds at most one change per payment and per idempotency key, so that
//! its members cannot get into each other's way.

mod execution;
mod member;
mod part;

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::PoolableConnection;
use quittance_domain::ports::StoreError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::connection::{Connector, Use};
use crate::observer::StoreObserver;
use crate::tree::OwnEntries;
use crate::warning::Thinned;
use execution::{Fate, pause};
use member::Member;
pub(crate) use member::{Job, Limits, Ticket};

/// Most changes that one statement writes.
pub const MAX_BATCH: usize = 256;
/// Most changes that a committer keeps beside its queue, for the batch after the next.
const MAX_WAITING: usize = 2 * MAX_BATCH;
/// Most changes that are set aside; one more is given up at once.
const MAX_ASIDE: usize = 64;
/// How often waiting changes are looked through for those that have waited too long, and those that
/// are set aside are tried again.
const EXPIRY_TICK: Duration = Duration::from_millis(50);

static CANNOT_CONNECT: Thinned = Thinned::new();

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
    signals: Signals,
}

/// What a committer tells others, and is told.
#[derive(Clone)]
pub(crate) struct Signals {
    /// Told after each batch, so that the sequencer need not poll.
    pub(crate) committed: Arc<Notify>,
    /// Told of each entry that is committed.
    pub(crate) own: Arc<OwnEntries>,
    /// Told after a connection was made anew.
    pub(crate) reconnected: Arc<Notify>,
    /// To write what waits, and end.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Signals {
    pub(crate) fn new(
        own: &Arc<OwnEntries>,
        reconnected: Arc<Notify>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            committed: Arc::default(),
            own: Arc::clone(own),
            reconnected,
            stop,
        }
    }
}

impl Committer {
    pub(crate) fn new(
        queue: mpsc::Receiver<Job>,
        connector: Connector,
        limits: Limits,
        observer: Arc<dyn StoreObserver>,
        signals: Signals,
    ) -> Self {
        Self {
            queue,
            waiting: VecDeque::new(),
            aside: VecDeque::new(),
            aside_due: Instant::now(),
            connector,
            limits,
            observer,
            signals,
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
            self.signals.committed.notify_one();
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
                    _ = self.signals.stop.wait_for(|stop| *stop), if !self.queue.is_closed() => self.queue.close(),
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
                    // Perhaps to another server, with a clock of its own.
                    self.signals.reconnected.notify_one();
                    *connection = Some(made);
                }
                Err(error) => {
                    failures += 1;
                    if let Some(count) = CANNOT_CONNECT.due() {
                        tracing::warn!(%error, count, "a committer cannot connect to the database");
                    }
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
