//! Provider adapters: how the service talks to payment providers over HTTPS.
//!
//! Each adapter is a folder of `wire.rs` (shapes), `map.rs` (pure: wire to domain), `mod.rs`
//! (calls) and `fixtures/`. They share [`http`], which sends a request exactly once and tells
//! "nothing was sent" ([`NotSent`]) from "may have been processed" ([`Unknown`]); an adapter
//! cannot mistake one for the other, because they are different types. [`guard`] puts a circuit
//! breaker and limits before each account. [`registry`] builds the configured accounts and chooses
//! among them. All that it knows of an adapter is its line in the list of adapters below.

mod adapter;
pub mod adyen;
pub mod config;
pub mod guard;
pub mod http;
mod outcome;
mod prepared;
pub mod registry;
pub mod sandbox;
pub mod settlement;
pub mod stripe;
mod unreadable;
pub mod webhook;

pub use adapter::{Adapter, Build, ProviderKind};
pub use outcome::{NotSent, Unknown};
pub use prepared::{Prepared, PreparedError};

/// Every kind of provider. An adapter is registered by its line here.
static ADAPTERS: [&Adapter; 3] = [&adyen::ADAPTER, &sandbox::ADAPTER, &stripe::ADAPTER];
