-- A constraint that is valid stays so.
select 1;
