revoke update (erasing_since), delete on customers from quittance_app;
drop table erasures;
drop index payments_customer_idx;
delete from customers where erasing_since is not null;
drop index customers_reference_key;
alter table customers add constraint customers_reference_key unique (tenant_id, reference_mac);
alter table customers drop column erasing_since;
