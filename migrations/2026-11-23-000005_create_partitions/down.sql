-- Partitions go with their tables; rows of detached ones are not touched.
drop function quittance_create_partitions(date, integer);
drop function quittance_uuid_floor(timestamptz);
drop table payments_default;
drop table transactions_default;
drop table attempts_default;
drop table journal_default;
do $$
declare
    child regclass;
begin
    for child in
        select inhrelid::regclass from pg_inherits
        where inhparent in ('payments'::regclass, 'transactions'::regclass, 'attempts'::regclass, 'journal'::regclass)
    loop
        execute format('drop table %s', child);
    end loop;
end
$$;
