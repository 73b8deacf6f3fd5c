-- The hot tables have no foreign keys among them: one was measured to cost the commit path about a
-- fifth. There is a single way to write them (one statement, in which every row hangs on the guarded
-- write of its payment), and a test compares the tables.
--
-- They are partitioned by payment id. It is a UUIDv7, so a partition is a month, and the unique
-- constraints, which have to hold the partition key, still say what they should.

create table payments (
    payment_id uuid not null,
    tenant_id text collate "C" not null,
    version bigint not null,
    state text collate "C" not null,
    disputed boolean not null,
    expired boolean not null,
    livemode boolean not null,
    amount bigint not null,
    currency text collate "C" not null,
    currency_exponent smallint not null,
    authorized bigint not null,
    captured bigint not null,
    capture_pending bigint not null,
    voided bigint not null,
    void_pending bigint not null,
    refunded bigint not null,
    refund_pending bigint not null,
    charged_back bigint not null,
    excess bigint not null,
    method_kind text collate "C" not null,
    provider_token bytea,
    brand text not null,
    last4 text collate "C" not null,
    expiry_month smallint,
    expiry_year smallint,
    capture_method text collate "C" not null,
    merchant_reference text not null,
    description text not null,
    return_url text not null,
    initiator text collate "C" not null,
    mandate_reference text not null,
    metadata jsonb not null,
    customer_id uuid,
    customer_sealed bytea,
    provider_account text collate "C" not null,
    provider_reference text collate "C",
    next_action bytea,
    decline_code text collate "C",
    decline_provider_code text,
    failure_cause text collate "C",
    created_at timestamptz not null,
    updated_at timestamptz not null,
    expires_at timestamptz,
    last_leaf_hash bytea not null,
    constraint payments_pkey primary key (payment_id),
    constraint payments_version_positive check (version >= 1),
    constraint payments_state_known check (state in (
        'PENDING', 'REQUIRES_ACTION', 'AUTHORIZED', 'PARTIALLY_CAPTURED', 'CAPTURED',
        'PARTIALLY_REFUNDED', 'REFUNDED', 'VOIDED', 'DECLINED', 'FAILED', 'EXPIRED')),
    constraint payments_method_kind_known check (method_kind in (
        'CARD', 'BANK_DEBIT', 'WALLET', 'BANK_TRANSFER', 'VOUCHER')),
    constraint payments_capture_method_known check (capture_method in ('AUTOMATIC', 'MANUAL')),
    constraint payments_initiator_known check (initiator in ('CUSTOMER', 'MERCHANT')),
    constraint payments_amount_range check (amount between 1 and 999999999999999),
    constraint payments_currency_form check (currency ~ '^[A-Z]{3}$'),
    constraint payments_currency_exponent_range check (currency_exponent between 0 and 4),
    constraint payments_authorized_not_negative check (authorized >= 0),
    constraint payments_captured_not_negative check (captured >= 0),
    constraint payments_capture_pending_not_negative check (capture_pending >= 0),
    constraint payments_voided_not_negative check (voided >= 0),
    constraint payments_void_pending_not_negative check (void_pending >= 0),
    constraint payments_refunded_not_negative check (refunded >= 0),
    constraint payments_refund_pending_not_negative check (refund_pending >= 0),
    constraint payments_charged_back_not_negative check (charged_back >= 0),
    constraint payments_excess_not_negative check (excess >= 0),
    -- I5: commands cannot exceed limits. What a provider proves beyond them goes to excess.
    constraint payments_captures_within_authorized
        check (captured + capture_pending + voided + void_pending <= authorized),
    constraint payments_refunds_within_captured check (refunded + refund_pending <= captured),
    constraint payments_last4_form check (last4 ~ '^([0-9]{4})?$'),
    constraint payments_expiry_month_range check (expiry_month between 1 and 12),
    constraint payments_customer_complete check ((customer_id is null) = (customer_sealed is null)),
    constraint payments_last_leaf_hash_length check (octet_length(last_leaf_hash) = 32)
) partition by range (payment_id);
-- Lists are per tenant, newest first. There is no index on the state: it changes with every outcome,
-- and an index on it would cost each of these updates its heap-only path.
create index payments_tenant_idx on payments (tenant_id, payment_id);
create index payments_merchant_reference_idx on payments (tenant_id, merchant_reference, payment_id)
    where merchant_reference <> '';

