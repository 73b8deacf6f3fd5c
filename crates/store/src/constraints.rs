//! Every constraint of the schema, and what its violation means: the only place that knows their names.

/// What a violated constraint means for the change that violated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// The tenant has used the idempotency key before.
    IdempotencyKeyTaken,
    /// The row exists already: this change was written before, or an id was used twice.
    Exists,
    /// A value or a sum of values is not allowed: a defect of ours.
    NotAllowed,
}

use Violation::{Exists, IdempotencyKeyTaken, NotAllowed};

/// Every named constraint. A test compares it with the database's catalogue, both ways.
pub(crate) const CONSTRAINTS: &[(&str, Violation)] = &[
    ("api_keys_pkey", Exists),
    ("api_keys_row_mac_length", NotAllowed),
    ("api_keys_secret_mac_length", NotAllowed),
    ("api_keys_tenant_id_fkey", NotAllowed),
    ("attempts_ended_completely", NotAllowed),
    ("attempts_latency_not_negative", NotAllowed),
    ("attempts_number_positive", NotAllowed),
    ("attempts_operation_known", NotAllowed),
    ("attempts_outcome_known", NotAllowed),
    ("attempts_pkey", Exists),
    ("attempts_request_digest_length", NotAllowed),
    ("attempts_response_digest_length", NotAllowed),
    ("checkpoints_mac_key_id_length", NotAllowed),
    ("checkpoints_mac_length", NotAllowed),
    ("checkpoints_note_digest_length", NotAllowed),
    ("checkpoints_note_length", NotAllowed),
    ("checkpoints_pkey", Exists),
    ("checkpoints_previous_size_not_negative", NotAllowed),
    ("checkpoints_root_length", NotAllowed),
    ("checkpoints_signed_at_range", NotAllowed),
    ("checkpoints_size_not_negative", NotAllowed),
    ("cosignatures_line_length", NotAllowed),
    ("cosignatures_mac_key_id_length", NotAllowed),
    ("cosignatures_mac_length", NotAllowed),
    ("cosignatures_pkey", Exists),
    ("cosignatures_previous_size_not_negative", NotAllowed),
    ("cosignatures_root_length", NotAllowed),
    ("cosignatures_size_not_negative", NotAllowed),
    ("customers_pkey", Exists),
    ("customers_reference_mac_length", NotAllowed),
    ("erasures_customer_key", Exists),
    ("erasures_open_is_due", NotAllowed),
    ("erasures_open_payments_not_negative", NotAllowed),
    ("erasures_payments_where_finished", NotAllowed),
    ("erasures_pkey", Exists),
    ("erasures_reference_mac_length", NotAllowed),
    ("idempotency_records_command_known", NotAllowed),
    ("idempotency_records_pkey", IdempotencyKeyTaken),
    ("journal_entity_seq_positive", NotAllowed),
    ("journal_leaf_hash_length", NotAllowed),
    ("journal_leaf_length", NotAllowed),
    ("journal_mac_length", NotAllowed),
    ("journal_pkey", Exists),
    ("journal_positions_arrival_key", Exists),
    ("journal_positions_pkey", Exists),
    ("journal_positions_position_not_negative", NotAllowed),
    ("journal_result_known", NotAllowed),
    ("journal_trace_id_length", NotAllowed),
    ("notification_attempts_latency_not_negative", NotAllowed),
    ("notification_attempts_notification_id_fkey", NotAllowed),
    ("notification_attempts_number_positive", NotAllowed),
    ("notification_attempts_pkey", Exists),
    ("notification_cursor_next_position_not_negative", NotAllowed),
    ("notification_cursor_one_row", NotAllowed),
    ("notification_cursor_pkey", Exists),
    (
        "notification_deliveries_attempts_before_in_range",
        NotAllowed,
    ),
    ("notification_deliveries_attempts_not_negative", NotAllowed),
    ("notification_deliveries_cause_known", NotAllowed),
    ("notification_deliveries_ended_completely", NotAllowed),
    ("notification_deliveries_endpoint_id_fkey", NotAllowed),
    ("notification_deliveries_event_key", Exists),
    ("notification_deliveries_failures_not_negative", NotAllowed),
    ("notification_deliveries_pending_is_due", NotAllowed),
    ("notification_deliveries_pkey", Exists),
    ("notification_deliveries_state_known", NotAllowed),
    ("notification_endpoints_pkey", Exists),
    ("notification_endpoints_previous_complete", NotAllowed),
    ("notification_endpoints_state_known", NotAllowed),
    ("notification_endpoints_tenant_id_fkey", NotAllowed),
    ("notification_endpoints_wiped", NotAllowed),
    ("operator_actions_closed_completely", NotAllowed),
    ("operator_actions_kind_known", NotAllowed),
    ("operator_actions_pkey", Exists),
    ("payments_amount_range", NotAllowed),
    ("payments_authorized_not_negative", NotAllowed),
    ("payments_capture_method_known", NotAllowed),
    ("payments_capture_pending_not_negative", NotAllowed),
    ("payments_captured_not_negative", NotAllowed),
    ("payments_captures_within_authorized", NotAllowed),
    ("payments_charged_back_not_negative", NotAllowed),
    ("payments_currency_exponent_range", NotAllowed),
    ("payments_currency_form", NotAllowed),
    ("payments_customer_complete", NotAllowed),
    ("payments_excess_not_negative", NotAllowed),
    ("payments_expiry_month_range", NotAllowed),
    ("payments_initiator_known", NotAllowed),
    ("verification_schedule_finished_completely", NotAllowed),
    ("verification_schedule_mismatches_not_negative", NotAllowed),
    ("verification_schedule_one_row", NotAllowed),
    ("verification_schedule_pkey", Exists),
    ("payments_last4_form", NotAllowed),
    ("payments_last_leaf_hash_length", NotAllowed),
    ("payments_method_kind_known", NotAllowed),
    ("payments_pkey", Exists),
    ("payments_refund_pending_not_negative", NotAllowed),
    ("payments_refunded_not_negative", NotAllowed),
    ("payments_refunds_within_captured", NotAllowed),
    ("payments_state_known", NotAllowed),
    ("payments_version_positive", NotAllowed),
    ("payments_void_pending_not_negative", NotAllowed),
    ("payments_voided_not_negative", NotAllowed),
    ("refused_entries_pkey", Exists),
    ("refused_entries_reason_known", NotAllowed),
    ("refused_entries_seal_length", NotAllowed),
    ("sequencer_head_next_position_not_negative", NotAllowed),
    ("sequencer_head_one_row", NotAllowed),
    ("sequencer_head_pkey", Exists),
    ("tenants_pkey", Exists),
    ("tenants_tenant_id_length", NotAllowed),
    ("transactions_amount_not_negative", NotAllowed),
    ("transactions_attempts_not_negative", NotAllowed),
    ("transactions_dispute_amount_positive", NotAllowed),
    ("transactions_dispute_complete", NotAllowed),
    ("transactions_dispute_of_chargebacks", NotAllowed),
    ("transactions_kind_known", NotAllowed),
    ("transactions_open_case_known", NotAllowed),
    ("transactions_origin_known", NotAllowed),
    ("transactions_pkey", Exists),
    ("transactions_request_wiped", NotAllowed),
    ("transactions_retries_not_negative", NotAllowed),
    ("transactions_state_known", NotAllowed),
    ("tree_heads_mac_key_id_length", NotAllowed),
    ("tree_heads_mac_length", NotAllowed),
    ("tree_heads_pkey", Exists),
    ("tree_heads_previous_size_not_negative", NotAllowed),
    ("tree_heads_root_length", NotAllowed),
    ("tree_heads_size_positive", NotAllowed),
    ("tree_tiles_hashes_length", NotAllowed),
    ("tree_tiles_index_not_negative", NotAllowed),
    ("tree_tiles_level_range", NotAllowed),
    ("tree_tiles_pkey", Exists),
    ("webhook_inbox_attempts_before_in_range", NotAllowed),
    ("webhook_inbox_attempts_not_negative", NotAllowed),
    ("webhook_inbox_event_key", Exists),
    ("webhook_inbox_finished_completely", NotAllowed),
    ("webhook_inbox_open_has_body", NotAllowed),
    ("webhook_inbox_open_is_due", NotAllowed),
    ("webhook_inbox_pkey", Exists),
    ("webhook_inbox_reason_known", NotAllowed),
    ("webhook_inbox_reason_where_due", NotAllowed),
    ("webhook_inbox_state_known", NotAllowed),
    ("webhook_inbox_wiped_completely", NotAllowed),
];

