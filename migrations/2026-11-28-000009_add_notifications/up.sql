-- What tenants are told by themselves: where to, which events, and what became of each.
--
-- Not partitioned: deliveries are made from the journal's positions, of tenants that have endpoints only, and those
-- that were delivered are removed after notifications.keep_delivered_days.
create table notification_endpoints (
    endpoint_id uuid not null constraint notification_endpoints_pkey primary key,
    tenant_id text collate "C" not null,
    url bytea,
    description text not null,
    event_types text[] not null,
    state text not null default 'ENABLED',
    secret bytea,
    previous_secret bytea,
    previous_secret_until timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint notification_endpoints_tenant_id_fkey foreign key (tenant_id) references tenants (tenant_id),
    constraint notification_endpoints_state_known check (state in ('ENABLED', 'DISABLED', 'GONE', 'DELETED')),
    constraint notification_endpoints_wiped check (
        (url is null) = (state = 'DELETED') and (secret is null) = (state = 'DELETED')),
    constraint notification_endpoints_previous_complete check (
        (previous_secret is null) = (previous_secret_until is null))
);
create index notification_endpoints_tenant_idx on notification_endpoints (tenant_id, endpoint_id) where state <> 'DELETED';

comment on table notification_endpoints is 'Where a tenant is told of its events.';
comment on column notification_endpoints.endpoint_id is 'UUIDv7.';
comment on column notification_endpoints.tenant_id is 'Whose events it is told, and nobody else''s.';
comment on column notification_endpoints.url is 'Where notifications are posted. Encrypted: its path may hold a token. Null once it is deleted.';
comment on column notification_endpoints.description is 'What it is for, in the words of whoever made it.';
comment on column notification_endpoints.event_types is 'Event types that it is told, such as payment.captured or refund.*; empty: all.';
comment on column notification_endpoints.state is 'ENABLED, DISABLED (by a person), GONE (the receiver answered 410), or DELETED.';
comment on column notification_endpoints.secret is 'The secret that notifications are signed under. Encrypted. Null once it is deleted.';
comment on column notification_endpoints.previous_secret is 'The one before, which is signed under too until previous_secret_until. Encrypted.';
comment on column notification_endpoints.previous_secret_until is 'Until when previous_secret is live (database clock).';
comment on column notification_endpoints.created_at is 'When it was made (database clock).';
comment on column notification_endpoints.updated_at is 'When it was last changed (database clock).';

create table notification_deliveries (
    notification_id uuid not null constraint notification_deliveries_pkey primary key default gen_random_uuid(),
    endpoint_id uuid not null,
    tenant_id text collate "C" not null,
    position bigint not null,
    entry_id uuid not null,
    payment_id uuid not null,
    entity_seq bigint not null,
    event_type text collate "C" not null,
    state text not null default 'PENDING',
    attempts integer not null default 0,
    failures integer not null default 0,
    next_attempt_at timestamptz default now(),
    claimed_until timestamptz,
    cause text,
    http_status smallint,
    created_at timestamptz not null default now(),
    ended_at timestamptz,
    constraint notification_deliveries_endpoint_id_fkey foreign key (endpoint_id)
        references notification_endpoints (endpoint_id),
    -- However often the journal is read, an endpoint is told of an event by one notification.
    constraint notification_deliveries_event_key unique (endpoint_id, entry_id),
    constraint notification_deliveries_state_known check (state in ('PENDING', 'DELIVERED', 'DEAD')),
    constraint notification_deliveries_cause_known check (cause in (
        'HTTP_STATUS', 'REDIRECT', 'GONE', 'TIMEOUT', 'UNREACHABLE', 'CONNECTION_LOST', 'NAME_NOT_RESOLVED',
        'ADDRESS_REFUSED', 'NOT_PREPARED', 'ENDPOINT_CLOSED', 'ABANDONED')),
    constraint notification_deliveries_attempts_not_negative check (attempts >= 0),
    constraint notification_deliveries_failures_not_negative check (failures >= 0),
    constraint notification_deliveries_pending_is_due check ((next_attempt_at is not null) = (state = 'PENDING')),
    constraint notification_deliveries_ended_completely check ((ended_at is null) = (state = 'PENDING'))
);

