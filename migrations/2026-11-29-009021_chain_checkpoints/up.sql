-- Older checkpoints that somebody deleted were missed by nobody but who had them. Now each row names the one that was signed
-- before it, under its MAC: verification sees the hole.
alter table checkpoints
    add column previous_size bigint,
    add constraint checkpoints_previous_size_not_negative check (previous_size >= 0);
comment on column checkpoints.previous_size is 'Entries of the checkpoint that was signed before it, 0 for the first; null where the signer did not know. Under the MAC.';
