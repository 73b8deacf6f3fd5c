-- The Merkle tree over the journal (RFC 9162), in tiles, and what is signed about it.
--
-- Nothing here is proof by itself: whoever owns the database can change it. The proof is in the signatures, whose keys
-- and whose last signed state are kept outside of it; a changed tile or head only stops the tree.

create table refused_entries (
    arrival bigint not null,
    entry_id uuid not null,
    stream_id uuid not null,
    entity_seq bigint not null,
    reason text not null,
    refused_at timestamptz not null default clock_timestamp(),
    constraint refused_entries_pkey primary key (arrival, stream_id, entity_seq),
    constraint refused_entries_reason_known check (reason in (
        'MAC_MISSING', 'MAC_WRONG', 'NOT_ITS_ROW', 'UNREADABLE', 'ARRIVAL_TAKEN'))
);
comment on table refused_entries is 'Journal rows that the sequencer gave no position: somebody wrote to the database past the service.';
comment on column refused_entries.arrival is 'The row''s arrival in the journal.';
comment on column refused_entries.entry_id is 'The entry that the row says it is.';
comment on column refused_entries.stream_id is 'The stream that the row says it belongs to.';
comment on column refused_entries.entity_seq is 'Its number within the stream, as the row says.';
comment on column refused_entries.reason is 'What gave it away.';
comment on column refused_entries.refused_at is 'When (database clock).';

create table tree_tiles (
    level smallint not null,
    tile_index bigint not null,
    hashes bytea not null,
    constraint tree_tiles_pkey primary key (level, tile_index),
    constraint tree_tiles_level_range check (level between 0 and 7),
    constraint tree_tiles_index_not_negative check (tile_index >= 0),
    constraint tree_tiles_hashes_length check (octet_length(hashes) between 32 and 8192 and octet_length(hashes) % 32 = 0)
);
comment on table tree_tiles is 'The tree in tiles of up to 256 hashes (C2SP tlog-tiles); the last of each level still grows.';
comment on column tree_tiles.level is '0 for tiles of leaf hashes; one hash of level n + 1 stands for a full tile of level n.';
comment on column tree_tiles.tile_index is '0, 1, 2 … within the level.';
comment on column tree_tiles.hashes is 'Hashes of 32 bytes each, one after the other.';

-- A mistake of ours must not rewrite what was hashed.
create function tree_tiles_only_grow() returns trigger language plpgsql as $$
begin
    if new.level <> old.level or new.tile_index <> old.tile_index
        or substr(new.hashes, 1, octet_length(old.hashes)) <> old.hashes then
        raise exception 'a tile only grows' using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end $$;
create trigger tree_tiles_only_grow before update on tree_tiles
    for each row execute function tree_tiles_only_grow();

create table tree_heads (
    tree_size bigint not null,
    root_hash bytea not null,
    fence bigint not null,
    made_at timestamptz not null default clock_timestamp(),
    constraint tree_heads_pkey primary key (tree_size),
    constraint tree_heads_size_positive check (tree_size >= 1),
    constraint tree_heads_root_length check (octet_length(root_hash) = 32)
);
comment on table tree_heads is 'Every state of the tree that was committed; the newest is the tree. Rows are only added.';
comment on column tree_heads.tree_size is 'How many entries: those at the positions below.';
comment on column tree_heads.root_hash is 'RFC 9162 root hash of the tree of that size.';
comment on column tree_heads.fence is 'The fence of the sequencer that made it.';
comment on column tree_heads.made_at is 'When (database clock).';

create table checkpoints (
    tree_size bigint not null,
    signed_at timestamptz not null,
    root_hash bytea not null,
    note text not null,
    constraint checkpoints_pkey primary key (tree_size, signed_at),
    constraint checkpoints_size_not_negative check (tree_size >= 0),
    constraint checkpoints_root_length check (octet_length(root_hash) = 32),
    constraint checkpoints_note_length check (octet_length(note) between 1 and 65535)
);
comment on table checkpoints is 'Signed statements of the tree''s size and root. Rows are only added.';
comment on column checkpoints.tree_size is 'How many entries it covers.';
comment on column checkpoints.signed_at is 'When the signer signed it (its clock).';
comment on column checkpoints.root_hash is 'The root hash that it states.';
comment on column checkpoints.note is 'The checkpoint itself, a C2SP signed note. What is served; the other columns only index it.';

-- Up to which number arrivals were given out.
grant select on sequence journal_arrival to quittance_app;
grant select, insert on refused_entries, tree_heads, checkpoints to quittance_app;
grant select, insert, update (hashes) on tree_tiles to quittance_app;
