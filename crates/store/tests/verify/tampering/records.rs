//! Idempotency records and operator actions, of which entries speak.

use super::{ANY, FIRST, Kind, ONCE, kind};

/// Entries that open a case for a person, and that close one.
const OPENS: &str = "exists (select from operator_actions where action_id = j.entry_id)";
const CLOSES: &str = "exists (select from operator_actions where closed_by = j.entry_id)";

/// Every kind of tampering with them.
pub const KINDS: &[Kind] = &[
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
        "idempotency_records.command",
        FIRST,
        "update idempotency_records set command = case command when 'VoidPayment' then 'CapturePayment' \
         else 'VoidPayment' end where payment_id = $stream",
        &["IDEMPOTENCY_RECORD_DIFFERS"],
    )
    .local(),
    kind(
        "an idempotency record invented",
        ANY,
        "insert into idempotency_records select (r).* from (select invented_record(r, payment_id) as r \
         from idempotency_records r where payment_id = $stream limit 1) f",
        &["IDEMPOTENCY_RECORD_WITHOUT_ENTRY"],
    )
    .local(),
    kind(
        "an idempotency record invented, of another payment's command",
        ANY,
        "insert into idempotency_records select (r).* from (select invented_record(r, $stream) as r \
         from idempotency_records r where payment_id <> $stream limit 1) f",
        &["IDEMPOTENCY_RECORD_WITHOUT_ENTRY"],
    )
    .local(),
    kind(
        "an idempotency record invented, of no payment",
        ANY,
        "insert into idempotency_records select (r).* from (select invented_record(r, $entry) as r \
         from idempotency_records r where payment_id = $stream limit 1) f",
        &["IDEMPOTENCY_RECORD_WITHOUT_ENTRY"],
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
        "operator_actions.tenant_id",
        OPENS,
        "update operator_actions set tenant_id = 'other' where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .local(),
    kind(
        "operator_actions.opened_at",
        OPENS,
        "update operator_actions set opened_at = opened_at + interval '1 microsecond' where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .local(),
    kind(
        "operator_actions.opened_at, to infinity",
        OPENS,
        "update operator_actions set opened_at = 'infinity' where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .local(),
    kind(
        "operator_actions.closed_at, by no entry",
        OPENS,
        "update operator_actions set closed_at = now(), closed_by = null where action_id = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .local(),
    kind(
        "operator_actions.closed_at",
        CLOSES,
        "update operator_actions set closed_at = '-infinity' where closed_by = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .large()
    .local(),
    kind(
        "operator_actions.closed_at, deleted",
        CLOSES,
        "update operator_actions set closed_at = null where closed_by = $entry",
        &["OPERATOR_ACTION_DIFFERS"],
    )
    .large()
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
    kind(
        "an operator action invented, before all others",
        ONCE,
        "insert into operator_actions (action_id, payment_id, transaction_id, tenant_id, kind, opened_at) \
         values ('00000000-0000-0000-0000-000000000000', $stream, $entry, 'acme', 'EXCESS_AMOUNT', now())",
        &["OPERATOR_ACTION_WITHOUT_ENTRY"],
    )
    .local(),
];
