//! The changes of a batch, and what each is answered.

use std::time::Duration;

use quittance_domain::ports::{Commit, StoreError};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use crate::rows::{ChangeRows, PaymentWrite};

/// A change on its way to the database.
pub(crate) struct Job {
    pub(crate) rows: ChangeRows,
    pub(crate) reply: oneshot::Sender<Result<Commit, StoreError>>,
    pub(crate) since: Instant,
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
        // The caller may have gone away; the change does not depend on it.
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
    pub(crate) unavailable_after: Duration,
    pub(crate) resolution: Duration,
}
