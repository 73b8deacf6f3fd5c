-- A fact that contradicts what is known of a transaction is put on record once. Which case is open does not tell one fact
-- from another: a second charge was lost behind the case about something else.
--
-- A constant default: no rewrite. It waits for no lock for long, with all payments behind it: it fails instead, and can
-- be run again.
set local lock_timeout = '5s';

alter table transactions
    add column contradictions text collate "C" not null default '';
comment on column transactions.contradictions is 'What was told against what is known of it, and is on record, while a case about that is open: one a line, oldest first, at most 16.';
