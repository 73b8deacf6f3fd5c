revoke update (seal) on refused_entries from quittance_app;
alter table refused_entries drop column seal;
