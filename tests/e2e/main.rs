//! End-to-end tests: the real server over TLS, real PostgreSQL, and the sandbox over HTTP.
//!
//! Tests are named after the scenario that they show (`s15_…`); `tests/README.md` is the catalogue,
//! and [`scenarios::catalogue`] checks it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::too_many_lines,
    reason = "a scenario is told from its beginning to its end"
)]

mod harness;
mod scenarios;
