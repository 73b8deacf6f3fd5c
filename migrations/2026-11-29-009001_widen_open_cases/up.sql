-- Several cases can be open about one transaction, each of its kind: none hides another, and closing one leaves the others.
--
-- The same name for more values: their names, with commas between. Whatever it held before still holds, so that the digests
-- of rows in the journal do; and nothing waits for long behind somebody else's lock, with all payments behind it: the rows that are there are looked at
-- by the next migration, which holds nobody up.
set local lock_timeout = '5s';

alter table transactions
    drop constraint transactions_open_case_known,
    add constraint transactions_open_case_known check (
        open_case <> '' and string_to_array(open_case, ',') <@ array[
            'AMOUNT_MISMATCH', 'CONTRADICTING_FACT', 'EXCESS_AMOUNT', 'RECOVERY_EXHAUSTED']) not valid;
comment on column transactions.open_case is 'The kinds of the cases for a person that are open about it, with commas between; null where none is.';
