-- Webhooks are claimed account by account, so that what waits of one is not in the way of another's.
set local lock_timeout = '5s';

create index webhook_inbox_account_next_step_at_idx on webhook_inbox (provider_account, next_step_at)
    where next_step_at is not null;
drop index webhook_inbox_next_step_at_idx;
