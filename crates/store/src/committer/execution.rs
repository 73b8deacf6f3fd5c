//! Executing a statement once: what may come of it, and how long to wait before the next time.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use rand::Rng as _;
use uuid::Uuid;

use crate::failure::{self, Failure};
use crate::warning::Thinned;

/// Longest pause between two attempts to connect, or to write a batch again.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// Shortest such pause.
const MIN_PAUSE: Duration = Duration::from_millis(10);

static BATCH_FAILED: Thinned = Thinned::new();

/// What became of executing a batch.
pub(super) enum Executed {
    /// The members' fates are known.
    Written(HashSet<Uuid>),
    /// Nothing was written, by a constraint or a value.
    Refused(String),
    /// Nothing was written, by no fault of the changes; trying again may help.
    Transient,
    /// Nothing was written, and the driver does not say why: a passing trouble, or one of the changes.
    Unexplained,
    /// The connection is gone.
    Lost,
}

/// What became of a part of a batch.
pub(super) enum Fate {
    /// Every member is answered.
    Answered,
    /// The members are refused together.
    Refused(String),
    /// The members fail together, time after time, for no known reason.
    Troubled,
}

/// A statement's result, or `None` when it takes longer than it may: its connection is then no good.
pub(super) async fn timed<T>(limit: Duration, statement: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, statement).await.ok()
}

/// What an error says about the batch; asks the connection where the error alone does not say.
pub(super) async fn doubt(
    error: &diesel::result::Error,
    connection: &mut AsyncPgConnection,
) -> Executed {
    let failure = failure::classify(error);
    match failure {
        Failure::Refused(reason) => return Executed::Refused(reason),
        Failure::Transient => return Executed::Transient,
        Failure::Lost | Failure::Doubtful => {}
    }
    if let Some(count) = BATCH_FAILED.due() {
        tracing::warn!(
            kind = failure::kind(error),
            count,
            "a batch of changes failed"
        );
    }
    if failure == Failure::Lost {
        return Executed::Lost;
    }
    // An error on a connection that goes on working means that the statement was rolled back.
    match tokio::time::timeout(MAX_PAUSE, connection.batch_execute("")).await {
        Ok(Ok(())) => Executed::Unexplained,
        Ok(Err(_)) | Err(_) => Executed::Lost,
    }
}

/// The pause before another try: doubling up to [`MAX_PAUSE`], with full jitter above half of it, so
/// that replicas do not come back in step.
pub(super) fn pause(tries: u32) -> Duration {
    let full = MIN_PAUSE
        .saturating_mul(2_u32.saturating_pow(tries.min(16)))
        .min(MAX_PAUSE);
    full.mul_f64(rand::rng().random_range(0.5..1.0))
}
