-- A webhook's body holds what the provider says of a customer. It is wiped with that customer, which takes to know which
-- payments it was about. Known once it is read: until then, and where it names none, only its retention wipes it.
set local lock_timeout = '5s';

-- Null for what was stored before, too: the release before this one need not know the column.
alter table webhook_inbox add column payment_ids uuid[];

comment on column webhook_inbox.payment_ids is 'The payments that it names, as far as it was read; null while none is known. Without a body it says nothing personal.';

-- By which an erasure finds the bodies of a customer's payments; those that are wiped are not in it.
create index webhook_inbox_payment_ids_idx on webhook_inbox using gin (payment_ids)
    where body is not null and payment_ids is not null;

grant update (payment_ids) on webhook_inbox to quittance_app;
