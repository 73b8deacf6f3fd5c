-- The fingerprint of a confirmation holds a keyed MAC of its parameters: what the customer's device sent back, which may say
-- who they are. An erasure overwrites it with zeros, as it does what a request that made a payment said of the customer.
--
-- The offsets are those of the fields in `Create::fingerprint_fields` and `Confirm::fingerprint_fields`.
create or replace function quittance_wipe_fingerprints(erasure uuid) returns void
language sql
security definer
set search_path = pg_catalog, public
as $$
    update idempotency_records r
    set fingerprint = case
        when r.command = 'CreatePayment' and get_byte(r.fingerprint, 0) = 1
            and octet_length(r.fingerprint) = 1 + 18 * 8 then
            overlay(overlay(r.fingerprint placing decode(repeat('00', 8), 'hex') from 1 + 1 + 3 * 8)
                placing decode(repeat('00', 8), 'hex') from 1 + 1 + 13 * 8)
        when r.command = 'ConfirmPayment' and get_byte(r.fingerprint, 0) = 1
            and octet_length(r.fingerprint) = 1 + 2 * 8 then
            overlay(r.fingerprint placing decode(repeat('00', 8), 'hex') from 1 + 1 + 1 * 8)
        else '\x00' end
    from payments p join erasures e on e.customer_id = p.customer_id
    where e.erasure_id = erasure and r.payment_id = p.payment_id and r.command in ('CreatePayment', 'ConfirmPayment')
        and octet_length(r.fingerprint) > 1;
$$;

-- Those who are erased already. They are few: each was asked for by a person.
select quittance_wipe_fingerprints(erasure_id) from erasures where finished_at is not null;
