//! The tables that are read through typed queries, as the migrations make them.

diesel::table! {
    api_keys (key_id) {
        key_id -> Text,
        tenant_id -> Text,
        name -> Text,
        roles -> Array<Text>,
        secret_mac -> Binary,
        mac_key_id -> Text,
        created_at -> Timestamptz,
        revoked_at -> Nullable<Timestamptz>,
        row_mac -> Nullable<Binary>,
    }
}

diesel::table! {
    attempts (payment_id, transaction_id, number) {
        payment_id -> Uuid,
        transaction_id -> Uuid,
        number -> Integer,
        attempt_id -> Uuid,
        tenant_id -> Text,
        operation -> Text,
        provider_account -> Text,
        digest_salt -> Binary,
        request_digest -> Binary,
        started_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        latency_micros -> Nullable<BigInt>,
        outcome -> Nullable<Text>,
        cause -> Nullable<Text>,
        http_status -> Nullable<SmallInt>,
        response -> Nullable<Binary>,
        response_digest -> Nullable<Binary>,
    }
}

diesel::table! {
    checkpoints (tree_size, signed_at) {
        tree_size -> BigInt,
        signed_at -> Timestamptz,
        root_hash -> Binary,
        note -> Text,
        mac -> Nullable<Binary>,
        mac_key_id -> Nullable<Text>,
        previous_size -> Nullable<BigInt>,
        note_digest -> Nullable<Binary>,
    }
}

diesel::table! {
    cosignatures (tree_size, witness, line) {
        tree_size -> BigInt,
        witness -> Text,
        root_hash -> Binary,
        cosigned_at -> Timestamptz,
        line -> Text,
        previous_size -> Nullable<BigInt>,
        mac -> Nullable<Binary>,
        mac_key_id -> Nullable<Text>,
    }
}

diesel::table! {
    tree_heads (tree_size) {
        tree_size -> BigInt,
        root_hash -> Binary,
        mac -> Binary,
        mac_key_id -> Text,
        previous_size -> Nullable<BigInt>,
    }
}

diesel::table! {
    tree_tiles (level, tile_index) {
        level -> SmallInt,
        tile_index -> BigInt,
        hashes -> Binary,
    }
}

diesel::table! {
    customers (customer_id) {
        customer_id -> Uuid,
        tenant_id -> Text,
        reference_mac -> Binary,
        data_key -> Binary,
        created_at -> Timestamptz,
        erasing_since -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    idempotency_records (tenant_id, idempotency_key) {
        tenant_id -> Text,
        idempotency_key -> Text,
        command -> Text,
        fingerprint -> Binary,
        payment_id -> Uuid,
        transaction_id -> Uuid,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    journal (stream_id, entity_seq) {
        stream_id -> Uuid,
        entity_seq -> BigInt,
        entry_id -> Uuid,
        tenant_id -> Nullable<Text>,
        payment_id -> Nullable<Uuid>,
        transaction_id -> Nullable<Uuid>,
        event_type -> Text,
        result -> Text,
        cause -> Nullable<Text>,
        actor -> Text,
        source -> Text,
        provider_account -> Nullable<Text>,
        trace_id -> Nullable<Binary>,
        occurred_at -> Timestamptz,
        leaf -> Binary,
        leaf_hash -> Binary,
        mac -> Binary,
        mac_key_id -> Text,
        arrival -> BigInt,
    }
}

diesel::table! {
    journal_positions (position) {
        position -> BigInt,
        arrival -> BigInt,
        entry_id -> Uuid,
        stream_id -> Uuid,
        entity_seq -> BigInt,
        tenant_id -> Nullable<Text>,
    }
}

diesel::table! {
    operator_actions (action_id) {
        action_id -> Uuid,
        payment_id -> Uuid,
        transaction_id -> Uuid,
        tenant_id -> Text,
        kind -> Text,
        opened_at -> Timestamptz,
        closed_at -> Nullable<Timestamptz>,
        closed_by -> Nullable<Uuid>,
    }
}

diesel::table! {
    payments (payment_id) {
        payment_id -> Uuid,
        tenant_id -> Text,
        version -> BigInt,
        state -> Text,
        disputed -> Bool,
        expired -> Bool,
        livemode -> Bool,
        amount -> BigInt,
        currency -> Text,
        currency_exponent -> SmallInt,
        authorized -> BigInt,
        captured -> BigInt,
        capture_pending -> BigInt,
        voided -> BigInt,
        void_pending -> BigInt,
        refunded -> BigInt,
        refund_pending -> BigInt,
        charged_back -> BigInt,
        excess -> BigInt,
        method_kind -> Text,
        provider_token -> Nullable<Binary>,
        brand -> Text,
        last4 -> Text,
        expiry_month -> Nullable<SmallInt>,
        expiry_year -> Nullable<SmallInt>,
        capture_method -> Text,
        merchant_reference -> Text,
        description -> Text,
        return_url -> Text,
        initiator -> Text,
        mandate_reference -> Text,
        metadata -> Jsonb,
        customer_id -> Nullable<Uuid>,
        customer_sealed -> Nullable<Binary>,
        provider_account -> Text,
        provider_reference -> Nullable<Text>,
        next_action -> Nullable<Binary>,
        decline_code -> Nullable<Text>,
        decline_provider_code -> Nullable<Text>,
        failure_cause -> Nullable<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        last_leaf_hash -> Binary,
        routed -> Bool,
        named_by_operator -> Bool,
    }
}

diesel::table! {
    sequencer_head (id) {
        id -> Bool,
        next_position -> BigInt,
        low_arrival -> BigInt,
    }
}

diesel::table! {
    tenants (tenant_id) {
        tenant_id -> Text,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    transactions (payment_id, transaction_id) {
        payment_id -> Uuid,
        transaction_id -> Uuid,
        kind -> Text,
        origin -> Text,
        state -> Text,
        amount -> BigInt,
        provider_account -> Text,
        provider_reference -> Nullable<Text>,
        decline_code -> Nullable<Text>,
        decline_provider_code -> Nullable<Text>,
        failure_cause -> Nullable<Text>,
        reason -> Text,
        final_capture -> Bool,
        attempts -> Integer,
        ever_unknown -> Bool,
        open_case -> Nullable<Text>,
        request -> Nullable<Binary>,
        execute_before -> Timestamptz,
        lease_until -> Nullable<Timestamptz>,
        next_step_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        retries -> Integer,
        resolved_by_operator -> Bool,
        claimed_until -> Nullable<Timestamptz>,
        dispute_reason -> Nullable<Text>,
        dispute_due_at -> Nullable<Timestamptz>,
        dispute_amount -> Nullable<BigInt>,
        dispute_currency -> Nullable<Text>,
        contradictions -> Text,
        left_alone -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    attempts,
    customers,
    journal,
    journal_positions,
    payments,
    transactions
);
