-- A head in between that somebody deleted was missed by nobody: the tree is made of the newest alone. Now each row names the one
-- that it was grown from, under its MAC: verification sees the hole.
alter table tree_heads
    add column previous_size bigint,
    add constraint tree_heads_previous_size_not_negative check (previous_size >= 0);
comment on column tree_heads.previous_size is 'Entries of the head that it was grown from, 0 for the first; null in rows from before it was kept. Under the MAC.';
comment on column tree_heads.mac is 'HMAC-SHA256 of size, root and previous_size under a key that the database never sees: this service made the head.';
