create table tenants (
    tenant_id text collate "C" not null,
    created_at timestamptz not null default now(),
    constraint tenants_pkey primary key (tenant_id),
    constraint tenants_tenant_id_length check (length(tenant_id) between 1 and 64)
);
comment on table tenants is 'Who owns payments. Callers of one tenant never see another.';
comment on column tenants.tenant_id is 'Name chosen by the operator: 1 to 64 printable ASCII characters.';
comment on column tenants.created_at is 'When it was created (database clock).';

create table api_keys (
    key_id text collate "C" not null,
    tenant_id text collate "C" not null,
    name text not null,
    roles text[] not null,
    secret_mac bytea not null,
    mac_key_id text collate "C" not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz,
    constraint api_keys_pkey primary key (key_id),
    -- A cold table, so a foreign key costs nothing here.
    constraint api_keys_tenant_id_fkey foreign key (tenant_id) references tenants (tenant_id),
    constraint api_keys_secret_mac_length check (octet_length(secret_mac) = 32)
);
create index api_keys_tenant_id_idx on api_keys (tenant_id, key_id);
comment on table api_keys is 'Credentials of callers. The secret itself is nowhere.';
comment on column api_keys.key_id is 'Public part of the key, by which it is found.';
comment on column api_keys.tenant_id is 'For which tenant its calls are made.';
comment on column api_keys.name is 'Name of the caller, for people and for the audit log.';
comment on column api_keys.roles is 'What it may do, such as payments.write.';
comment on column api_keys.secret_mac is 'HMAC-SHA256 of the secret part under a key that the database never sees.';
comment on column api_keys.mac_key_id is 'Which key of the key ring made secret_mac.';
comment on column api_keys.created_at is 'When it was created (database clock).';
comment on column api_keys.revoked_at is 'When it was revoked (database clock); null while it is valid.';

create table customers (
    customer_id uuid not null,
    tenant_id text collate "C" not null,
    reference_mac bytea not null,
    data_key bytea not null,
    created_at timestamptz not null default now(),
    constraint customers_pkey primary key (customer_id),
    constraint customers_reference_key unique (tenant_id, reference_mac),
    constraint customers_reference_mac_length check (octet_length(reference_mac) = 32)
);
comment on table customers is 'One random data key per customer: destroying it erases what was encrypted under it.';
comment on column customers.customer_id is 'UUIDv7 made when the customer was first seen.';
comment on column customers.tenant_id is 'Whose customer it is.';
comment on column customers.reference_mac is 'HMAC-SHA256 of the caller''s customer reference, by which the customer is found.';
comment on column customers.data_key is 'The data key, encrypted under the key ring (see docs of the store, sealing).';
comment on column customers.created_at is 'When it was first seen (database clock).';

grant select on tenants to quittance_app;
grant insert on tenants to quittance_app;
grant select, insert on api_keys to quittance_app;
grant update (revoked_at) on api_keys to quittance_app;
grant select, insert on customers to quittance_app;
