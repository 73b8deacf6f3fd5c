//! The changes of a batch, and what each is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use quittance_domain::ports::{Commit, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::rows::{ChangeRows, PaymentWrite};

/// A change that is given to the database has at least this share of its time left for the answer: one
/// given at the last moment would be told to be unknown, where a plain "unavailable" was still true.
const SHARE_OF_TIME_FOR_THE_ANSWER: u32 = 8;

/// A change on its way to the database.
pub(crate) struct Job {
    pub(crate) rows: ChangeRows,
    pub(crate) reply: oneshot::Sender<Result<Commit, StoreError>>,
    pub(crate) since: Instant,
    pub(crate) ticket: Arc<Ticket>,
}

/// What caller and committer agree upon about a change: whether the database may have it. Whoever is
/// first decides, so that a caller that was told `Unavailable` can rely on it.
#[derive(Default)]
pub(crate) struct Ticket(AtomicU8);

impl Ticket {
    /// No execution may have written it.
    const WAITING: u8 = 0;
    /// An execution may have written it, or may be about to.
    const GIVEN: u8 = 1;
    /// Its caller was told that it was not written: it must not be any more.
    const WITHDRAWN: u8 = 2;

    fn turn(&self, from: u8, to: u8) -> Result<u8, u8> {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }

    /// The caller's side: takes the change back. False where the database may have it.
    pub(crate) fn withdraw(&self) -> bool {
        self.turn(Self::WAITING, Self::WITHDRAWN) != Err(Self::GIVEN)
    }

    /// The committer's side: before each execution. False where the change was withdrawn.
    fn give(&self) -> bool {
        self.turn(Self::WAITING, Self::GIVEN) != Err(Self::WITHDRAWN)
    }

    /// The committer's side: after an execution that certainly wrote nothing, as all before it did.
    fn take_back(&self) {
        let _ = self.turn(Self::GIVEN, Self::WAITING);
    }
}

/// A job that is given to the database.
pub(super) struct Member {
    pub(super) job: Job,
    /// Whether an execution of it ended without an answer.
    pub(super) doubtful: bool,
    /// When it is given up.
    pub(super) deadline: Instant,
}

impl Member {
    pub(super) fn new(job: Job, limits: Limits) -> Self {
        Self {
            deadline: job.since + limits.unavailable_after,
            doubtful: false,
            job,
        }
    }

    /// Before an execution: whether it still may be given to the database.
    pub(super) fn give(&self, limits: Limits) -> bool {
        let time_for_answer = limits.unavailable_after / SHARE_OF_TIME_FOR_THE_ANSWER;
        (self.doubtful || Instant::now() + time_for_answer < self.deadline)
            && self.job.ticket.give()
    }

    /// An execution certainly wrote nothing.
    pub(super) fn not_written(&self) {
        if !self.doubtful {
            self.job.ticket.take_back();
        }
    }

    /// An execution ended without an answer: from the first such moment on, there is a time to find out.
    pub(super) fn doubt(&mut self, limits: Limits) {
        if !self.doubtful {
            self.doubtful = true;
            self.deadline = Instant::now() + limits.resolution;
        }
    }

    pub(super) fn rows(&self) -> &ChangeRows {
        &self.job.rows
    }

    /// The payment or the named stream.
    pub(super) fn stream(&self) -> Uuid {
        self.job.rows.entry.stream_id
    }

    pub(super) fn answer(self, result: Result<Commit, StoreError>) {
        // The caller may have gone away, or have been told that it is not known: the change does not
        // depend on it.
        let _ = self.job.reply.send(result);
    }

    /// Gives up: honestly.
    pub(super) fn give_up(self) {
        let error = if self.doubtful {
            StoreError::CommitUnknown
        } else {
            StoreError::Unavailable
        };
        self.answer(Err(error));
    }

    /// What it means that the database did not write it, though nothing failed.
    pub(super) fn conflict(&self) -> Commit {
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
    /// How long a caller waits, and one execution.
    pub(crate) unavailable_after: Duration,
    /// How long it is sought whether a change was written.
    pub(crate) resolution: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_withdrawn_is_never_given_and_what_is_given_cannot_be_withdrawn() {
        let ticket = Ticket::default();
        assert!(ticket.withdraw());
        assert!(!ticket.give());
        let ticket = Ticket::default();
        assert!(ticket.give());
        assert!(!ticket.withdraw());
        // Executed again, in doubt.
        assert!(ticket.give());
        ticket.take_back();
        assert!(ticket.withdraw());
        assert!(!ticket.give());
    }
}
