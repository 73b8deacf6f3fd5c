alter table tree_heads drop column previous_size;
comment on column tree_heads.mac is 'HMAC-SHA256 of size and root under a key that the database never sees: this service made the head.';
