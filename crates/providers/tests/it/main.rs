//! The adapters over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod conformance;
mod sandbox;
mod support;
mod transport;
