-- What providers tell by themselves: verified, stored before it is acknowledged, and applied later.
--
-- Not partitioned: like an idempotency key, an event has to be unique across all time, and the payment that it is
-- about is not known until it is read.
create table webhook_inbox (
    webhook_id uuid not null constraint webhook_inbox_pkey primary key,
    provider_account text not null,
    event_id text not null,
    body bytea not null,
    received_at timestamptz not null default now(),
    state text not null,
    reason text,
    attempts integer not null default 0,
    next_step_at timestamptz,
    claimed_until timestamptz,
    finished_at timestamptz,
    constraint webhook_inbox_event_key unique (provider_account, event_id),
    constraint webhook_inbox_state_known check (state in ('RECEIVED', 'APPLIED', 'IGNORED', 'PARKED', 'DEAD')),
    constraint webhook_inbox_reason_known check (reason in (
        'UNKNOWN_PAYMENT', 'OTHER_ACCOUNT', 'MOVED_ON', 'NOT_CONFIRMED', 'UNREADABLE', 'UNEXPECTED', 'NOT_APPLIED',
        'UNKNOWN_ACCOUNT', 'NOT_OPENED', 'ABANDONED')),
    constraint webhook_inbox_reason_where_due check ((reason is not null) = (state in ('PARKED', 'DEAD'))),
    constraint webhook_inbox_attempts_not_negative check (attempts >= 0),
    constraint webhook_inbox_open_is_due check ((next_step_at is not null) = (state in ('RECEIVED', 'PARKED'))),
    constraint webhook_inbox_finished_completely check ((finished_at is null) = (next_step_at is not null))
);

comment on table webhook_inbox is 'Webhooks whose signature was verified, each event of an account once.';
comment on column webhook_inbox.webhook_id is 'UUIDv7; audit entries of what it changed name it as the request id.';
comment on column webhook_inbox.provider_account is 'The account that it came for, and under whose secret it verified.';
comment on column webhook_inbox.event_id is 'What the provider calls the event; of a body that cannot be read, its SHA-256.';
comment on column webhook_inbox.body is 'The body as it was sent, byte by byte. Encrypted.';
comment on column webhook_inbox.received_at is 'When it was stored.';
comment on column webhook_inbox.state is 'How far it got.';
comment on column webhook_inbox.reason is 'Why it is parked, or a dead letter; null in every other state.';
comment on column webhook_inbox.attempts is 'How often applying it was begun. Also the fence of the claim.';
comment on column webhook_inbox.next_step_at is 'When it is to be applied; null once it is finished.';
comment on column webhook_inbox.claimed_until is 'Until when one process has claimed it (database clock); null where none has.';
comment on column webhook_inbox.finished_at is 'When it was applied, ignored or given up; null until then.';

-- Workers find what is due, and the backlog is counted, by these alone, whatever is stored besides.
create index webhook_inbox_next_step_at_idx on webhook_inbox (next_step_at) where next_step_at is not null;
create index webhook_inbox_dead_idx on webhook_inbox (webhook_id) where state = 'DEAD';

grant select, insert, update (state, reason, attempts, next_step_at, claimed_until, finished_at)
    on webhook_inbox to quittance_app;
