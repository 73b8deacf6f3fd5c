comment on column payments.provider_token is
    'The provider''s token of the payment method, encrypted; null once the payment is not PENDING any more.';
