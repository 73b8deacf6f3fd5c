drop table customers;
drop table api_keys;
drop table tenants;
