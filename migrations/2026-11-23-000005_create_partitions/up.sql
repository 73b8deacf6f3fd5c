-- Makes the monthly partitions of the tables that are partitioned by a UUIDv7, from the month of
-- from_month on. Runs as the owner, whoever calls it, since the application may not create tables.
--
-- A month whose rows already lie in the default partition stays there: that is correct, only not
-- detachable, and so it is reported and passed over.
create function quittance_create_partitions(from_month date, months integer) returns integer
language plpgsql
security definer
set search_path = pg_catalog, public
-- A month begins and ends in UTC, whatever zone the session or the database is in.
set timezone = 'UTC'
as $$
declare
    hot text;
    -- Without a zone, so that adding a month knows nothing of daylight saving.
    start_month timestamp;
    partition text;
    made integer := 0;
begin
    if months not between 0 and 24 then
        raise exception 'months must be between 0 and 24';
    end if;
    -- One at a time: replicas start together.
    perform pg_advisory_xact_lock(hashtext('quittance_create_partitions'));
    for step in 0 .. months - 1 loop
        start_month := date_trunc('month', from_month::timestamp) + make_interval(months => step);
        foreach hot in array array['payments', 'transactions', 'attempts', 'journal'] loop
            partition := hot || '_p' || to_char(start_month, 'YYYYMM');
            continue when to_regclass('public.' || partition) is not null;
            begin
                execute format(
                    'create table public.%I partition of public.%I for values from (%L) to (%L) with (fillfactor = %s)',
                    partition, hot,
                    public.quittance_uuid_floor(start_month at time zone 'UTC'),
                    public.quittance_uuid_floor((start_month + interval '1 month') at time zone 'UTC'),
                    -- Rows that are updated soon after their insert find room on their own page.
                    case hot when 'journal' then 100 else 70 end);
                made := made + 1;
            exception
                when check_violation then
                    raise notice 'the default partition of % already holds rows of %', hot, partition;
            end;
        end loop;
    end loop;
    return made;
end
$$;
comment on function quittance_create_partitions(date, integer) is 'Makes monthly partitions ahead; returns how many were new.';

create function quittance_uuid_floor(moment timestamptz) returns uuid
language sql
immutable
set search_path = pg_catalog
as $$
    select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
comment on function quittance_uuid_floor(timestamptz) is 'The smallest UUID whose first 48 bits are this moment in milliseconds (RFC 9562, UUIDv7).';

-- Nothing is ever refused for want of a partition.
create table payments_default partition of payments default with (fillfactor = 70);
create table transactions_default partition of transactions default with (fillfactor = 70);
create table attempts_default partition of attempts default with (fillfactor = 70);
create table journal_default partition of journal default;
comment on table payments_default is 'Payments of a month without a partition.';
comment on table transactions_default is 'Transactions of a month without a partition.';
comment on table attempts_default is 'Attempts of a month without a partition.';
comment on table journal_default is 'Journal entries of a month without a partition.';

select quittance_create_partitions((now() at time zone 'UTC')::date, 3);

revoke execute on function quittance_create_partitions(date, integer) from public;
grant execute on function quittance_create_partitions(date, integer) to quittance_app;
