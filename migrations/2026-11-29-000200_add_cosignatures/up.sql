-- What witnesses said about checkpoints. The proof is the line itself, under the witness's key, which is not here.
create table cosignatures (
    tree_size bigint not null,
    witness text not null,
    root_hash bytea not null,
    cosigned_at timestamptz not null,
    line text not null,
    constraint cosignatures_pkey primary key (tree_size, witness),
    constraint cosignatures_size_not_negative check (tree_size >= 0),
    constraint cosignatures_root_length check (octet_length(root_hash) = 32),
    constraint cosignatures_line_length check (octet_length(line) between 1 and 1024)
);
comment on table cosignatures is 'Cosignatures of witnesses on checkpoints (C2SP tlog-cosignature). Rows are only added.';
comment on column cosignatures.tree_size is 'How many entries the checkpoint covers.';
comment on column cosignatures.witness is 'Name and id of the witness''s key: name+id.';
comment on column cosignatures.root_hash is 'The root hash that the checkpoint states.';
comment on column cosignatures.cosigned_at is 'When the witness says that it cosigned.';
comment on column cosignatures.line is 'The line under the checkpoint''s note, with its newline.';

grant select, insert on cosignatures to quittance_app;
