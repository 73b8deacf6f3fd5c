-- An authorization whose time has passed is looked up at its provider, though it has its outcome: recovery finds it by when
-- that is due. Only those are in it that something is left of, where the provider has said until when it holds. It costs such
-- an authorization one entry; both columns are in transactions_next_step_idx already, so no update pays for it.
set local lock_timeout = '5s';

-- On a large table, make it before: on each partition with "create index concurrently", then on the table. It is then found.
create index if not exists transactions_watched_next_step_idx on transactions (next_step_at)
    where state = 'SUCCEEDED' and next_step_at is not null;
