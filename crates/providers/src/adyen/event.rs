//! What Adyen's events are known by: a repetition is told from another event by what is signed.

use chrono::{DateTime, Utc};
use quittance_domain::ids::{EventId, ProviderReference};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::signature::SignedFields;
use super::wire;

/// Days for which the date of an event tells it from another of the same name: longer than Adyen goes on delivering
/// (30). An older one is known without it.
const DATED_DAYS: i64 = 40;
/// Days by which that date may be ahead of our clock, because of its zone.
const AHEAD_DAYS: i64 = 1;

/// The digest of what is signed of an item, and of the platform that it comes from.
pub(super) fn signed(fields: &SignedFields, live: wire::Live) -> [u8; 32] {
    let platform = match live {
        wire::Live::Live => "live:",
        wire::Live::Test => "test:",
    };
    let mut digest = Sha256::new_with_prefix(platform);
    digest.update(fields.joined());
    digest.finalize().into()
}

/// The event's id: what Adyen says to know a repetition by.
pub(super) fn event_id(item: &wire::Item, received_at: DateTime<Utc>) -> Option<EventId> {
    let (code, success) = (item.event_code.as_deref()?, item.success.as_ref()?.text());
    let reference = item.psp_reference.as_deref()?;
    let named = !code.is_empty() && !reference.is_empty();
    let again = again(item, (code, success), received_at).unwrap_or_default();
    EventId::parse(format!("{code}:{success}:{reference}{again}"))
        .ok()
        .filter(|_| named)
}

/// The id of the event that tells that the payment with this reference was authorized: it names the payment by ours, too.
pub(super) fn authorised(payment: &ProviderReference) -> Option<EventId> {
    EventId::parse(format!("AUTHORISATION:true:{payment}")).ok()
}

/// What tells an event from an earlier one of the same name, success and reference: Adyen does a capture or refund
/// again after the card scheme rejected it, and the scheme can reject it again. The success of what is done again has
/// a reason, such as "Transaction Recaptured", which the first has not; and each such event has its hour. What is
/// delivered again has the date of its first delivery, and the scheme needs days to reject what is done again, so an hour
/// is fine enough, and coarse enough to bound what follows. So it is with what a dispute takes: it can be taken, and returned,
/// a second time.
///
/// Neither is signed, so whoever holds an event can have it heard once an hour of the days that count, and no oftener. An
/// equal fact moves nothing; what takes back a success always asks a person.
fn again(
    item: &wire::Item,
    (code, success): (&str, &str),
    received_at: DateTime<Utc>,
) -> Option<String> {
    let reason = item.reason.as_deref().unwrap_or_default().trim();
    let done_again =
        matches!(code, "CAPTURE" | "REFUND") && success == "true" && !reason.is_empty();
    let undone = matches!(
        code,
        "CAPTURE_FAILED" | "REFUND_FAILED" | "REFUNDED_REVERSED" | "CHARGEBACK_REVERSED"
    );
    let date = item.event_date.as_ref().and_then(Value::as_str);
    let date = date
        .and_then(|date| DateTime::parse_from_rfc3339(date).ok())
        .map(|date| date.to_utc())
        .filter(|date| {
            let day = date.date_naive();
            let age = received_at.date_naive().signed_duration_since(day);
            (-AHEAD_DAYS..=DATED_DAYS).contains(&age.num_days())
        });
    match date {
        Some(date) if done_again || undone => Some(date.format(":%Y-%m-%dT%H").to_string()),
        None if done_again => Some(":again".to_owned()),
        Some(_) | None => None,
    }
}
