-- When a checkpoint was signed is not in its note: whoever may insert a row could serve a genuine note under any time.
-- A row states by a MAC over the note and the time that the service stored both.
--
-- Rows that are there have none, and cannot be told from forged ones: they are passed over, and verification reports
-- them. The next checkpoint is signed with the next entry. No release has made one.
alter table checkpoints
    add column mac bytea,
    add column mac_key_id text collate "C",
    add constraint checkpoints_mac_length check (octet_length(mac) = 32),
    add constraint checkpoints_mac_key_id_length check (octet_length(mac_key_id) between 1 and 64);
comment on column checkpoints.mac is 'HMAC-SHA256 of size, time and note under a key that the database never sees; null: the service did not store it so.';
comment on column checkpoints.mac_key_id is 'Which key made mac.';
