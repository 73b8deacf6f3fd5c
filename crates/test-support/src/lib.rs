//! What tests share: a fresh database for each, builders of valid changes, and a proxy that breaks
//! connections.
//!
//! ```no_run
//! # async fn test() {
//! use quittance_domain::ports::Store as _;
//! use quittance_test_support::{Story, TestDb};
//!
//! let db = TestDb::new().await;
//! let store = db.store().await;
//! let (mut story, accepted) = Story::accept("acme", "order-1", 1_000);
//! store.commit(accepted).await.unwrap();
//! store.commit(story.authorized()).await.unwrap();
//! # }
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "only tests use this crate, and a test that cannot go on panics"
)]

mod alarms;
mod fault_proxy;
mod journal_row;
pub mod python;
mod story;
mod test_db;
mod tree_head;

pub use alarms::Alarms;
pub use fault_proxy::{Cut, Direction, FaultProxy, Plan, Traffic, Upstream};
pub use journal_row::JournalRow;
pub use story::{
    SALT_BYTE, Story, entry_behind, entry_of_stream, erasure_done, erasure_requested, tenant,
};
pub use test_db::{TestDb, eventually, in_time, patient_config, test_keys};
pub use tree_head::HeadRow;
