//! Signatures of webhooks, by scheme: each adapter verifies with the one that its provider uses.

mod standard;

pub use standard::{MAX_SECRETS, SecretsProblem, StandardWebhooks, TOLERANCE_SECONDS};

#[cfg(test)]
#[path = "standard_tests.rs"]
mod tests;
