//! Statements of the sequencer and of the integrator: each within its time, and how long they pause where one fails.

use std::time::Duration;

use diesel::result::Error;

use crate::failure;

/// How long they wait after an error.
pub(crate) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(250);
/// How long they leave alone what they refuse to go on from.
pub(crate) const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// Longest that one statement may take; the server's own limit is usually shorter.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);

/// Why a statement has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The database failed.
    Failed(Error),
    /// It took too long.
    Timeout,
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Unanswered {
    /// The kind, for the log: it holds no values.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Failed(error) => failure::kind(error),
            Self::Timeout => "timeout".to_owned(),
        }
    }
}

/// A statement within its time.
pub(crate) async fn timed<T>(
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, Unanswered> {
    match tokio::time::timeout(STATEMENT_LIMIT, statement).await {
        Ok(result) => result.map_err(Unanswered::from),
        Err(_) => Err(Unanswered::Timeout),
    }
}
