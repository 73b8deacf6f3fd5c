-- Bodies that name no payment of ours: an erasure reads them all, for what mentions its customer.
set local lock_timeout = '5s';

-- On a large table, make it before, with "create index concurrently": it is then found.
create index if not exists webhook_inbox_webhook_id_idx on webhook_inbox (webhook_id)
    where body is not null and payment_ids is null and next_step_at is null;
