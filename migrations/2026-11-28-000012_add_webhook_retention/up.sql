-- Webhooks can be replayed, and their bodies are wiped once nobody needs them any more. The rest of a row stays for good:
-- without it a repetition could not be told from a new event, and not every provider signs the time of sending.
set local lock_timeout = '5s';

alter table webhook_inbox
    alter column body drop not null,
    add column attempts_before integer not null default 0,
    add column wiped_at timestamptz,
    add constraint webhook_inbox_attempts_before_in_range check (attempts_before between 0 and attempts),
    add constraint webhook_inbox_wiped_completely check ((body is null) = (wiped_at is not null)),
    add constraint webhook_inbox_open_has_body check (body is not null or next_step_at is null);

comment on column webhook_inbox.body is 'The body as it was sent, byte by byte. Encrypted; null once it is wiped.';
comment on column webhook_inbox.attempts_before is 'The attempts before it was last replayed: they do not count against the limit.';
comment on column webhook_inbox.wiped_at is 'When the body was wiped; null while it is there.';

-- Whose body is to be wiped next: each by the time that it is kept for.
create index webhook_inbox_done_idx on webhook_inbox (finished_at)
    where body is not null and state in ('APPLIED', 'IGNORED');
create index webhook_inbox_dead_body_idx on webhook_inbox (finished_at) where body is not null and state = 'DEAD';

grant update (body, attempts_before, wiped_at) on webhook_inbox to quittance_app;
