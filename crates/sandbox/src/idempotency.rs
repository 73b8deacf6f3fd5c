//! What is remembered under an idempotency key.

use crate::error::ApiError;
use crate::wire::{DeclineCode, OperationStatus};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The stored answer of the first request under a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Over path and body.
    pub digest: u128,
    pub answer: Answer,
    /// Answered with half of the JSON, now and at every replay.
    pub malformed: bool,
    /// The first request is still being answered until then.
    #[serde(skip)]
    pub busy_until: Option<Instant>,
}

/// An operation is kept as what was said of it, not as bytes: a replay renders the same bytes
/// again, and millions of answers take little memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Operation {
        /// Position of the operation in the books.
        at: usize,
        status: OperationStatus,
        decline: Option<DeclineCode>,
    },
    Error(Box<ApiError>),
}
