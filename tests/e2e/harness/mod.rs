//! What the scenarios are told with: a world of their own each, requests, and what was refused.

pub mod adyen;
pub mod client;
pub mod collector;
pub mod command_line;
pub mod database;
pub mod failure;
pub mod fields;
pub mod links;
pub mod meter;
pub mod played;
pub mod played_stripe;
pub mod process;
pub mod python;
pub mod receiver;
pub mod recovery;
pub mod requests;
pub mod site;
pub mod stripe;
pub mod tls;
pub mod webhooks;
pub mod wire;
pub mod world;

use std::time::{Duration, Instant};

pub use client::{Client, next_told};
pub use failure::Failure;
pub use links::Links;
pub use recovery::{until_resolved, until_resolved_by_key};
pub use requests::*;
pub use site::{Site, SiteOptions};
pub use world::World;

/// How long a condition may take to come true. Generous: it bounds a failing test, not a passing one.
pub const PATIENCE: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Asks until there is an answer, at most for [`PATIENCE`].
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask).await
}

/// The same for what may take longer, or shorter.
pub async fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let give_up = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < give_up,
            "did not happen within {patience:?}: {what}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
