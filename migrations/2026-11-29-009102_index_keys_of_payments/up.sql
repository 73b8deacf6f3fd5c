-- Verification looks for the idempotency records of the payments that it reads: one that is gone lets a command be carried
-- out twice. An erasure finds by it what to wipe. Keys are the caller's, so nothing else leads from a payment to them.
--
-- It is paid for by every command: one more insert, at about the right edge of the index, since payments' ids are in the
-- order of time.
--
-- Every command writes this table: it fails rather than hold all payments up behind somebody else's lock. A database that
-- already holds many records: make it concurrently first; it is then found.
set local lock_timeout = '5s';

create index if not exists idempotency_records_payment_idx on idempotency_records (payment_id);