comment on table payments is 'Payments as they stand. Changed only together with a journal entry, guarded by version.';
comment on column payments.payment_id is 'UUIDv7, made when the payment was accepted; partition key.';
comment on column payments.tenant_id is 'Who owns it.';
comment on column payments.version is 'How many changes were committed: 1 is the acceptance. Equals entity_seq of the newest journal entry.';
comment on column payments.state is 'Where it stands; after authorization derived from the amounts.';
comment on column payments.disputed is 'Whether a chargeback is open.';
comment on column payments.expired is 'Whether the provider proved that the authorization ran out.';
comment on column payments.livemode is 'Whether real money moves.';
comment on column payments.amount is 'Amount asked for, in minor units of currency.';
comment on column payments.currency is 'ISO 4217 alphabetic code; of every amount of this payment.';
comment on column payments.currency_exponent is 'Decimal digits of the minor unit when the payment was accepted.';
comment on column payments.authorized is 'Proved authorized, in minor units.';
comment on column payments.captured is 'Proved captured, in minor units.';
comment on column payments.capture_pending is 'Reserved by captures whose outcome is not known, in minor units.';
comment on column payments.voided is 'Proved released by a void, a final capture or expiry, in minor units.';
comment on column payments.void_pending is 'Reserved by a void whose outcome is not known, in minor units.';
comment on column payments.refunded is 'Proved refunded and not reversed since, in minor units.';
comment on column payments.refund_pending is 'Reserved by refunds whose outcome is not known, in minor units.';
comment on column payments.charged_back is 'Taken back by chargebacks and not returned since, in minor units.';
comment on column payments.excess is 'Proved by the provider beyond our limits, in minor units; a person looks into it.';
comment on column payments.method_kind is 'Kind of the payment method.';
comment on column payments.provider_token is 'The provider''s token of the payment method; encrypted.';
comment on column payments.brand is 'Brand for display; may be empty.';
comment on column payments.last4 is 'Last four digits for display; may be empty.';
comment on column payments.expiry_month is 'Expiry month, 1 to 12, for display.';
comment on column payments.expiry_year is 'Expiry year, four digits, for display.';
comment on column payments.capture_method is 'Captured with the authorization, or by a later command.';
comment on column payments.merchant_reference is 'The caller''s order id; may be empty.';
comment on column payments.description is 'The caller''s description; may be empty.';
comment on column payments.return_url is 'Where the customer returns to after a redirect; may be empty.';
comment on column payments.initiator is 'Whether the customer is present, or the merchant charges under a mandate.';
comment on column payments.mandate_reference is 'The mandate; may be empty.';
comment on column payments.metadata is 'The caller''s own pairs: an object of strings.';
comment on column payments.customer_id is 'The customer, where one was given; under its data key the columns named there are encrypted.';
comment on column payments.customer_sealed is 'Reference, personal fields and their salts; encrypted under the customer''s data key.';
comment on column payments.provider_account is 'Configured provider account that serves it.';
comment on column payments.provider_reference is 'The provider''s reference of the payment.';
comment on column payments.next_action is 'What the customer has to do; encrypted.';
comment on column payments.decline_code is 'Unified decline code, where it was declined.';
comment on column payments.decline_provider_code is 'The provider''s own decline code, where it was declined; may be empty.';
comment on column payments.failure_cause is 'Why it failed, where it did.';
comment on column payments.created_at is 'When it was accepted.';
comment on column payments.updated_at is 'When it last changed.';
comment on column payments.expires_at is 'When the authorization runs out, as far as the provider said.';
comment on column payments.last_leaf_hash is 'Leaf hash of its newest journal entry, to which the next is chained.';

