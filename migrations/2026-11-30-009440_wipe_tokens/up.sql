-- The provider's token of a payment is needed for as long as the payment may be sent through another account: while it is PENDING.
-- At Adyen a first payment's token holds the card's security code, encrypted for Adyen, which nobody may keep after that.
--
-- In parts that hold their locks for a moment. One statement only, so that it may commit; can be run again, and should be once the
-- last server of the release before has ended, which keeps the tokens of what it decides.
do $$
declare
    behind uuid := '00000000-0000-0000-0000-000000000000';
    part uuid[];
begin
    loop
        part := array(select payment_id from payments where payment_id > behind order by payment_id limit 200);
        exit when cardinality(part) = 0;
        perform set_config('lock_timeout', '5s', true);
        update payments set provider_token = null where payment_id in (
            select payment_id from payments
            where payment_id = any (part) and provider_token is not null and state <> 'PENDING'
            order by payment_id for update);
        behind := part[cardinality(part)];
        commit;
    end loop;
end
$$;
