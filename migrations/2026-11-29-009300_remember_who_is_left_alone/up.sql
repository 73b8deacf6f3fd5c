-- How long a provider asked to be left alone about a transaction was kept in the time of its next step alone: whatever was
-- learned meanwhile set that anew. What two accounts asked for is kept of each: a transaction can come back to one.
--
-- A constant default: no rewrite. It waits for no lock for long, with all payments behind it: it fails instead, and can
-- be run again.
set local lock_timeout = '5s';

alter table transactions
    add column left_alone text collate "C" not null default '';
comment on column transactions.left_alone is 'Until when provider accounts are to be left alone about it, as they asked for (Retry-After): a line for each, with the time (RFC 3339, UTC, microseconds), a space and the account; empty once it has ended.';
