-- The service itself asks for one thing: that what its customer has left is released.
--
-- The same name with one value more, so whatever it held before still holds; and nothing waits for long behind
-- somebody else's lock, with all payments behind it.
set local lock_timeout = '5s';

alter table transactions
    drop constraint transactions_origin_known,
    add constraint transactions_origin_known check (origin in ('CALLER', 'PROVIDER', 'OPERATOR', 'SERVICE'));
