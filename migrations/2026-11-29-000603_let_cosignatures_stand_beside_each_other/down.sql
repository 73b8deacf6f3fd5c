delete from cosignatures c using cosignatures other
where other.tree_size = c.tree_size and other.witness = c.witness and other.line < c.line;
alter table cosignatures
    drop constraint cosignatures_pkey,
    add constraint cosignatures_pkey primary key (tree_size, witness);
comment on column cosignatures.line is 'The line under the checkpoint''s note, with its newline.';
