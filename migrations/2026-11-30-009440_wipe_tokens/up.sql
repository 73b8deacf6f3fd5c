-- The provider's token of a payment is needed for as long as the payment may be sent through another account: while it is PENDING.
-- At Adyen a first payment's token holds the card's security code, encrypted for Adyen, which nobody may keep after that.
-- Takes a row lock on each payment that has one: once, and as long as it takes.
update payments set provider_token = null where provider_token is not null and state <> 'PENDING';
comment on column payments.provider_token is
    'The provider''s token of the payment method, encrypted; null once the payment is not PENDING any more.';
