-- What recovery needs: how often it has tried, who is at it, and which cases for a person are closed.
--
-- Every payment writes these tables, so nothing here may wait for long behind somebody else's lock, with all
-- payments behind it: it fails instead, and can be run again.
set local lock_timeout = '5s';

alter table payments
    add column routed boolean not null default false;
comment on column payments.routed is 'Whether routing chose the provider account, and may choose another while nothing was sent; else the caller did.';

alter table transactions
    add column retries integer not null default 0,
    add column resolved_by_operator boolean not null default false,
    add column claimed_until timestamptz,
    add constraint transactions_retries_not_negative check (retries >= 0),
    -- The same name with one value more: whatever it held before still holds.
    drop constraint transactions_open_case_known,
    add constraint transactions_open_case_known check (open_case in (
        'AMOUNT_MISMATCH', 'CONTRADICTING_FACT', 'EXCESS_AMOUNT', 'RECOVERY_EXHAUSTED'));
comment on column transactions.retries is 'Steps in a row that brought no news: retries and lookups; each waits longer.';
comment on column transactions.resolved_by_operator is 'Whether an operator decided it.';
comment on column transactions.claimed_until is 'Until when one process has claimed the next step (database clock); null where none has. Every change of the row ends the claim.';

-- Recovery claims what is due, oldest due first, and counts what is pending; among all that was ever paid it
-- finds them by this index alone.
--
-- It is paid for by every payment: an entry when it is accepted, and the outcome's update is no longer
-- heap-only, since the state is in the predicate. Measured, in CPU time of the server: 2 microseconds of about
-- 60 per payment. What would cost nothing does not do: nothing that never changes tells an open transaction
-- from one that ended, so a range of created_at or of ids would have to be read from end to end again and
-- again, and one that commits late, or is about an old payment, be missed.
--
-- A database that already holds many transactions: make it concurrently on each partition first; it is
-- then found and attached.
create index transactions_next_step_idx on transactions (next_step_at) where state = 'PENDING';

alter table operator_actions
    add column closed_at timestamptz,
    add column closed_by uuid,
    add constraint operator_actions_closed_completely check ((closed_at is null) = (closed_by is null)),
    drop constraint operator_actions_kind_known,
    add constraint operator_actions_kind_known check (kind in (
        'AMOUNT_MISMATCH', 'CONTRADICTING_FACT', 'EXCESS_AMOUNT', 'RECOVERY_EXHAUSTED'));
comment on column operator_actions.closed_at is 'When it was closed; null while it is open.';
comment on column operator_actions.closed_by is 'Id of the journal entry of the change that closed it.';

-- The few that are open: of a transaction that closes them, and listed.
create index operator_actions_subject_idx on operator_actions (payment_id, transaction_id) where closed_at is null;
create index operator_actions_open_idx on operator_actions (tenant_id, action_id) where closed_at is null;

grant update (closed_at, closed_by) on operator_actions to quittance_app;
