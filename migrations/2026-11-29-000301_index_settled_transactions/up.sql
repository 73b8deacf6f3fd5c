-- Reconciliation reads the transactions of a time range. Rows arrive in about the order of created_at, which is what a BRIN
-- index wants: it is a few pages, and costs an insert next to nothing. An index by provider reference would be looked up
-- more directly, and be paid for by every payment.
--
-- Every payment writes this table: it fails rather than hold all payments up behind somebody else's lock. A database that
-- already holds many transactions: make it concurrently on each partition first; it is then found and attached.
set local lock_timeout = '5s';

create index transactions_created_at_idx on transactions using brin (created_at)
    with (pages_per_range = 32, autosummarize = on);