/// The names of all constraints of the schema, in alphabetical order.
pub fn constraint_names() -> impl Iterator<Item = &'static str> {
    CONSTRAINTS.iter().map(|(name, _)| *name)
}

/// What a violation of this constraint means. `None` for a name that the schema does not have.
pub(crate) fn meaning(constraint: &str) -> Option<Violation> {
    let name = table_constraint(constraint);
    CONSTRAINTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, meaning)| *meaning)
}

/// Whether it is the one by which a stream has one entry of each number.
pub(crate) fn is_entry_key(constraint: &str) -> bool {
    table_constraint(constraint) == "journal_pkey"
}

/// The constraint's name on the table, where a partition reports its own (`payments_p202601_pkey`).
fn table_constraint(constraint: &str) -> String {
    let is_partition = |part: &&str| {
        **part == *"default"
            || part.strip_prefix('p').is_some_and(|month| {
                month.len() == 6 && month.bytes().all(|digit| digit.is_ascii_digit())
            })
    };
    let parts: Vec<_> = constraint
        .split('_')
        .filter(|part| !is_partition(part))
        .collect();
    parts.join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partitions_constraint_is_its_tables() {
        assert_eq!(meaning("payments_p202611_pkey"), Some(Exists));
        assert_eq!(meaning("journal_default_pkey"), Some(Exists));
        assert_eq!(
            meaning("idempotency_records_pkey"),
            Some(IdempotencyKeyTaken)
        );
        assert_eq!(
            meaning("payments_refunds_within_captured"),
            Some(NotAllowed)
        );
        assert_eq!(meaning("unheard_of"), None);
    }
}
