//! Payments and their transactions, changed without an entry.

use super::{CHANGED, FIRST, Kind, SEVERAL, kind};

const fn payment(name: &'static str, sql: &'static str) -> Kind {
    local(name, sql, &["PAYMENT_ROW_DIFFERS"])
}

const fn local(name: &'static str, sql: &'static str, codes: &'static [&'static str]) -> Kind {
    kind(name, FIRST, sql, codes).local()
}

/// One transaction of a payment, which the newest entry is about another than.
macro_rules! transaction {
    ($name:expr, $set:literal, $codes:expr $(,)?) => {
        kind(
            $name,
            SEVERAL,
            concat!(
                "update transactions set ",
                $set,
                " where transaction_id = (select transaction_id from journal where stream_id = $stream and entity_seq = 1)"
            ),
            $codes,
        )
        .local()
    };
}

/// Every kind of tampering with payments.
pub const KINDS: &[Kind] = &[
    // Payments changed without an entry.
    payment(
        "payments.state",
        "update payments set state = case state when 'CAPTURED' then 'REFUNDED' else 'CAPTURED' end where payment_id = $stream",
    ),
    payment(
        "payments.tenant_id",
        "update payments set tenant_id = 'other' where payment_id = $stream",
    ),
    payment(
        "payments.disputed",
        "update payments set disputed = not disputed where payment_id = $stream",
    ),
    payment(
        "payments.expired",
        "update payments set expired = not expired where payment_id = $stream",
    ),
    payment(
        "payments.livemode",
        "update payments set livemode = not livemode where payment_id = $stream",
    ),
    payment(
        "payments.amount",
        "update payments set amount = amount + 1 where payment_id = $stream",
    ),
    payment(
        "payments.currency",
        "update payments set currency = 'CHF' where payment_id = $stream",
    ),
    payment(
        "payments.authorized",
        "update payments set authorized = authorized + 1 where payment_id = $stream",
    ),
    payment(
        "payments.captured",
        "update payments set authorized = authorized + 1, captured = captured + 1 where payment_id = $stream",
    ),
    payment(
        "payments.capture_pending",
        "update payments set authorized = authorized + 1, capture_pending = capture_pending + 1 where payment_id = $stream",
    ),
    payment(
        "payments.voided",
        "update payments set authorized = authorized + 1, voided = voided + 1 where payment_id = $stream",
    ),
    payment(
        "payments.refunded",
        "update payments set authorized = authorized + 1, captured = captured + 1, refunded = refunded + 1 where payment_id = $stream",
    ),
    payment(
        "payments.charged_back",
        "update payments set charged_back = charged_back + 1 where payment_id = $stream",
    ),
    payment(
        "payments.excess",
        "update payments set excess = excess + 1 where payment_id = $stream",
    ),
    payment(
        "payments.method_kind",
        "update payments set method_kind = case method_kind when 'CARD' then 'WALLET' else 'CARD' end where payment_id = $stream",
    ),
    payment(
        "payments.brand",
        "update payments set brand = brand || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.last4",
        "update payments set last4 = case last4 when '0000' then '0001' else '0000' end where payment_id = $stream",
    ),
    payment(
        "payments.expiry_month",
        "update payments set expiry_month = coalesce(expiry_month, 0) % 12 + 1 where payment_id = $stream",
    ),
    payment(
        "payments.expiry_year",
        "update payments set expiry_year = coalesce(expiry_year, 2030) + 1 where payment_id = $stream",
    ),
    payment(
        "payments.capture_method",
        "update payments set capture_method = case capture_method when 'MANUAL' then 'AUTOMATIC' else 'MANUAL' end where payment_id = $stream",
    ),
    payment(
        "payments.merchant_reference",
        "update payments set merchant_reference = merchant_reference || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.description",
        "update payments set description = description || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.return_url",
        "update payments set return_url = return_url || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.initiator",
        "update payments set initiator = case initiator when 'CUSTOMER' then 'MERCHANT' else 'CUSTOMER' end where payment_id = $stream",
    ),
    payment(
        "payments.mandate_reference",
        "update payments set mandate_reference = mandate_reference || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.metadata",
        "update payments set metadata = metadata || '{\"forged\": \"x\"}' where payment_id = $stream",
    ),
    payment(
        "payments.provider_account",
        "update payments set provider_account = provider_account || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.routed",
        "update payments set routed = not routed where payment_id = $stream",
    ),
    payment(
        "payments.provider_reference",
        "update payments set provider_reference = coalesce(provider_reference, '') || 'x' where payment_id = $stream",
    ),
    payment(
        "payments.named_by_operator",
        "update payments set named_by_operator = not named_by_operator where payment_id = $stream",
    ),
    payment(
        "payments.decline_code",
        "update payments set decline_code = case decline_code when 'DO_NOT_HONOR' then 'INSUFFICIENT_FUNDS' \
         else 'DO_NOT_HONOR' end, decline_provider_code = '05' where payment_id = $stream",
    ),
    payment(
        "payments.created_at",
        "update payments set created_at = created_at + interval '1 microsecond' where payment_id = $stream",
    ),
    payment(
        "payments.expires_at",
        "update payments set expires_at = coalesce(expires_at, created_at) + interval '1 day' where payment_id = $stream",
    ),
    local(
        "payments.currency_exponent",
        "update payments set currency_exponent = (currency_exponent + 1) % 5 where payment_id = $stream",
        &["PAYMENT_COLUMN_DIFFERS"],
    ),
    local(
        "payments.updated_at",
        "update payments set updated_at = updated_at + interval '1 second' where payment_id = $stream",
        &["PAYMENT_COLUMN_DIFFERS"],
    ),
    local(
        "payments.version",
        "update payments set version = version + 1 where payment_id = $stream",
        &["PAYMENT_VERSION_DIFFERS"],
    ),
    local(
        "payments.last_leaf_hash",
        "update payments set last_leaf_hash = sha256(last_leaf_hash) where payment_id = $stream",
        &["PAYMENT_LAST_HASH_DIFFERS"],
    ),
    local(
        "payments.provider_token",
        "update payments set provider_token = sha256(payment_id::text::bytea) where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    kind(
        "a payment set back to where it was",
        CHANGED,
        "update payments set version = version - 1 where payment_id = $stream",
        &["PAYMENT_VERSION_DIFFERS"],
    ),
    local(
        "a payment deleted",
        "delete from payments where payment_id = $stream",
        &["PAYMENT_MISSING"],
    ),
    local(
        "a payment invented",
        "insert into payments select (p).* from (select invented(p, $entry) as p from payments p where payment_id = $stream) f",
        &["PAYMENT_WITHOUT_ENTRIES"],
    ),
    local(
        "payments.created_at, to infinity",
        "update payments set created_at = 'infinity' where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    local(
        "payments.updated_at, to infinity",
        "update payments set updated_at = 'infinity' where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    local(
        "payments.expires_at, before all times",
        "update payments set expires_at = '-infinity' where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    local(
        "payments.metadata, to a number that no program reads",
        "update payments set metadata = '{\"a\": 1e400}' where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    local(
        "payments.metadata, deeper than any program reads",
        "update payments set metadata = (repeat('[', 1000) || repeat(']', 1000))::jsonb where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
];

/// Every kind of tampering with transactions.
pub const TRANSACTION_KINDS: &[Kind] = &[
    local(
        "transactions.amount",
        "update transactions set amount = amount + 1 where payment_id = $stream",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    local(
        "transactions.state",
        "update transactions set request = null, state = case state when 'SUCCEEDED' then 'REVERSED' else 'SUCCEEDED' end \
         where payment_id = $stream",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    transaction!(
        "transactions.kind and amount",
        "kind = case kind when 'VOID' then 'REFUND' else 'VOID' end, amount = amount + 1",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    transaction!(
        "transactions.provider_reference",
        "provider_reference = coalesce(provider_reference, '') || 'x'",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    transaction!(
        "transactions.provider_account",
        "provider_account = provider_account || 'x'",
        &["TRANSACTION_COLUMN_DIFFERS"],
    ),
    transaction!(
        "transactions.origin",
        "origin = case origin when 'CALLER' then 'OPERATOR' else 'CALLER' end",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.final_capture",
        "final_capture = not final_capture",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.ever_unknown",
        "ever_unknown = not ever_unknown",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.attempts",
        "attempts = attempts + 1",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.resolved_by_operator",
        "resolved_by_operator = not resolved_by_operator",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.contradictions",
        "contradictions = contradictions || 'x'",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.left_alone",
        "left_alone = '2030-01-01T00:00:00.000000Z sandbox'",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    local(
        "transactions.left_alone, of which nothing can be made",
        "update transactions set left_alone = 'x' where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    transaction!(
        "transactions.execute_before",
        "execute_before = execute_before + interval '1 day'",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    transaction!(
        "transactions.reason",
        "reason = reason || 'x'",
        &["TRANSACTION_ROW_DIFFERS"],
    ),
    local(
        "transactions.created_at, to infinity",
        "update transactions set created_at = 'infinity' where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    local(
        "transactions.lease_until, before all times",
        "update transactions set lease_until = '-infinity' where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    local(
        "transactions.next_step_at, to infinity",
        "update transactions set next_step_at = 'infinity' where payment_id = $stream",
        &["PAYMENT_UNREADABLE"],
    ),
    local(
        "a transaction deleted",
        "delete from transactions where payment_id = $stream",
        &["TRANSACTION_MISSING"],
    ),
    local(
        "a transaction invented",
        "insert into transactions select (t).* from (select invented(t) as t from transactions t \
         where payment_id = $stream limit 1) f",
        &["TRANSACTION_WITHOUT_ENTRIES"],
    ),
];
