-- The fingerprint of a request that made a payment holds a keyed MAC of its customer, and one of the provider's token:
-- whoever has the key can test a guess against them. An erasure overwrites both with zeros, which mean "erased".
--
-- Runs as the owner, since the application may not change idempotency records, and need not be able to for this. The
-- offsets are those of the fields in `Create::fingerprint_fields`: a version byte, then 8 bytes a field. What has another
-- form than is known here goes as a whole: asked again, it is refused as another request.
create function quittance_wipe_fingerprints(erasure uuid) returns void
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
revoke execute on function quittance_wipe_fingerprints(uuid) from public;
grant execute on function quittance_wipe_fingerprints(uuid) to quittance_app;
comment on column idempotency_records.fingerprint is
    'A version byte, then a shortened keyed MAC per field of the request; zeros in place of what an erasure has wiped.';
