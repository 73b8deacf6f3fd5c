//! The whole engine on a seeded scheduler: virtual time, a store and a provider that fail as real ones do,
//! several replicas, and a crash at any await.
//!
//! The flows are the product's own; only the ports are simulated. After every schedule the world is left in
//! peace, everything unresolved is asked about, and the invariants are checked. A failing seed replays.

pub mod books;
pub mod check;
pub mod executor;
pub mod provider;
pub mod situations;
pub mod store;
pub mod world;
