-- The rows that were there before the constraint: read under a lock that lets payments pass.
alter table transactions validate constraint transactions_open_case_known;
