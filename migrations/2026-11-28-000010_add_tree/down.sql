revoke select on sequence journal_arrival from quittance_app;
drop table checkpoints;
drop table tree_heads;
drop table tree_tiles;
drop function tree_tiles_only_grow();
drop table refused_entries;
