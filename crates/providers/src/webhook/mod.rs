//! Signatures of webhooks, by scheme: each adapter verifies with the one that its provider uses.

mod standard;

pub use standard::{
    MAX_SECRETS, NEW_SECRET_BYTES, SecretsProblem, StandardWebhooks, TOLERANCE_SECONDS, secret_of,
};
