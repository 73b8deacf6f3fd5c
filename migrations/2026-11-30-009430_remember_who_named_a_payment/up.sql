-- What a person called a payment proves nothing: the provider's own name replaces it, and it goes where they take their word
-- back. The provider's stays.
set local lock_timeout = '5s';

alter table payments add column named_by_operator boolean not null default false;
comment on column payments.named_by_operator is 'Whether provider_reference is the word of an operator, rather than the provider''s.';
