-- A witness's place under a checkpoint was one row, and whoever could insert a row could take it: the witness's own word
-- then found its place taken, and was never stored. Now each line has a place of its own, and whoever reads tells the
-- genuine one by its signature.
--
-- Payments do not touch the table; whoever keeps a cosignature waits until the index is made.
alter table cosignatures
    drop constraint cosignatures_pkey,
    add constraint cosignatures_pkey primary key (tree_size, witness, line);
comment on column cosignatures.line is 'The line under the checkpoint''s note, with its newline. Worth what its signature is worth: anybody may have put it in.';
