-- A cosignature that somebody deleted was missed by nobody: nothing said how many a witness gave. Now each row names the one of
-- its witness that was stored before it, under a MAC: verification sees the hole. Rows from before have none, nor have those of a
-- replica of the release before: they are named by none, and are worth what their signature is worth.
alter table cosignatures
    add column previous_size bigint,
    add column mac bytea,
    add column mac_key_id text collate "C",
    add constraint cosignatures_previous_size_not_negative check (previous_size >= 0),
    add constraint cosignatures_mac_length check (octet_length(mac) = 32),
    add constraint cosignatures_mac_key_id_length check (octet_length(mac_key_id) between 1 and 64);
comment on column cosignatures.previous_size is 'Entries of the cosignature of the same witness that was stored before it, 0 for the first; null in rows from before it was kept. Under the MAC.';
comment on column cosignatures.mac is 'HMAC-SHA256 of size, root, witness, line and previous_size under a key that the database never sees; null in rows from before there was one.';
comment on column cosignatures.mac_key_id is 'Which key made mac.';
