//! What Adyen's events are known by: a repetition is told from another event by what is signed.

use quittance_domain::ids::EventId;
use sha2::{Digest as _, Sha256};

use super::signature::SignedFields;
use super::wire;

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
pub(super) fn event_id(item: &wire::Item) -> Option<EventId> {
    let (code, success) = (item.event_code.as_deref()?, item.success.as_ref()?.text());
    let reference = item.psp_reference.as_deref()?;
    let named = !code.is_empty() && !reference.is_empty();
    let again = again(item, (code, success)).unwrap_or_default();
    EventId::parse(format!("{code}:{success}:{reference}{again}"))
        .ok()
        .filter(|_| named)
}

/// What tells the success of a capture or refund that Adyen did again after it had failed from its first: the same
/// event, success and reference, and a reason, such as "Transaction Recaptured". The first has none. The reason is not
/// signed, so its words tell nothing, and this decides whether a person hears of it, and nothing else.
fn again(item: &wire::Item, (code, success): (&str, &str)) -> Option<&'static str> {
    let moves = matches!(code, "CAPTURE" | "REFUND") && success == "true";
    let reason = item.reason.as_deref().unwrap_or_default().trim();
    (moves && !reason.is_empty()).then_some(":again")
}
