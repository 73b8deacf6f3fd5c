//! The one table of field names that may leave the process, in log lines and on exported spans.
//!
//! A name that is missing here is not lost silently: its log field reads
//! [`crate::redact::REDACTED`]. Adding one is a decision about privacy: no secret, card number,
//! customer field, token or raw provider body may ever be recorded under it.

use std::borrow::Cow;

use crate::redact;

/// How a field's text is cleaned before it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// A UUID or digest made by us: shown unchanged while it has that shape.
    Identifier,
    /// Anything else: escaped, masked and limited.
    Text,
}

use FieldKind::{Identifier, Text};

/// Every field name that may appear, sorted. Names without a comment are OpenTelemetry's semantic
/// conventions, or speak for themselves.
pub const ALLOWED: &[(&str, FieldKind)] = &[
    ("actor.kind", Text),
    ("actor.name", Text),
    ("address", Text),
    // Which of several sends of one transaction.
    ("attempt.id", Identifier),
    ("attempt.number", Text),
    ("audit.entry_id", Identifier),
    ("audit.erasure_id", Identifier),
    ("audit.event_type", Text),
    // The code of what a verification of the log found wrong.
    ("audit.mismatch", Text),
    ("audit.position", Text),
    ("audit.sequence", Text),
    ("audit.stream", Text),
    // The name of a witness's key, which is published.
    ("audit.witness", Text),
    // The name of what a case for a person is about.
    ("case.kind", Text),
    ("cause", Text),
    ("commit.batch_size", Text),
    ("commit.conflicts", Text),
    ("config.setting", Text),
    // The name of a database constraint.
    ("constraint", Text),
    ("count", Text),
    // How many partitions.
    ("created", Text),
    ("db.constraint", Text),
    ("db.namespace", Text),
    ("db.operation.batch.size", Text),
    ("db.operation.name", Text),
    ("db.query.summary", Text),
    // Parameterised text only: no query of ours contains a value.
    ("db.query.text", Text),
    ("db.response.status_code", Text),
    ("db.system.name", Text),
    ("decline.code", Text),
    ("duration_ms", Text),
    // Where a tenant is told of its events.
    ("endpoint.id", Identifier),
    // Display text of an error, as `error.message`.
    ("error", Text),
    // The opaque id that an INTERNAL answer carries.
    ("error.id", Identifier),
    // Display text of an error enum of ours; never a provider's words or a caller's input.
    ("error.message", Text),
    ("error.reason", Text),
    ("error.type", Text),
    // The id of a webhook event of the sandbox.
    ("event", Text),
    // How often in a row.
    ("failures", Text),
    // The fencing number of a sequencer.
    ("fence", Text),
    ("http.request.method", Text),
    ("http.request.resend_count", Text),
    ("http.response.status_code", Text),
    ("http.route", Text),
    ("idempotency.replayed", Text),
    // The name of a key, never the key.
    ("key.id", Text),
    // A kind of database error: a code of ours, never the database's words.
    ("kind", Text),
    ("lease.id", Identifier),
    ("limit", Text),
    ("migration.version", Text),
    ("network.protocol.name", Text),
    ("network.protocol.version", Text),
    // One event for one endpoint.
    ("notification.id", Identifier),
    ("operation", Text),
    ("outcome", Text),
    // A file or directory of this machine.
    ("path", Text),
    // How long a provider account is left alone.
    ("pause_seconds", Text),
    ("payment.id", Identifier),
    ("payment.state", Text),
    ("payment.version", Text),
    ("port", Text),
    // A position in the log.
    ("position", Text),
    ("provider.account", Text),
    ("provider.code", Text),
    ("provider.kind", Text),
    ("provider.operation", Text),
    ("provider.reference", Text),
    // The caller's x-request-id.
    ("request.id", Text),
    ("retry.delay_ms", Text),
    ("retry.number", Text),
    ("rpc.method", Text),
    ("rpc.response.status_code", Text),
    ("rpc.status_code", Text),
    ("rpc.system.name", Text),
    ("server.address", Text),
    ("server.port", Text),
    ("service.version", Text),
    // The name of a setting of the database.
    ("setting", Text),
    ("signal", Text),
    // The exit status of a process.
    ("status", Text),
    ("tenant.id", Identifier),
    ("trace.id", Identifier),
    ("transaction.id", Identifier),
    ("transaction.kind", Text),
    ("transaction.state", Text),
    ("transaction.type", Text),
    // How often something was tried.
    ("tries", Text),
    ("url.scheme", Text),
    ("url.template", Text),
    // Our own id of a webhook.
    ("webhook.id", Identifier),
    ("worker", Text),
];

/// The kind of an allowed field; `None` if the field may not be shown.
#[must_use]
pub fn allowed(name: &str) -> Option<FieldKind> {
    let index = ALLOWED
        .binary_search_by_key(&name, |(known, _)| known)
        .ok()?;
    ALLOWED.get(index).map(|(_, kind)| *kind)
}

impl FieldKind {
    /// The form of `text` that may be shown.
    #[must_use]
    pub fn clean(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Identifier => redact::clean_identifier(text),
            Self::Text => redact::clean(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_without_duplicates() {
        assert!(
            ALLOWED
                .iter()
                .zip(ALLOWED.iter().skip(1))
                .all(|(a, b)| a.0 < b.0)
        );
    }

    #[test]
    fn only_names_of_the_table_are_allowed() {
        assert_eq!(allowed("payment.id"), Some(Identifier));
        assert_eq!(allowed("worker"), Some(Text));
        for name in [
            "provider_token",
            "authorization",
            "customer.email",
            "payment",
            "",
        ] {
            assert_eq!(allowed(name), None, "{name}");
        }
    }
}
