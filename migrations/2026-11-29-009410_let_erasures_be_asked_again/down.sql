comment on column erasures.next_step_at is 'When it is to be taken up; null once it is done.';
comment on column erasures.payments is 'How many payments the customer had; null until it is done.';
comment on column erasures.finished_at is 'When it was done; null until then.';
revoke update (erasure_id, tenant_id, reference_mac) on erasures from quittance_app;