create table transactions (
    payment_id uuid not null,
    transaction_id uuid not null,
    kind text collate "C" not null,
    origin text collate "C" not null,
    state text collate "C" not null,
    amount bigint not null,
    provider_account text collate "C" not null,
    provider_reference text collate "C",
    decline_code text collate "C",
    decline_provider_code text,
    failure_cause text collate "C",
    reason text not null,
    final_capture boolean not null,
    attempts integer not null,
    ever_unknown boolean not null,
    open_case text collate "C",
    request bytea,
    execute_before timestamptz not null,
    lease_until timestamptz,
    next_step_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint transactions_pkey primary key (payment_id, transaction_id),
    constraint transactions_kind_known check (kind in (
        'PURCHASE', 'AUTHORIZATION', 'CAPTURE', 'VOID', 'REFUND', 'CHARGEBACK', 'CHARGEBACK_REVERSAL')),
    constraint transactions_origin_known check (origin in ('CALLER', 'PROVIDER', 'OPERATOR')),
    constraint transactions_state_known check (state in (
        'PENDING', 'REQUIRES_ACTION', 'SUCCEEDED', 'DECLINED', 'FAILED', 'REVERSED')),
    constraint transactions_open_case_known check (open_case in (
        'AMOUNT_MISMATCH', 'CONTRADICTING_FACT', 'EXCESS_AMOUNT')),
    constraint transactions_amount_not_negative check (amount >= 0),
    constraint transactions_attempts_not_negative check (attempts >= 0),
    -- The request holds the provider's token: it goes when the outcome is known.
    constraint transactions_request_wiped
        check (request is null or state in ('PENDING', 'REQUIRES_ACTION'))
) partition by range (payment_id);

comment on table transactions is 'Operations on payments, such as a capture.';
comment on column transactions.payment_id is 'The payment; partition key.';
comment on column transactions.transaction_id is 'UUIDv7; also the idempotency key at the provider.';
comment on column transactions.kind is 'What it does.';
comment on column transactions.origin is 'Who caused it.';
comment on column transactions.state is 'Where it stands.';
comment on column transactions.amount is 'Its amount in minor units of the payment''s currency; 0 for a void whose extent is not known yet.';
comment on column transactions.provider_account is 'Configured provider account that serves it.';
comment on column transactions.provider_reference is 'The provider''s reference of this operation.';
comment on column transactions.decline_code is 'Unified decline code, where it was declined.';
comment on column transactions.decline_provider_code is 'The provider''s own decline code, where it was declined; may be empty.';
comment on column transactions.failure_cause is 'Why it failed, where it did.';
comment on column transactions.reason is 'The caller''s reason; may be empty.';
comment on column transactions.final_capture is 'Whether this capture releases the rest.';
comment on column transactions.attempts is 'How many sends were committed.';
comment on column transactions.ever_unknown is 'Whether a send may have been processed without an answer.';
comment on column transactions.open_case is 'The case for a person that is open about it, where one is.';
comment on column transactions.request is 'The bytes that every send carries; encrypted; wiped when the outcome is known.';
comment on column transactions.execute_before is 'No first send after this.';
comment on column transactions.lease_until is 'A sender may be alive until then.';
comment on column transactions.next_step_at is 'When the next step is due, where one is.';
comment on column transactions.created_at is 'When it was accepted.';
comment on column transactions.updated_at is 'When it last changed.';

create table attempts (
    payment_id uuid not null,
    transaction_id uuid not null,
    number integer not null,
    attempt_id uuid not null,
    tenant_id text collate "C" not null,
    operation text collate "C" not null,
    provider_account text collate "C" not null,
    digest_salt bytea not null,
    request_digest bytea not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    latency_micros bigint,
    outcome text collate "C",
    cause text collate "C",
    http_status smallint,
    response bytea,
    response_digest bytea,
    constraint attempts_pkey primary key (payment_id, transaction_id, number),
    constraint attempts_number_positive check (number >= 1),
    constraint attempts_operation_known check (operation in (
        'purchase', 'authorize', 'confirm', 'capture', 'void', 'refund')),
    constraint attempts_outcome_known check (outcome in (
        'APPROVED', 'DECLINED', 'REQUIRES_ACTION', 'PENDING', 'FAILED', 'NOT_SENT', 'UNKNOWN')),
    constraint attempts_ended_completely
        check ((ended_at is null) = (outcome is null) and (ended_at is null) = (latency_micros is null)),
    constraint attempts_latency_not_negative check (latency_micros >= 0),
    constraint attempts_request_digest_length check (octet_length(request_digest) = 32),
    constraint attempts_response_digest_length check (octet_length(response_digest) = 32)
) partition by range (payment_id);
-- For summaries over a time range. Rows arrive in about the order of started_at, which is what a BRIN
-- index wants, and it costs an insert next to nothing.
create index attempts_started_at_idx on attempts using brin (started_at) with (pages_per_range = 32, autosummarize = on);

