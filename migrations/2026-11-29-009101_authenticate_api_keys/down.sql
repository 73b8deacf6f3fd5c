drop trigger api_keys_stay_revoked on api_keys;
drop function api_keys_stay_revoked();
alter table api_keys drop column row_mac;
