//! Attempts, of which entries speak.

use super::{Kind, kind};

/// Entries by which an attempt begins, those by which one ends with an answer, and those by which one ends for good.
const ATTEMPTED: &str = "attempt(j.leaf) = 1";
const ANSWERED: &str = "convert_from(j.leaf, 'UTF8') like '%\"provider_response_digest\":%'";
const ENDED: &str = "convert_from(j.leaf, 'UTF8') like '%\"attempt_outcome\":%' and not exists (select from journal l \
                     where l.stream_id = j.stream_id and l.transaction_id = j.transaction_id \
                     and l.entity_seq > j.entity_seq and attempt(l.leaf) = attempt(j.leaf))";

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

/// Another attempt beside that of the entry.
macro_rules! invented {
    ($with:literal) => {
        concat!(
            "insert into attempts select (f.a).* from (select jsonb_populate_record(a, jsonb_build_object(\
             'attempt_id', gen_random_uuid(), ",
            $with,
            ")) as a from attempts a, journal j where j.entry_id = $entry and a.payment_id = $stream \
             and a.transaction_id = j.transaction_id and a.number = attempt(j.leaf)) f"
        )
    };
}

/// Every kind of tampering with attempts.
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
        "attempts.tenant_id",
        ATTEMPTED,
        attempt!("tenant_id = 'other'"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.provider_account",
        ATTEMPTED,
        attempt!("provider_account = a.provider_account || 'x'"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.operation",
        ATTEMPTED,
        attempt!("operation = case operation when 'confirm' then 'void' else 'confirm' end"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.started_at",
        ATTEMPTED,
        attempt!("started_at = started_at + interval '1 microsecond'"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.started_at, to infinity",
        ATTEMPTED,
        attempt!("started_at = 'infinity'"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.outcome",
        ENDED,
        attempt!("outcome = case outcome when 'NOT_SENT' then 'UNKNOWN' else 'NOT_SENT' end"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.outcome, deleted with the end",
        ENDED,
        attempt!("outcome = null, ended_at = null, latency_micros = null"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.cause",
        ENDED,
        attempt!("cause = case a.cause when 'RESPONSE_TIMEOUT' then 'SENDER_LOST' else 'RESPONSE_TIMEOUT' end"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.latency_micros",
        ENDED,
        attempt!("latency_micros = latency_micros + 1"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.ended_at",
        ENDED,
        attempt!("ended_at = ended_at - interval '1 microsecond'"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.ended_at, before all times",
        ENDED,
        attempt!("ended_at = '-infinity'"),
        &["ATTEMPT_DIFFERS"],
    )
    .local(),
    kind(
        "attempts.number, to one that was never sent",
        ATTEMPTED,
        attempt!("number = -1"),
        &["ATTEMPT_WITHOUT_ENTRY"],
    )
    .local(),
    kind(
        "an attempt invented, that has not ended",
        ATTEMPTED,
        invented!("'number', number + 100000, 'ended_at', null, 'outcome', null, 'latency_micros', null, 'cause', null"),
        &["ATTEMPT_WITHOUT_ENTRY"],
    )
    .local(),
    kind(
        "an attempt invented, before the first",
        ATTEMPTED,
        invented!("'number', 0"),
        &["ATTEMPT_WITHOUT_ENTRY"],
    )
    .local(),
    kind(
        "an attempt invented, of no transaction",
        ATTEMPTED,
        invented!("'transaction_id', gen_random_uuid()"),
        &["ATTEMPT_WITHOUT_ENTRY"],
    )
    .local(),
    kind(
        "an attempt invented, of no payment",
        ATTEMPTED,
        invented!("'payment_id', $entry"),
        &["ATTEMPT_WITHOUT_ENTRY"],
    )
    .local(),
];
