create index webhook_inbox_next_step_at_idx on webhook_inbox (next_step_at) where next_step_at is not null;
drop index webhook_inbox_account_next_step_at_idx;
