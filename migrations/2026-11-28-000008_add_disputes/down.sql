drop index transactions_next_step_idx;
create index transactions_next_step_idx on transactions (next_step_at) where state = 'PENDING';

alter table transactions
    drop column dispute_reason,
    drop column dispute_due_at,
    drop column dispute_amount,
    drop column dispute_currency;
