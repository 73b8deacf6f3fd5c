//! Answers and webhooks that are not what their provider documents.

use quittance_domain::decline::Cause;
use quittance_domain::ids::ProviderReference;
use quittance_domain::transaction::{Fact, LookupOutcome, SendOutcome};
use quittance_domain::webhook;
use serde::Deserialize;

use crate::outcome::Unknown;

/// It is not what the provider's documentation promises, or not about what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl From<Unreadable> for webhook::Unreadable {
    fn from(_: Unreadable) -> Self {
        Self::Malformed
    }
}

/// Such an answer asks nobody to wait.
impl From<Unreadable> for LookupOutcome {
    fn from(_: Unreadable) -> Self {
        Self::Unavailable {
            cause: Cause::UnreadableResponse,
            retry_after: None,
        }
    }
}

/// What was read of the answer to a send.
pub(crate) fn answered(fact: Result<Fact, Unreadable>) -> SendOutcome {
    match fact {
        Ok(fact) => SendOutcome::Answered(fact),
        Err(Unreadable) => Unknown::UnreadableResponse.into(),
    }
}

/// What was read of the answer to a lookup.
pub(crate) fn found(fact: Result<Fact, Unreadable>) -> LookupOutcome {
    fact.map_or_else(LookupOutcome::from, LookupOutcome::Found)
}

pub(crate) fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(body).map_err(|_| Unreadable)
}

pub(crate) fn reference(text: impl Into<String>) -> Result<ProviderReference, Unreadable> {
    ProviderReference::parse(text).map_err(|_| Unreadable)
}
