-- What a chargeback is about, and recovery of what waits for the customer.
--
-- Every payment writes this table: it fails rather than hold all payments up behind somebody else's lock.
set local lock_timeout = '5s';

alter table transactions
    add column dispute_reason text,
    add column dispute_due_at timestamptz,
    add column dispute_amount bigint,
    add column dispute_currency text collate "C",
    add constraint transactions_dispute_complete check (
        (dispute_reason is null) = (dispute_amount is null)
        and (dispute_reason is null) = (dispute_currency is null)
        and (dispute_due_at is null or dispute_reason is not null)),
    add constraint transactions_dispute_amount_positive check (dispute_amount >= 1),
    add constraint transactions_dispute_of_chargebacks
        check (dispute_reason is null or kind in ('CHARGEBACK', 'CHARGEBACK_REVERSAL'));
comment on column transactions.dispute_reason is 'The network''s or the provider''s reason of a dispute; may be empty; null for what is none.';
comment on column transactions.dispute_due_at is 'Until when evidence about a dispute can be handed in, where the provider says so.';
comment on column transactions.dispute_amount is 'The disputed amount, in minor units of dispute_currency.';
comment on column transactions.dispute_currency is 'ISO 4217 alphabetic code of the disputed amount; may differ from the payment''s.';

-- Recovery also takes up what waits for the customer, on a schedule of its own. Such a row leaves the index with its
-- outcome, as a pending one does: nothing that ended is in it, and nothing is paid that was not paid before.
drop index transactions_next_step_idx;
create index transactions_next_step_idx on transactions (next_step_at)
    where state in ('PENDING', 'REQUIRES_ACTION');
