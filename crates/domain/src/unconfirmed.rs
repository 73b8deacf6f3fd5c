//! Why a provider did not say what it was asked for.

use std::time::Duration;

use crate::decline::Cause;

/// Why what a provider was asked for, or has told, is not known to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unconfirmed {
    /// What it answered, or why it could not be asked.
    pub cause: Cause,
    /// For how long it, or what stands before it, asked that it be left alone. An adapter passes on what the provider said; the
    /// flows hand out `payments.retries.max_retry_after_seconds` at most.
    pub retry_after: Option<Duration>,
}

impl Unconfirmed {
    /// The same, asking to be left alone for `longest` at most.
    #[must_use]
    pub fn at_most(self, longest: Duration) -> Self {
        let retry_after = self.retry_after.map(|asked| asked.min(longest));
        Self {
            retry_after,
            ..self
        }
    }
}

/// Nobody asked to be left alone.
impl From<Cause> for Unconfirmed {
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            retry_after: None,
        }
    }
}