comment on table notification_deliveries is 'One event for one endpoint: a notification, and what became of it.';
comment on column notification_deliveries.notification_id is 'What the receiver knows it by (webhook-id), the same in every attempt.';
comment on column notification_deliveries.endpoint_id is 'Where it goes.';
comment on column notification_deliveries.tenant_id is 'Whose event it is; the endpoint''s tenant.';
comment on column notification_deliveries.position is 'The position of the event''s journal entry.';
comment on column notification_deliveries.entry_id is 'The journal entry that it tells of.';
comment on column notification_deliveries.payment_id is 'The payment concerned.';
comment on column notification_deliveries.entity_seq is 'The entry''s number within the payment: a later one waits for an earlier.';
comment on column notification_deliveries.event_type is 'What happened, such as payment.captured.';
comment on column notification_deliveries.state is 'PENDING, DELIVERED, or DEAD: given up, and kept for a replay.';
comment on column notification_deliveries.attempts is 'How often it was begun. Also the fence of the claim.';
comment on column notification_deliveries.failures is 'Failed attempts since it was made or replayed: its place in the schedule.';
comment on column notification_deliveries.next_attempt_at is 'When it is due (database clock); null once it has ended.';
comment on column notification_deliveries.claimed_until is 'Until when one process has claimed it (database clock); null where none has.';
comment on column notification_deliveries.cause is 'Why the last attempt failed, or why it is dead.';
comment on column notification_deliveries.http_status is 'What the receiver answered last.';
comment on column notification_deliveries.created_at is 'When it was made from the journal (database clock).';
comment on column notification_deliveries.ended_at is 'When it was delivered or given up (database clock); null until then.';

-- What is due at an endpoint; what a payment still has to be told before; lists; what is counted or removed.
create index notification_deliveries_due_idx on notification_deliveries (endpoint_id, next_attempt_at)
    where state = 'PENDING';
create index notification_deliveries_order_idx on notification_deliveries (endpoint_id, payment_id, entity_seq)
    where state = 'PENDING';
create index notification_deliveries_list_idx on notification_deliveries (tenant_id, position, notification_id);
create index notification_deliveries_dead_idx on notification_deliveries (endpoint_id, position) where state = 'DEAD';
create index notification_deliveries_delivered_idx on notification_deliveries (ended_at) where state = 'DELIVERED';

create table notification_attempts (
    notification_id uuid not null,
    number integer not null,
    started_at timestamptz not null,
    latency_ms integer not null,
    http_status smallint,
    cause text,
    constraint notification_attempts_pkey primary key (notification_id, number),
    constraint notification_attempts_notification_id_fkey foreign key (notification_id)
        references notification_deliveries (notification_id) on delete cascade,
    constraint notification_attempts_number_positive check (number >= 1),
    constraint notification_attempts_latency_not_negative check (latency_ms >= 0)
);
comment on table notification_attempts is 'The log of attempts that ended. One that a process died over leaves a gap in the numbers.';
comment on column notification_attempts.notification_id is 'The notification.';
comment on column notification_attempts.number is 'Which attempt: 1, 2, 3 …';
comment on column notification_attempts.started_at is 'When it began (clock of the sender).';
comment on column notification_attempts.latency_ms is 'How long it took, in milliseconds.';
comment on column notification_attempts.http_status is 'What the receiver answered; null where it did not.';
comment on column notification_attempts.cause is 'Why it failed; null where it was delivered.';

create table notification_cursor (
    id boolean not null default true,
    next_position bigint not null,
    constraint notification_cursor_pkey primary key (id),
    constraint notification_cursor_one_row check (id),
    constraint notification_cursor_next_position_not_negative check (next_position >= 0)
);
comment on table notification_cursor is 'How far notifications were made from the journal: one row, locked by whoever makes them.';
comment on column notification_cursor.id is 'Always true.';
comment on column notification_cursor.next_position is 'The first position that was not looked at yet.';
-- What was before concerns no endpoint.
insert into notification_cursor (next_position) select next_position from sequencer_head;

grant select, insert, update (url, description, event_types, state, secret, previous_secret, previous_secret_until, updated_at)
    on notification_endpoints to quittance_app;
grant select, insert, delete, update (state, attempts, failures, next_attempt_at, claimed_until, cause, http_status, ended_at)
    on notification_deliveries to quittance_app;
grant select, insert on notification_attempts to quittance_app;
grant select, update (next_position) on notification_cursor to quittance_app;
