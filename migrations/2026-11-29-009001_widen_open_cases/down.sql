alter table transactions
    drop constraint transactions_open_case_known,
    add constraint transactions_open_case_known check (open_case in (
        'AMOUNT_MISMATCH', 'CONTRADICTING_FACT', 'EXCESS_AMOUNT', 'RECOVERY_EXHAUSTED'));
comment on column transactions.open_case is 'The case for a person that is open about it, where one is.';
