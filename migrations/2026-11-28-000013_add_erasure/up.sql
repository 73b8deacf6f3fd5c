-- Erasing a customer's personal data: the customer's key is destroyed, and with it all that was encrypted under it.
--
-- In two steps, since every process remembers keys for a while: from `erasing_since` on the key opens what is there, and
-- nothing new is put under it; once every process has forgotten it, the row is deleted.
alter table customers add column erasing_since timestamptz;
comment on column customers.erasing_since is 'Since when its erasure is asked for: nothing new is encrypted under its key; null while it is not.';
-- Whoever comes back under a reference that is being erased is a new customer.
alter table customers drop constraint customers_reference_key;
create unique index customers_reference_key on customers (tenant_id, reference_mac) where erasing_since is null;

-- By which an erasure finds what holds it up. Payments without a customer are not in it, and so do not pay for it.
create index payments_customer_idx on payments (customer_id) where customer_id is not null;

create table erasures (
    erasure_id uuid not null,
    tenant_id text collate "C" not null,
    reference_mac bytea not null,
    customer_id uuid not null,
    requested_at timestamptz not null default now(),
    open_payments bigint not null default 0,
    payments bigint,
    next_step_at timestamptz,
    claimed_until timestamptz,
    finished_at timestamptz,
    constraint erasures_pkey primary key (erasure_id),
    constraint erasures_customer_key unique (customer_id),
    constraint erasures_reference_mac_length check (octet_length(reference_mac) = 32),
    constraint erasures_open_is_due check ((next_step_at is null) = (finished_at is not null)),
    constraint erasures_open_payments_not_negative check (open_payments >= 0),
    constraint erasures_payments_where_finished check ((payments is null) = (finished_at is null))
);
create index erasures_reference_idx on erasures (tenant_id, reference_mac, requested_at);
create index erasures_next_step_at_idx on erasures (next_step_at) where next_step_at is not null;
comment on table erasures is 'Erasures of customers'' personal data, asked for and done.';
comment on column erasures.erasure_id is 'UUIDv7; the audit entries about it name it.';
comment on column erasures.tenant_id is 'Whose customer it is.';
comment on column erasures.reference_mac is 'HMAC-SHA256 of the caller''s customer reference, so that asking again finds it.';
comment on column erasures.customer_id is 'The customer; its row is gone once it is erased.';
comment on column erasures.requested_at is 'When it was asked for (database clock).';
comment on column erasures.open_payments is 'Payments whose outcome was not known at the last look: it waits for them.';
comment on column erasures.payments is 'How many payments the customer had; null until it is done.';
comment on column erasures.next_step_at is 'When it is to be taken up; null once it is done.';
comment on column erasures.claimed_until is 'Until when one process has claimed it (database clock); null where none has.';
comment on column erasures.finished_at is 'When it was done; null until then.';

grant select, insert, update (open_payments, payments, next_step_at, claimed_until, finished_at) on erasures to quittance_app;
grant update (erasing_since), delete on customers to quittance_app;
