//! Warnings that may come with every call or row: thinned, so that the log can be read.

use std::time::Duration;

use tokio::time::Instant;

/// The same warning is given once in this time at most.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// One warning: given now and then, with how many there were.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    given: Option<Instant>,
    left_out: u64,
}

impl Warnings {
    pub(crate) const fn new() -> Self {
        Self {
            given: None,
            left_out: 0,
        }
    }

    /// Whether to give it now: how many there have been since it was last given, this one included.
    pub(crate) fn due(&mut self) -> Option<u64> {
        if self.given.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            self.left_out += 1;
            return None;
        }
        self.given = Some(Instant::now());
        Some(1 + std::mem::take(&mut self.left_out))
    }
}
