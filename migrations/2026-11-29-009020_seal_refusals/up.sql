-- Whoever may insert could name a genuine entry here, and the sequencer passed it over for ever. Now it passes over only
-- what it refused itself in its present term: such a row has a seal, which takes a secret that no table holds.
alter table refused_entries
    add column seal bytea,
    add constraint refused_entries_seal_length check (octet_length(seal) = 32);
comment on column refused_entries.seal is 'SHA-256 of a secret of the sequencer''s term and of the row as it was refused; any other row is judged again.';
grant update (seal) on refused_entries to quittance_app;
