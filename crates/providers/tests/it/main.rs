//! The adapters over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod adyen;
mod adyen_requests;
mod conformance;
mod guard;
mod sandbox;
mod signing;
mod standard_webhooks;
mod stripe;
mod stripe_python;
mod support;
mod transport;
