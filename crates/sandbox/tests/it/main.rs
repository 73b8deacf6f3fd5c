//! The sandbox over real HTTP: every token, fault and handle that `docs/sandbox.md` promises.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test that cannot go on should panic"
)]

mod client;
mod faults;
mod lifecycle;
mod limits;
mod restart;
mod tokens;
mod webhooks;
