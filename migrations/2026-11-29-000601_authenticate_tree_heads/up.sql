-- A head of the tree states who made it: without a MAC, whoever can insert a row could have any tree signed.
--
-- The columns are not nullable, and no head made before stays: one without a MAC cannot be told from a forged one, and
-- one that this migration vouched for would be worth no more. The integrator makes the tree again from the journal, and
-- verifies the MAC of every entry as it does so; the signer, whose last signed size and root are outside the database,
-- signs nothing until the same tree has grown back. Payments, entries and their positions are untouched.
--
-- A replica that does not know the columns cannot append to the tree any more, and tries again until it is replaced;
-- payments do not wait for it. That departs from "expand, then contract" on purpose: a nullable column would accept what
-- it is there to refuse. No release has made a head.
delete from tree_heads;
delete from tree_tiles;

alter table tree_heads
    add column mac bytea not null,
    add column mac_key_id text collate "C" not null,
    add constraint tree_heads_mac_length check (octet_length(mac) = 32),
    add constraint tree_heads_mac_key_id_length check (octet_length(mac_key_id) between 1 and 64);
comment on column tree_heads.mac is 'HMAC-SHA256 of size and root under a key that the database never sees: this service made the head.';
comment on column tree_heads.mac_key_id is 'Which key made mac.';
