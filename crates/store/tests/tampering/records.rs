//! Attempts, idempotency records and operator actions, of which entries speak.

use super::{FIRST, Kind, kind};

/// Entries by which an attempt begins, and those by which one ends with an answer.
const ATTEMPTED: &str = "attempt(j.leaf) = 1";
const ANSWERED: &str = "convert_from(j.leaf, 'UTF8') like '%\"provider_response_digest\":%'";
/// Entries that open a case for a person, and that close one.
const OPENS: &str = "exists (select from operator_actions where action_id = j.entry_id)";
const CLOSES: &str = "exists (select from operator_actions where closed_by = j.entry_id)";

/// The attempt that an entry is about.
macro_rules! attempt {
    ($set:literal) => {
        concat!(
            "update attempts a set ",
            $set,
            " from journal j where j.entry_id = $entry and a.payment_id = $stream \
             and a.transaction_id = j.transaction_id and a.number = attempt(j.leaf)"
        )
    };
}

/// Every kind of tampering with them.
pub const KINDS: &[Kind] = &[
    kind(
        "an attempt deleted",
        ATTEMPTED,
        "delete from attempts a using journal j where j.entry_id = $entry and a.payment_id = $stream \
         and a.transaction_id = j.transaction_id and a.number = attempt(j.leaf)",
        &["ATTEMPT_MISSING"],
    )
    .local(),
    kind(
        "attempts.response, deleted",
        ANSWERED,
        attempt!("response = null"),
        &["ATTEMPT_RESPONSE_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.response, another",
        ANSWERED,
        attempt!(
            "response = set_byte(response, octet_length(response) - 1, get_byte(response, octet_length(response) - 1) # 1)"
        ),
        &["ATTEMPT_RESPONSE_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.response, made long",
        ANSWERED,
        attempt!("response = response || decode(repeat('00', 1000000), 'hex')"),
        &["ATTEMPT_RESPONSE_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.digest_salt",
        ANSWERED,
        attempt!("digest_salt = sha256(digest_salt)"),
        &["ATTEMPT_RESPONSE_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.response_digest",
        ANSWERED,
        attempt!("response_digest = sha256(response_digest)"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.request_digest",
        ATTEMPTED,
        attempt!("request_digest = sha256(request_digest)"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "an attempt invented",
        ATTEMPTED,
        "insert into attempts select (a).* from (select invented_attempt(a) as a from attempts a, journal j \
         where j.entry_id = $entry and a.payment_id = $stream and a.transaction_id = j.transaction_id limit 1) f",
        &["ATTEMPT_WITHOUT_ENTRY"],
    )
    .local(),
    kind(
        "an idempotency record deleted",
        FIRST,
        "delete from idempotency_records where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_MISSING"],
    )
    .local(),
    kind(
        "idempotency_records.idempotency_key",
        FIRST,
        "update idempotency_records set idempotency_key = idempotency_key || 'x' where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_MISSING"],
    )
    .local(),
    kind(
        "idempotency_records.tenant_id",
        FIRST,
        "update idempotency_records set tenant_id = 'other' where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_MISSING"],
    )
    .local(),
    kind(
        "idempotency_records.payment_id",
        FIRST,
        "update idempotency_records set payment_id = gen_random_uuid() where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_MISSING"],
    )
    .local(),
    kind(
        "idempotency_records.transaction_id",
        FIRST,
        "update idempotency_records set transaction_id = gen_random_uuid() where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_DIFFERS"],
    )
    .local(),
    kind(
        "an operator action deleted",
        OPENS,
        "delete from operator_actions where action_id = $entry",
        &["OPERATOR_ACTION_MISSING"],
    )
    .local(),
    kind(
        "operator_actions.kind",
        OPENS,
        "update operator_actions set kind = case kind when 'EXCESS_AMOUNT' then 'AMOUNT_MISMATCH' else 'EXCESS_AMOUNT' end \
         where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .local(),
    kind(
        "operator_actions.transaction_id",
        OPENS,
        "update operator_actions set transaction_id = gen_random_uuid() where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .local(),
    kind(
        "an operator action closed by nobody",
        OPENS,
        "update operator_actions set closed_at = now(), closed_by = $entry where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .local(),
    kind(
        "an operator action opened again",
        CLOSES,
        "update operator_actions set closed_at = null, closed_by = null where closed_by = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .large()
    .local(),
    kind(
        "an operator action invented",
        OPENS,
        "insert into operator_actions select (o).* from (select invented_action(o) as o from operator_actions o \
         where action_id = $entry) f",
        &["OPERATOR_ACTION_WITHOUT_ENTRY"],
    )
    .local(),
];
