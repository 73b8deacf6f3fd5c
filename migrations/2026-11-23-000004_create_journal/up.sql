-- The audit log. The application can add entries and read them, and nothing else (I8).

-- Never let sessions take numbers in advance (cache 1): a number must be taken by the very transaction
-- that writes its row, or the sequencer could give up waiting for a row that is still to come.
create sequence journal_arrival as bigint cache 1;
comment on sequence journal_arrival is 'Order in which journal rows are handed to the sequencer; has gaps, and commits out of order.';

create table journal (
    stream_id uuid not null,
    entity_seq bigint not null,
    entry_id uuid not null,
    tenant_id text collate "C",
    payment_id uuid,
    transaction_id uuid,
    event_type text collate "C" not null,
    result text collate "C" not null,
    cause text collate "C",
    actor text not null,
    source text not null,
    provider_account text collate "C",
    trace_id bytea,
    occurred_at timestamptz not null,
    leaf bytea not null,
    leaf_hash bytea not null,
    mac bytea not null,
    mac_key_id text collate "C" not null,
    arrival bigint not null default nextval('journal_arrival'),
    -- I7: the entries of a stream are numbered, and a payment's number is its version.
    constraint journal_pkey primary key (stream_id, entity_seq),
    constraint journal_entity_seq_positive check (entity_seq >= 1),
    constraint journal_result_known check (result in ('success', 'failure', 'unknown')),
    constraint journal_trace_id_length check (octet_length(trace_id) = 16),
    constraint journal_leaf_length check (octet_length(leaf) between 1 and 65535),
    constraint journal_leaf_hash_length check (octet_length(leaf_hash) = 32),
    constraint journal_mac_length check (octet_length(mac) = 32)
) partition by range (stream_id);
-- Every index here is paid for by every commit; lists filter the rest of the columns within a tenant.
create index journal_tenant_entry_idx on journal (tenant_id, entry_id);
create index journal_trace_id_idx on journal (trace_id) where trace_id is not null;
create index journal_arrival_idx on journal (arrival);
-- Entries about a payment in other streams, such as that somebody read its audit log. A payment's own
-- entries are not in it, and so do not pay for it.
create index journal_about_payment_idx on journal (payment_id, entry_id) where payment_id <> stream_id;

comment on table journal is 'The audit log: one entry per change of a payment, and one per event that concerns none.';
comment on column journal.stream_id is 'The payment''s id, or the id of a named stream (UUIDv7 made when it opened); partition key.';
comment on column journal.entity_seq is '1, 2, 3 … within the stream; of a payment, its version.';
comment on column journal.entry_id is 'UUIDv7.';
comment on column journal.tenant_id is 'Who owns it; null for what concerns no tenant.';
comment on column journal.payment_id is 'The payment, where it concerns one.';
comment on column journal.transaction_id is 'The transaction, where it concerns one.';
comment on column journal.event_type is 'What happened, such as payment.authorized.';
comment on column journal.result is 'How it ended.';
comment on column journal.cause is 'Why it did not succeed, where it did not.';
comment on column journal.actor is 'Who caused it.';
comment on column journal.source is 'The RPC or component that caused it.';
comment on column journal.provider_account is 'The provider account concerned.';
comment on column journal.trace_id is 'W3C trace id (16 bytes) of the trace that caused it.';
comment on column journal.occurred_at is 'When it happened.';
comment on column journal.leaf is 'The entry itself: canonical JSON. What is hashed, signed and served; the other columns only index it.';
comment on column journal.leaf_hash is 'SHA-256 of a zero byte and leaf.';
comment on column journal.mac is 'HMAC-SHA256 of leaf under a key that the database never sees.';
comment on column journal.mac_key_id is 'Which key made mac.';
comment on column journal.arrival is 'When it was written relative to others, about; the sequencer reads by it.';

create table journal_positions (
    position bigint not null,
    arrival bigint not null,
    entry_id uuid not null,
    stream_id uuid not null,
    entity_seq bigint not null,
    tenant_id text collate "C",
    constraint journal_positions_pkey primary key (position),
    constraint journal_positions_arrival_key unique (arrival),
    constraint journal_positions_position_not_negative check (position >= 0)
);
create index journal_positions_tenant_idx on journal_positions (tenant_id, position);
comment on table journal_positions is 'The one order of all committed journal entries, without gaps, given after the commit.';
comment on column journal_positions.position is '0, 1, 2 …';
comment on column journal_positions.arrival is 'Its arrival in the journal.';
comment on column journal_positions.entry_id is 'The entry.';
comment on column journal_positions.stream_id is 'Its stream.';
comment on column journal_positions.entity_seq is 'Its number within the stream.';
comment on column journal_positions.tenant_id is 'Who owns it; null for what concerns no tenant.';

create table sequencer_head (
    id boolean not null default true,
    fence bigint not null,
    holder uuid,
    lease_until timestamptz not null,
    next_position bigint not null,
    low_arrival bigint not null,
    constraint sequencer_head_pkey primary key (id),
    constraint sequencer_head_one_row check (id),
    constraint sequencer_head_next_position_not_negative check (next_position >= 0)
);
comment on table sequencer_head is 'Who gives out positions, and how far it has come: one row.';
comment on column sequencer_head.id is 'Always true.';
comment on column sequencer_head.fence is 'Raised with every change of holder: an older holder can write nothing any more.';
comment on column sequencer_head.holder is 'The process that holds the lease; null where nobody does.';
comment on column sequencer_head.lease_until is 'Until when (database clock).';
comment on column sequencer_head.next_position is 'The position that the next entry gets: how many have one.';
comment on column sequencer_head.low_arrival is 'Every arrival below has a position, or is proved never to come.';
insert into sequencer_head (fence, holder, lease_until, next_position, low_arrival)
values (0, null, '-infinity', 0, 1);

grant usage on sequence journal_arrival to quittance_app;
grant select, insert on journal, journal_positions to quittance_app;
grant select, update on sequencer_head to quittance_app;
