-- Whoever may insert a checkpoint could put a time that no program reads ("infinity") before all others, and nothing
-- would be served. Rows that are there are not looked at: the signer's own times are within the range.
alter table checkpoints add constraint checkpoints_signed_at_range
    check (signed_at >= '2020-01-01 00:00:00+00' and signed_at < '2200-01-01 00:00:00+00') not valid;
