-- What was wiped does not come back.
select 1;
