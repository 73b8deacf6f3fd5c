//! Between the contract's messages and the domain's types.
//!
//! Into the domain everything is parsed, once: a command that comes out of here is well-formed, and what
//! is not is refused with every bad field named. Out of the domain every field is filled from the
//! model, and audit entries from their proved bytes.

mod admin;
mod commands;
mod create;
pub mod entry;
mod erasures;
pub mod notifications;
pub mod payment;
mod queries;
pub mod reconciliation;
mod scalars;
mod violations;
mod webhook;

pub use admin::{ActionsQuery, ForTenant, list_operator_actions, operator_action, resolve, retry};
pub use commands::{capture, confirm, get, refund, sync, void};
pub use create::create;
pub use erasures::{EraseCustomer, erase_personal_data, erasure, get_erasure};
pub use queries::{
    ConsistencyQuery, DEFAULT_PAGE, DEFAULT_SUMMARY_RANGE, EntriesQuery, EvidenceQuery,
    InclusionQuery, MAX_PAGE, MAX_SUMMARY_RANGE, PaymentsQuery, ProvedEntry, Start, SummaryQuery,
    TailQuery, WatchQuery, consistency_proof, export_evidence, get_entry, inclusion_proof,
    list_entries, list_payments, summarize, tail, watch,
};
pub use violations::{MAX_VIOLATIONS, Violation, Violations};
pub use webhook::{
    ReplayQuery, WebhooksQuery, get_webhook, list_webhooks, replay_webhook, seen_webhook, webhook,
};

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
