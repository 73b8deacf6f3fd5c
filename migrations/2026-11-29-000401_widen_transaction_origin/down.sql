alter table transactions
    drop constraint transactions_origin_known,
    add constraint transactions_origin_known check (origin in ('CALLER', 'PROVIDER', 'OPERATOR'));