comment on table attempts is 'Calls to providers, each recorded before it is made.';
comment on column attempts.payment_id is 'The payment; partition key.';
comment on column attempts.transaction_id is 'The transaction that it serves.';
comment on column attempts.number is '1, 2, 3 … within the transaction.';
comment on column attempts.attempt_id is 'UUIDv7.';
comment on column attempts.tenant_id is 'Who owns the payment.';
comment on column attempts.operation is 'What it asks the provider to do.';
comment on column attempts.provider_account is 'Configured provider account that it goes to.';
comment on column attempts.digest_salt is '128 random bits that both digests are salted with; encrypted.';
comment on column attempts.request_digest is 'Salted SHA-256 of the bytes sent.';
comment on column attempts.started_at is 'When it was committed, just before the call.';
comment on column attempts.ended_at is 'When it ended; null while it runs, or when its process died.';
comment on column attempts.latency_micros is 'How long the provider took, in microseconds.';
comment on column attempts.outcome is 'What is known.';
comment on column attempts.cause is 'Why there was no answer, or what the provider refused.';
comment on column attempts.http_status is 'HTTP status, where one came.';
comment on column attempts.response is 'What came back, bounded; encrypted.';
comment on column attempts.response_digest is 'Salted SHA-256 of what came back.';

create table idempotency_records (
    tenant_id text collate "C" not null,
    idempotency_key text collate "C" not null,
    command text collate "C" not null,
    fingerprint bytea not null,
    payment_id uuid not null,
    transaction_id uuid not null,
    created_at timestamptz not null,
    -- I6 rests on this constraint. It is why this table is not partitioned, and keys never expire.
    constraint idempotency_records_pkey primary key (tenant_id, idempotency_key),
    constraint idempotency_records_command_known check (command in (
        'CreatePayment', 'ConfirmPayment', 'CapturePayment', 'VoidPayment', 'RefundPayment'))
);
comment on table idempotency_records is 'What was asked under which idempotency key.';
comment on column idempotency_records.tenant_id is 'Who asked.';
comment on column idempotency_records.idempotency_key is 'The caller''s key: 1 to 255 printable ASCII characters.';
comment on column idempotency_records.command is 'Which RPC.';
comment on column idempotency_records.fingerprint is 'A version byte, then a shortened keyed MAC per field of the request.';
comment on column idempotency_records.payment_id is 'The payment.';
comment on column idempotency_records.transaction_id is 'The transaction that the command made or advanced.';
comment on column idempotency_records.created_at is 'When it was accepted.';

create table operator_actions (
    action_id uuid not null,
    payment_id uuid not null,
    transaction_id uuid not null,
    tenant_id text collate "C" not null,
    kind text collate "C" not null,
    opened_at timestamptz not null,
    constraint operator_actions_pkey primary key (action_id),
    constraint operator_actions_kind_known check (kind in (
        'AMOUNT_MISMATCH', 'CONTRADICTING_FACT', 'EXCESS_AMOUNT'))
);
create index operator_actions_tenant_idx on operator_actions (tenant_id, action_id);
comment on table operator_actions is 'Cases for a person, opened by a change of a payment.';
comment on column operator_actions.action_id is 'Id of the journal entry of the change that opened it.';
comment on column operator_actions.payment_id is 'About which payment.';
comment on column operator_actions.transaction_id is 'About which transaction.';
comment on column operator_actions.tenant_id is 'Who owns the payment.';
comment on column operator_actions.kind is 'Why a person has to look.';
comment on column operator_actions.opened_at is 'When it was opened.';

grant select, insert, update on payments, transactions, attempts to quittance_app;
grant select, insert on idempotency_records, operator_actions to quittance_app;
