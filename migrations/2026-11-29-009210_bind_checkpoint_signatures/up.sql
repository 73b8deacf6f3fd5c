-- The MAC of a checkpoint's row is over what its note states, and not over the signatures below: lines may stand there that are
-- ignored. So whoever destroyed the log's own signatures made the checkpoint look as if it were of keys that were replaced
-- since. Now the row has a digest of the whole note, under the MAC. Rows from before have none, and stay as they are.
alter table checkpoints
    add column note_digest bytea,
    add constraint checkpoints_note_digest_length check (octet_length(note_digest) = 32);
comment on column checkpoints.note_digest is 'SHA-256 of the note as it was first stored, with its signatures; null in rows from before there was one. Under the MAC.';
