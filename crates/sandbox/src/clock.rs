//! The one place where the sandbox reads the time: it plays an outside system, whose clock is its
//! own and not the service's `Clock` port.

use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// `at + span`, saturating at the far end of the calendar.
pub(crate) fn after(at: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(span)
        .ok()
        .and_then(|span| at.checked_add_signed(span))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
