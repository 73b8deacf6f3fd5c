revoke update (body, attempts_before, wiped_at) on webhook_inbox from quittance_app;
drop index webhook_inbox_done_idx;
drop index webhook_inbox_dead_body_idx;
alter table webhook_inbox
    drop constraint webhook_inbox_open_has_body,
    drop constraint webhook_inbox_wiped_completely,
    drop constraint webhook_inbox_attempts_before_in_range,
    drop column wiped_at,
    drop column attempts_before;
delete from webhook_inbox where body is null;
alter table webhook_inbox alter column body set not null;
comment on column webhook_inbox.body is 'The body as it was sent, byte by byte. Encrypted.';
