-- What is believed of an API key, its tenant and roles above all, is under a MAC: whoever can write to the table must
-- not be able to make another's key of one that he holds.
--
-- The column is nullable, because the release before writes none; a key without one does not work. Keys that are there
-- have none, and this migration cannot vouch for them: they are revoked, and have to be made anew. No release has made
-- one.
update api_keys set revoked_at = now() where revoked_at is null;

alter table api_keys
    add column row_mac bytea,
    add constraint api_keys_row_mac_length check (octet_length(row_mac) = 32);
comment on column api_keys.row_mac is
    'HMAC-SHA256 of key_id, tenant_id, name, roles, created_at and secret_mac under a key that the database never sees; null of keys that do not work.';
comment on column api_keys.mac_key_id is 'Which key of the key ring made secret_mac and row_mac.';
comment on column api_keys.created_at is 'When it was created (clock of whoever made it).';

-- The service may write revoked_at, and must not be able to take it back: a leaked key stays revoked.
create function api_keys_stay_revoked() returns trigger language plpgsql as $$
begin
    if old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at then
        raise exception 'a revoked key stays revoked' using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end $$;
create trigger api_keys_stay_revoked before update on api_keys
    for each row execute function api_keys_stay_revoked();
