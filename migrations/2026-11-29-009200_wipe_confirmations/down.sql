create or replace function quittance_wipe_fingerprints(erasure uuid) returns void
language sql
security definer
set search_path = pg_catalog, public
as $$
    update idempotency_records r
    set fingerprint = case
        when get_byte(r.fingerprint, 0) = 1 and octet_length(r.fingerprint) = 1 + 18 * 8 then
            overlay(overlay(r.fingerprint placing decode(repeat('00', 8), 'hex') from 1 + 1 + 3 * 8)
                placing decode(repeat('00', 8), 'hex') from 1 + 1 + 13 * 8)
        else '\x00' end
    from payments p join erasures e on e.customer_id = p.customer_id
    where e.erasure_id = erasure and r.payment_id = p.payment_id and r.command = 'CreatePayment'
        and octet_length(r.fingerprint) > 1;
$$;
